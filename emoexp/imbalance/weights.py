"""Class weights of the loss, from the counts of the pool (copies included)."""

import math

import torch
from torch import Tensor

from emoexp.imbalance.sampling import effective_counts

SCALES = ("mean1", "sum_to_classes", "batch")


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


def scaled(weight_C: Tensor, exposure_C: Tensor, scale: str) -> Tensor:
    """Weights on one of SCALES: they sum to the number of classes, as Cui et al. have it (CVPR 2019, section 4), or
    have a mean of 1 over samples, as `normalise` says. On the scale "batch" the loss is divided by the sum of a batch's
    weights, so that their own scale does not matter."""
    if scale == "sum_to_classes":
        return weight_C * (len(weight_C) / weight_C.sum())
    return normalise(weight_C, exposure_C)


def shares_in_batches(weight_C: Tensor, exposure_C: Tensor, batch_size: int) -> Tensor:
    """float64 C, sums to 1: the mean over batches of each class's share in the sum of the batch's weights.

    A batch of B labels, drawn by the exposure, holds n_c of class c. With S the sum of its weights,
    E[n_c w_c / S] is the integral over t > 0 of B q_c w_c e^(-t w_c) (sum_k q_k e^(-t w_k))^(B-1), here over log t. A
    class that is rare in batches and heavy has less of it than q·w: where it occurs, it raises the divisor too.
    """
    log_t = torch.linspace(math.log(1e-10), math.log(1e6), 20_001, dtype=torch.float64)
    decay_CT = torch.exp(-weight_C[:, None] * log_t.exp())
    others_T = (exposure_C[:, None] * decay_CT).sum(0) ** (batch_size - 1)
    share_C = torch.trapezoid((exposure_C * weight_C)[:, None] * decay_CT * others_T * log_t.exp(), log_t)
    return share_C / share_C.sum()


def normalise(weight_C: Tensor, exposure_C: Tensor) -> Tensor:
    """Weights scaled so that the mean over samples, sum of share·weight, is 1: otherwise weights would also change the
    step size. 0 where a class is never drawn. exposure_C: of the labels that training meets."""
    weight_C = torch.where(exposure_C > 0, weight_C, 0.0)
    return weight_C / (exposure_C * weight_C).sum()
