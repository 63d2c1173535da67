"""The values of an experiment, of the machine that computes it, and of a sweep: their types and ranges."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from emoexp.config.data import Augmentation, DataSource, Split
from emoexp.config.fields import Count, ImageSize, Length, Node, Positive, Range, Seed
from emoexp.config.imbalance import Copies, Imbalance, Loss, Mix, Posthoc, Sampling, Schedule, Weights
from emoexp.config.models import Activation, Architecture
from emoexp.config.optimizers import Optimizer, Scheduler
from emoexp.config.option import Values
from emoexp.config.tracking import Tracking

__all__ = ["Experiment", "Machine", "Node", "Sweep", "Tune"]

Monitor = Literal[  # columns of history.jsonl that training can be judged by; the largest epoch is the last
    "val/macro_f1",
    "val/balanced_accuracy",
    "val/accuracy",
    "val/worst_recall",
    "val/mcc",
    "val/g_mean",
    "val/loss",
    "epoch",
]
BASES = {  # the class of each folder of options
    base.folder: base
    for base in (
        DataSource,
        Split,
        Copies,
        Sampling,
        Weights,
        Loss,
        Schedule,
        Mix,
        Posthoc,
        Augmentation,
        Architecture,
        Activation,
        Optimizer,
        Scheduler,
        Tracking,
    )
}
LEAKING = "pared_down_vgg"  # the one experiment that may choose protocol=leaky


@dataclass(frozen=True, kw_only=True)
class Experiment(Values):
    """Everything that decides a result: the scalars of conf/train.yaml, and an option of each group."""

    seed: Seed = 0
    epochs: Count = 15
    batch_size: Annotated[int, Range(least=2)] = 128
    image_size: ImageSize = 48
    channels: Literal[1, 3] = 1
    monitor: Monitor = "val/macro_f1"
    patience: Count | None = 10
    clip_norm: Positive | None = None
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    deterministic: bool = False
    protocol: Literal["clean", "leaky"] = "clean"
    data: DataSource
    split: Split
    imbalance: Imbalance
    augmentation: Augmentation
    architecture: Architecture
    activation: Activation
    optimizer: Optimizer
    scheduler: Scheduler

    def check_choices(self, chosen: str | None) -> None:
        """Refuse choices that are each allowed and do not go together. chosen: the option of `experiment`, if any.

        Raises:
            ValueError: names the two, and which to change.
        """
        self.data.check_image(self.image_size)
        self.architecture.check_image(self.image_size)
        self.imbalance.schedule.check_epochs(self.epochs)
        self._check_protocol(chosen)
        self._check_monitor()

    def _check_protocol(self, chosen: str | None) -> None:
        if self.protocol != "leaky":
            return
        if chosen != LEAKING:
            raise ValueError(
                f"protocol=leaky copies before the split, a breach that only experiment={LEAKING} may show"
            )
        if self.data.long_tail.profile != "none":
            raise ValueError(
                f"data.long_tail.profile={self.data.long_tail.profile} takes images out of training after the split, "
                "and protocol=leaky makes its copies before it; leave data.long_tail.profile=none, or protocol=clean"
            )

    def _check_monitor(self) -> None:
        """The last epoch counts, beside what stops or slows when the monitored value is no better."""
        if self.monitor != "epoch":
            return
        if self.patience is not None:
            raise ValueError(
                "monitor=epoch keeps the last epoch, and each is later than the one before: patience="
                f"{self.patience} could never stop. Add patience=null, or monitor a value of validation such as "
                "val/macro_f1"
            )
        if self.scheduler.name == "plateau":
            raise ValueError(
                "scheduler=plateau waits for a monitored value that is no longer better, and monitor=epoch always is; "
                "choose another scheduler, or monitor a value of validation such as val/macro_f1"
            )


@dataclass(frozen=True, kw_only=True)
class Machine(Values):
    """What does not decide a result: where it is computed and kept."""

    device: str = "auto"
    threads: Count | None = None
    executor: Literal["auto", "eager", "graph", "compiled"] = "auto"
    outputs: str = "outputs"
    cache: str | None = "~/.cache/emoexp"
    resume: Literal["auto", "force", "never"] = "auto"
    sweep: str | None = None
    allow: list[str] = field(default_factory=list)
    tracking: Tracking


@dataclass(frozen=True, kw_only=True)
class Tune(Values):
    """The search for a learning rate that every cell of a sweep gets before its seeds run."""

    lr: Annotated[list[Positive], Length(1)] | None = None
    seed: Seed = 1000
    epochs: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Sweep(Values):
    """How --multirun goes about its cells; the same for all of them."""

    workers: Count = 1
    pack: Count = 1
    time_limit: Positive | None = None
    on_error: Literal["continue", "stop"] = "continue"
    dry_run: bool = False
    tune: Tune = field(default_factory=Tune)

    @property
    def processes(self) -> int:
        """Cells at a time."""
        return self.workers * self.pack
