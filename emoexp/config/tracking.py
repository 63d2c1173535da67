"""The options of `tracking`."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from emoexp.config.build import Homes, ours
from emoexp.config.fields import Length, Range
from emoexp.config.option import Option, Own

if TYPE_CHECKING:
    from emoexp.tracking import Settings


@dataclass(frozen=True, kw_only=True)
class Tracking(Option):
    """An option of conf/tracking."""

    folder: ClassVar[str] = "tracking"

    @property
    def keeps_model(self) -> bool:
        """Whether a finished run's model is exported."""
        return False

    @abstractmethod
    def build(self) -> "Settings":
        """Where and how runs are shown in MLflow.

        Raises:
            ValueError: an address that cannot work.
        """


@dataclass(frozen=True, kw_only=True)
class NoTracking(Tracking):
    """conf/tracking/none.yaml"""

    kind: Literal["none"]

    def build(self) -> "Settings":
        """See Tracking."""
        from emoexp.tracking import Settings

        return Settings(kind=self.kind)


@dataclass(frozen=True, kw_only=True)
class Mlflow(Tracking):
    """conf/tracking/mlflow.yaml and server.yaml"""

    kind: Literal["mlflow", "server", "none"]
    uri: str | None
    experiment: Annotated[str, Length(1, 250)]
    artifacts: str | None
    log_model: bool
    log_checkpoint: bool
    timeout_s: Annotated[float, Range(above=0, below=3600)]

    @property
    def keeps_model(self) -> bool:
        """See Tracking."""
        return self.log_model

    def check(self, path: str) -> None:
        """An address that MLflow would refuse later, in the middle of a run."""
        self.build()

    def build(self) -> "Settings":
        """See Tracking."""
        from emoexp.tracking import Settings

        return Settings(
            kind=self.kind,
            uri=self.uri,
            experiment=self.experiment,
            artifacts=self.artifacts,
            log_model=self.log_model,
            log_checkpoint=self.log_checkpoint,
            timeout_s=self.timeout_s,
        )


@dataclass(frozen=True, kw_only=True)
class OwnTracking(Own, Tracking):
    """Settings under a name of somebody's own."""

    homes: ClassVar[Homes] = ours("tracking.settings")
    log_model: bool = False

    @property
    def keeps_model(self) -> bool:
        """See Tracking."""
        return self.log_model

    def build(self) -> "Settings":
        """See Tracking."""
        settings: Settings = self.made()
        return settings


Tracking.own = OwnTracking
Tracking.known = {"mlflow": Mlflow, "none": NoTracking, "server": Mlflow}
