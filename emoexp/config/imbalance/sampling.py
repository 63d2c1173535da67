"""The options of conf/imbalance/sampling."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

from emoexp.config.build import Homes, ours
from emoexp.config.fields import BelowOne, Exponent, Range
from emoexp.config.option import Option, Own

if TYPE_CHECKING:
    from torch import Tensor

    Shares = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, kw_only=True)
class Sampling(Option, abc.ABC):
    """An option of conf/imbalance/sampling."""

    folder: ClassVar[str] = "imbalance/sampling"

    @property
    def replaces(self) -> bool:
        """Whether images are drawn with replacement; if not, all of a class are drawn before one is drawn again."""
        return True

    @abc.abstractmethod
    def build(self) -> "Shares":
        """Each class's share of the draws, as a function of the counts and the progress of the run."""


@dataclass(frozen=True, kw_only=True)
class Uniform(Sampling):
    """conf/imbalance/sampling/uniform.yaml"""

    def build(self) -> "Shares":
        """See Sampling."""
        from emoexp.imbalance import sampling

        return sampling.natural


@dataclass(frozen=True, kw_only=True)
class _ReplacementChoice(Sampling):
    replacement: bool

    @property
    def replaces(self) -> bool:
        """See Sampling."""
        return self.replacement


@dataclass(frozen=True, kw_only=True)
class PowerSampling(_ReplacementChoice):
    """conf/imbalance/sampling/power.yaml, and inverse, sqrt and class_aware beside it"""

    exponent: Exponent

    def build(self) -> "Shares":
        """See Sampling."""
        from emoexp.imbalance import sampling

        return partial(sampling.power, exponent=self.exponent)


@dataclass(frozen=True, kw_only=True)
class EffectiveSampling(_ReplacementChoice):
    """conf/imbalance/sampling/effective_number.yaml"""

    beta: BelowOne

    def build(self) -> "Shares":
        """See Sampling."""
        from emoexp.imbalance import sampling

        return partial(sampling.effective_number, beta=self.beta)


@dataclass(frozen=True, kw_only=True)
class Progressive(_ReplacementChoice):
    """conf/imbalance/sampling/progressive.yaml"""

    exponent: Exponent

    def build(self) -> "Shares":
        """See Sampling."""
        from emoexp.imbalance import sampling

        return partial(sampling.progressive, exponent=self.exponent)


@dataclass(frozen=True, kw_only=True)
class RepeatFactor(_ReplacementChoice):
    """conf/imbalance/sampling/repeat_factor.yaml"""

    threshold: Annotated[float, Range(above=0, most=1)] | None

    def build(self) -> "Shares":
        """See Sampling."""
        from emoexp.imbalance import sampling

        return partial(sampling.repeat_factor, threshold=self.threshold)


@dataclass(frozen=True, kw_only=True)
class OwnSampling(Own, Sampling):
    """Shares of somebody's own."""

    homes: ClassVar[Homes] = ours("imbalance.sampling")
    taken: ClassVar[tuple[str, ...]] = ("replacement",)

    replacement: bool = True

    @property
    def replaces(self) -> bool:
        """See Sampling."""
        return self.replacement

    def build(self) -> "Shares":
        """See Sampling."""
        share: Shares = self.made()
        return share


Sampling.own = OwnSampling
Sampling.known = {
    "class_aware": PowerSampling,
    "effective_number": EffectiveSampling,
    "inverse": PowerSampling,
    "power": PowerSampling,
    "progressive": Progressive,
    "repeat_factor": RepeatFactor,
    "sqrt": PowerSampling,
    "uniform": Uniform,
}
