"""Where data and strategy meet: images of an epoch's order, gathered from one resident tensor and transformed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emoexp import transforms
from emoexp.imbalance import sampling
from emoexp.imbalance.ledger import Plan
from emoexp.transforms import Policy


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the training originals' grey values, in 0..1."""

    mean: float
    std: float

    def __call__(self, image_NCHW: Tensor) -> Tensor:
        """uint8 images as normalised float32."""
        return (image_NCHW.to(torch.float32) * (1 / 255) - self.mean) / self.std


def resident(images: np.ndarray, device: torch.device) -> Tensor:
    """Images as one uint8 tensor: in the device's memory where they take at most half of what is free, else in RAM or,
    for a memory-mapped array, on disk."""
    tensor = torch.from_numpy(images)
    if device.type == "cuda" and tensor.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
        return tensor.to(device)
    return tensor.to(device) if device.type == "mps" else tensor


@dataclass(frozen=True)
class TrainingBatches:
    """The training part as a function of (epoch, step): which items, and what they look like.

    image_NCHW: uint8, resident. original_N: index into it of each training original. plan: the strategy. on_all: the
    augmentation of every image. on_copies: what makes a copy differ from its parent. redraw: copies anew each epoch.
    """

    image_NCHW: Tensor
    original_N: Tensor
    plan: Plan
    on_all: Policy
    on_copies: Policy
    redraw: bool
    normalisation: Normalisation
    batch_size: int
    seed: int
    device: torch.device

    def __len__(self) -> int:
        """Steps an epoch. The last one takes what is left; a single left-over joins the step before it."""
        return max(1, (self.plan.epoch_size + self.batch_size - 2) // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Items of the pool in the order of an epoch (int64, CPU)."""
        plan = self.plan
        return sampling.order(plan.label_P, plan.share_C, size=plan.epoch_size, seed=self.seed, epoch=epoch)

    def items(self, order: Tensor, step: int) -> Tensor:
        """The items of one step. Batch normalisation cannot train on one image, so that none stands alone."""
        start = step * self.batch_size
        return order[start:] if step == len(self) - 1 else order[start : start + self.batch_size]

    def drawn(self, epochs: int) -> dict[str, int]:
        """What training cost in images: all that were drawn, and how many different originals and items (originals and
        copies) of the pool were among them."""
        seen_P = torch.zeros(len(self.plan.parent_P), dtype=torch.bool)
        for epoch in range(epochs):
            seen_P[self.order(epoch)] = True
        return {
            "images": epochs * self.plan.epoch_size,
            "originals": len(self.plan.parent_P[seen_P].unique()),
            "items": int(seen_P.sum()),
            "pool": len(seen_P),
        }

    def batch(self, item_B: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Normalised float32 images B×C×H×W, channels last, and int64 classes B of one step."""
        original_B = self.original_N[self.plan.parent_P[item_B]]
        image = self.image_NCHW[original_B.to(self.image_NCHW.device)].to(self.device)
        image = self._transformed(image.to(torch.float32) * (1 / 255), item_B.to(self.device), epoch, step)
        image = image.sub_(self.normalisation.mean).div_(self.normalisation.std)
        label_B = self.plan.label_P[item_B].to(self.device)
        return image.contiguous(memory_format=torch.channels_last), label_B

    def _transformed(self, image: Tensor, item_B: Tensor, epoch: int, step: int) -> Tensor:
        copy_B = self.plan.copy_P.to(self.device)[item_B]
        chain = []
        if not self.on_copies.idle and bool(self.plan.copy_P.any()):
            keys = (self.plan.parent_P.to(self.device)[item_B], copy_B, epoch + 1 if self.redraw else 0)
            chain.append(transforms.draw(self.on_copies, self.seed, "copy", *keys).where(copy_B > 0))
        if not self.on_all.idle:
            position = torch.arange(len(item_B), device=self.device) + step * self.batch_size
            chain.append(transforms.draw(self.on_all, self.seed, "augmentation", epoch, position))
        if not chain:
            return image
        both = chain[0] if len(chain) == 1 else chain[0].then(chain[1])
        return transforms.apply(image, both, fill=self.normalisation.mean)


def evaluation(
    image_NCHW: Tensor, index_N: Tensor, normalisation: Normalisation, device: torch.device, chunk: int
) -> Iterator[Tensor]:
    """Untouched images of a part in order: normalised float32 chunks, channels last."""
    for piece in index_N.split(chunk):
        image = image_NCHW[piece.to(image_NCHW.device)].to(device)
        yield normalisation(image).contiguous(memory_format=torch.channels_last)
