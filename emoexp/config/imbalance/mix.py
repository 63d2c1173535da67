"""The options of conf/imbalance/mix."""

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from emoexp.config.build import Homes, ours
from emoexp.config.fields import Exponent, NotNegative, Positive, Range, Share
from emoexp.config.option import Option, Own

if TYPE_CHECKING:
    from emoexp.imbalance.mixing import Mix as BuiltMix


@dataclass(frozen=True, kw_only=True)
class Mix(Option, abc.ABC):
    """An option of conf/imbalance/mix."""

    folder: ClassVar[str] = "imbalance/mix"

    @abc.abstractmethod
    def build(self) -> "BuiltMix | None":
        """How images are mixed; None where they are not."""


@dataclass(frozen=True, kw_only=True)
class NoMix(Mix):
    """conf/imbalance/mix/none.yaml"""

    def build(self) -> None:
        """See Mix."""


@dataclass(frozen=True, kw_only=True)
class Mixup(Mix):
    """conf/imbalance/mix/mixup.yaml"""

    alpha: Positive
    beta: Positive
    probability: Annotated[float, Range(above=0, most=1)]
    edge: Annotated[float, Range(least=0, below=0.5)]

    def build(self) -> "BuiltMix":
        """See Mix."""
        from emoexp.imbalance import mixing

        values = self.plain()
        del values["name"]
        return mixing.Mix(**values)


@dataclass(frozen=True, kw_only=True)
class CutMix(Mixup):
    """conf/imbalance/mix/cutmix.yaml"""

    paste: bool
    box: Literal["rounded", "floored"]

    def build(self) -> "BuiltMix":
        """See Mix. `floored` needs the images' side, which `build_strategy` adds."""
        from emoexp.imbalance import mixing

        values = self.plain()
        del values["name"], values["box"]
        return mixing.Mix(**values)


@dataclass(frozen=True, kw_only=True)
class Cmo(CutMix):
    """conf/imbalance/mix/cmo.yaml"""

    partner: Exponent


@dataclass(frozen=True, kw_only=True)
class BalancedMixup(Mixup):
    """conf/imbalance/mix/balanced_mixup.yaml"""

    partner: Exponent


@dataclass(frozen=True, kw_only=True)
class Remix(Mixup):
    """conf/imbalance/mix/remix.yaml"""

    kappa: NotNegative
    tau: Share

    def check(self, path: str) -> None:
        """Refuse a ratio of at most 1, and one of kappa and tau without the other."""
        if 0 < self.kappa <= 1:
            raise ValueError(f"{path}.kappa is a ratio above 1 of class counts, or 0; it is {self.kappa}")
        if bool(self.tau) != bool(self.kappa):
            idle, other = ("tau", "kappa") if self.tau else ("kappa", "tau")
            raise ValueError(
                f"{path}.{idle}={getattr(self, idle)} does nothing where {other} is 0: raise {other}, or take {idle}=0"
            )


@dataclass(frozen=True, kw_only=True)
class OwnMix(Own, Mix):
    """A way to mix of somebody's own."""

    homes: ClassVar[Homes] = ours("imbalance.mixing")

    def build(self) -> "BuiltMix | None":
        """See Mix."""
        mix: BuiltMix | None = self.made()
        return mix


Mix.own = OwnMix
Mix.known = {
    "balanced_mixup": BalancedMixup,
    "cmo": Cmo,
    "cutmix": CutMix,
    "mixup": Mixup,
    "none": NoMix,
    "remix": Remix,
}
