"""The options of conf/imbalance/schedule."""

import abc
from dataclasses import dataclass
from typing import ClassVar

from emoexp.config.build import Homes, ours
from emoexp.config.fields import BelowOne, Positive
from emoexp.config.option import Option, Own
from emoexp.imbalance.schedule import Norms, Rates, Retrain, TimedColumn
from emoexp.imbalance.schedule import Schedule as BuiltSchedule


@dataclass(frozen=True, kw_only=True)
class Schedule(Option, abc.ABC):
    """An option of conf/imbalance/schedule."""

    folder: ClassVar[str] = "imbalance/schedule"

    @abc.abstractmethod
    def build(self) -> BuiltSchedule:
        """When each column acts, and what of the network is trained."""

    def check_epochs(self, epochs: int) -> None:
        """Refuse a run that is too short for two stages."""

    def columns(self) -> dict[str, list[TimedColumn]]:
        """The columns that act in one stage only, by `late` and `early`; none where there is one stage, or where the
        second stage has a use without them."""
        return {}


@dataclass(frozen=True, kw_only=True)
class OneStage(Schedule):
    """conf/imbalance/schedule/none.yaml"""

    def build(self) -> BuiltSchedule:
        """See Schedule."""
        return BuiltSchedule()


@dataclass(frozen=True, kw_only=True)
class Deferred(Schedule):
    """conf/imbalance/schedule/deferred.yaml"""

    start: BelowOne
    late: list[TimedColumn]
    early: list[TimedColumn]
    rate: Positive

    @property
    def retrains(self) -> bool:
        """Whether the classifier alone learns in the second stage."""
        return False

    def check(self, path: str) -> None:
        """Refuse two stages that do not differ."""
        if both := [column for column in self.late if column in self.early]:
            raise ValueError(f"{path}: {both[0]} is both late and early; it would never act")
        two = bool(self.late or self.early or self.retrains or self.rate != 1)
        if self.start == 0 and two:
            raise ValueError(
                f"{path}.start=0 leaves one stage, in which late, early, retrain and rate mean nothing; raise it, or "
                "choose imbalance/schedule=none"
            )
        if self.start and not two:
            raise ValueError(f"{path}: nothing is late, early or retrained; name it, or take imbalance/schedule=none")

    def build(self) -> BuiltSchedule:
        """See Schedule."""
        return BuiltSchedule(start=self.start, late=self.late, early=self.early, rate=self.rate)

    def check_epochs(self, epochs: int) -> None:
        """See Schedule."""
        if self.start and epochs < 2:
            raise ValueError(
                f"imbalance/schedule={self.name} has two stages, which take 2 epochs or more; epochs={epochs}"
            )

    def columns(self) -> dict[str, list[TimedColumn]]:
        """See Schedule."""
        return {"late": self.late, "early": self.early}


@dataclass(frozen=True, kw_only=True)
class TwoStage(Deferred):
    """conf/imbalance/schedule/two_stage.yaml"""

    retrain: Retrain
    norms: Norms
    rates: Rates

    @property
    def retrains(self) -> bool:
        """See Deferred."""
        return self.retrain != "none"

    def check(self, path: str) -> None:
        """Refuse to freeze batch norms where features are trained."""
        super().check(path)
        if self.rates != "same" and not self.retrains:
            raise ValueError(
                f"{path}.rates={self.rates} is for a stage that retrains: choose {path}.retrain, or {path}.rates=same"
            )
        if self.norms == "frozen" and not self.retrains:
            raise ValueError(
                f"{path}.norms=frozen is for frozen features: choose {path}.retrain, or {path}.norms=update"
            )

    def build(self) -> BuiltSchedule:
        """See Schedule."""
        return BuiltSchedule(
            start=self.start,
            late=self.late,
            early=self.early,
            rate=self.rate,
            retrain=self.retrain,
            norms=self.norms,
            rates=self.rates,
        )

    def columns(self) -> dict[str, list[TimedColumn]]:
        """See Schedule."""
        return {} if self.retrains else super().columns()


@dataclass(frozen=True, kw_only=True)
class OwnSchedule(Own, Schedule):
    """A schedule of somebody's own."""

    homes: ClassVar[Homes] = ours("imbalance.schedule")
    retrain: Retrain = "none"

    def build(self) -> BuiltSchedule:
        """See Schedule."""
        schedule: BuiltSchedule = self.made()
        return schedule


Schedule.own = OwnSchedule
Schedule.known = {"deferred": Deferred, "none": OneStage, "two_stage": TwoStage}
