"""One step of training: what it needs, what it changes, and who carries it out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from emoexp.batches import Draws, Rows, TrainingBatches
from emoexp.imbalance.losses import Constants

Row = dict[str, float]
Number = float | Tensor  # known to the host, or only to the device
Loss = Callable[[Tensor, Tensor, Tensor, Constants, Number], Tensor]
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
    """What training does not change: data, loss, schedule and when to stop.

    validation: index into the images and int64 class of each validation image. schedule: factor of the learning rate.
    monitor: key of a history row; a loss is minimised, everything else maximised.
    """

    batches: TrainingBatches
    validation: tuple[Tensor, Tensor]
    num_classes: int
    loss: Loss
    constants: Constants
    schedule: Callable[[float, int, Sequence[float]], float]
    epochs: int
    monitor: str
    patience: int | None
    clip_norm: float | None
    precision: str
    seed: int
    executor: "Executor" = field(default_factory=lambda: Eager())

    def monitored(self, history: Sequence[Row]) -> list[float]:
        """The monitored value of each epoch, larger being better."""
        if history and self.monitor not in history[0]:
            raise ValueError(f"monitor={self.monitor} is no column of history.jsonl; there are {', '.join(history[0])}")
        sign = -1.0 if self.monitor.endswith("loss") else 1.0
        return [sign * row[self.monitor] for row in history]


@dataclass(frozen=True)
class Course:
    """What is known of an epoch before its first step. progress: share of the run done before each step, 0..1. rates:
    learning rate of each parameter group at each step."""

    draws: Draws
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
            step(recipe, state, course.draws, place)

        return take


def fresh_sums(device: torch.device) -> dict[str, Tensor]:
    """Sums over an epoch: weighted loss, correct predictions, images seen; and the first step that was not finite."""
    precise = torch.float32 if device.type == "mps" else torch.float64
    sums = {name: torch.zeros((), dtype=precise, device=device) for name in ("loss", "correct", "seen")}
    return sums | {"bad_step": torch.tensor(-1, device=device)}


def step(recipe: Recipe, state: State, draws: Draws, place: Place, features: Features | None = None) -> None:
    """One step, tensors only: look up, transform, forward, loss of each sample, weight, mean, backward, update.

    The host never waits, and nothing but `place` changes from step to step, so that it can be captured and repeated.
    Once a loss or gradient is not finite no update follows, in this step and all later ones of the epoch. `features`
    stands in for the model's own.
    """
    features = features or state.model.features  # type: ignore[assignment]
    image_BCHW, target_B = recipe.batches.batch(draws, place.rows)
    with torch.autocast(image_BCHW.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        feature = features(image_BCHW)  # type: ignore[misc]
        logits = state.model.classifier(feature)  # type: ignore[operator]
    loss_B = recipe.loss(logits.float(), target_B, feature, recipe.constants, place.progress)
    loss = (loss_B * recipe.constants.weight_C[target_B]).mean()
    state.optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in state.optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if recipe.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, recipe.clip_norm, norm)
    sums = state.running
    finite = torch.isfinite(loss.detach() + norm)
    sums["bad_step"].copy_(torch.where((sums["bad_step"] < 0) & ~finite, place.step, sums["bad_step"]))
    _update(state.optimizer, place.rates, sums["bad_step"])
    sums["loss"] += loss.detach() * len(target_B)
    sums["correct"] += (logits.detach().argmax(1) == target_B).sum()
    sums["seen"] += len(target_B)


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
