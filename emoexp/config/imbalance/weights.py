"""The options of conf/imbalance/weights."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from emoexp.config.build import Homes, ours
from emoexp.config.fields import BelowOne, Exponent
from emoexp.config.option import Option, Own

if TYPE_CHECKING:
    from torch import Tensor

    OfCounts = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Weights(Option, abc.ABC):
    """An option of conf/imbalance/weights."""

    folder: ClassVar[str] = "imbalance/weights"

    @abc.abstractmethod
    def build(self) -> "OfCounts":
        """The weight of each class in the loss, as a function of the counts."""


@dataclass(frozen=True, kw_only=True)
class NoWeights(Weights):
    """conf/imbalance/weights/none.yaml"""

    def build(self) -> "OfCounts":
        """See Weights."""
        from emoexp.imbalance import weights

        return weights.none


@dataclass(frozen=True, kw_only=True)
class PowerWeights(Weights):
    """conf/imbalance/weights/inverse.yaml and sqrt.yaml"""

    exponent: Exponent

    def build(self) -> "OfCounts":
        """See Weights."""
        from emoexp.imbalance import weights

        return partial(weights.power, exponent=self.exponent)


@dataclass(frozen=True, kw_only=True)
class EffectiveWeights(Weights):
    """conf/imbalance/weights/effective_number.yaml"""

    beta: BelowOne

    def build(self) -> "OfCounts":
        """See Weights."""
        from emoexp.imbalance import weights

        return partial(weights.effective_number, beta=self.beta)


@dataclass(frozen=True, kw_only=True)
class OwnWeights(Own, Weights):
    """Weights of somebody's own."""

    homes: ClassVar[Homes] = ours("imbalance.weights")

    def build(self) -> "OfCounts":
        """See Weights."""
        weight: OfCounts = self.made()
        return weight


Weights.own = OwnWeights
Weights.known = {
    "effective_number": EffectiveWeights,
    "inverse": PowerWeights,
    "none": NoWeights,
    "sqrt": PowerWeights,
}
