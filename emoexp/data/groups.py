"""Groups of images that are linked with each other, directly or in a chain."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def connected(first_P: np.ndarray, second_P: np.ndarray, size: int) -> np.ndarray:
    """Connected components of a graph: groups of items that pairs link, directly or in a chain.

    Args:
        first_P, second_P: the two ends of each pair, 0..size-1.

    Returns:
        int64, the group of each of the `size` items. Groups are numbered from 0 in the order of their first members.
    """
    links = coo_array((np.ones(len(first_P), np.int8), (first_P, second_P)), shape=(size, size))
    label_N = connected_components(links, directed=False)[1]
    _, first_G, group_N = np.unique(label_N, return_index=True, return_inverse=True)
    rank_G = np.empty(len(first_G), np.int64)
    rank_G[np.argsort(first_G)] = np.arange(len(first_G))
    return rank_G[group_N]


def same_pixels_or_person(digest: np.ndarray, identity: np.ndarray | None) -> np.ndarray:
    """Each image's group: images linked by equal pixels or one identity.

    An identity of -1 links nothing. Returns int64 N with consecutive numbers from 0, in the order of each group's
    smallest digest.
    """
    pixels_N = np.unique(digest, return_inverse=True)[1].astype(np.int64)
    if identity is None or not (identity >= 0).any():
        return pixels_N
    known_M = np.flatnonzero(identity >= 0)
    num_pictures = int(pixels_N.max()) + 1
    person_M = np.unique(identity[known_M], return_inverse=True)[1] + num_pictures
    group = connected(pixels_N[known_M], person_M, int(person_M.max()) + 1)
    return group[pixels_N]
