"""Which images an epoch draws: class shares from class counts, and an order that is a function of (seed, epoch).

The functions of conf/imbalance/sampling give each class its share of an epoch's draws. They take the counts and the
progress of the run (0..1), which only `progressive` uses.
"""

import torch
from torch import Tensor

from emoexp import rng


def natural(count_C: Tensor, progress: float = 0.0) -> Tensor:
    """Every image once an epoch, without replacement: a class's share of the draws is its share of the images."""
    return power(count_C, exponent=1.0)


def power(count_C: Tensor, progress: float = 0.0, *, exponent: float) -> Tensor:
    """Class shares proportional to n_c^exponent, with an exponent in -4..4: 1 is natural, 1/2 square-root, 0 balanced.

    Kang et al., ICLR 2020 (arXiv 1910.09217), equation 1. A class without images is never drawn.
    """
    share = torch.where(count_C > 0, count_C.double().clamp(min=1) ** exponent, 0.0)
    return share / share.sum()


def effective_number(count_C: Tensor, progress: float = 0.0, *, beta: float) -> Tensor:
    """Class shares n_c/E(n_c), with E(n) = (1-beta^n)/(1-beta) the effective number of n images.

    Each image is drawn in proportion to 1/E(n_c): Cui et al., CVPR 2019 (arXiv 1901.05555). A beta of 0 is natural;
    near 1 it is inverse frequency.
    """
    share = torch.where(count_C > 0, count_C.double() / effective_counts(count_C, beta), 0.0)
    return share / share.sum()


def progressive(count_C: Tensor, progress: float, *, exponent: float) -> Tensor:
    """From natural shares to those of `power`, linearly over the run: Kang et al., ICLR 2020, equation 2."""
    return (1 - progress) * natural(count_C) + progress * power(count_C, exponent=exponent)


def repeat_factor(count_C: Tensor, progress: float = 0.0, *, threshold: float | None) -> Tensor:
    """Class shares n_c·max(1, √(threshold/p_c)), with p_c the share of the images: Gupta et al., CVPR 2019 (LVIS, arXiv
    1908.03195), appendix. threshold: in 0..1; None is 1/classes, as LVIS's 0.001 is about 1/1230 for its 1230 classes.
    """
    natural_C = natural(count_C)
    threshold = 1 / len(count_C) if threshold is None else threshold
    share = natural_C * (threshold / natural_C.clamp(min=1e-12)).sqrt().clamp(min=1)
    return share / share.sum()


def effective_counts(count_C: Tensor, beta: float) -> Tensor:
    """Effective numbers of images E(n) = (1-beta^n)/(1-beta), float64; 1 for a class without images, as others divide
    by it."""
    assert 0 <= beta < 1
    count = count_C.double().clamp(min=1)
    return (1 - torch.tensor(beta, dtype=torch.float64) ** count) / (1 - beta)


def is_natural(share_C: Tensor, count_C: Tensor) -> bool:
    """Whether each class's share of the draws is its share of the images."""
    return torch.allclose(share_C, count_C.double() / count_C.sum(), rtol=0, atol=1e-12)


def order(label_P: Tensor, share_C: Tensor, *, size: int, seed: int, epoch: int, purpose: str = "order") -> Tensor:
    """The pool's items that an epoch draws, in their order.

    Where the shares are the pool's own, items are drawn without replacement (a new shuffle for every full pass).
    Otherwise each draw picks an item with probability share_c/n_c, with replacement.

    Args:
        label_P: int64 class of each item of the pool.
        share_C: float64 share of draws for each class, summing to 1.
        size: draws in this epoch.
        seed, epoch, purpose: what the order is a function of.

    Returns:
        int64 indices into the pool, `size` of them.
    """
    count_C = torch.bincount(label_P, minlength=len(share_C))
    if is_natural(share_C, count_C):
        passes = range(-(-size // len(label_P)))
        return torch.cat([rng.permutation(seed, purpose, epoch, k, size=len(label_P)) for k in passes])[:size]
    weight_P = (share_C / count_C.double().clamp(min=1))[label_P]
    edge_P = torch.cumsum(weight_P, 0)
    draw = rng.uniform_double(seed, purpose, epoch, torch.arange(size)) * edge_P[-1]
    return torch.searchsorted(edge_P, draw, right=True).clamp(max=len(label_P) - 1)


def class_sequence(share_C: Tensor, *, size: int, seed: int, epoch: int) -> Tensor:
    """The class of each draw of an epoch, evenly spaced: classes take turns, at the rate of their shares (int64).

    With equal shares each class comes once in every C draws, in random order. Class-aware sampling: Shen et al., ECCV
    2016 (arXiv 1512.05830). share_C, size, seed, epoch: as for `order`.
    """
    times, classes = [], []
    for c, share in enumerate(share_C.tolist()):
        number = int(share * size) + 1 if share else 0
        # "turn" names the random numbers: another word would change results
        jitter = rng.uniform_double(seed, "turn", epoch, c, torch.arange(number))
        times.append((torch.arange(number) + jitter) / max(share, 1e-12))  # the k-th draw is in [k, k+1)/share
        classes.append(torch.full((number,), c))
    return torch.cat(classes)[torch.argsort(torch.cat(times), stable=True)[:size]]


def without_replacement(label_P: Tensor, class_E: Tensor, drawn_C: Tensor, *, seed: int) -> Tensor:
    """An item for each draw, without replacement within a class: all items of a class are drawn in a random order
    before the class is shuffled again.

    Args:
        label_P: int64 class of each item of the pool.
        class_E: int64 class of each draw.
        drawn_C: int64, how many items of each class earlier epochs have drawn; the epoch goes on from there.
        seed: what the orders are a function of.

    Returns:
        int64 indices into the pool, one for each draw.
    """
    item_E = torch.empty_like(class_E)
    for c, drawn in enumerate(drawn_C.tolist()):
        member_N, is_c_E = torch.nonzero(label_P == c).flatten(), class_E == c
        position = drawn + torch.arange(int(is_c_E.sum()))  # of each draw, counted from the first epoch on
        if len(position):
            size, first = len(member_N), drawn // len(member_N)
            shuffle_S = torch.arange(first, int(position[-1]) // size + 1)[:, None]
            # "deck" names the random numbers: another word would change results
            random_SN = rng.uniform_double(seed, "deck", c, shuffle_S, torch.arange(size)[None])
            item_E[is_c_E] = member_N[torch.argsort(random_SN, dim=1, stable=True).flatten()[position - first * size]]
    return item_E


def expected_unique(draws: Tensor, count: Tensor) -> Tensor:
    """Expected number of different items among so many draws of `without_replacement` from a class of `count` items,
    the mean over how many items were drawn since the last shuffle.

    draws, count: float64 scalars.
    """
    left_R = torch.arange(1, int(count) + 1, dtype=torch.float64)  # items that come before the next shuffle
    before_R = torch.minimum(left_R, draws)
    after_R = (draws - before_R).clamp(max=count)  # drawn after the shuffle, which may repeat those before
    unique_R = before_R + after_R * (1 - before_R / count)
    return unique_R.mean() if len(left_R) else torch.zeros_like(draws)
