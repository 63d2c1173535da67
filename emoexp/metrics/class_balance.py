"""How uneven the classes are, and what a test part of this size can tell about each, before anyone trains."""

import math
from statistics import NormalDist

import numpy as np

from emoexp.metrics.bootstrap import wilson


def ratio(count_C: np.ndarray) -> float:
    """Images of the largest class over those of the smallest that has any."""
    return float(count_C.max() / count_C[count_C > 0].min())


def evenness(count_C: np.ndarray) -> float:
    """Entropy of the class shares over its largest value: 1 for equal classes, 0 for a single one (Pielou 1966)."""
    share_C = count_C[count_C > 0] / count_C.sum()
    return float(-(share_C * np.log(share_C)).sum() / math.log(len(count_C)))


def expected_interval(count: int, level: float = 0.95) -> dict[str, float | int]:
    """What `count` test images of a class can tell of its recall: Wilson's interval if all of them are right (low,
    high) and if half are (half_low, half_high)."""
    low, high = wilson(count, count, level)
    half_low, half_high = wilson(count // 2, count, level)
    return {"n": count, "low": low, "high": high, "half_low": half_low, "half_high": half_high}


def images_for(half_width: float, level: float = 0.95) -> int:
    """Test images of a class for which a recall of one half is known to within `half_width` (0..1), by Wilson's
    interval: z²(1/(4h²) - 1), rounded up."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    return math.ceil(z * z * (1 / (4 * half_width**2) - 1))
