"""Groups of images of the same picture, and whether their labels agree."""

from dataclasses import dataclass

import numpy as np

from emoexp.data.dataset import PARTS


@dataclass(frozen=True)
class DuplicateGroups:
    """Groups of two or more images that are the same picture.

    groups: number of groups. images: number of images in them. surplus: images minus groups. surplus_C: for each class,
    number of images that are not the first of their class in a group. across: number of images of the later part that
    are in a group with an image of the earlier part, by (earlier, later). conflicts: groups with several labels, as
    indices of their images.
    """

    groups: int
    images: int
    surplus: int
    surplus_C: np.ndarray
    across: dict[tuple[str, str], int]
    conflicts: tuple[np.ndarray, ...]


def count_duplicates(group_N: np.ndarray, label_N: np.ndarray, part_N: np.ndarray, num_classes: int) -> DuplicateGroups:
    """Count groups and their images.

    group_N: equal for images of one group. part_N: positions in PARTS, -1: in no part.
    """
    size_G = np.bincount(group_N)
    repeated_N = size_G[group_N] > 1
    first_of_class = np.unique(group_N * num_classes + label_N, return_index=True)[1]
    surplus_N = np.ones(len(group_N), bool)
    surplus_N[first_of_class] = False
    return DuplicateGroups(
        groups=int((size_G > 1).sum()),
        images=int(repeated_N.sum()),
        surplus=int((size_G[size_G > 1] - 1).sum()),
        surplus_C=np.bincount(label_N[surplus_N], minlength=num_classes),
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
