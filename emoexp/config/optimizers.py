"""The options of `optimizer` and of `scheduler`."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from emoexp.config.build import Homes, ours
from emoexp.config.fields import BelowOne, Length, NotNegative, Positive, Range, Share
from emoexp.config.option import Option, Own

if TYPE_CHECKING:
    from torch import optim

    Groups = list[dict[str, Any]]
    Schedule = Callable[[float, int, Sequence[float]], float]


@dataclass(frozen=True, kw_only=True)
class Optimizer(Option):
    """An option of conf/optimizer. decay: which parameters weight decay is for. rho, tail: the radius of
    sharpness-aware minimisation, and for which classes."""

    folder: ClassVar[str] = "optimizer"

    lr: Positive
    decay: Literal["weights", "all"]
    rho: NotNegative
    tail: Positive | None

    def check(self, path: str) -> None:
        """What nothing would come of."""
        if self.rho == 0 and self.tail is not None:
            raise ValueError(
                f"{path}.tail={self.tail} does nothing where {path}.rho is 0: raise it, or leave {path}.tail=null"
            )

    @abstractmethod
    def build(self, groups: "Groups") -> "optim.Optimizer":
        """The optimizer of groups of parameters, as torch takes them."""


@dataclass(frozen=True, kw_only=True)
class _Adam(Optimizer):
    betas: Annotated[list[BelowOne], Length(2, 2)]
    eps: NotNegative
    weight_decay: NotNegative
    fused: bool


@dataclass(frozen=True, kw_only=True)
class Adam(_Adam):
    """conf/optimizer/adam.yaml"""

    def build(self, groups: "Groups") -> "optim.Optimizer":
        """See Optimizer."""
        from torch import optim

        return optim.Adam(
            groups,
            lr=self.lr,
            betas=(self.betas[0], self.betas[1]),
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=self.fused,
        )


@dataclass(frozen=True, kw_only=True)
class AdamW(_Adam):
    """conf/optimizer/adamw.yaml, sam.yaml and sam_tail.yaml"""

    def build(self, groups: "Groups") -> "optim.Optimizer":
        """See Optimizer."""
        from torch import optim

        return optim.AdamW(
            groups,
            lr=self.lr,
            betas=(self.betas[0], self.betas[1]),
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=self.fused,
        )


@dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """conf/optimizer/sgd.yaml"""

    momentum: BelowOne
    nesterov: bool
    weight_decay: NotNegative
    fused: bool

    def check(self, path: str) -> None:
        """What nothing would come of."""
        super().check(path)
        if self.nesterov and self.momentum == 0:
            raise ValueError(
                f"{path}.nesterov=true needs a momentum: raise {path}.momentum, or take {path}.nesterov=false"
            )

    def build(self, groups: "Groups") -> "optim.Optimizer":
        """See Optimizer."""
        from torch import optim

        return optim.SGD(
            groups,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=self.fused,
        )


@dataclass(frozen=True, kw_only=True)
class OwnOptimizer(Own, Optimizer):
    """An optimizer of torch's, or of somebody's own."""

    homes: ClassVar[Homes] = {"torch.optim": "torch.optim"}
    taken: ClassVar[tuple[str, ...]] = ("decay", "rho", "tail")
    factory: ClassVar[bool] = True

    lr: Positive = math.nan  # where the file leaves it to the class
    decay: Literal["weights", "all"] = "all"
    rho: NotNegative = 0.0
    tail: Positive | None = None

    def build(self, groups: "Groups") -> "optim.Optimizer":
        """See Optimizer."""
        optimizer: optim.Optimizer = self.made()(groups)
        return optimizer


Optimizer.own = OwnOptimizer
Optimizer.known = {"adam": Adam, "adamw": AdamW, "sam": AdamW, "sam_tail": AdamW, "sgd": Sgd}


@dataclass(frozen=True, kw_only=True)
class Scheduler(Option):
    """An option of conf/scheduler."""

    folder: ClassVar[str] = "scheduler"

    @abstractmethod
    def build(self) -> "Schedule":
        """The factor of the optimizer's rate, from epochs trained, epochs at most, and the values monitored so far."""


@dataclass(frozen=True, kw_only=True)
class Constant(Scheduler):
    """conf/scheduler/constant.yaml"""

    def build(self) -> "Schedule":
        """See Scheduler."""
        from emoexp.training import lr_schedules

        return lr_schedules.constant


@dataclass(frozen=True, kw_only=True)
class Cosine(Scheduler):
    """conf/scheduler/cosine.yaml"""

    warmup: NotNegative
    end: Share

    def build(self) -> "Schedule":
        """See Scheduler."""
        from emoexp.training import lr_schedules

        return partial(lr_schedules.cosine, warmup=self.warmup, end=self.end)


@dataclass(frozen=True, kw_only=True)
class OneCycle(Scheduler):
    """conf/scheduler/onecycle.yaml"""

    rise: Share
    start: Share
    end: Share

    def build(self) -> "Schedule":
        """See Scheduler."""
        from emoexp.training import lr_schedules

        return partial(lr_schedules.onecycle, rise=self.rise, start=self.start, end=self.end)


@dataclass(frozen=True, kw_only=True)
class Plateau(Scheduler):
    """conf/scheduler/plateau.yaml"""

    factor: Annotated[float, Range(above=0, below=1)]
    patience: Annotated[int, Range(least=0)]
    least: Share

    def build(self) -> "Schedule":
        """See Scheduler."""
        from emoexp.training import lr_schedules

        return partial(lr_schedules.plateau, factor=self.factor, patience=self.patience, least=self.least)


@dataclass(frozen=True, kw_only=True)
class Steps(Scheduler):
    """conf/scheduler/steps.yaml"""

    warmup: Share
    at: list[Annotated[float, Range(above=0, most=1)]]
    factors: list[NotNegative]

    def check(self, path: str) -> None:
        """Milestones that rise, and a factor for each."""
        if self.at != sorted(self.at):
            raise ValueError(f"{path}.at is a list of shares of the training that rise; it is {self.at}")
        if len(self.factors) != len(self.at):
            raise ValueError(
                f"{path}.factors has one factor for each share of {path}.at; they are {self.factors} and {self.at}"
            )

    def build(self) -> "Schedule":
        """See Scheduler."""
        from emoexp.training import lr_schedules

        return partial(lr_schedules.steps, warmup=self.warmup, at=self.at, factors=self.factors)


@dataclass(frozen=True, kw_only=True)
class OwnScheduler(Own, Scheduler):
    """A schedule of somebody's own."""

    homes: ClassVar[Homes] = ours("training.lr_schedules")
    factory: ClassVar[bool] = True

    def build(self) -> "Schedule":
        """See Scheduler."""
        schedule: Schedule = self.made()
        return schedule


Scheduler.own = OwnScheduler
Scheduler.known = {
    "constant": Constant,
    "cosine": Cosine,
    "onecycle": OneCycle,
    "plateau": Plateau,
    "steps": Steps,
}
