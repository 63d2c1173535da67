"""Mean faces: the mean image of each class, and how it differs from the mean of all classes."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patches import Rectangle

from emoexp.figures.image_grids import SMOOTH, TOP, axes_in_inches, check_images, fitted_text, width_and_left
from emoexp.figures.pictures import picture
from emoexp.figures.style import ABSENT, GREY, saved_figure

COLUMNS = 8
# inches: side of a picture, gap between two, height of the text above, gap between rows
_SIDE, _GAP, _NAMES, _ROW_GAP = 1.2, 0.08, 0.34, 0.14
_LEFT_MARGIN, _RIGHT_MARGIN = 0.2, 0.6  # inches: words on the left, colour bar on the right
_LUMINANCE = (0.299, 0.587, 0.114)  # Rec. 601, of red, green and blue
_BLOCK_BYTES = 32 << 20
_COLOURS = LinearSegmentedColormap.from_list("deviation", ["#A3380A", "#F0B08C", "#FFFFFF", "#8DBDE0", "#0B4F8A"])


def class_means(
    path: Path,
    image_NCHW: np.ndarray,
    label_N: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str = "Mean face of each class",
) -> Path:
    """The mean image of each class. Below it, its deviation: its luminance minus that of the mean of all class means,
    in which each class counts once; in grey levels, on one scale for all. Eight classes in a row.

    Args:
        image_NCHW: uint8, 1 or 3 channels, read once and by blocks of at most 32 MiB: may be memory-mapped.
        label_N: 0..C-1. A class without images gets empty squares.

    Raises:
        ValueError: no class, images of another shape or type, other than one label each, or labels out of range.
    """
    check_images("class_means", image_NCHW, label_N)
    count_C, mean_CKHW = _means(image_NCHW, np.asarray(label_N), len(class_names))
    deviation_CHW, present_C = _deviations(mean_CKHW, count_C > 0), count_C > 0
    rows = math.ceil(len(class_names) / COLUMNS)
    columns, row = math.ceil(len(class_names) / rows), _NAMES + 2 * _SIDE + _GAP + _ROW_GAP
    width, left = width_and_left(_LEFT_MARGIN + columns * (_SIDE + _GAP) + _RIGHT_MARGIN)
    left += _LEFT_MARGIN
    height, largest = TOP + rows * row - _ROW_GAP + TOP, _full_colour(deviation_CHW[present_C])
    facts = f"n = {len(image_NCHW):,} images · below: luminance minus that of the mean of the class means"
    with saved_figure(path, width, height, title, facts, layout=None) as figure:
        axes = axes_in_inches(figure, width, height)
        for place, name in enumerate(class_names):
            x, y = left + place % columns * (_SIDE + _GAP), TOP + place // columns * row
            fitted_text(axes, x, y + 0.14, name, _SIDE, size=8.5)
            fitted_text(axes, x, y + 0.285, f"n = {count_C[place]:,}", _SIDE, size=7.5, color=GREY)
            if present_C[place]:
                _column(axes, (x, y + _NAMES), mean_CKHW[place], deviation_CHW[place], largest)
            else:
                axes.add_patch(Rectangle((x, y + _NAMES), _SIDE, 2 * _SIDE + _GAP, facecolor=ABSENT))
        for y in np.arange(rows) * row + TOP + _NAMES:
            _sides(axes, left, (left + columns * (_SIDE + _GAP), y), largest)
    return path


def _means(image_NCHW: np.ndarray, label_N: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of each class, and their mean, float64 C×K×H×W (K channels); zeros for a class without images."""
    if num_classes < 1 or not np.isin(label_N, np.arange(num_classes)).all():
        raise ValueError(f"class_means needs classes, and labels from 0 to {num_classes - 1}, got {np.unique(label_N)}")
    total_CKHW = np.zeros((num_classes, *image_NCHW.shape[1:]))
    step = max(1, _BLOCK_BYTES // max(1, math.prod(image_NCHW.shape[1:])))
    for start in range(0, len(label_N), step):
        block_BKHW, label_B = np.asarray(image_NCHW[start : start + step]), label_N[start : start + step]
        for label in np.unique(label_B):
            total_CKHW[label] += block_BKHW[label_B == label].sum(axis=0, dtype=np.int64)
    count_C = np.bincount(label_N, minlength=num_classes)
    total_CKHW /= np.maximum(count_C, 1)[:, None, None, None]
    return count_C, total_CKHW


def _deviations(mean_CKHW: np.ndarray, present_C: np.ndarray) -> np.ndarray:
    """Luminance of each mean minus that of their mean, C×H×W."""
    weight_K = np.array(_LUMINANCE if mean_CKHW.shape[1] == 3 else (1.0,))
    luminance_CHW = np.einsum("k,ckhw->chw", weight_K, mean_CKHW)
    return luminance_CHW - luminance_CHW[present_C].sum(axis=0) / max(1, present_C.sum())


def _full_colour(deviation_CHW: np.ndarray) -> float:
    """The deviation shown in full colour, the 99th percentile, so that a class of few images does not set the scale."""
    return max(1.0, float(np.quantile(np.abs(deviation_CHW), 0.99))) if deviation_CHW.size else 1.0


def _column(
    axes: Axes, corner: tuple[float, float], mean_KHW: np.ndarray, deviation_HW: np.ndarray, largest: float
) -> None:
    x, y = corner
    picture(axes, corner, np.rint(mean_KHW).astype(np.uint8), _SIDE, interpolation=SMOOTH)
    corner_below = (x, y + _SIDE + _GAP)
    picture(
        axes, corner_below, deviation_HW[None], _SIDE, cmap=_COLOURS, vmin=-largest, vmax=largest, interpolation=SMOOTH
    )


def _sides(axes: Axes, left: float, corner: tuple[float, float], largest: float) -> None:
    """Write on the left what a row of pictures shows; draw on the right the scale of the deviations."""
    x, y = corner
    for line, text in enumerate(("mean", "deviation")):
        middle = y + _SIDE / 2 + line * (_SIDE + _GAP)
        axes.text(left - 0.06, middle, text, rotation=90, ha="right", va="center", size=8)
    place = axes.inset_axes((x, y + _SIDE + _GAP, 0.1, _SIDE), transform=axes.transData)
    bar = axes.figure.colorbar(
        ScalarMappable(Normalize(-largest, largest), _COLOURS), cax=place, extend="both", extendfrac=0.06
    )
    bar.outline.set_visible(False)
    bar.set_ticks([-largest, 0, largest], labels=[f"−{largest:.0f}", "0", f"+{largest:.0f}"])
    bar.ax.tick_params(length=0, labelsize=7.5)
    axes.text(x + 0.44, y + 1.5 * _SIDE + _GAP, "grey levels", rotation=90, va="center", size=7.5)
