"""How tests come by a configuration: composed exactly as the command line does."""

from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from emoexp import config
from emoexp.config import Experiment, Machine

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
    return config.checked(composed(*overrides))


def tiny(folder: Path, *overrides: str) -> tuple[Experiment, Machine]:
    """A small run whose folders lie in `folder`."""
    return checked(*TINY, f"outputs={folder / 'outputs'}", f"cache={folder / 'cache'}", *overrides)
