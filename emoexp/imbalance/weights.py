"""Class weights of the loss, from the counts of the pool (copies included)."""

import torch
from torch import Tensor

from emoexp.imbalance.sampling import effective_counts


def none(count_C: Tensor) -> Tensor:
    """Every class weighs the same."""
    return torch.ones(len(count_C), dtype=torch.float64)


def power(count_C: Tensor, *, exponent: float) -> Tensor:
    """n_c^-exponent, with an exponent in -4..4: 1 is inverse frequency (King and Zeng, 2001), 1/2 its square root
    (Mahajan et al., ECCV 2018, who use it for sampling)."""
    return count_C.double().clamp(min=1) ** -exponent


def effective_number(count_C: Tensor, *, beta: float) -> Tensor:
    """1/E(n_c), the inverse effective number of images: Cui et al., CVPR 2019 (arXiv 1901.05555), equation 6."""
    return 1 / effective_counts(count_C, beta)


def normalise(weight_C: Tensor, exposure_C: Tensor) -> Tensor:
    """Weights scaled so that the mean over samples, sum of share·weight, is 1: otherwise weights would also change the
    step size. 0 where a class is never drawn. exposure_C: of the labels that training meets."""
    weight_C = torch.where(exposure_C > 0, weight_C, 0.0)
    return weight_C / (exposure_C * weight_C).sum()
