"""The options of the columns of `imbalance`, and a strategy, which has one of each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from emoexp.config import options
from emoexp.config.data import Augmentation
from emoexp.config.fields import BelowOne, Count, Exponent, NotNegative, Positive, Range, Share, shown
from emoexp.config.models import Head
from emoexp.config.option import Option, Own, Values

if TYPE_CHECKING:
    from torch import Tensor

    from emoexp.imbalance.losses import Loss as Built
    from emoexp.imbalance.mixing import Mix as BuiltMix
    from emoexp.imbalance.posthoc import Evidence, FitResult
    from emoexp.imbalance.schedule import Schedule as BuiltSchedule
    from emoexp.training.augment import Policy

    OfCounts = Callable[[Tensor], Tensor]
    Shares = Callable[[Tensor, float], Tensor]
    LossOfCounts = Callable[[Tensor, Tensor], Built]
    Fit = Callable[[Evidence], FitResult]

Timed = Literal["sampling", "weights", "loss", "mix"]
Redraw = Literal["never", "epoch"]
Metric = Literal["macro_f1", "balanced_accuracy", "accuracy", "worst_recall"]


@dataclass(frozen=True, kw_only=True)
class Copies(Option):
    """An option of conf/imbalance/copies."""

    folder: ClassVar[str] = "imbalance/copies"

    def build(self) -> "OfCounts":
        """Images of each class once copies were added, from the counts."""
        raise NotImplementedError

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
class _Copying(Copies):
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
class Cap(_Copying):
    """conf/imbalance/copies/cap.yaml"""

    factor: Annotated[float, Range(least=1)]

    def build(self) -> "OfCounts":
        """See Copies."""
        from emoexp.imbalance import copies

        return partial(copies.cap, factor=self.factor)


@dataclass(frozen=True, kw_only=True)
class Equalise(_Copying):
    """conf/imbalance/copies/equalise.yaml"""

    def build(self) -> "OfCounts":
        """See Copies."""
        from emoexp.imbalance import copies

        return copies.equalise


@dataclass(frozen=True, kw_only=True)
class Floor(_Copying):
    """conf/imbalance/copies/floor.yaml"""

    least: Count

    def build(self) -> "OfCounts":
        """See Copies."""
        from emoexp.imbalance import copies

        return partial(copies.floor, least=self.least)


@dataclass(frozen=True, kw_only=True)
class PowerCopies(_Copying):
    """conf/imbalance/copies/power.yaml"""

    exponent: Share

    def build(self) -> "OfCounts":
        """See Copies."""
        from emoexp.imbalance import copies

        return partial(copies.power, exponent=self.exponent)


@dataclass(frozen=True, kw_only=True)
class OwnCopies(Own, Copies):
    """Targets of somebody's own."""

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


@dataclass(frozen=True, kw_only=True)
class Sampling(Option):
    """An option of conf/imbalance/sampling. replacement: else every class is a deck of its images."""

    folder: ClassVar[str] = "imbalance/sampling"

    @property
    def replaces(self) -> bool:
        """Whether images are drawn with replacement."""
        return True

    def build(self) -> "Shares":
        """The share of draws of each class, from the counts and the progress of the run."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Uniform(Sampling):
    """conf/imbalance/sampling/uniform.yaml"""

    def build(self) -> "Shares":
        """See Sampling."""
        from emoexp.imbalance import sampling

        return sampling.uniform


@dataclass(frozen=True, kw_only=True)
class _Drawn(Sampling):
    replacement: bool

    @property
    def replaces(self) -> bool:
        """See Sampling."""
        return self.replacement


@dataclass(frozen=True, kw_only=True)
class PowerSampling(_Drawn):
    """conf/imbalance/sampling/power.yaml, and inverse, sqrt and class_aware beside it"""

    exponent: Exponent

    def build(self) -> "Shares":
        """See Sampling."""
        from emoexp.imbalance import sampling

        return partial(sampling.power, exponent=self.exponent)


@dataclass(frozen=True, kw_only=True)
class EffectiveSampling(_Drawn):
    """conf/imbalance/sampling/effective_number.yaml"""

    beta: BelowOne

    def build(self) -> "Shares":
        """See Sampling."""
        from emoexp.imbalance import sampling

        return partial(sampling.effective_number, beta=self.beta)


@dataclass(frozen=True, kw_only=True)
class Progressive(_Drawn):
    """conf/imbalance/sampling/progressive.yaml"""

    exponent: Exponent

    def build(self) -> "Shares":
        """See Sampling."""
        from emoexp.imbalance import sampling

        return partial(sampling.progressive, exponent=self.exponent)


@dataclass(frozen=True, kw_only=True)
class RepeatFactor(_Drawn):
    """conf/imbalance/sampling/repeat_factor.yaml"""

    threshold: Annotated[float, Range(above=0, most=1)] | None

    def build(self) -> "Shares":
        """See Sampling."""
        from emoexp.imbalance import sampling

        return partial(sampling.repeat_factor, threshold=self.threshold)


@dataclass(frozen=True, kw_only=True)
class OwnSampling(Own, Sampling):
    """Shares of somebody's own."""

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


@dataclass(frozen=True, kw_only=True)
class Weights(Option):
    """An option of conf/imbalance/weights."""

    folder: ClassVar[str] = "imbalance/weights"

    def build(self) -> "OfCounts":
        """The weight of each class in the loss, from the counts."""
        raise NotImplementedError


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


@dataclass(frozen=True, kw_only=True)
class Loss(Option):
    """An option of conf/imbalance/loss."""

    folder: ClassVar[str] = "imbalance/loss"

    def build(self) -> "LossOfCounts":
        """The loss, from the counts and the shares of the labels that training meets."""
        raise NotImplementedError

    def last_layer(self) -> Head:
        """The last layer that the loss is made for."""
        return Head()


@dataclass(frozen=True, kw_only=True)
class _Smoothed(Loss):
    smoothing: BelowOne


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(_Smoothed):
    """conf/imbalance/loss/cross_entropy.yaml"""

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.cross_entropy, smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True)
class VectorScaling(_Smoothed):
    """conf/imbalance/loss/vs.yaml, and balanced_softmax, cdt and logit_adjusted beside it"""

    gamma: NotNegative
    tau: NotNegative

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.vector_scaling, gamma=self.gamma, tau=self.tau, smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True)
class Focal(_Smoothed):
    """conf/imbalance/loss/focal.yaml"""

    gamma: NotNegative

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.focal, gamma=self.gamma, smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True)
class FocalOvr(_Smoothed):
    """conf/imbalance/loss/focal_ovr.yaml"""

    gamma: NotNegative

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.focal_ovr, gamma=self.gamma, smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True)
class InfluenceBalanced(_Smoothed):
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
        """Frequent classes are smoothed more."""
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
class Ldam(_Smoothed):
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
class SquaredHinge(_Smoothed):
    """conf/imbalance/loss/squared_hinge.yaml"""

    margin: Positive

    def build(self) -> "LossOfCounts":
        """See Loss."""
        from emoexp.imbalance import losses

        return partial(losses.squared_hinge, margin=self.margin, smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True)
class OwnLoss(Own, Loss):
    """A loss of somebody's own. head: cosine gives the network a last layer of cosines, times the key `scale`."""

    taken: ClassVar[tuple[str, ...]] = ("head",)

    scale: Positive | None = None
    head: Literal["cosine", "linear"] | None = None

    def check(self, path: str) -> None:
        """A loss with a scale says which last layer it is for: once, a scale alone stood for cosines."""
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


@dataclass(frozen=True, kw_only=True)
class Schedule(Option):
    """An option of conf/imbalance/schedule."""

    folder: ClassVar[str] = "imbalance/schedule"

    def build(self) -> "BuiltSchedule":
        """When each column acts, and what of the network learns."""
        raise NotImplementedError

    def check_epochs(self, epochs: int) -> None:
        """Refuse a run too short for two parts."""

    def columns(self) -> dict[str, list[Timed]]:
        """The columns that act in one part of the run alone, as `late` and `early`; none where there is one part, or
        where the second has a use without them."""
        return {}


@dataclass(frozen=True, kw_only=True)
class OnePart(Schedule):
    """conf/imbalance/schedule/none.yaml"""

    def build(self) -> "BuiltSchedule":
        """See Schedule."""
        from emoexp.imbalance import schedule

        return schedule.Schedule()


@dataclass(frozen=True, kw_only=True)
class Deferred(Schedule):
    """conf/imbalance/schedule/deferred.yaml"""

    start: BelowOne
    late: list[Timed]
    early: list[Timed]
    rate: Positive

    @property
    def retrains(self) -> bool:
        """Whether the classifier alone learns in the second part."""
        return False

    def check(self, path: str) -> None:
        """Two parts that differ."""
        if both := [column for column in self.late if column in self.early]:
            raise ValueError(f"{path}: {both[0]} is both late and early; it would never act")
        two = bool(self.late or self.early or self.retrains or self.rate != 1)
        if self.start == 0 and two:
            raise ValueError(
                f"{path}.start=0 leaves one part, in which late, early, retrain and rate mean nothing; raise it, or "
                "choose imbalance/schedule=none"
            )
        if self.start and not two:
            raise ValueError(f"{path}: nothing is late, early or retrained; name it, or take imbalance/schedule=none")

    def build(self) -> "BuiltSchedule":
        """See Schedule."""
        from emoexp.imbalance import schedule

        return schedule.Schedule(start=self.start, late=self.late, early=self.early, rate=self.rate)

    def check_epochs(self, epochs: int) -> None:
        """See Schedule."""
        if self.start and epochs < 2:
            raise ValueError(
                f"imbalance/schedule={self.name} has two parts, which take 2 epochs or more; epochs={epochs}"
            )

    def columns(self) -> dict[str, list[Timed]]:
        """See Schedule."""
        return {"late": self.late, "early": self.early}


@dataclass(frozen=True, kw_only=True)
class TwoStage(Deferred):
    """conf/imbalance/schedule/two_stage.yaml"""

    retrain: Literal["none", "fresh", "kept", "scale", "both"]
    norms: Literal["update", "frozen"]

    @property
    def retrains(self) -> bool:
        """See Deferred."""
        return self.retrain != "none"

    def check(self, path: str) -> None:
        """Norms that are frozen with features that are."""
        super().check(path)
        if self.norms == "frozen" and not self.retrains:
            raise ValueError(f"{path}.norms=frozen is for frozen features: choose retrain, or norms=update")

    def build(self) -> "BuiltSchedule":
        """See Schedule."""
        from emoexp.imbalance import schedule

        return schedule.Schedule(
            start=self.start,
            late=self.late,
            early=self.early,
            rate=self.rate,
            retrain=self.retrain,
            norms=self.norms,
        )

    def columns(self) -> dict[str, list[Timed]]:
        """See Schedule."""
        return {} if self.retrains else super().columns()


@dataclass(frozen=True, kw_only=True)
class OwnSchedule(Own, Schedule):
    """A schedule of somebody's own."""

    retrain: Literal["none", "fresh", "kept", "scale", "both"] = "none"

    def build(self) -> "BuiltSchedule":
        """See Schedule."""
        schedule: BuiltSchedule = self.made()
        return schedule


Schedule.own = OwnSchedule
Schedule.known = {"deferred": Deferred, "none": OnePart, "two_stage": TwoStage}


@dataclass(frozen=True, kw_only=True)
class Mix(Option):
    """An option of conf/imbalance/mix."""

    folder: ClassVar[str] = "imbalance/mix"

    def build(self) -> "BuiltMix | None":
        """How images are mixed; None where they are not."""
        raise NotImplementedError


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
        """A ratio, and a share that it is for."""
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


@dataclass(frozen=True, kw_only=True)
class Posthoc(Option):
    """An option of conf/imbalance/posthoc."""

    folder: ClassVar[str] = "imbalance/posthoc"

    def build(self) -> "Fit":
        """What is fitted to a finished model, from what validation says of it."""
        raise NotImplementedError


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

    def build(self) -> "Fit":
        """See Posthoc."""
        from emoexp.imbalance import posthoc

        return partial(posthoc.tau_norm, tau=self.tau, metric=self.metric)


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
        """A reach of at least one step and of not too many."""
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


@dataclass(frozen=True, kw_only=True)
class Imbalance(Values):
    """A strategy: a row of conf/imbalance, whose columns are options of their own."""

    name: str
    epoch_size: Literal["pool", "originals"] | Count
    copies: Copies
    sampling: Sampling
    weights: Weights
    loss: Loss
    schedule: Schedule
    mix: Mix
    posthoc: Posthoc

    def check(self, path: str) -> None:
        """Columns that come late or go early and do nothing even then; a classifier may be retrained all the same."""
        usual = options.chosen("imbalance", "none")
        for when, columns in self.schedule.columns().items():
            for column in columns:
                option = getattr(self, column)
                if option.name == usual[column] and not getattr(option, "smoothing", 0):
                    raise ValueError(
                        f"{path}.schedule.{when} names {column}, but {path}/{column}={option.name} does nothing "
                        f"anyway; choose another {path}/{column}, or name what should be: "
                        f"'{path}.schedule.{when}=[...]', of sampling, weights, loss, mix"
                    )

    def head(self) -> Head:
        """The last layer that the strategy wants: the loss's own, with factors to be learnt where the schedule says."""
        layer, retrain = self.loss.last_layer(), getattr(self.schedule, "retrain", "none")
        return Head(layer.kind, layer.scale, factors=retrain in ("scale", "both"))
