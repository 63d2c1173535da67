"""The files of conf/: the options of each group, what they hold, and what they choose."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

# where an option group stands in the configuration, and the folder of conf/ that holds its options
GROUPS = {
    "data": "data",
    "split": "split",
    "imbalance": "imbalance",
    "imbalance.copies": "imbalance/copies",
    "imbalance.copies.transform": "augmentation",
    "imbalance.sampling": "imbalance/sampling",
    "imbalance.weights": "imbalance/weights",
    "imbalance.loss": "imbalance/loss",
    "imbalance.schedule": "imbalance/schedule",
    "imbalance.mix": "imbalance/mix",
    "imbalance.posthoc": "imbalance/posthoc",
    "augmentation": "augmentation",
    "architecture": "architecture",
    "activation": "activation",
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "tracking": "tracking",
}
SWEEPER = {"_target_": "hydra_plugins.emoexp.Sweeper", "params": None}  # params: what an ablation's file varies

ConfigStore.instance().store(group="hydra/sweeper", name="emoexp", node=SWEEPER, provider="emoexp")


@cache
def text(group: str, name: str) -> str | None:
    """The file of an option of ours; the group "" holds the commands' own. None for somebody else's option."""
    file = resources.files("emoexp.conf") / group / f"{name}.yaml"
    return file.read_text(encoding="utf-8") if re.fullmatch(r"\w+", name) and file.is_file() else None


@cache
def option(group: str, name: str) -> dict[str, Any]:
    """The file of an option of ours, less its defaults list; empty for somebody else's option. Not to be changed."""
    file = text(group, name)
    plain = OmegaConf.to_container(OmegaConf.create(file)) if file else {}
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "defaults"}


def chosen(group: str, name: str) -> dict[str, str]:
    """The option of each group that a file's defaults list chooses."""
    entries = OmegaConf.create(text(group, name) or "").defaults
    return {str(key): str(value) for entry in entries if not isinstance(entry, str) for key, value in entry.items()}


def listed(group: str) -> dict[str, str]:
    """The options of a folder of conf/, each with the first line of its file."""
    files = sorted((resources.files("emoexp.conf") / group).iterdir(), key=lambda file: file.name)
    names = [file.name[:-5] for file in files if file.name.endswith(".yaml")]
    texts = {name: (text(group, name) or "").removeprefix("# @package _global_\n") for name in names}
    return {name: file.partition("\n")[0].lstrip("# ") for name, file in texts.items()}


def groups(plain: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The option groups that a plain configuration holds: (path, node)."""
    for path in GROUPS:
        node: Any = plain
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        if isinstance(node, dict):
            yield path, node
