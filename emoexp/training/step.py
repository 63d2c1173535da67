"""One step of training: what it needs, what it changes, and who carries it out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from emoexp.imbalance.losses import Constants, Formula
from emoexp.training import sharpness
from emoexp.training.batches import Batch, Draws, Rows, TrainingBatches
from emoexp.training.sharpness import Sharpness

Row = dict[str, float]
Number = float | Tensor  # known to the host, or only to the device
Features = Callable[[Tensor], Tensor]


@dataclass
class State:
    """What training changes, and all that a checkpoint has to hold.

    epoch, step: where the next step stands, both from 0. history: one row for each finished epoch. running: sums over
    the epoch so far, on the device (see `fresh_sums`).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    history: list[Row] = field(default_factory=list)
    running: dict[str, Tensor] = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        """The state as tensors, numbers, lists and dictionaries; the same however the steps are executed."""
        optimizer = self.optimizer.state_dict()
        kept = {key: self.optimizer.defaults[key] for key in ("capturable",) if key in self.optimizer.defaults}
        groups = [group | kept | {"lr": float(group["lr"])} for group in optimizer["param_groups"]]
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer | {"param_groups": groups},
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "running": self.running,
        }

    def restore(self, payload: dict[str, Any], device: torch.device) -> None:
        """Take over a payload, bit for bit."""
        self.model.load_state_dict(payload["model"])
        self.optimizer.load_state_dict(payload["optimizer"])
        self.epoch, self.step, self.history = payload["epoch"], payload["step"], payload["history"]
        self.running = {name: tensor.to(device) for name, tensor in payload["running"].items()}


@dataclass(frozen=True)
class Recipe:
    """What training does not change: data and strategy, schedule and when to stop.

    validation: index into the images and int64 class of each validation image. schedule: factor of the learning rate.
    monitor: key of a history row; a loss is minimised, everything else maximised. sharpness: None where the loss is
    taken at the weights themselves.
    """

    batches: TrainingBatches
    validation: tuple[Tensor, Tensor]
    num_classes: int
    schedule: Callable[[float, int, Sequence[float]], float]
    epochs: int
    monitor: str
    patience: int | None
    clip_norm: float | None
    precision: str
    seed: int
    executor: "Executor" = field(default_factory=lambda: Eager())
    sharpness: Sharpness | None = None

    def phase(self, epoch: int) -> "Phase":
        """What is in force in an epoch."""
        plan, device = self.batches.plan, self.batches.device
        stage = plan.epoch(epoch)
        constants = stage.loss.constants(plan.count_C, stage.exposure_C, stage.weight_C, device)
        schedule = plan.columns.schedule
        alone = stage.second_stage and schedule.retrains
        return Phase(
            stage.loss.formula,
            constants,
            tail_C=self.sharpness.tail_C if self.sharpness else None,
            learning=schedule.retrain if alone else "none",
            norms_frozen=alone and schedule.norms == "frozen",
        )

    def factor(self, done: float, history: Sequence[Row]) -> float:
        """Factor of the learning rate after `done` epochs. Where a classifier is retrained, its part of the run has a
        schedule of its own, and so has the one before."""
        plan, monitored, total = self.batches.plan, self.monitored(history), self.epochs
        second = done >= plan.second_stage_start > 0
        schedule = plan.columns.schedule
        if plan.second_stage_start and schedule.retrains:
            begun, total = (
                (plan.second_stage_start, self.epochs - plan.second_stage_start)
                if second
                else (0, plan.second_stage_start)
            )
            done, monitored = done - begun, monitored[begun:]
        return self.schedule(done, total, monitored) * (schedule.rate if second else 1.0)

    def monitored(self, history: Sequence[Row]) -> list[float]:
        """The monitored value of each epoch, larger being better."""
        if history and self.monitor not in history[0]:
            raise ValueError(f"monitor={self.monitor} is no column of history.jsonl; there are {', '.join(history[0])}")
        sign = -1.0 if self.monitor.endswith("loss") else 1.0
        return [sign * row[self.monitor] for row in history]


@dataclass(frozen=True)
class Phase:
    """What is in force in an epoch: the loss, and what learns. tail_C: as `Sharpness` has it. learning: none, the whole
    network; kept, fresh, scale or both, as `imbalance.schedule.Schedule` has it. norms_frozen: batch norms normalise by
    their statistics and leave them."""

    formula: Formula
    constants: Constants
    tail_C: Tensor | None = None
    learning: str = "none"
    norms_frozen: bool = False


@dataclass(frozen=True)
class Course:
    """What is known of an epoch before its first step. progress: share of the run done before each step, 0..1. rates:
    learning rate of each parameter group at each step."""

    draws: Draws
    phase: Phase
    progress: list[float]
    rates: list[list[float]]


@dataclass(frozen=True)
class Place:
    """Where a step stands in its epoch, in the host's numbers or, in a captured step, in the device's."""

    rows: Rows
    step: int | Tensor
    progress: Number
    rates: Sequence[Number]


class Executor(Protocol):
    """How steps are carried out; whatever it is, they are `step`'s."""

    def adopt(self, recipe: Recipe, state: State) -> None:
        """Before the first step of a run: make room for it, in the state's own model and optimizer or in others."""

    def course(self, recipe: Recipe, state: State, course: Course) -> Callable[[int], None]:
        """What takes one step of an epoch, given its number."""


class Eager:
    """One operation after the other, as the host reaches it: everywhere, and the reference for what is faster."""

    def adopt(self, recipe: Recipe, state: State) -> None:
        """Nothing to prepare."""

    def course(self, recipe: Recipe, state: State, course: Course) -> Callable[[int], None]:
        """What takes one step of an epoch, given its number."""

        def take(number: int) -> None:
            span = recipe.batches.span(number)
            place = Place(lambda table: table[span], number, course.progress[number], course.rates[number])
            step(recipe, state, course.draws, course.phase, place)

        return take


def fresh_sums(device: torch.device) -> dict[str, Tensor]:
    """Sums over an epoch: weighted loss, correct predictions, images seen; and the first step that was not finite."""
    precise = torch.float32 if device.type == "mps" else torch.float64
    sums = {name: torch.zeros((), dtype=precise, device=device) for name in ("loss", "correct", "seen")}
    return sums | {"bad_step": torch.tensor(-1, device=device)}


def step(
    recipe: Recipe, state: State, draws: Draws, phase: Phase, place: Place, features: Features | None = None
) -> None:
    """One step, tensors only: look up, transform, forward, loss of each sample, weight, mean, backward, update.

    The host never waits, and nothing but `place` changes from step to step, so that it can be captured and repeated.
    Once a loss or gradient is not finite no update follows, in this step and all later ones of the epoch. `features`
    stands in for the model's own.
    """
    model, batch = state.model, recipe.batches.batch(draws, place.rows)

    def forward() -> tuple[Tensor, Tensor]:
        with torch.autocast(batch.image_BCHW.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            feature = (features or model.features)(batch.image_BCHW)  # type: ignore[operator]
            return feature, model.classifier(feature)  # type: ignore[operator]

    def mean(out: tuple[Tensor, Tensor], factor_C: Tensor | None) -> Tensor:
        return mean_loss(phase, out[1].float(), out[0], batch, place.progress, factor_C)

    state.optimizer.zero_grad()
    learning = [p for group in state.optimizer.param_groups for p in group["params"] if p.requires_grad]
    if recipe.sharpness is None:
        out = forward()
        loss, logits = mean(out, None), out[1]
        loss.backward()
    else:
        here = Sharpness(recipe.sharpness.rho, phase.tail_C)
        loss, logits = sharpness.backward(here, model, learning, forward, mean)
    norm = nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
    if recipe.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(learning, recipe.clip_norm, norm)
    sums = state.running
    finite = torch.isfinite(loss.detach() + norm)
    sums["bad_step"].copy_(torch.where((sums["bad_step"] < 0) & ~finite, place.step, sums["bad_step"]))
    _update(state.optimizer, place.rates, sums["bad_step"])
    sums["loss"] += loss.detach() * len(logits)
    sums["correct"] += _correct(logits.detach(), batch)
    sums["seen"] += len(logits)


def mean_loss(
    phase: Phase, logits_BC: Tensor, feature_BF: Tensor, batch: Batch, progress: Number, factor_C: Tensor | None
) -> Tensor:
    """Mean of each sample's loss times the weight of its class. A mixed image has the losses of both its labels, each
    with the weight of its own class, in the labels' shares. factor_C: of the weights; None: 1."""
    weight_C = phase.constants.weight_C if factor_C is None else phase.constants.weight_C * factor_C

    def weighted(label_B: Tensor) -> Tensor:
        return phase.formula(logits_BC, label_B, feature_BF, phase.constants, progress) * weight_C[label_B]

    loss_B = weighted(batch.label_B)
    if batch.other_B is not None and batch.share_B is not None:
        loss_B = batch.share_B * loss_B + (1 - batch.share_B) * weighted(batch.other_B)
    return loss_B.mean()


def _correct(logits_BC: Tensor, batch: Batch) -> Tensor:
    """How many predictions are right; of a mixed image, the label's share."""
    predicted_B = logits_BC.argmax(1)
    right_B = predicted_B == batch.label_B
    if batch.other_B is None or batch.share_B is None:
        return right_B.sum()
    return (batch.share_B * right_B + (1 - batch.share_B) * (predicted_B == batch.other_B)).sum()


def _update(optimizer: torch.optim.Optimizer, rates: Sequence[Number], bad_step: Tensor) -> None:
    """An optimizer's step, unless something was not finite; fused ones see that without the host waiting."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(rate, Tensor):
            group["lr"].copy_(rate)
        else:
            group["lr"] = rate
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = (bad_step >= 0).float()  # type: ignore[attr-defined]
    elif int(bad_step) >= 0:
        return
    optimizer.step()
