"""Class weights of the loss, from the counts of the pool (copies included)."""

import torch
from torch import Tensor

from emoexp.imbalance.sampling import effective


def none(count_C: Tensor) -> Tensor:
    """Every class weighs the same."""
    return torch.ones(len(count_C), dtype=torch.float64)


def power(count_C: Tensor, *, exponent: float) -> Tensor:
    """n_c^-exponent, with an exponent in -4..4: 1 is inverse frequency (King and Zeng, 2001), 1/2 its square root (as
    sampling: Mahajan et al., ECCV 2018)."""
    return count_C.double().clamp(min=1) ** -exponent


def effective_number(count_C: Tensor, *, beta: float) -> Tensor:
    """1/E(n_c), the inverse effective number of images: Cui et al., CVPR 2019 (arXiv 1901.05555), equation 6."""
    return 1 / effective(count_C, beta)


def normalised(weight_C: Tensor, share_C: Tensor) -> Tensor:
    """Scaled to a mean sample weight of 1 under the sampling in use (sum of share·weight), so that a strategy does not
    change the learning rate by stealth; 0 where a class is never drawn."""
    weight_C = torch.where(share_C > 0, weight_C, 0.0)
    return weight_C / (share_C * weight_C).sum()
