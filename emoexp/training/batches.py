"""The batches of an epoch: images in the order that the strategy draws, gathered from one tensor and augmented."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce

import torch
from torch import Tensor

from emoexp.data.mapped import gather
from emoexp.data.normalisation import Normalisation
from emoexp.data.resident import to_device
from emoexp.imbalance import mixing
from emoexp.imbalance.mixing import MixParameters
from emoexp.imbalance.strategy import Strategy
from emoexp.training import augment
from emoexp.training.augment import Policy, Transformation

Rows = slice | Tensor  # the rows of one batch: a slice in eager steps, int64 indices on the device in captured ones


@dataclass(frozen=True)
class EpochSamples:
    """The E images that an epoch draws, one in each row. They are drawn before the first step; a step selects rows.

    index_E: int64 index into the images, on the images' device. label_E: int64 class. transformation: one for each
    image; None where no image is changed. partner: the image that each image is mixed with; None where nothing is
    mixed. All but index_E are on the device that computes.
    """

    index_E: Tensor
    label_E: Tensor
    transformation: Transformation | None
    partner: "Partner | None" = None

    @property
    def size(self) -> int:
        """The number of images, E."""
        return len(self.index_E)


@dataclass(frozen=True)
class Partner:
    """The samples that an epoch's images are mixed with, one row for each image, and how they are mixed."""

    samples: EpochSamples
    parameters: MixParameters


@dataclass(frozen=True)
class Target:
    """The labels of a batch.

    label_B: int64 class of each image. Where images are mixed, other_B: the class of the image's partner; share_B: the
    share of the first class in the label. None where nothing is mixed.
    """

    label_B: Tensor
    other_B: Tensor | None = None
    share_B: Tensor | None = None

    def count_correct(self, logits_BC: Tensor) -> Tensor:
        """The number of right predictions. For a mixed image the share of the predicted class in its label counts."""
        predicted_B = logits_BC.argmax(1)
        right_B = predicted_B == self.label_B
        if self.other_B is None or self.share_B is None:
            return right_B.sum()
        return (self.share_B * right_B + (1 - self.share_B) * (predicted_B == self.other_B)).sum()


def load_batch(
    image_NCHW: Tensor, normalisation: Normalisation, device: torch.device, samples: EpochSamples, rows: Rows
) -> tuple[Tensor, Target]:
    """The images of one step, augmented, mixed and normalised, and their classes.

    Returns:
        float32 B×C×H×W, channels last, and the target.
    """
    select = row_selector(rows)

    def augmented(samples: EpochSamples) -> Tensor:
        image = to_device(gather(image_NCHW, select(samples.index_E)), device).to(torch.float32) * (1 / 255)
        if samples.transformation is None:
            return image
        return augment.apply(image, samples.transformation.map_tensors(select), fill=normalisation.mean)

    image, partner = augmented(samples), samples.partner
    target = Target(select(samples.label_E))
    if partner is not None:
        parameters = partner.parameters
        image = augment.mix(image, augmented(partner.samples), select(parameters.lam_E), select(parameters.box_EK4))
        target = Target(target.label_B, select(partner.samples.label_E), select(parameters.label_lam_E))
    image = image.sub_(normalisation.mean).div_(normalisation.std)
    return image.contiguous(memory_format=torch.channels_last), target


def row_selector(rows: Rows) -> Callable[[Tensor], Tensor]:
    """A function that selects the rows of one batch from a tensor."""
    if isinstance(rows, slice):
        return lambda tensor: tensor[rows]
    return lambda tensor: tensor.index_select(0, rows)


@dataclass(frozen=True)
class TrainingSamples:
    """Which images each epoch draws, and how they are transformed: a function of (seed, epoch).

    image_NCHW: uint8, all images. original_N: index into image_NCHW of each original of the training part.
    augmentation: applied to every image. copy_augmentation: what makes a copy differ from its original. redraw: draw a
    copy's transformation anew in each epoch. device: the device that computes.
    """

    image_NCHW: Tensor
    original_N: Tensor
    strategy: Strategy
    augmentation: Policy
    copy_augmentation: Policy
    redraw: bool
    seed: int
    device: torch.device
    _prepared: dict[int, EpochSamples] = field(default_factory=dict, init=False, compare=False)

    def epoch_samples(self, epoch: int) -> EpochSamples:
        """The samples that an epoch draws."""
        return self._prepared.pop(epoch, None) or self.samples_of(self.order(epoch), epoch)

    def prepare(self, epoch: int) -> None:
        """Draw an epoch's samples in advance, while the device still computes the epoch before."""
        self._prepared[epoch] = self.epoch_samples(epoch)

    def order(self, epoch: int) -> Tensor:
        """The items of the pool that an epoch draws, in its order (int64, CPU)."""
        return self.strategy.order(epoch, self.seed)

    def originals(self, epoch: int, rows: slice) -> Tensor:
        """For some rows of an epoch, the index into the images of the original that each comes from (int64, CPU)."""
        return self.original_N[self.strategy.parent_P[self.order(epoch)[rows]]]

    def count_drawn(self, epochs: int) -> dict[str, int]:
        """How many images some epochs of training drew, as metrics.json has it.

        images: all draws. mixed: images that were mixed into them. originals, items: how many different originals, and
        different items of the pool (originals and copies), were among both. pool: all items of the pool.
        """
        seen_P, mixed = torch.zeros(len(self.strategy.parent_P), dtype=torch.bool), 0
        for epoch in range(epochs):
            item_E, partner_E = self.order(epoch), self.strategy.partners(epoch, self.seed)
            seen_P[item_E] = True
            if partner_E is not None:
                is_shown_E = self._mix_parameters(item_E, partner_E, epoch).shows_partner
                seen_P[partner_E[is_shown_E]] = True
                mixed += int(is_shown_E.sum())
        return {
            "images": epochs * self.strategy.epoch_size,
            **({"mixed": mixed} if mixed else {}),
            "originals": len(self.strategy.parent_P[seen_P].unique()),
            "items": int(seen_P.sum()),
            "pool": len(seen_P),
        }

    def samples_of(self, item_E: Tensor, epoch: int) -> EpochSamples:
        """The samples of the items that an epoch draws, in the items' order."""
        samples, partner_E = self._augmented(item_E, epoch, "augmentation"), self.strategy.partners(epoch, self.seed)
        if partner_E is None:
            return samples
        on_cpu = self._mix_parameters(item_E, partner_E, epoch)
        values = (on_cpu.lam_E, on_cpu.box_EK4, on_cpu.label_lam_E)
        parameters = MixParameters(*(value.to(self.device) for value in values))
        partner_samples = self._augmented(partner_E, epoch, "partners' augmentation")
        return replace(samples, partner=Partner(partner_samples, parameters))

    def _mix_parameters(self, item_E: Tensor, partner_E: Tensor, epoch: int) -> MixParameters:
        """How the items of an epoch are mixed with their partners."""
        count_P, (height, width) = self.strategy.count_C[self.strategy.label_P], self.image_NCHW.shape[2:]
        counts, mix = (count_P[item_E], count_P[partner_E]), self.strategy.epoch(epoch).mix
        assert mix is not None, "an epoch with partners has a mix"
        return mixing.draw(mix, *counts, (height, width), seed=self.seed, epoch=epoch)

    def _augmented(self, item_E: Tensor, epoch: int, purpose: str) -> EpochSamples:
        """The samples of some items, with their transformations and without partners."""
        strategy = self.strategy
        parent_E, copy_E = strategy.parent_P[item_E], strategy.copy_P[item_E]
        transformations = []
        if not self.copy_augmentation.is_identity and bool(copy_E.any()):
            copy_E = copy_E.to(self.device)
            keys = (parent_E.to(self.device), copy_E, epoch + 1 if self.redraw else 0)
            transformations.append(augment.draw(self.copy_augmentation, self.seed, "copy", *keys).where(copy_E > 0))
        if not self.augmentation.is_identity:
            position_E = torch.arange(len(item_E), device=self.device)
            transformations.append(augment.draw(self.augmentation, self.seed, purpose, epoch, position_E))
        transformation = reduce(Transformation.then, transformations) if transformations else None
        index_E = self.original_N[parent_E].to(self.image_NCHW.device)
        return EpochSamples(index_E, strategy.label_P[item_E].to(self.device), transformation)
