"""The training loop: epochs of steps. Every random draw is a function of (seed, epoch, step)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
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
    """The result of one epoch.

    row: its row of the history. best: whether it is the best so far. train_seconds, eval_seconds: the time of training
    and of validation. images: how many images it trained on; fewer than a whole epoch's where training was resumed in
    the middle of the epoch.
    """

    row: Row
    best: bool
    train_seconds: float
    eval_seconds: float
    images: float


class Interrupted(Exception):
    """Training was asked to stop. The state stands between two steps and can be saved."""


def fit(setup: TrainSetup, state: TrainState, stop: Callable[[int, int], bool]) -> Iterator[EpochResult]:
    """Train from where the state stands until the last epoch, or until patience is exhausted.

    Calls `stop(step, steps)` after each step: the steps of this epoch that are done, and all of them. Yields after
    each epoch; the state can be saved then.

    Raises:
        Interrupted: `stop` returned true.
        FloatingPointError: the loss or a gradient was not finite; the weights are those before that step. Or the
            network's output for validation is not.
    """
    if setup.capture is not None:
        setup.capture.prepare_run(setup.step_setup, state)
    try:
        while state.epoch < setup.epochs and not setup.should_stop_early(state.history):
            images = (1 - state.step / setup.steps_per_epoch) * setup.samples.strategy.epoch_size
            train_start = time.perf_counter()
            train_epoch(setup, state, stop)
            train_end = time.perf_counter()
            row = {"epoch": state.epoch + 1} | validate(setup, state.model) | training_row(state)
            state.history.append(row)
            state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
            best = setup.best_epoch(state.history) == len(state.history) - 1
            yield EpochResult(row, best, train_end - train_start, time.perf_counter() - train_end, images)
    finally:
        if setup.capture is not None:
            setup.capture.release()


def train_epoch(setup: TrainSetup, state: TrainState, stop: Callable[[int, int], bool]) -> None:
    """Take the steps of an epoch, from `state.step` on."""
    plan = setup.plan_epoch(state)
    state.sums = state.sums or zero_sums(setup.step_setup.device)
    stages.begin_epoch(setup, state, plan)
    take_step = step if setup.capture is None else setup.capture.step_function(setup.step_setup, state, plan)
    for position in plan.positions(start=state.step):
        rng.reseed(setup.seed, "dropout", state.epoch, state.step)
        take_step(setup.step_setup, state, plan, position)
        state.step += 1
        if stop(state.step, len(plan)):
            raise_if_not_finite(setup, state, plan)
            raise Interrupted
    if state.epoch + 1 < setup.epochs:
        setup.samples.prepare(state.epoch + 1)  # while the device still works on this epoch
    raise_if_not_finite(setup, state, plan)  # here the host waits for the device


def validate(setup: TrainSetup, model: Network) -> Row:
    """Loss and metrics on the validation part, as columns of the history."""
    step_setup, (index_N, target_N) = setup.step_setup, setup.validation
    images = predict.batches(step_setup.image_NCHW, index_N, step_setup.normalisation, step_setup.device)
    logits_NC = predict.logits(model, images, step_setup.precision)
    if not torch.isfinite(logits_NC).all():
        raise FloatingPointError(
            "the network's output for validation images is not finite after this epoch: training has diverged. Try a "
            "smaller optimizer.lr or optimizer.weight_decay, or clip_norm=1"
        )
    loss = float(nn.functional.cross_entropy(logits_NC.double(), target_N))
    confusion = classification.confusion(target_N.numpy(), logits_NC.argmax(1).numpy(), setup.num_classes)
    metrics = classification.from_confusion(confusion)
    return {f"val/{name}": value for name, value in metrics.items()} | {"val/loss": loss}


def training_row(state: TrainState) -> Row:
    """Loss and accuracy of training, from the sums of the epoch, and the learning rate, as columns of the history."""
    loss, correct, seen = (float(state.sums[name]) for name in ("loss", "correct", "seen"))
    learning_rate = float(state.optimizer.param_groups[0]["lr"])
    return {"train/loss": loss / seen, "train/accuracy": correct / seen, "train/lr": learning_rate}


def raise_if_not_finite(setup: TrainSetup, state: TrainState, plan: EpochPlan) -> None:
    """Raise FloatingPointError, with the step and its images, where a loss or gradient of the epoch was not finite."""
    bad_step = int(state.sums["bad_step"])
    if bad_step >= 0:
        originals = setup.samples.originals(state.epoch, plan.rows(bad_step)).tolist()
        raise FloatingPointError(
            f"loss or gradient is not finite at epoch {state.epoch + 1}, step {bad_step + 1} (learning rate "
            f"{float(state.optimizer.param_groups[0]['lr']):.3g}); nothing was updated with it. Images of that step: "
            f"{originals[:8]}{' ...' if len(originals) > 8 else ''}. Try a smaller optimizer.lr or clip_norm=1"
        )
