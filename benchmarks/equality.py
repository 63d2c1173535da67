"""Whether two networks compute the same: loss and gradients on one batch, from the same weights and dropout seed.

The loss is compared as it is. Gradients are compared with average pools in place of max pools: where two of a
window's values agree to rounding, either may be the largest, and the whole gradient of that window moves with it. On
a batch of 128 faces some windows always do, and single elements of the gradient then differ by up to some percent,
from float64's too, on either side.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

IMAGES = 32
SEED = 7
Found = dict[str, Tensor]


def without_maxima(model: nn.Module) -> nn.Module:
    """The model, its max pools exchanged for average pools."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    return model


def found(model: nn.Module, step: Callable[[nn.Module], Tensor]) -> Found:
    """The loss that `step` computes and differentiates, and the gradients, under the check's dropout."""
    model.train()
    torch.manual_seed(SEED)
    loss = step(model)
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def save(path: Path, weights: dict[str, Any], image: Tensor, target: Tensor) -> None:
    """What the other side needs to repeat the computation."""
    torch.save({"weights": weights, "image": image[:IMAGES], "target": target[:IMAGES]}, path)


def largest(ours: Found, other: Found) -> tuple[float, str]:
    """The largest difference of a tensor, relative to the largest absolute value in it, and its name."""
    assert ours.keys() == other.keys(), f"gradients of one side only: {sorted(ours.keys() ^ other.keys())}"
    return max((_difference(ours[name], other[name]), name) for name in other)


def _difference(ours: Tensor, other: Tensor) -> float:
    """NaN counts as infinitely far."""
    size = float((ours - other).abs().max() / other.abs().max())
    return size if size == size else float("inf")
