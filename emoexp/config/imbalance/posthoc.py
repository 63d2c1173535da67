"""The options of conf/imbalance/posthoc."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from emoexp.config.build import Homes, ours
from emoexp.config.fields import Count, NotNegative, Positive
from emoexp.config.option import Option, Own

if TYPE_CHECKING:
    from emoexp.imbalance.posthoc import Evidence, FitResult

    Fit = Callable[[Evidence], FitResult]

Metric = Literal["macro_f1", "balanced_accuracy", "accuracy", "worst_recall"]


@dataclass(frozen=True, kw_only=True)
class Posthoc(Option, abc.ABC):
    """An option of conf/imbalance/posthoc."""

    folder: ClassVar[str] = "imbalance/posthoc"

    @abc.abstractmethod
    def build(self) -> "Fit":
        """What is fitted to a trained model, as a function of its outputs on validation."""


@dataclass(frozen=True, kw_only=True)
class NoPosthoc(Posthoc):
    """conf/imbalance/posthoc/none.yaml"""

    def build(self) -> "Fit":
        """See Posthoc."""
        from emoexp.imbalance import posthoc

        return posthoc.none


@dataclass(frozen=True, kw_only=True)
class LogitAdjustment(Posthoc):
    """conf/imbalance/posthoc/logit_adjustment.yaml"""

    tau: NotNegative | None
    metric: Metric

    def build(self) -> "Fit":
        """See Posthoc."""
        from emoexp.imbalance import posthoc

        return partial(posthoc.logit_adjustment, tau=self.tau, metric=self.metric)


@dataclass(frozen=True, kw_only=True)
class TauNorm(Posthoc):
    """conf/imbalance/posthoc/tau_norm.yaml"""

    tau: NotNegative | None
    metric: Metric
    bias: Literal["drop", "keep"]

    def build(self) -> "Fit":
        """See Posthoc."""
        from emoexp.imbalance import posthoc

        return partial(posthoc.tau_norm, tau=self.tau, metric=self.metric, bias=self.bias)


@dataclass(frozen=True, kw_only=True)
class NearestClassMean(Posthoc):
    """conf/imbalance/posthoc/nearest_class_mean.yaml"""

    def build(self) -> "Fit":
        """See Posthoc."""
        from emoexp.imbalance import posthoc

        return posthoc.nearest_class_mean


@dataclass(frozen=True, kw_only=True)
class Temperature(Posthoc):
    """conf/imbalance/posthoc/temperature.yaml"""

    def build(self) -> "Fit":
        """See Posthoc."""
        from emoexp.imbalance import posthoc

        return posthoc.temperature


@dataclass(frozen=True, kw_only=True)
class Offsets(Posthoc):
    """conf/imbalance/posthoc/offsets.yaml"""

    metric: Metric
    step: Positive
    most: Positive
    rounds: Count

    def check(self, path: str) -> None:
        """Refuse a largest offset below one step, or so large that the grid has too many values."""
        if not self.step <= self.most <= 10_000 * self.step:
            raise ValueError(
                f"{path}.most is from one to 10000 times {path}.step; they are {self.most} and {self.step}"
            )

    def build(self) -> "Fit":
        """See Posthoc."""
        from emoexp.imbalance import posthoc

        return partial(posthoc.offsets, metric=self.metric, step=self.step, most=self.most, rounds=self.rounds)


@dataclass(frozen=True, kw_only=True)
class OwnPosthoc(Own, Posthoc):
    """A fit of somebody's own."""

    homes: ClassVar[Homes] = ours("imbalance.posthoc")

    def build(self) -> "Fit":
        """See Posthoc."""
        fit: Fit = self.made()
        return fit


Posthoc.own = OwnPosthoc
Posthoc.known = {
    "logit_adjustment": LogitAdjustment,
    "nearest_class_mean": NearestClassMean,
    "none": NoPosthoc,
    "offsets": Offsets,
    "tau_norm": TauNorm,
    "temperature": Temperature,
}
