"""A long tail, cut into any data set: each class keeps some of its training images, the others are put into no part.

CIFAR-10-LT and CIFAR-100-LT of the literature are made in this way from the balanced sets. Validation and test are not
changed. Classes are ranked by their number of training images, so that an imbalanced set becomes more imbalanced.
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
        count_C: images of each class. The largest class has rank 0; of equal classes the first has the lower rank.
        profile: one of PROFILES; none keeps everything.
        factor: images of the largest class over those of the smallest, at least 1.
    """
    assert profile in PROFILES and 1 <= factor < math.inf
    if profile == "none":
        return count_C.astype(np.int64)
    last_rank, largest = max(len(count_C) - 1, 1), int(count_C.max())
    target_C = np.empty(len(count_C), np.int64)
    for rank, c in enumerate(np.argsort(-count_C, kind="stable")):
        share = rank / last_rank if profile == "exponential" else float(rank >= len(count_C) // 2)
        # rounding may give a little less than a whole number: 5000 * 32^(-2/5) is 1250, computed 1249.9999999999998
        target_C[c] = math.floor(largest * factor**-share * (1 + 1e-12))
    return np.minimum(target_C, count_C)


def cut(data: Dataset, *, profile: str, factor: float, seed: int) -> Dataset:
    """The data with the long tail of `counts` in its training part.

    Which images are kept depends on the seed, the class's name and the pixels, not on the names and order of files.
    With the same seed, the images that a larger factor keeps are among those that a smaller factor keeps.

    Raises:
        ValueError: a class would have no image left.
    """
    count_C = data.counts("train")
    keep_C = counts(count_C, profile, factor)
    if profile == "none":
        return data
    if (keep_C == 0).any():
        empty_classes = ", ".join(data.class_names[c] for c in np.flatnonzero(keep_C == 0))
        raise ValueError(
            f"data.long_tail.factor={factor:g} leaves no training image of {empty_classes}: the largest class has "
            f"{count_C.max()}, so that a factor of at most {count_C.max()} is possible"
        )
    part, train = data.part.copy(), data.where("train")
    for c, name in enumerate(data.class_names):
        member_M = train[data.labels[train] == c]
        member_M = member_M[np.argsort(data.digest[member_M], kind="stable")]
        order = rng.permutation(seed, "long tail", zlib.crc32(name.encode()), size=len(member_M)).numpy()
        part[member_M[order[keep_C[c] :]]] = -1
    note = (
        f"data.long_tail.profile={profile}, factor {factor:g}: training keeps {keep_C.sum()} of {count_C.sum()} "
        f"images, class by class {', '.join(map(str, keep_C))}"
    )
    return dataclasses.replace(data, part=part, notes=(*data.notes, note))
