"""Which images an epoch draws: class shares from class counts, and an order that is a function of (seed, epoch)."""

import torch
from torch import Tensor

from emoexp import rng


def uniform(count_C: Tensor) -> Tensor:
    """Every image once an epoch: a class's share is its share of the images, drawn without replacement."""
    return power(count_C, exponent=1.0)


def power(count_C: Tensor, *, exponent: float) -> Tensor:
    """Class shares proportional to n_c^exponent: 1 natural, 1/2 square root, 0 class-balanced.

    Kang et al., ICLR 2020 (arXiv 1910.09217), equation 1. A class without images is never drawn.
    """
    share = torch.where(count_C > 0, count_C.double().clamp(min=1) ** exponent, 0.0)
    return share / share.sum()


def effective_number(count_C: Tensor, *, beta: float) -> Tensor:
    """Class shares n_c/E(n_c), with E(n) = (1-beta^n)/(1-beta) the effective number of n images.

    Each image is drawn in proportion to 1/E(n_c): Cui et al., CVPR 2019 (arXiv 1901.05555). A beta of 0 is natural;
    near 1 it is inverse frequency.
    """
    share = torch.where(count_C > 0, count_C.double() / effective(count_C, beta), 0.0)
    return share / share.sum()


def effective(count_C: Tensor, beta: float) -> Tensor:
    """Effective number of images E(n) = (1-beta^n)/(1-beta), float64, with E(0) given as 1 so that it can divide."""
    if not 0 <= beta < 1:
        raise ValueError(f"beta of the effective number lies in 0 <= beta < 1; it is {beta}")
    count = count_C.double().clamp(min=1)
    return (1 - torch.tensor(beta, dtype=torch.float64) ** count) / (1 - beta)


def order(label_P: Tensor, share_C: Tensor, *, size: int, seed: int, epoch: int) -> Tensor:
    """The pool's items that an epoch draws, in their order.

    Where the shares are the pool's own, items are drawn without replacement (a new shuffle for every full pass).
    Otherwise each draw picks an item with probability share_c/n_c, with replacement.

    Args:
        label_P: int64 class of each item of the pool.
        share_C: float64 share of draws for each class, summing to 1.
        size: draws in this epoch.
        seed, epoch: what the order is a function of.

    Returns:
        int64 indices into the pool, `size` of them.
    """
    count_C = torch.bincount(label_P, minlength=len(share_C)).double()
    if torch.allclose(share_C, count_C / len(label_P), rtol=0, atol=1e-12):
        passes = range(-(-size // len(label_P)))
        return torch.cat([rng.permutation(seed, "order", epoch, k, size=len(label_P)) for k in passes])[:size]
    weight_P = (share_C / count_C.clamp(min=1))[label_P]
    edge_P = torch.cumsum(weight_P, 0)
    draw = rng.uniform_double(seed, "order", epoch, torch.arange(size)) * edge_P[-1]
    return torch.searchsorted(edge_P, draw, right=True).clamp(max=len(label_P) - 1)
