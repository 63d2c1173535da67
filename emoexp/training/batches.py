"""Where data and strategy meet: the images of an epoch in its order, gathered from one tensor and augmented."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

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

Rows = slice | Tensor  # of a table, those of one batch: known to the host, or int64 on the device


@dataclass(frozen=True)
class EpochSamples:
    """What an epoch draws, a row for each of its E images: worked out at once, so that a step only looks up.

    index_E: int64 index into the images, on their device. label_E: int64 class. transformation: of each image; None
    where none changes. partner: what each image is mixed with; None where nothing is mixed. All but the first on the
    device that computes.
    """

    index_E: Tensor
    label_E: Tensor
    transformation: Transformation | None
    partner: "Partner | None" = None

    @property
    def size(self) -> int:
        """Images E."""
        return len(self.index_E)


@dataclass(frozen=True)
class Partner:
    """The samples that images are mixed with, a row for each image, and how."""

    samples: EpochSamples
    parameters: MixParameters


@dataclass(frozen=True)
class Target:
    """int64 classes B; where images are mixed, the classes of their partners and the first class's share of the
    label."""

    label_B: Tensor
    other_B: Tensor | None = None
    share_B: Tensor | None = None

    def correct(self, logits_BC: Tensor) -> Tensor:
        """How many predictions are right; of a mixed image, the label's share."""
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
    at = picker(rows)

    def augmented(samples: EpochSamples) -> Tensor:
        image = to_device(gather(image_NCHW, at(samples.index_E)), device).to(torch.float32) * (1 / 255)
        if samples.transformation is None:
            return image
        return augment.apply(image, samples.transformation.at(at), fill=normalisation.mean)

    image, partner = augmented(samples), samples.partner
    target = Target(at(samples.label_E))
    if partner is not None:
        parameters = partner.parameters
        image = augment.mix(image, augmented(partner.samples), at(parameters.lam_E), at(parameters.box_EK4))
        target = Target(target.label_B, at(partner.samples.label_E), at(parameters.label_lam_E))
    image = image.sub_(normalisation.mean).div_(normalisation.std)
    return image.contiguous(memory_format=torch.channels_last), target


def picker(rows: Rows) -> Callable[[Tensor], Tensor]:
    """What takes the rows of one batch from a table."""
    if isinstance(rows, slice):
        return lambda table: table[rows]
    return lambda table: table.index_select(0, rows)


@dataclass(frozen=True)
class TrainingSamples:
    """The training part as a function of the epoch: which images, and what they look like.

    image_NCHW: uint8, all images. original_N: index into it of each training original. on_all: the augmentation of
    every image. on_copies: what makes a copy differ from its original. redraw: copies differ anew in each epoch.
    device: that computes.
    """

    image_NCHW: Tensor
    original_N: Tensor
    strategy: Strategy
    on_all: Policy
    on_copies: Policy
    redraw: bool
    seed: int
    device: torch.device
    _prepared: dict[int, EpochSamples] = field(default_factory=dict, init=False, compare=False)

    def epoch(self, epoch: int) -> EpochSamples:
        """What an epoch draws."""
        return self._prepared.pop(epoch, None) or self.transformed(self.order(epoch), epoch)

    def prepare(self, epoch: int) -> None:
        """Work out what an epoch will draw, while the device is still busy with the one before."""
        self._prepared[epoch] = self.epoch(epoch)

    def order(self, epoch: int) -> Tensor:
        """Items of the pool in the order of an epoch (int64, CPU)."""
        return self.strategy.order(epoch, self.seed)

    def originals(self, epoch: int, rows: slice) -> Tensor:
        """Which of the data's images some samples of an epoch come from (int64, CPU)."""
        return self.original_N[self.strategy.parent_P[self.order(epoch)[rows]]]

    def drawn(self, epochs: int) -> dict[str, int]:
        """What training cost in images: all that the network saw, those that were mixed into them, and how many
        different originals and items (originals and copies) of the pool were among both."""
        seen_P, mixed = torch.zeros(len(self.strategy.parent_P), dtype=torch.bool), 0
        for epoch in range(epochs):
            item_E, other_E = self.order(epoch), self.strategy.partners(epoch, self.seed)
            seen_P[item_E] = True
            if other_E is not None:
                in_E = self._mix_parameters(item_E, other_E, epoch).shows_partner
                seen_P[other_E[in_E]] = True
                mixed += int(in_E.sum())
        return {
            "images": epochs * self.strategy.epoch_size,
            **({"mixed": mixed} if mixed else {}),
            "originals": len(self.strategy.parent_P[seen_P].unique()),
            "items": int(seen_P.sum()),
            "pool": len(seen_P),
        }

    def transformed(self, item_E: Tensor, epoch: int) -> EpochSamples:
        """What becomes of the items that an epoch draws, in their order."""
        drawn, other_E = self._transformed(item_E, epoch, "augmentation"), self.strategy.partners(epoch, self.seed)
        if other_E is None:
            return drawn
        drawn_on_cpu = self._mix_parameters(item_E, other_E, epoch)
        values = (drawn_on_cpu.lam_E, drawn_on_cpu.box_EK4, drawn_on_cpu.label_lam_E)
        parameters = MixParameters(*(value.to(self.device) for value in values))
        return replace(drawn, partner=Partner(self._transformed(other_E, epoch, "partners' augmentation"), parameters))

    def _mix_parameters(self, item_E: Tensor, other_E: Tensor, epoch: int) -> MixParameters:
        """How the items of an epoch are mixed with others."""
        count_P, (height, width) = self.strategy.count_C[self.strategy.label_P], self.image_NCHW.shape[2:]
        counts, mix = (count_P[item_E], count_P[other_E]), self.strategy.epoch(epoch).mix
        assert mix is not None, "what has partners is mixed"
        return mixing.draw(mix, *counts, (height, width), seed=self.seed, epoch=epoch)

    def _transformed(self, item_E: Tensor, epoch: int, purpose: str) -> EpochSamples:
        """Images, classes and transformations of items."""
        strategy = self.strategy
        parent_E, copy_E = strategy.parent_P[item_E], strategy.copy_P[item_E]
        chain = []
        if not self.on_copies.idle and bool(copy_E.any()):
            copy_E = copy_E.to(self.device)
            keys = (parent_E.to(self.device), copy_E, epoch + 1 if self.redraw else 0)
            chain.append(augment.draw(self.on_copies, self.seed, "copy", *keys).where(copy_E > 0))
        if not self.on_all.idle:
            position_E = torch.arange(len(item_E), device=self.device)
            chain.append(augment.draw(self.on_all, self.seed, purpose, epoch, position_E))
        change = None if not chain else chain[0] if len(chain) == 1 else chain[0].then(chain[1])
        index_E = self.original_N[parent_E].to(self.image_NCHW.device)
        return EpochSamples(index_E, strategy.label_P[item_E].to(self.device), change)
