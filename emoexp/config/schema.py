"""The values of an experiment, of the machine that computes it, and of a sweep: their types and defaults."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

Node = dict[str, Any]

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
PRECISIONS = ("fp32", "tf32", "bf16")
RESUMES = ("auto", "force", "never")
EXECUTORS = ("auto", "eager", "graph", "compiled")
PROTOCOLS = ("clean", "leaky")
MONITORS = (  # columns of history.jsonl that training can be judged by; the largest epoch is the last
    *(f"val/{name}" for name in "macro_f1 balanced_accuracy accuracy worst_recall mcc g_mean loss".split()),
    "epoch",
)
FACTORIES = ("activation", "optimizer", "scheduler")  # nodes that are built later, with more arguments
SWEEPER = {"_target_": "hydra_plugins.emoexp.Sweeper", "params": None}  # params: what an ablation's file varies


@dataclass
class Experiment:
    """Everything that decides a result: the scalars of conf/train.yaml, and the option groups as plain dictionaries."""

    seed: int = 0
    epochs: int = 15
    batch_size: int = 128
    image_size: int = 48
    channels: int = 1
    monitor: str = "val/macro_f1"
    patience: int | None = 10
    clip_norm: float | None = None
    precision: str = "fp32"
    deterministic: bool = False
    protocol: str = "clean"
    data: Any = MISSING
    split: Any = MISSING
    imbalance: Any = MISSING
    augmentation: Any = MISSING
    architecture: Any = MISSING
    activation: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING


@dataclass
class Machine:
    """What does not decide a result: where it is computed and kept."""

    device: str = "auto"
    threads: int | None = None
    executor: str = "auto"
    outputs: str = "outputs"
    cache: str | None = "~/.cache/emoexp"
    resume: str = "auto"
    sweep: str | None = None
    allow: list[str] = field(default_factory=list)
    tracking: Any = MISSING


@dataclass
class Tune:
    """The search for a learning rate that every cell of a sweep gets before its seeds run."""

    lr: Any = None
    seed: int = 1000
    epochs: int | None = None


@dataclass
class Sweep:
    """How --multirun goes about its cells; the same for all of them."""

    workers: int = 1
    pack: int = 1
    time_limit: float | None = None
    on_error: str = "continue"
    dry_run: bool = False
    tune: Tune = field(default_factory=Tune)

    @property
    def processes(self) -> int:
        """Cells at a time."""
        return self.workers * self.pack


@dataclass
class TrainSchema(Experiment, Machine, Sweep):
    """The root of conf/train.yaml, typed: Hydra refuses what does not fit."""

    experiment: Any = None
    ablation: Any = None


ConfigStore.instance().store(name="train_schema", node=TrainSchema, provider="emoexp")
ConfigStore.instance().store(group="hydra/sweeper", name="emoexp", node=SWEEPER, provider="emoexp")


def groups(plain: Mapping[str, Any]) -> Iterator[tuple[str, Node]]:
    """The option groups that a plain configuration holds: (path, node)."""
    for path in GROUPS:
        node: Any = plain
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        if isinstance(node, dict):
            yield path, node
