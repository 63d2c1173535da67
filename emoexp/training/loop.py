"""The training loop: an epoch, all epochs. Everything that is drawn is a function of (seed, epoch, step)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emoexp import rng
from emoexp.metrics import classification
from emoexp.models import folding
from emoexp.training import lr_schedules, stages
from emoexp.training.batches import evaluation
from emoexp.training.step import Course, Recipe, Row, State, fresh_sums


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
    rates = [group.setdefault("base_lr", group["lr"]) for group in state.optimizer.param_groups]
    recipe.executor.adopt(recipe, state)
    first = recipe.batches.plan.second_stage_start  # an epoch counts once the whole strategy is in force
    while state.epoch < recipe.epochs and not lr_schedules.exhausted(
        recipe.monitored(state.history)[first:], recipe.patience
    ):
        started, share = time.perf_counter(), 1 - state.step / len(recipe.batches)
        train_epoch(recipe, state, rates, interrupt)
        trained = time.perf_counter()
        row = {"epoch": state.epoch + 1} | validate(recipe, state.model) | _train_row(state.running)
        row["train/lr"] = float(state.optimizer.param_groups[0]["lr"])
        state.history.append(row)
        state.epoch, state.step, state.running = state.epoch + 1, 0, {}
        best = lr_schedules.best_epoch(recipe.monitored(state.history)[first:]) == len(state.history) - 1 - first
        images = share * recipe.batches.plan.epoch_size
        yield Epoch(row, best, trained - started, time.perf_counter() - trained, images)


def train_epoch(recipe: Recipe, state: State, rates: list[float], interrupt: Callable[[int, int], bool]) -> None:
    """The rest of an epoch, from `state.step` on."""
    batches, steps = recipe.batches, len(recipe.batches)
    done = [state.epoch + number / steps for number in range(steps)]
    factors = [recipe.factor(share, state.history) for share in done]
    known = [[exact(rate * factor, batches.device) for rate in rates] for factor in factors]
    phase = recipe.phase(state.epoch)
    course = Course(batches.of(state.epoch), phase, [share / recipe.epochs for share in done], known)
    state.running = state.running or fresh_sums(batches.device)
    stages.enter(recipe, state, phase)
    take = recipe.executor.course(recipe, state, course)
    while state.step < steps:
        rng.reseed(recipe.seed, "dropout", state.epoch, state.step)
        take(state.step)
        state.step += 1
        if interrupt(state.step, steps):
            _stop_if_not_finite(recipe, state)
            raise Interrupted
    if state.epoch + 1 < recipe.epochs:
        batches.ahead(state.epoch + 1)
    _stop_if_not_finite(recipe, state)  # here the host waits


def exact(rate: float, device: torch.device) -> float:
    """A learning rate as the device keeps it, so that it is the same number whoever hands it to the optimizer."""
    return rate if device.type == "cpu" else float(np.float32(rate))


def _train_row(sums: dict[str, Tensor]) -> Row:
    loss, correct, seen = (float(sums[name]) for name in ("loss", "correct", "seen"))
    return {"train/loss": loss / seen, "train/accuracy": correct / seen}


def _stop_if_not_finite(recipe: Recipe, state: State) -> None:
    bad = int(state.running["bad_step"])
    if bad >= 0:
        originals = recipe.batches.originals(state.epoch, bad).tolist()
        raise FloatingPointError(
            f"loss or gradient is not finite at epoch {state.epoch + 1}, step {bad + 1} (learning rate "
            f"{float(state.optimizer.param_groups[0]['lr']):.3g}); nothing was updated with it. Images of that step: "
            f"{originals[:8]}{' ...' if len(originals) > 8 else ''}. Try a smaller optimizer.lr or clip_norm=1"
        )


def validate(recipe: Recipe, model: nn.Module) -> Row:
    """The validation part, as columns of the history."""
    batches, (index_N, target_N) = recipe.batches, recipe.validation
    chunks = evaluation(batches.image_NCHW, index_N, batches.normalisation, batches.device)
    logits_NC = predict(model, chunks, recipe.precision)
    loss = float(nn.functional.cross_entropy(logits_NC.double(), target_N))
    confusion = classification.confusion(target_N.numpy(), logits_NC.argmax(1).numpy(), recipe.num_classes)
    return {f"val/{name}": value for name, value in classification.from_confusion(confusion).items()} | {
        "val/loss": loss
    }


def predict(model: nn.Module, chunks: Iterator[Tensor], precision: str) -> Tensor:
    """Logits N×C (float32, CPU) of normalised chunks of images, in evaluation mode; on a CPU batch norms are folded."""
    model.eval()
    out: list[Tensor] = []
    with torch.inference_mode():
        for image in chunks:
            if not out and image.device.type == "cpu":  # a GPU is done before the host has folded anything
                model = folding.folded(model, image[:2])
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
