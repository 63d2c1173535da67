"""What a run trains with, unchanged from its first epoch to its last: samples, validation, schedule, when to stop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from emoexp.training import lr_schedules
from emoexp.training.batches import TrainingSamples
from emoexp.training.cuda_graphs import CapturedSteps
from emoexp.training.step import EpochPlan, Row, StepSetup, TrainState

SECOND_STAGES = {  # schedules of the learning rate that a second stage may have of its own
    "cosine": partial(lr_schedules.cosine, warmup=0.0, end=0.0),
    "thirds": partial(lr_schedules.steps, warmup=0.0, at=(1 / 3, 2 / 3), factors=(0.1, 0.01)),
}


@dataclass(frozen=True)
class TrainSetup:
    """What training does not change.

    step_setup: what a single step needs. validation: index into the images and int64 class of each validation image.
    lr_schedule: a function of `lr_schedules`, the factor of the learning rate. monitor: key of a history row; a loss is
    minimised, everything else maximised. patience: epochs without a new best after which training ends; None: never.
    capture: replays steps as CUDA graphs; None: every step is eager. tail_C: as in `sharpness.Sharpness`.
    """

    samples: TrainingSamples
    step_setup: StepSetup
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
    def steps_per_epoch(self) -> int:
        """The number of steps. The last one takes the images that are left. A single image that is left joins the step
        before, since batch normalisation cannot train on one image."""
        return max(1, (self.samples.strategy.epoch_size + self.batch_size - 2) // self.batch_size)

    def plan_epoch(self, state: TrainState) -> EpochPlan:
        """The plan of the epoch in which the state stands."""
        strategy, device = self.samples.strategy, self.step_setup.device
        epoch_strategy, schedule = strategy.epoch(state.epoch), strategy.columns.schedule
        retrains = epoch_strategy.second_stage and schedule.retrains
        epochs_done_S = [state.epoch + step / self.steps_per_epoch for step in range(self.steps_per_epoch)]
        factor_S = [self.lr_factor(epochs_done, state.history) for epochs_done in epochs_done_S]
        base_rate_G = [group["base_lr"] for group in state.optimizer.param_groups]
        rate_SG = [[rate_on_device(rate * factor, device) for rate in base_rate_G] for factor in factor_S]
        return EpochPlan(
            samples=self.samples.epoch_samples(state.epoch),
            batch_size=self.batch_size,
            loss=epoch_strategy.loss.formula,
            constants=epoch_strategy.loss.constants(
                strategy.count_C, epoch_strategy.exposure_C, epoch_strategy.weight_C, device
            ),
            tail_C=None if self.tail_C is None else self.tail_C.to(device),
            retrain=schedule.retrain if retrains else "none",
            norms_frozen=retrains and schedule.norms == "frozen",
            divide_by_weights=epoch_strategy.divided_batch is not None,
            progress_S=torch.tensor([done / self.epochs for done in epochs_done_S], dtype=torch.float64),
            rate_SG=torch.tensor(rate_SG, dtype=torch.float64),
        )

    def lr_factor(self, epochs_done: float, history: Sequence[Row]) -> float:
        """Factor of the learning rate after `epochs_done` epochs.

        Where a second stage retrains the classifier, the learning-rate schedule runs once in each of the two stages, or
        the second stage has one of its own.
        """
        strategy, monitored, total_epochs = self.samples.strategy, self.monitored_values(history), self.epochs
        schedule, second_start = strategy.columns.schedule, strategy.second_stage_start
        in_second_stage = epochs_done >= second_start > 0
        if second_start and schedule.retrains:
            if in_second_stage:
                stage_start, total_epochs = second_start, self.epochs - second_start
            else:
                stage_start, total_epochs = 0, second_start
            epochs_done, monitored = epochs_done - stage_start, monitored[stage_start:]
        if in_second_stage and schedule.rates != "same":
            return SECOND_STAGES[schedule.rates](epochs_done, total_epochs, monitored) * schedule.rate
        return self.lr_schedule(epochs_done, total_epochs, monitored) * (schedule.rate if in_second_stage else 1.0)

    def monitored_values(self, history: Sequence[Row]) -> list[float]:
        """The monitored value of each epoch; of a loss its negative, so that larger is always better."""
        if history and self.monitor not in history[0]:
            raise ValueError(f"monitor={self.monitor} is no column of history.jsonl; there are {', '.join(history[0])}")
        sign = -1.0 if self.monitor.endswith("loss") else 1.0
        return [sign * row[self.monitor] for row in history]

    def best_epoch(self, history: Sequence[Row]) -> int | None:
        """Index of the best epoch, None where there is none. With a second stage, only its epochs count."""
        start = self.samples.strategy.second_stage_start
        best = lr_schedules.best_epoch(self.monitored_values(history)[start:])
        return None if best is None else start + best

    def should_stop_early(self, history: Sequence[Row]) -> bool:
        """Whether the last `patience` epochs brought no new best."""
        start = self.samples.strategy.second_stage_start
        return lr_schedules.should_stop_early(self.monitored_values(history)[start:], self.patience)


def rate_on_device(rate: float, device: torch.device) -> float:
    """A learning rate, rounded to float32 for a GPU: a captured step holds it as a float32 tensor there, and an eager
    step has to use the same number."""
    return rate if device.type == "cpu" else float(np.float32(rate))
