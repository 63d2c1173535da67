"""Unusual pictures: blank, nearly blank, smaller than they are used, or much longer than wide."""

import numpy as np

from emoexp.data import images

BLANK, NEARLY_BLANK = 1.0, 15.0  # standard deviations of grey levels (0..255): a picture below one is (nearly) blank
LONG = 2.0  # ratio of the sides at which the crop removes half of a picture


def blank(image_NCHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of blank images and of nearly blank ones."""
    deviation_N = images.contrast(image_NCHW)
    return np.flatnonzero(deviation_N < BLANK), np.flatnonzero((deviation_N >= BLANK) & (deviation_N < NEARLY_BLANK))


def enlarged(width_N: np.ndarray, height_N: np.ndarray, image_size: int) -> np.ndarray:
    """Indices of files whose shorter side is smaller than the images that are made of them; unknown sizes are 0."""
    short_N = np.minimum(width_N, height_N)
    return np.flatnonzero((short_N > 0) & (short_N < image_size))


def elongated(width_N: np.ndarray, height_N: np.ndarray) -> np.ndarray:
    """Indices of files of which one side is at least LONG times the other."""
    short_N, long_N = np.minimum(width_N, height_N), np.maximum(width_N, height_N)
    return np.flatnonzero((short_N > 0) & (long_N >= LONG * short_N))


def other_sizes(width_N: np.ndarray, height_N: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    """The most common size of files, and the indices of files of another size if nine in ten files have that size.

    If fewer have it, sizes are mixed, no size counts as unusual, and the indices are empty.
    """
    sizes, size_N, count = np.unique(np.stack([width_N, height_N], 1), axis=0, return_inverse=True, return_counts=True)
    usual = int(count.argmax())
    width, height = (int(side) for side in sizes[usual])
    has_usual_size = count[usual] >= 0.9 * len(width_N)
    return (width, height), np.flatnonzero(size_N.ravel() != usual) if has_usual_size else np.empty(0, np.int64)
