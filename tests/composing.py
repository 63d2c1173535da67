"""How tests come by a configuration: composed exactly as the command line does."""

import copy
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.types import RunMode
from omegaconf import DictConfig

from emoexp.config import checks, options
from emoexp.config.schema import Experiment, Machine
from emoexp.sweep import compose as sweeping
from emoexp.sweep.cells import Plan

TINY = (  # a run of seconds on one thread
    "data.size=420",
    "data.test_per_class=12",
    "image_size=16",
    "batch_size=32",
    "epochs=2",
    "architecture.widths=[4,8]",
    "architecture.dense=16",
    "activation=relu",
    "tracking=none",
)


FOLDERS = {*options.GROUPS.values(), "experiment", "ablation"}  # of conf/, whose files can be chosen


def composed(*overrides: str, name: str = "train") -> DictConfig:
    """A composed configuration.

    Hydra takes a sixth of a second to put the chosen files together, so that each choice of files is composed once;
    values are then set by the function by which Hydra sets them.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    if any(change.is_sweep_override() or change.type != OverrideType.CHANGE or change.package for change in parsed):
        return _composed(overrides, name)
    choices = [change.key_or_group in FOLDERS for change in parsed]
    files = tuple(word for word, is_choice in zip(overrides, choices, strict=True) if is_choice)
    config = copy.deepcopy(_composed(files, name))
    values = [change for change, is_choice in zip(parsed, choices, strict=True) if not is_choice]
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    return config


@cache
def _composed(overrides: tuple[str, ...], name: str) -> DictConfig:
    with initialize_config_module("emoexp.conf", version_base="1.3"):
        return compose(name, list(overrides))


def checked(*overrides: str) -> tuple[Experiment, Machine]:
    """A checked configuration."""
    return checks.checked(composed(*overrides))


def tiny(folder: Path, *overrides: str) -> tuple[Experiment, Machine]:
    """A small run whose folders lie in `folder`."""
    return checked(*TINY, f"outputs={folder / 'outputs'}", f"cache={folder / 'cache'}", *overrides)


def planned(*words: str) -> Plan:
    """The plan of a command line, composed as the command does."""
    with initialize_config_module("emoexp.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", overrides=list(words), run_mode=RunMode.MULTIRUN)
        return sweeping.plan(loader, master, list(words))
