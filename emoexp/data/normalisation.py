"""The scale of pixel values that networks see."""

from dataclasses import dataclass

import torch
from torch import Tensor

from emoexp.data.dataset import Dataset


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the training originals' values, in 0..1."""

    mean: float
    std: float

    def __call__(self, image_NCHW: Tensor) -> Tensor:
        """uint8 images as normalised float32."""
        return (image_NCHW.to(torch.float32) * (1 / 255) - self.mean) / self.std


def of_training_part(data: Dataset) -> Normalisation:
    """Mean and deviation of the training originals; a deviation below 0.001 counts as 0.001."""
    mean, std = data.pixels
    return Normalisation(mean, max(std, 1e-3))
