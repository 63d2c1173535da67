"""The training loop: epochs of steps. Everything that is drawn is a function of (seed, epoch, step)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from emoexp import rng
from emoexp.inference import predict
from emoexp.metrics import classification
from emoexp.models.network import Network
from emoexp.training import stages
from emoexp.training.setup import TrainSetup
from emoexp.training.step import EpochPlan, Row, TrainState, step, zero_sums


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch: its row of the history, whether it is the best so far, the seconds it took, and for how
    many images (fewer than an epoch's where it was resumed in its middle)."""

    row: Row
    best: bool
    train_seconds: float
    eval_seconds: float
    images: float


class Interrupted(Exception):
    """Training was asked to stop; the state is complete, between two steps, and can be saved."""


def fit(setup: TrainSetup, state: TrainState, stop: Callable[[int, int], bool]) -> Iterator[EpochResult]:
    """Train from where the state stands until the last epoch, or until patience is exhausted.

    `stop(step, steps)` is asked after each step. Yields after each epoch, when the state can be saved.

    Raises:
        Interrupted: `stop` said so.
        FloatingPointError: the loss or a gradient was not finite; no step was taken with it.
    """
    if setup.capture is not None:
        setup.capture.adopt(setup.step, state)
    while state.epoch < setup.epochs and not setup.exhausted(state.history):
        started, share = time.perf_counter(), 1 - state.step / setup.steps
        train_epoch(setup, state, stop)
        trained = time.perf_counter()
        row = {"epoch": state.epoch + 1} | validate(setup, state.model) | training_row(state)
        state.history.append(row)
        state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
        best = setup.best_epoch(state.history) == len(state.history) - 1
        images = share * setup.samples.strategy.epoch_size
        yield EpochResult(row, best, trained - started, time.perf_counter() - trained, images)


def train_epoch(setup: TrainSetup, state: TrainState, stop: Callable[[int, int], bool]) -> None:
    """The rest of an epoch, from `state.step` on."""
    epoch = setup.epoch(state)
    state.sums = state.sums or zero_sums(setup.step.device)
    stages.begin_epoch(setup, state, epoch)
    take_step = step if setup.capture is None else setup.capture.epoch(setup.step, state, epoch)
    for batch in epoch.batches(start=state.step):
        rng.reseed(setup.seed, "dropout", state.epoch, state.step)
        take_step(setup.step, state, epoch, batch)
        state.step += 1
        if stop(state.step, len(epoch)):
            stop_if_not_finite(setup, state, epoch)
            raise Interrupted
    if state.epoch + 1 < setup.epochs:
        setup.samples.prepare(state.epoch + 1)  # while the device still works on this epoch
    stop_if_not_finite(setup, state, epoch)  # here the host waits for the device


def validate(setup: TrainSetup, model: Network) -> Row:
    """The validation part, as columns of the history."""
    index_N, target_N = setup.validation
    images = predict.batches(setup.step.image_NCHW, index_N, setup.step.normalisation, setup.step.device)
    logits_NC = predict.logits(model, images, setup.step.precision)
    loss = float(nn.functional.cross_entropy(logits_NC.double(), target_N))
    confusion = classification.confusion(target_N.numpy(), logits_NC.argmax(1).numpy(), setup.num_classes)
    rates = classification.from_confusion(confusion)
    return {f"val/{name}": value for name, value in rates.items()} | {"val/loss": loss}


def training_row(state: TrainState) -> Row:
    """The sums of the epoch, as columns of the history."""
    loss, correct, seen = (float(state.sums[name]) for name in ("loss", "correct", "seen"))
    rate = float(state.optimizer.param_groups[0]["lr"])
    return {"train/loss": loss / seen, "train/accuracy": correct / seen, "train/lr": rate}


def stop_if_not_finite(setup: TrainSetup, state: TrainState, epoch: EpochPlan) -> None:
    """End a training whose loss or gradient was not finite, naming the step and its images."""
    bad = int(state.sums["bad_step"])
    if bad >= 0:
        originals = setup.samples.originals(state.epoch, epoch.rows(bad)).tolist()
        raise FloatingPointError(
            f"loss or gradient is not finite at epoch {state.epoch + 1}, step {bad + 1} (learning rate "
            f"{float(state.optimizer.param_groups[0]['lr']):.3g}); nothing was updated with it. Images of that step: "
            f"{originals[:8]}{' ...' if len(originals) > 8 else ''}. Try a smaller optimizer.lr or clip_norm=1"
        )
