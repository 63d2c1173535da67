"""The options of conf/imbalance/copies."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from emoexp.config.build import Homes, ours
from emoexp.config.data import Augmentation
from emoexp.config.fields import Count, Range, Share
from emoexp.config.option import Option, Own

if TYPE_CHECKING:
    from torch import Tensor

    from emoexp.training.augment import Policy

    OfCounts = Callable[[Tensor], Tensor]

Redraw = Literal["never", "epoch"]


@dataclass(frozen=True, kw_only=True)
class Copies(Option, abc.ABC):
    """An option of conf/imbalance/copies."""

    folder: ClassVar[str] = "imbalance/copies"

    @abc.abstractmethod
    def build(self) -> "OfCounts":
        """How many images each class should have, copies included, as a function of the counts."""

    def policy(self) -> "Policy":
        """How a copy is transformed."""
        from emoexp.training.augment import Policy

        return Policy()

    @property
    def redraws(self) -> bool:
        """Whether copies are transformed anew each epoch."""
        return False


@dataclass(frozen=True, kw_only=True)
class NoCopies(Copies):
    """conf/imbalance/copies/none.yaml"""

    def build(self) -> "OfCounts":
        """See Copies."""
        from emoexp.imbalance import copies

        return copies.none


@dataclass(frozen=True, kw_only=True)
class _TransformedCopies(Copies):
    transform: Augmentation
    redraw: Redraw

    def policy(self) -> "Policy":
        """See Copies."""
        return self.transform.build()

    @property
    def redraws(self) -> bool:
        """See Copies."""
        return self.redraw == "epoch"


@dataclass(frozen=True, kw_only=True)
class Cap(_TransformedCopies):
    """conf/imbalance/copies/cap.yaml"""

    factor: Annotated[float, Range(least=1)]

    def build(self) -> "OfCounts":
        """See Copies."""
        from emoexp.imbalance import copies

        return partial(copies.cap, factor=self.factor)


@dataclass(frozen=True, kw_only=True)
class Equalise(_TransformedCopies):
    """conf/imbalance/copies/equalise.yaml"""

    def build(self) -> "OfCounts":
        """See Copies."""
        from emoexp.imbalance import copies

        return copies.equalise


@dataclass(frozen=True, kw_only=True)
class Floor(_TransformedCopies):
    """conf/imbalance/copies/floor.yaml"""

    least: Count

    def build(self) -> "OfCounts":
        """See Copies."""
        from emoexp.imbalance import copies

        return partial(copies.floor, least=self.least)


@dataclass(frozen=True, kw_only=True)
class PowerCopies(_TransformedCopies):
    """conf/imbalance/copies/power.yaml"""

    exponent: Share

    def build(self) -> "OfCounts":
        """See Copies."""
        from emoexp.imbalance import copies

        return partial(copies.power, exponent=self.exponent)


@dataclass(frozen=True, kw_only=True)
class OwnCopies(Own, Copies):
    """Targets of somebody's own."""

    homes: ClassVar[Homes] = ours("imbalance.copies")
    taken: ClassVar[tuple[str, ...]] = ("transform", "redraw")

    transform: Augmentation | None = None
    redraw: Redraw = "never"

    def build(self) -> "OfCounts":
        """See Copies."""
        target: OfCounts = self.made()
        return target

    def policy(self) -> "Policy":
        """See Copies."""
        return self.transform.build() if self.transform else super().policy()

    @property
    def redraws(self) -> bool:
        """See Copies."""
        return self.redraw == "epoch"


Copies.own = OwnCopies
Copies.known = {"cap": Cap, "equalise": Equalise, "floor": Floor, "none": NoCopies, "power": PowerCopies}
