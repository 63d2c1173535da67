"""A long tail cut into any data set: only so many training images of each class stay, the others stand in no part.

Whatever the literature calls CIFAR-10-LT or CIFAR-100-LT is the balanced set cut like this. Validation and test stay as
they are. Classes are ranked by the training images that they have, so that what is uneven already becomes more so.
"""

import dataclasses
import math
import zlib

import numpy as np

from emoexp import rng
from emoexp.data.dataset import Dataset

PROFILES = ("none", "exponential", "step")


def counts(count_C: np.ndarray, profile: str, factor: float) -> np.ndarray:
    """Training images that each class keeps: int64 C.

    exponential: the class of rank i, from 0 for the largest, keeps n_max * factor^(-i/(C-1)), rounded down (Cui et al.,
    CVPR 2019, and Cao et al., NeurIPS 2019, arXiv 1906.07413). step: the first half of the ranks, rounded
    down, keeps n_max, the rest n_max / factor, rounded down (Buda et al., 2018, arXiv 1710.05381). A class that has
    fewer images than that keeps what it has.

    Args:
        count_C: images of each class; the most first, equal ones in class order, makes the ranks.
        profile: one of PROFILES; none keeps everything.
        factor: of the largest class's images over the smallest one's, at least 1.
    """
    assert profile in PROFILES and 1 <= factor < math.inf
    if profile == "none":
        return count_C.astype(np.int64)
    last, most = max(len(count_C) - 1, 1), int(count_C.max())
    target_C = np.empty(len(count_C), np.int64)
    for rank, c in enumerate(np.argsort(-count_C, kind="stable")):
        share = rank / last if profile == "exponential" else float(rank >= len(count_C) // 2)
        # a whole number on paper may come out a hair below: 5000 * 32^(-2/5), which is 1250, as 1249.9999999999998
        target_C[c] = math.floor(most * factor**-share * (1 + 1e-12))
    return np.minimum(target_C, count_C)


def cut(data: Dataset, *, profile: str, factor: float, seed: int) -> Dataset:
    """The data with the long tail of `counts` in its training part.

    Which images stay depends on the seed and the class's name, and on the pixels but not on the names and the order of
    files. Of one seed, the images of a larger factor are among those of a smaller one.

    Raises:
        ValueError: a class that would be left without an image.
    """
    count_C = data.counts("train")
    keep_C = counts(count_C, profile, factor)
    if profile == "none":
        return data
    if (keep_C == 0).any():
        empty = ", ".join(data.class_names[c] for c in np.flatnonzero(keep_C == 0))
        raise ValueError(
            f"data.long_tail.factor={factor:g} leaves no training image of {empty}: the largest class has "
            f"{count_C.max()}, so that a factor of at most {count_C.max()} is possible"
        )
    part, train = data.part.copy(), data.where("train")
    for c, name in enumerate(data.class_names):
        mine = train[data.labels[train] == c]
        mine = mine[np.argsort(data.digest[mine], kind="stable")]
        order = rng.permutation(seed, "long tail", zlib.crc32(name.encode()), size=len(mine)).numpy()
        part[mine[order[keep_C[c] :]]] = -1
    note = (
        f"data.long_tail.profile={profile}, factor {factor:g}: training keeps {keep_C.sum()} of {count_C.sum()} "
        f"images, class by class {', '.join(map(str, keep_C))}"
    )
    return dataclasses.replace(data, part=part, notes=(*data.notes, note))
