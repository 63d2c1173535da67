"""Minority augmentation: how many images each class should have once transformed copies are added to the originals.

A target is a number of images for each class, never below its count. Copies are spread evenly over a class's originals;
a copy is a pair (parent, copy number), made after the split, so that it is always in the same part as its parent.
"""

import torch
from torch import Tensor

from emoexp import rng


def none(count_C: Tensor) -> Tensor:
    """No copies: every class keeps its images."""
    return count_C.clone()


def equalise(count_C: Tensor) -> Tensor:
    """Every class that has images gets as many as the largest one."""
    return torch.where(count_C > 0, count_C.max(), count_C)


def cap(count_C: Tensor, *, factor: float) -> Tensor:
    """Up to the largest class, but at most `factor` (at least 1) times a class's own images: min(n_max, factor·n_c)."""
    return torch.minimum(count_C.max(), (count_C.double() * factor).round().long())


def floor(count_C: Tensor, *, least: int) -> Tensor:
    """Up to `least` images (at least 1) for every class that has any; a class with more gets no copies."""
    return torch.where(count_C > 0, count_C.clamp(min=least), count_C)


def power(count_C: Tensor, *, exponent: float) -> Tensor:
    """n_max·(n_c/n_max)^exponent with an exponent in [0, 1]: 1 changes nothing, 0 equalises."""
    largest = count_C.max().double()
    target = (largest * (count_C.double() / largest) ** exponent).round().long()
    return torch.where(count_C > 0, torch.maximum(target, count_C), count_C)


def build_pool(label_N: Tensor, target_C: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """The pool of training: all originals, then the copies that bring each class to its target.

    Args:
        label_N: int64 class of each original.
        target_C: int64 number of images that each class should have, at least its count.
        seed: decides which parents of a class get one copy more than the others.

    Returns:
        parent_P (index of an original) and copy_P (0 for the original itself, then 1, 2, ... for its copies), int64.
    """
    parents, copy_numbers = [torch.arange(len(label_N))], [torch.zeros(len(label_N), dtype=torch.int64)]
    for label, target in enumerate(target_C.tolist()):
        members = torch.nonzero(label_N == label).flatten()
        missing = target - len(members)
        assert missing >= 0 and (missing == 0 or len(members)), "a target is never below a class's count"
        if missing:
            shuffled = members[rng.permutation(seed, "parents", label, size=len(members))]
            copy = torch.arange(missing)
            parents.append(shuffled[copy % len(members)])
            copy_numbers.append(copy // len(members) + 1)
    return torch.cat(parents), torch.cat(copy_numbers)
