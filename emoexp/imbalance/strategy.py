"""A strategy applied to the training part: the pool of originals and copies, and what is done in each epoch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from emoexp.imbalance import copies, losses, sampling, weights
from emoexp.imbalance.losses import Loss
from emoexp.imbalance.mixing import Mix
from emoexp.imbalance.schedule import TIMED, Schedule

CROSS_ENTROPY = partial(losses.cross_entropy, smoothing=0.0)
ONE_STAGE = Schedule()


@dataclass(frozen=True)
class Columns:
    """The columns of a strategy that act during training, as functions of class counts; posthoc acts after it. A
    column that is left out does nothing.

    target: images that each class should have, copies included, from the counts of originals. share: share of each
    class in the draws, from the counts of the pool and the progress of the run (0..1). weight: of each class, from the
    counts of the pool. loss: from the counts of the pool and the share of each class in the labels that training meets.
    replacement: true, each draw picks a class by `share` and one of its images by chance; false, classes take turns at
    the rate of `share`, and all images of a class are drawn before one is drawn again. weight_scale: one of
    `weights.SCALES`. batch_size: labels of a batch, for the scale "batch".
    """

    target: Callable[[Tensor], Tensor] = copies.none
    share: Callable[[Tensor, float], Tensor] = sampling.natural
    weight: Callable[[Tensor], Tensor] = weights.none
    loss: Callable[[Tensor, Tensor], Loss] = CROSS_ENTROPY
    schedule: Schedule = ONE_STAGE
    mix: Mix | None = None
    replacement: bool = True
    weight_scale: str = "mean1"
    batch_size: int = 1

    def in_epoch(self, count_C: Tensor, epoch: int, epochs: int) -> "EpochStrategy":
        """What the strategy does in an epoch (from 0) of a run of `epochs`, given the counts of the pool."""
        start, progress = self.schedule.second_stage_start(epochs), (epoch + 0.5) / epochs  # the middle of the epoch
        second = epoch >= start > 0
        # one stage alone does what a second stage does: columns in `late` act, those in `early` do not
        active = {column: self.schedule.is_active(column, second=second or start == 0) for column in TIMED}
        share_C = (self.share if active["sampling"] else sampling.natural)(count_C, progress)
        mix = self.mix if self.mix and active["mix"] and self.mix.is_active(progress) else None
        exposure_C = mix.exposure(count_C, share_C) if mix else share_C
        weight_of, scale = (self.weight, self.weight_scale) if active["weights"] else (weights.none, "mean1")
        weight_C = weights.scaled(weight_of(count_C), exposure_C, scale)
        loss = (self.loss if active["loss"] else CROSS_ENTROPY)(count_C, exposure_C)
        return EpochStrategy(
            share_C=share_C,
            exposure_C=exposure_C,
            weight_C=weight_C,
            loss=loss,
            mix=mix,
            classes_take_turns=active["sampling"] and not self.replacement,
            second_stage=second,
            divided_batch=self.batch_size if scale == "batch" else None,
        )


@dataclass(frozen=True)
class EpochStrategy:
    """What a strategy does in one epoch. Tensors are float64, one value for each of C classes.

    share_C: share of the draws. exposure_C: share of the labels that training meets; it differs from share_C only
    where images are mixed. weight_C: weight in the loss, on the scale of the columns. mix: how images are mixed, None
    where they are not. classes_take_turns: whether classes take turns, and all images of a class are drawn before
    one is drawn again.
    second_stage: whether the epoch belongs to the second stage of a two-stage schedule. divided_batch: the size of the
    batches whose loss is divided by the sum of their weights; None where it is divided by their number of images.
    """

    share_C: Tensor
    exposure_C: Tensor
    weight_C: Tensor
    loss: Loss
    mix: Mix | None
    classes_take_turns: bool
    second_stage: bool
    divided_batch: int | None = None


@dataclass(frozen=True)
class Strategy:
    """A strategy applied to one training part.

    parent_P, copy_P, label_P: int64, of each item of the pool its original, the number of the copy (0: the original
    itself) and its class. original_C: int64, originals of each class. count_C: int64, items of each class, copies
    included. per_epoch: what is done in each epoch. epoch_size: draws in an epoch.
    """

    parent_P: Tensor
    copy_P: Tensor
    label_P: Tensor
    original_C: Tensor
    count_C: Tensor
    columns: Columns
    per_epoch: tuple[EpochStrategy, ...]
    epoch_size: int
    # of (seed, epoch): what `_drawn_before` returned, so that an epoch need not repeat all before it
    _drawn: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def epoch(self, epoch: int) -> EpochStrategy:
        """What is done in an epoch, from 0; after the run, what was done in the last one."""
        return self.per_epoch[min(epoch, len(self.per_epoch) - 1)]

    @property
    def second_stage_start(self) -> int:
        """The first epoch, from 0, of the second stage; 0 where there is one stage."""
        return next((number for number, epoch in enumerate(self.per_epoch) if epoch.second_stage), 0)

    def order(self, epoch: int, seed: int) -> Tensor:
        """Items of the pool that an epoch draws, in their order (int64)."""
        epoch_strategy = self.epoch(epoch)
        if not epoch_strategy.classes_take_turns:
            return sampling.order(self.label_P, epoch_strategy.share_C, size=self.epoch_size, seed=seed, epoch=epoch)
        class_E = sampling.class_sequence(epoch_strategy.share_C, size=self.epoch_size, seed=seed, epoch=epoch)
        return sampling.without_replacement(self.label_P, class_E, self._drawn_before(epoch, seed), seed=seed)

    def _drawn_before(self, epoch: int, seed: int) -> Tensor:
        """How many items of each class earlier epochs have drawn without replacement."""
        start = max((known for one_seed, known in self._drawn if one_seed == seed and known <= epoch), default=0)
        drawn_C = self._drawn.get((seed, start), torch.zeros_like(self.count_C))
        for number in range(start, epoch):
            if (earlier := self.epoch(number)).classes_take_turns:
                class_E = sampling.class_sequence(earlier.share_C, size=self.epoch_size, seed=seed, epoch=number)
                drawn_C = drawn_C + torch.bincount(class_E, minlength=len(drawn_C))
            self._drawn[seed, number + 1] = drawn_C
        return drawn_C

    def partners(self, epoch: int, seed: int) -> Tensor | None:
        """Items that the drawn ones are mixed with (int64); None where nothing is mixed."""
        epoch_strategy = self.epoch(epoch)
        if epoch_strategy.mix is None:
            return None
        share_C = epoch_strategy.mix.partner_shares(self.count_C, epoch_strategy.share_C)
        return sampling.order(self.label_P, share_C, size=self.epoch_size, seed=seed, epoch=epoch, purpose="partners")


def build(
    label_N: Tensor, num_classes: int, columns: Columns, *, epochs: int, epoch_size: int | str, seed: int
) -> Strategy:
    """Apply a strategy to the labels of the training part.

    All columns but copies see the counts after copies were added. `epoch_size` is "pool", "originals" or a number of
    draws.

    Raises:
        ValueError: a mix that mixes in no epoch.
    """
    original_C = torch.bincount(label_N, minlength=num_classes)
    parent_P, copy_P = copies.build_pool(label_N, columns.target(original_C), seed=seed)
    label_P = label_N[parent_P]
    count_C = torch.bincount(label_P, minlength=num_classes)
    size = {"pool": len(label_P), "originals": len(label_N)}.get(str(epoch_size), epoch_size)
    assert isinstance(size, int) and size >= 1
    per_epoch = tuple(columns.in_epoch(count_C, epoch, epochs) for epoch in range(epochs))
    if columns.mix and not any(epoch.mix for epoch in per_epoch):
        raise ValueError(
            f"imbalance.mix mixes in none of the {epochs} epochs: lower imbalance.mix.edge, or take imbalance/mix=none"
        )
    return Strategy(parent_P, copy_P, label_P, original_C, count_C, columns, per_epoch, size)
