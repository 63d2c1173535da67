"""Pictures of mistakes as a figure."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from emoexp.figures.style import GREY, printable, saved_figure
from emoexp.metrics.classification import check

MOST, COLUMNS = 32, 8
_CELL, _PICTURE, _HEAD, _ROW = 1.34, 1.24, 0.32, 1.8  # inches: column, side of a picture, text above it, row
_MARGIN = 0.08


def mistakes(
    path: Path,
    image_MCHW: np.ndarray,
    index_N: np.ndarray,
    target_N: np.ndarray,
    probability_NC: np.ndarray,
    class_names: Sequence[str],
    names: Sequence[str],
    *,
    title: str = "Most confident mistakes: true → predicted, confidence",
) -> Path:
    """The wrong predictions of highest confidence, at most 32, each with truth, prediction, confidence and name.

    Images uint8, grey or RGB, of which only those shown are read; index_N: the row of each prediction's image. Raises
    `ValueError` as `classification.summarise` does, and for images or names that are not one per row of probabilities.
    """
    probability_NC, target_N = check(probability_NC, target_N, class_names)
    if not len(index_N) == len(names) == len(target_N):
        lengths = f"{len(index_N)} and {len(names)}"
        raise ValueError(
            f"mistakes: {len(target_N)} rows of probabilities need as many images and names, got {lengths}"
        )
    predicted_N, confidence_N = probability_NC.argmax(axis=1), probability_NC.max(axis=1)
    wrong_M = np.flatnonzero(predicted_N != target_N)
    shown_M = wrong_M[np.argsort(-confidence_N[wrong_M], kind="stable")][:MOST]
    facts = f"{len(shown_M)} of {len(wrong_M):,} mistakes · n = {len(target_N):,}"
    columns = min(COLUMNS, max(4, len(shown_M)))
    width, height = columns * _CELL + 2 * _MARGIN, max(1, math.ceil(len(shown_M) / columns)) * _ROW + _MARGIN
    label_C = printable(class_names, 13)
    with saved_figure(path, width, height, title, facts, layout=None) as figure:
        axes = figure.add_axes((0, 0, 1, height / figure.get_figheight()))
        for place, i in enumerate(shown_M):
            prediction = f"→ {label_C[predicted_N[i]]} {confidence_N[i]:.2f}"
            corner = (_MARGIN + place % columns * _CELL, place // columns * _ROW + _HEAD)
            picture(axes, corner, np.asarray(image_MCHW[index_N[i]]))
            _write_labels(axes, corner, label_C[target_N[i]], prediction, str(names[i]))
        if not len(shown_M):
            axes.text(width / 2, height / 2, f"No mistakes in {len(target_N):,} images", ha="center", fontsize=12)
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
    return path


def picture(
    axes: Axes, corner: tuple[float, float], image_CHW: np.ndarray, side: float = _PICTURE, **look: Any
) -> None:
    """Draw a picture, grey or RGB. corner: its upper left corner. side: its longer side, in inches. look: arguments of
    `imshow` that replace the defaults, grey levels 0..255 and nearest pixels."""
    assert image_CHW.ndim == 3 and len(image_CHW) in (1, 3), image_CHW.shape
    grey, (height, width), (x, y) = len(image_CHW) == 1, image_CHW.shape[1:], corner
    pixels, scale = image_CHW[0] if grey else image_CHW.transpose(1, 2, 0), side / max(height, width)
    axes.imshow(
        pixels,
        extent=(x, x + scale * width, y + scale * height, y),
        aspect="auto",
        **{"cmap": "gray" if grey else None, "vmin": 0, "vmax": 255, "interpolation": "nearest"} | look,
    )


def _write_labels(axes: Axes, corner: tuple[float, float], truth: str, prediction: str, name: str) -> None:
    """Two lines above the picture, its name below."""
    x, y = corner
    axes.text(x, y - 0.175, truth, fontsize=7.5)
    axes.text(x, y - 0.05, prediction, fontsize=7.5)
    axes.text(x, y + _PICTURE + 0.03, printable([name], 26)[0], fontsize=5.5, color=GREY, va="top")
