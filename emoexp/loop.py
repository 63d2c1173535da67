"""The training loop: one step, one epoch, all epochs. Everything that is drawn is a function of (seed, epoch, step)."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emoexp import metrics, rng, schedules
from emoexp.batches import TrainingBatches, evaluation
from emoexp.imbalance.losses import Constants

CHUNK = 256  # images a forward pass of evaluation
Row = dict[str, float]
Loss = Callable[[Tensor, Tensor, Tensor, Constants, float], Tensor]


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
        """The state as tensors, numbers, lists and dictionaries."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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

    def monitored(self, history: Sequence[Row]) -> list[float]:
        """The monitored value of each epoch, larger being better."""
        if history and self.monitor not in history[0]:
            raise ValueError(f"monitor={self.monitor} is no column of history.jsonl; there are {', '.join(history[0])}")
        sign = -1.0 if self.monitor.endswith("loss") else 1.0
        return [sign * row[self.monitor] for row in history]


@dataclass(frozen=True)
class Epoch:
    """What an epoch leaves: its row of the history, whether it is the best so far, the seconds it took, and for how
    many images (fewer than an epoch's where it was resumed in its middle)."""

    row: Row
    best: bool
    train_seconds: float
    eval_seconds: float
    images: float


class Interrupted(Exception):
    """Training was asked to stop; the state stands between two steps and can be saved."""


def fit(recipe: Recipe, state: State, interrupt: Callable[[int, int], bool]) -> Iterator[Epoch]:
    """Train from where the state stands until the last epoch, or until patience is exhausted.

    `interrupt(step, steps)` is asked after each step. Yields after each epoch, when the state can be saved.

    Raises:
        Interrupted: `interrupt` said so.
        FloatingPointError: the loss or a gradient was not finite; no step was taken with it.
    """
    rates = [group["lr"] for group in state.optimizer.param_groups]
    rates = [group.setdefault("base_lr", rate) for group, rate in zip(state.optimizer.param_groups, rates, strict=True)]
    while state.epoch < recipe.epochs and not schedules.exhausted(recipe.monitored(state.history), recipe.patience):
        started, share = time.perf_counter(), 1 - state.step / len(recipe.batches)
        train_epoch(recipe, state, rates, interrupt)
        trained = time.perf_counter()
        row = {"epoch": state.epoch + 1} | validate(recipe, state.model) | _train_row(state.running)
        row["train/lr"] = state.optimizer.param_groups[0]["lr"]
        state.history.append(row)
        state.epoch, state.step, state.running = state.epoch + 1, 0, {}
        best = schedules.best_epoch(recipe.monitored(state.history)) == len(state.history) - 1
        images = share * recipe.batches.plan.epoch_size
        yield Epoch(row, best, trained - started, time.perf_counter() - trained, images)


def train_epoch(recipe: Recipe, state: State, rates: list[float], interrupt: Callable[[int, int], bool]) -> None:
    """The rest of an epoch, from `state.step` on."""
    batches, steps = recipe.batches, len(recipe.batches)
    order = batches.order(state.epoch)
    monitored = recipe.monitored(state.history)
    state.running = state.running or fresh_sums(batches.device)
    state.model.train()
    while state.step < steps:
        done = state.epoch + state.step / steps
        for group, rate in zip(state.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * recipe.schedule(done, recipe.epochs, monitored)
        rng.reseed(recipe.seed, "dropout", state.epoch, state.step)
        image, target = batches.batch(batches.items(order, state.step), state.epoch, state.step)
        step(recipe, state, image, target, done / recipe.epochs)
        state.step += 1
        if interrupt(state.step, steps):
            _stop_if_not_finite(recipe, state, order)
            raise Interrupted
    _stop_if_not_finite(recipe, state, order)


def step(recipe: Recipe, state: State, image_BCHW: Tensor, target_B: Tensor, progress: float) -> None:
    """One step, tensors only: forward, loss of each sample, weight, mean, backward, update; the host never waits.

    Once a loss or gradient is not finite no update follows, in this step and all later ones of the epoch.
    """
    device = image_BCHW.device
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        feature = state.model.features(image_BCHW)  # type: ignore[operator]
        logits = state.model.classifier(feature)  # type: ignore[operator]
    loss_B = recipe.loss(logits.float(), target_B, feature, recipe.constants, progress)
    loss = (loss_B * recipe.constants.weight_C[target_B]).mean()
    state.optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in state.optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if recipe.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, recipe.clip_norm, norm)
    sums = state.running
    finite = torch.isfinite(loss.detach() + norm)
    sums["bad_step"] = torch.where((sums["bad_step"] < 0) & ~finite, state.step, sums["bad_step"])
    _update(state.optimizer, sums["bad_step"])
    sums["loss"] += loss.detach() * len(target_B)
    sums["correct"] += (logits.detach().argmax(1) == target_B).sum()
    sums["seen"] += len(target_B)


def _update(optimizer: torch.optim.Optimizer, bad_step: Tensor) -> None:
    """An optimizer's step, unless something was not finite; fused ones see that without the host waiting."""
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = (bad_step >= 0).float()  # type: ignore[attr-defined]
    elif int(bad_step) >= 0:
        return
    optimizer.step()


def fresh_sums(device: torch.device) -> dict[str, Tensor]:
    """Sums over an epoch: weighted loss, correct predictions, images seen; and the first step that was not finite."""
    precise = torch.float32 if device.type == "mps" else torch.float64
    sums = {name: torch.zeros((), dtype=precise, device=device) for name in ("loss", "correct", "seen")}
    return sums | {"bad_step": torch.tensor(-1, device=device)}


def _train_row(sums: dict[str, Tensor]) -> Row:
    loss, correct, seen = (float(sums[name]) for name in ("loss", "correct", "seen"))
    return {"train/loss": loss / seen, "train/accuracy": correct / seen}


def _stop_if_not_finite(recipe: Recipe, state: State, order: Tensor) -> None:
    bad = int(state.running["bad_step"])
    if bad >= 0:
        items = recipe.batches.items(order, bad)
        originals = recipe.batches.original_N[recipe.batches.plan.parent_P[items]].tolist()
        raise FloatingPointError(
            f"loss or gradient is not finite at epoch {state.epoch + 1}, step {bad + 1} (learning rate "
            f"{state.optimizer.param_groups[0]['lr']:.3g}); nothing was updated with it. Images of that step: "
            f"{originals[:8]}{' ...' if len(originals) > 8 else ''}. Try a smaller optimizer.lr or clip_norm=1"
        )


def validate(recipe: Recipe, model: nn.Module) -> Row:
    """The validation part, as columns of the history."""
    batches, (index_N, target_N) = recipe.batches, recipe.validation
    chunks = evaluation(batches.image_NCHW, index_N, batches.normalisation, batches.device, CHUNK)
    logits_NC = predict(model, chunks, recipe.precision)
    loss = float(nn.functional.cross_entropy(logits_NC.double(), target_N))
    confusion = metrics.confusion(target_N.numpy(), logits_NC.argmax(1).numpy(), recipe.num_classes)
    return {f"val/{name}": value for name, value in metrics.from_confusion(confusion).items()} | {"val/loss": loss}


def predict(model: nn.Module, chunks: Iterator[Tensor], precision: str) -> Tensor:
    """Logits N×C (float32, CPU) of normalised chunks of images, in evaluation mode."""
    model.eval()
    out = []
    with torch.inference_mode():
        for image in chunks:
            with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bf16"):
                out.append(model(image).float())
    return torch.cat(out).cpu()


def probabilities(logits_NC: Tensor) -> np.ndarray:
    """Softmax in float64."""
    return torch.softmax(logits_NC.double(), 1).numpy()


def parameter_groups(model: nn.Module, decay: str) -> list[dict[str, Any]]:
    """Parameters for the optimizer. With decay="weights", biases and norms (one axis or none) stand in a group of their
    own that weight decay spares; with "all" there is one group."""
    if decay not in ("weights", "all"):
        raise ValueError(f"optimizer.decay is weights or all; it is {decay}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if decay == "all":
        return [{"params": parameters}]
    spared = [p for p in parameters if p.ndim <= 1]
    return [{"params": [p for p in parameters if p.ndim > 1]}, {"params": spared, "weight_decay": 0.0}]
