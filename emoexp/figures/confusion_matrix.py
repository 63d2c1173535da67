"""The confusion matrix as a figure."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from emoexp.figures.style import ABSENT, FAINT, INK, MAX_CLASSES, printable, saved_figure
from emoexp.metrics.classification import from_confusion, worst_class

_BLUES = LinearSegmentedColormap.from_list("emoexp", ["#FFFFFF", "#BBD6EA", "#4A92C5", "#0B3C6B"])
_COLOURS = _BLUES.with_extremes(bad=ABSENT)
_MAX_LARGE = 12  # up to so many classes the letters are large, and the names below a panel are slanted
_MAX_NAMED = 100  # up to so many classes have their names beside the cells
_LARGEST_SIDE = 13.0  # inches of a panel
_DARK = 0.18  # relative luminance below which white letters stand out better than black ones


def confusion(path: Path, confusion_CC: np.ndarray, class_names: Sequence[str], title: str) -> Path:
    """Counts, and beside them each row's shares in percent (the diagonal is the recall); rows are the truth.

    The colour of a count follows its square root, so that rare classes are visible too. A class without images has no
    shares: its row is grey. More than MAX_CLASSES classes have no numbers in their cells, which would be too small to
    read and take minutes to draw; more than 100 have no names either. Raises `ValueError` for a confusion without
    images.
    """
    confusion_CC = np.asarray(confusion_CC)
    score, count_C = from_confusion(confusion_CC), confusion_CC.sum(axis=1)
    share_CC = np.full(confusion_CC.shape, np.nan)
    np.divide(confusion_CC, count_C[:, None], out=share_CC, where=count_C[:, None] > 0)
    names = printable(class_names)
    size = len(names)
    side = max(3.4, 1.2 + 0.36 * size) if size <= _MAX_LARGE else min(1.6 + 0.31 * size, _LARGEST_SIDE)
    has_numbers = size <= MAX_CLASSES
    facts = (
        f"n = {confusion_CC.sum():,} · accuracy {score['accuracy']:.3f} · macro-F1 {score['macro_f1']:.3f} · "
        f"balanced accuracy {score['balanced_accuracy']:.3f} · worst recall {score['worst_recall']:.3f} "
        f"({names[worst_class(confusion_CC)]})"
    )
    with saved_figure(path, 2 * side + 1.6, side + 0.6, title, facts, "compressed") as figure:
        left, right = figure.subplots(1, 2)
        intensity_CC = np.sqrt(confusion_CC / confusion_CC.max())
        _panel(left, intensity_CC, [f"{count:,}" for count in confusion_CC.flat] if has_numbers else [], names)
        _panel(right, share_CC, [_percent(share) for share in share_CC.flat] if has_numbers else [], names)
        if size <= _MAX_NAMED:
            left.set_yticks(range(size), [f"{name}  {n:,}" for name, n in zip(names, count_C, strict=True)])
        left.set_title("images")
        right.set_title("share of the true class, %")
    return path


def _panel(axes: Axes, intensity_CC: np.ndarray, text: Sequence[str], names: Sequence[str]) -> None:
    size, is_large = len(names), len(names) <= _MAX_LARGE
    intensity_CC = np.ma.masked_invalid(intensity_CC)
    axes.imshow(intensity_CC, cmap=_COLOURS, vmin=0, vmax=1)
    dark_CC = _COLOURS(intensity_CC)[..., :3] ** 2.2 @ (0.2126, 0.7152, 0.0722) < _DARK
    for place, cell in enumerate(text):
        row, column = divmod(place, size)
        ink = FAINT if cell == "0" else "white" if dark_CC[row, column] else INK
        font = (8.5 if is_large else 6.5) * min(1.0, 4.4 / len(cell))
        weight = "bold" if row == column else "normal"
        letters = axes.text(column, row, cell, ha="center", va="center", color=ink, size=font, weight=weight)
        letters.set_in_layout(
            False
        )  # a cell's text never leaves the cell; with many classes the layout would take seconds for it
    if is_large:
        axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
    elif size <= _MAX_NAMED:
        axes.set_xticks(range(size), names, rotation=90)
    what = "" if size <= _MAX_NAMED else ", by the number of the class"
    if not what:
        axes.set_yticks(range(size), names)
    axes.tick_params(length=0, labelsize=8.5 if is_large else 7.5 if size <= MAX_CLASSES else 6.5)
    axes.set(xlabel=f"predicted{what}", ylabel=f"true{what}")
    axes.spines[:].set_visible(False)


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.0f}"
