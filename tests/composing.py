"""How tests come by a configuration: composed exactly as the command line does."""

from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from emoexp.config import checks
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


def composed(*overrides: str, name: str = "train") -> DictConfig:
    """A composed configuration."""
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
