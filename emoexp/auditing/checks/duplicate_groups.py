"""Pictures that a data set holds several times, and whether their labels agree."""

from dataclasses import dataclass

import numpy as np

from emoexp.data.dataset import PARTS


@dataclass(frozen=True)
class DuplicateGroups:
    """Groups of two or more images that are the same picture.

    groups: how many. images: how many they hold. surplus: how many could be removed (images less groups). surplus_C:
    the same by class, where of each group the first image of each class stays. across: images of the later part that
    are in one group with an image of the earlier part, by (earlier, later). conflicts: groups with several labels, as
    indices of their images.
    """

    groups: int
    images: int
    surplus: int
    surplus_C: np.ndarray
    across: dict[tuple[str, str], int]
    conflicts: tuple[np.ndarray, ...]


def count_duplicates(group_N: np.ndarray, label_N: np.ndarray, part_N: np.ndarray, num_classes: int) -> DuplicateGroups:
    """Count the groups, given as equal numbers. part_N: positions in PARTS, -1 for images that are in no part."""
    size_G = np.bincount(group_N)
    repeated_N = size_G[group_N] > 1
    within = np.unique(group_N * num_classes + label_N, return_index=True)[1]
    spare_N = np.ones(len(group_N), bool)
    spare_N[within] = False
    return DuplicateGroups(
        groups=int((size_G > 1).sum()),
        images=int(repeated_N.sum()),
        surplus=int((size_G[size_G > 1] - 1).sum()),
        surplus_C=np.bincount(label_N[spare_N], minlength=num_classes),
        across={
            (PARTS[first], PARTS[second]): _across(group_N, part_N, first, second)
            for first in range(len(PARTS))
            for second in range(first + 1, len(PARTS))
        },
        conflicts=tuple(_conflicts(group_N[repeated_N], label_N[repeated_N], np.flatnonzero(repeated_N))),
    )


def _across(group_N: np.ndarray, part_N: np.ndarray, first: int, second: int) -> int:
    return int(np.isin(group_N[part_N == second], group_N[part_N == first]).sum())


def _conflicts(group_M: np.ndarray, label_M: np.ndarray, index_M: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(group_M, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(group_M[order])) + 1)
    return [index_M[piece] for piece in pieces if len(np.unique(label_M[piece])) > 1]
