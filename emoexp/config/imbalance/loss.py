"""The options of conf/imbalance/loss."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from emoexp.config.build import Homes, ours
from emoexp.config.fields import BelowOne, NotNegative, Positive, shown
from emoexp.config.models import Head
from emoexp.config.option import Option, Own

if TYPE_CHECKING:
    from torch import Tensor

    from emoexp.imbalance.losses import Loss as BuiltLoss

    LossOfCounts = Callable[[Tensor, Tensor], BuiltLoss]


@dataclass(frozen=True, kw_only=True)
class Loss(Option, abc.ABC):
    """An option of conf/imbalance/loss."""

    folder: ClassVar[str] = "imbalance/loss"

    @abc.abstractmethod
    def build(self) -> "LossOfCounts":
        """The loss, as a function of the counts and of the shares of the labels that training meets."""

    def last_layer(self) -> Head:
        """The last layer that the loss is made for."""
        return Head()


@dataclass(frozen=True, kw_only=True)
class _LossWithSmoothing(Loss):
    smoothing: BelowOne


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(_LossWithSmoothing):
    """conf/imbalance/loss/cross_entropy.yaml"""

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.cross_entropy, smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True)
class VectorScaling(_LossWithSmoothing):
    """conf/imbalance/loss/vs.yaml, and balanced_softmax, cdt and logit_adjusted beside it"""

    gamma: NotNegative
    tau: NotNegative

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.vector_scaling, gamma=self.gamma, tau=self.tau, smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True)
class Focal(_LossWithSmoothing):
    """conf/imbalance/loss/focal.yaml"""

    gamma: NotNegative

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.focal, gamma=self.gamma, smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True)
class FocalOvr(_LossWithSmoothing):
    """conf/imbalance/loss/focal_ovr.yaml"""

    gamma: NotNegative

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.focal_ovr, gamma=self.gamma, smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True)
class InfluenceBalanced(_LossWithSmoothing):
    """conf/imbalance/loss/influence_balanced.yaml"""

    alpha: Positive
    epsilon: Positive
    detach: bool

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(
            losses.influence_balanced,
            alpha=self.alpha,
            epsilon=self.epsilon,
            detach=self.detach,
            smoothing=self.smoothing,
        )


@dataclass(frozen=True, kw_only=True)
class LabelAwareSmoothing(Loss):
    """conf/imbalance/loss/label_aware_smoothing.yaml"""

    frequent: BelowOne
    rare: BelowOne
    shape: Literal["concave", "linear", "convex"]

    def check(self, path: str) -> None:
        """Refuse to smooth rare classes more than frequent ones."""
        if self.rare > self.frequent:
            raise ValueError(
                f"{path}.rare is at most {path}.frequent, as rare classes are smoothed less; they are {self.rare} and "
                f"{self.frequent}"
            )

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.label_aware_smoothing, frequent=self.frequent, rare=self.rare, shape=self.shape)


@dataclass(frozen=True, kw_only=True)
class Ldam(_LossWithSmoothing):
    """conf/imbalance/loss/ldam.yaml"""

    margin: NotNegative
    scale: Positive
    head: Literal["cosine", "linear"]

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.ldam, margin=self.margin, scale=self.scale, smoothing=self.smoothing)

    def last_layer(self) -> Head:
        """See Loss."""
        return Head("cosine", self.scale) if self.head == "cosine" else Head()


@dataclass(frozen=True, kw_only=True)
class SquaredHinge(_LossWithSmoothing):
    """conf/imbalance/loss/squared_hinge.yaml"""

    margin: Positive

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.squared_hinge, margin=self.margin, smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True)
class OwnLoss(Own, Loss):
    """A loss of somebody's own. head: cosine gives the network a last layer of cosines times the key `scale`."""

    homes: ClassVar[Homes] = ours("imbalance.losses")
    taken: ClassVar[tuple[str, ...]] = ("head",)

    scale: Positive | None = None
    head: Literal["cosine", "linear"] | None = None

    def check(self, path: str) -> None:
        """Refuse a scale without a head: earlier versions took a scale alone to mean a cosine head."""
        if (self.scale is not None and self.head is None) or (self.head == "cosine" and self.scale is None):
            raise ValueError(
                f"{path}={self.name}: head: cosine and scale: <a number above 0> belong together, for a last layer of "
                f"cosines times the scale; {path}.head is {shown(self.head)} and {path}.scale {shown(self.scale)}. A "
                "loss that needs a scale for something else says head: linear"
            )

    def build(self) -> "LossOfCounts":
        """See Loss."""
        loss: LossOfCounts = self.made()
        return loss

    def last_layer(self) -> Head:
        """See Loss."""
        return Head("cosine", self.scale) if self.head == "cosine" and self.scale is not None else Head()


Loss.own = OwnLoss
Loss.known = {
    "balanced_softmax": VectorScaling,
    "cdt": VectorScaling,
    "cross_entropy": CrossEntropy,
    "focal": Focal,
    "focal_ovr": FocalOvr,
    "influence_balanced": InfluenceBalanced,
    "label_aware_smoothing": LabelAwareSmoothing,
    "ldam": Ldam,
    "logit_adjusted": VectorScaling,
    "squared_hinge": SquaredHinge,
    "vs": VectorScaling,
}
