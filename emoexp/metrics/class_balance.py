"""Class imbalance, and the precision with which a test part of this size can measure each class's recall."""

import math
from statistics import NormalDist

import numpy as np

from emoexp.metrics.bootstrap import wilson


def ratio(count_C: np.ndarray) -> float:
    """Imbalance ratio: images of the largest class over those of the smallest class that has images."""
    return float(count_C.max() / count_C[count_C > 0].min())


def evenness(count_C: np.ndarray) -> float:
    """Entropy of the class shares over its largest value: 1 for equal classes, 0 for a single one (Pielou 1966)."""
    share_C = count_C[count_C > 0] / count_C.sum()
    return float(-(share_C * np.log(share_C)).sum() / math.log(len(count_C)))


def expected_interval(count: int, level: float = 0.95) -> dict[str, float | int]:
    """Wilson's interval of a class's recall on `count` test images: if all of them are classified correctly (low,
    high), and if half of them are (half_low, half_high)."""
    low, high = wilson(count, count, level)
    half_low, half_high = wilson(count // 2, count, level)
    return {"n": count, "low": low, "high": high, "half_low": half_low, "half_high": half_high}


def images_for(half_width: float, level: float = 0.95) -> int:
    """Number of test images of a class at which Wilson's interval of a recall of one half has this half-width h, in
    0..1: z²(1/(4h²) - 1), rounded up."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    return math.ceil(z * z * (1 / (4 * half_width**2) - 1))
