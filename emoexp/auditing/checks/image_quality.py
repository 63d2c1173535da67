"""Pictures that stand out by themselves: blank, nearly blank, smaller than they are used, much longer than wide."""

import numpy as np

from emoexp.data import images

BLANK, NEARLY = 1.0, 15.0  # standard deviation of grey levels, 0..255, below which a picture is blank or nearly so
LONG = 2.0  # ratio of the sides from which the crop takes away half of a picture or more


def blank(image_NCHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of blank images and of nearly blank ones."""
    deviation_N = images.contrast(image_NCHW)
    return np.flatnonzero(deviation_N < BLANK), np.flatnonzero((deviation_N >= BLANK) & (deviation_N < NEARLY))


def enlarged(width_N: np.ndarray, height_N: np.ndarray, image_size: int) -> np.ndarray:
    """Indices of files whose shorter side is smaller than the images that are made of them; unknown sizes are 0."""
    short_N = np.minimum(width_N, height_N)
    return np.flatnonzero((short_N > 0) & (short_N < image_size))


def elongated(width_N: np.ndarray, height_N: np.ndarray) -> np.ndarray:
    """Indices of files of which one side is at least LONG times the other."""
    short_N, long_N = np.minimum(width_N, height_N), np.maximum(width_N, height_N)
    return np.flatnonzero((short_N > 0) & (long_N >= LONG * short_N))


def other_sizes(width_N: np.ndarray, height_N: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    """The commonest size in files, and the indices of files of another one, where nine in ten have that size.

    Where sizes are mixed there is no wrong one: the indices are empty.
    """
    sizes, size_N, count = np.unique(np.stack([width_N, height_N], 1), axis=0, return_inverse=True, return_counts=True)
    usual = int(count.argmax())
    width, height = (int(side) for side in sizes[usual])
    few = count[usual] >= 0.9 * len(width_N)
    return (width, height), np.flatnonzero(size_N.ravel() != usual) if few else np.empty(0, np.int64)
