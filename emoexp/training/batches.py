"""Where data and strategy meet: images of an epoch's order, gathered from one resident tensor and transformed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from emoexp.data.mapped import gather
from emoexp.data.normalisation import Normalisation
from emoexp.imbalance import mixing
from emoexp.imbalance.mixing import Shares
from emoexp.imbalance.strategy import Strategy
from emoexp.training import augment
from emoexp.training.augment import Policy, Transformation

Rows = Callable[[Tensor], Tensor]  # of a table with a row for each image of an epoch, those that a step takes
_CHUNK = {"cpu": 256 * 48 * 48, "cuda": 2048 * 48 * 48}  # pixels a forward pass of evaluation


def resident(images: np.ndarray, device: torch.device) -> Tensor:
    """Images as one uint8 tensor: in the device's memory where they take at most half of what is free, else in RAM or,
    for a memory-mapped array, on disk. Asked again for the images it placed last, it gives the same tensor."""
    if device.type == "cpu":
        return torch.from_numpy(images)
    for known, there, tensor in _placed:
        if known is images and there == device:
            return tensor
    _placed.clear()
    tensor = torch.from_numpy(images)
    if device.type == "mps" or tensor.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
        tensor = tensor.to(device)
    _placed.append((images, device, tensor))
    return tensor


_placed: list[tuple[np.ndarray, torch.device, Tensor]] = []


@dataclass(frozen=True)
class Draws:
    """What an epoch draws, a row for each of its E images: worked out at once, so that a step only looks up.

    index_E: int64 index into the resident images, on their device. label_E: int64 class. change: the transformation of
    each; None where none changes. partner: what each is mixed with, and in which shares; None where nothing is mixed.
    All but the first on the device that computes.
    """

    index_E: Tensor
    label_E: Tensor
    change: Transformation | None
    partner: "Partner | None" = None


@dataclass(frozen=True)
class Partner:
    """The draws that images are mixed with, a row for each, and the shares of the mixing."""

    draws: Draws
    shares: Shares


@dataclass(frozen=True)
class Batch:
    """What a step learns from: normalised float32 images B×C×H×W, channels last, and int64 classes B; where images are
    mixed, the classes of their partners and the first class's share of the label."""

    image_BCHW: Tensor
    label_B: Tensor
    other_B: Tensor | None = None
    share_B: Tensor | None = None


@dataclass(frozen=True)
class TrainingBatches:
    """The training part as a function of (epoch, step): which items, and what they look like.

    image_NCHW: uint8, resident. original_N: index into it of each training original. plan: the strategy. on_all: the
    augmentation of every image. on_copies: what makes a copy differ from its parent. redraw: copies anew each epoch.
    """

    image_NCHW: Tensor
    original_N: Tensor
    plan: Strategy
    on_all: Policy
    on_copies: Policy
    redraw: bool
    normalisation: Normalisation
    batch_size: int
    seed: int
    device: torch.device
    _ahead: dict[int, Draws] = field(default_factory=dict, init=False, compare=False)

    def __len__(self) -> int:
        """Steps an epoch. The last one takes what is left; a single left-over joins the step before it."""
        return max(1, (self.plan.epoch_size + self.batch_size - 2) // self.batch_size)

    def span(self, step: int) -> slice:
        """The rows of one step. Batch normalisation cannot train on one image, so that none stands alone."""
        start = step * self.batch_size
        return slice(start, self.plan.epoch_size if step == len(self) - 1 else start + self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Items of the pool in the order of an epoch (int64, CPU)."""
        return self.plan.order(epoch, self.seed)

    def originals(self, epoch: int, step: int) -> Tensor:
        """Which of the data's images stand behind a step (int64, CPU)."""
        return self.original_N[self.plan.parent_P[self.order(epoch)[self.span(step)]]]

    def drawn(self, epochs: int) -> dict[str, int]:
        """What training cost in images: all that the network saw, those that were mixed into them, and how many
        different originals and items (originals and copies) of the pool were among both."""
        seen_P, mixed = torch.zeros(len(self.plan.parent_P), dtype=torch.bool), 0
        for epoch in range(epochs):
            item_E, other_E = self.order(epoch), self.plan.partners(epoch, self.seed)
            seen_P[item_E] = True
            if other_E is not None:
                in_E = self._shares(item_E, other_E, epoch).shows
                seen_P[other_E[in_E]] = True
                mixed += int(in_E.sum())
        return {
            "images": epochs * self.plan.epoch_size,
            **({"mixed": mixed} if mixed else {}),
            "originals": len(self.plan.parent_P[seen_P].unique()),
            "items": int(seen_P.sum()),
            "pool": len(seen_P),
        }

    def of(self, epoch: int) -> Draws:
        """What an epoch draws."""
        return self._ahead.pop(epoch, None) or self.draws(self.order(epoch), epoch)

    def ahead(self, epoch: int) -> None:
        """Work out what an epoch will draw, while the device is still busy with the one before."""
        self._ahead[epoch] = self.of(epoch)

    def draws(self, item_E: Tensor, epoch: int) -> Draws:
        """What becomes of the items that an epoch draws, in their order."""
        drawn, other_E = self._transformed(item_E, epoch, "augmentation"), self.plan.partners(epoch, self.seed)
        if other_E is None:
            return drawn
        shares = self._shares(item_E, other_E, epoch)
        moved = Shares(*(value.to(self.device) for value in (shares.kept_E, shares.box_EK4, shares.label_E)))
        return replace(drawn, partner=Partner(self._transformed(other_E, epoch, "partners' augmentation"), moved))

    def _shares(self, item_E: Tensor, other_E: Tensor, epoch: int) -> Shares:
        """How the items of an epoch are mixed with others."""
        count_P, (height, width) = self.plan.count_C[self.plan.label_P], self.image_NCHW.shape[2:]
        counts, mix = (count_P[item_E], count_P[other_E]), self.plan.epoch(epoch).mix
        assert mix is not None, "what has partners is mixed"
        return mixing.draw(mix, *counts, (height, width), seed=self.seed, epoch=epoch)

    def _transformed(self, item_E: Tensor, epoch: int, purpose: str) -> Draws:
        """Images, classes and transformations of items."""
        plan = self.plan
        parent_E, copy_E = plan.parent_P[item_E], plan.copy_P[item_E]
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
        return Draws(index_E, plan.label_P[item_E].to(self.device), change)

    def batch(self, draws: Draws, rows: Rows) -> Batch:
        """The rows of one step."""
        image, partner = self._images(draws, rows), draws.partner
        if partner is not None:
            kept_B, box_BK4 = rows(partner.shares.kept_E), rows(partner.shares.box_EK4)
            image = augment.mix(image, self._images(partner.draws, rows), kept_B, box_BK4)
        image = image.sub_(self.normalisation.mean).div_(self.normalisation.std)
        image = image.contiguous(memory_format=torch.channels_last)
        if partner is None:
            return Batch(image, rows(draws.label_E))
        return Batch(image, rows(draws.label_E), rows(partner.draws.label_E), rows(partner.shares.label_E))

    def _images(self, draws: Draws, rows: Rows) -> Tensor:
        """Transformed images in 0..1."""
        image = moved(gather(self.image_NCHW, rows(draws.index_E)), self.device).to(torch.float32) * (1 / 255)
        if draws.change is not None:
            image = augment.apply(image, draws.change.at(rows), fill=self.normalisation.mean)
        return image


def moved(image: Tensor, device: torch.device) -> Tensor:
    """Images on a device; on their way to CUDA the host does not wait for them."""
    if device.type == "cuda" and image.device.type == "cpu":
        return image.pin_memory().to(device, non_blocking=True)
    return image.to(device)


def evaluation(
    image_NCHW: Tensor, index_N: Tensor, normalisation: Normalisation, device: torch.device
) -> Iterator[Tensor]:
    """Untouched images of a part in order: normalised float32 chunks, channels last."""
    for piece in index_N.split(chunk(device, image_NCHW.shape[2] * image_NCHW.shape[3])):
        image = moved(gather(image_NCHW, piece.to(image_NCHW.device)), device)
        yield normalisation(image).contiguous(memory_format=torch.channels_last)


def chunk(device: torch.device, pixels: int) -> int:
    """Images that a forward pass of evaluation takes: what fills a GPU; on a CPU, where more is not faster, few."""
    return max(1, _CHUNK.get(device.type, _CHUNK["cpu"]) // pixels)
