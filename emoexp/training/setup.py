"""What a run trains with: samples, validation, schedule, and when to stop. Immutable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emoexp.training import lr_schedules
from emoexp.training.batches import TrainingSamples
from emoexp.training.cuda_graphs import CapturedSteps
from emoexp.training.step import EpochPlan, Row, StepSetup, TrainState


@dataclass(frozen=True)
class TrainSetup:
    """What training does not change.

    step: what a single step needs. validation: index into the images and int64 class of each validation image.
    lr_schedule: factor of the learning rate. monitor: key of a history row; a loss is minimised, everything else
    maximised. patience: epochs without a new best after which training ends; None: never. capture: takes steps as
    CUDA graphs; None: one operation after the other. tail_C: as in `sharpness.Sharpness`.
    """

    samples: TrainingSamples
    step: StepSetup
    validation: tuple[Tensor, Tensor]
    num_classes: int
    batch_size: int
    lr_schedule: Callable[[float, int, Sequence[float]], float]
    epochs: int
    monitor: str
    patience: int | None
    seed: int
    capture: CapturedSteps | None = None
    tail_C: Tensor | None = None

    @property
    def steps(self) -> int:
        """Steps of an epoch. The last one takes what is left. A single image left over joins the step before it, since
        batch normalisation cannot train on one image."""
        return max(1, (self.samples.strategy.epoch_size + self.batch_size - 2) // self.batch_size)

    def epoch(self, state: TrainState) -> EpochPlan:
        """All that is in force in the epoch in which the state stands."""
        strategy, device = self.samples.strategy, self.step.device
        now, schedule = strategy.epoch(state.epoch), strategy.columns.schedule
        retrains = now.second_stage and schedule.retrains
        done = [state.epoch + number / self.steps for number in range(self.steps)]
        factors = [self.lr_factor(epochs, state.history) for epochs in done]
        base = [group["base_lr"] for group in state.optimizer.param_groups]
        rates = [[as_on_device(rate * factor, device) for rate in base] for factor in factors]
        return EpochPlan(
            samples=self.samples.epoch(state.epoch),
            batch_size=self.batch_size,
            loss=now.loss.formula,
            constants=now.loss.constants(strategy.count_C, now.exposure_C, now.weight_C, device),
            tail_C=None if self.tail_C is None else self.tail_C.to(device),
            retrain=schedule.retrain if retrains else "none",
            norms_frozen=retrains and schedule.norms == "frozen",
            progress_S=torch.tensor([epochs / self.epochs for epochs in done], dtype=torch.float64),
            rate_SG=torch.tensor(rates, dtype=torch.float64),
        )

    def lr_factor(self, done: float, history: Sequence[Row]) -> float:
        """Factor of the learning rate after `done` epochs. Where a second stage retrains the classifier, each of the
        two stages has a schedule of its own."""
        strategy, monitored, total = self.samples.strategy, self.monitored(history), self.epochs
        schedule, start = strategy.columns.schedule, strategy.second_stage_start
        second = done >= start > 0
        if start and schedule.retrains:
            begun, total = (start, self.epochs - start) if second else (0, start)
            done, monitored = done - begun, monitored[begun:]
        return self.lr_schedule(done, total, monitored) * (schedule.rate if second else 1.0)

    def monitored(self, history: Sequence[Row]) -> list[float]:
        """The monitored value of each epoch, larger being better."""
        if history and self.monitor not in history[0]:
            raise ValueError(f"monitor={self.monitor} is no column of history.jsonl; there are {', '.join(history[0])}")
        sign = -1.0 if self.monitor.endswith("loss") else 1.0
        return [sign * row[self.monitor] for row in history]

    def best_epoch(self, history: Sequence[Row]) -> int | None:
        """Index of the best epoch, among those in which the whole strategy is in force; None where there is none."""
        start = self.samples.strategy.second_stage_start
        best = lr_schedules.best_epoch(self.monitored(history)[start:])
        return None if best is None else start + best

    def exhausted(self, history: Sequence[Row]) -> bool:
        """Whether the last `patience` epochs brought no new best."""
        start = self.samples.strategy.second_stage_start
        return lr_schedules.exhausted(self.monitored(history)[start:], self.patience)


def as_on_device(rate: float, device: torch.device) -> float:
    """A learning rate as the device keeps it, so that it is the same number whoever hands it to the optimizer."""
    return rate if device.type == "cpu" else float(np.float32(rate))
