"""Grids of many pictures, or of pairs of them, each with a short caption."""

import math
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from emoexp.figures.pictures import picture
from emoexp.figures.style import GREY, printable, saved_figure

MOST, MOST_PAIRS, PAIRS = 480, 48, 4  # at most so many pictures, or pairs, in a figure; pairs in a row
# all lengths in inches
TOP = 0.06  # below the heading
_SIDE, _GAP = 0.86, 0.06  # side of a picture; gap between two
_PAIR_SIDE, _PAIR_GAP = 1.2, 0.03  # side of a picture in a pair; gap between the two
_PADDING, _MARGIN = 0.07, 0.13  # around a pair; to the next pair
_LINE, _SIZE, _FOOT = 0.125, 6.5, 0.04  # height of a line of a caption; size of its letters, in points; space below
_MIN_WIDTH, _EDGE = 4.2, 0.01  # smallest width, for the heading; share of the width left free on either side
_LETTERS = 60  # at most so many letters of a caption's line, before it is cut to its width
_TINT = "#F1F1F1"
SMOOTH = "hanning"  # smooth: faces of 48 pixels are hard to recognise in visible squares


def image_grid(
    path: Path, image_NCHW: np.ndarray, captions: Sequence[str], *, title: str, facts: str, columns: int = 12
) -> Path:
    """Pictures in their order, each above its caption of up to two lines. Of more than 480 the first 480, as the facts
    then say.

    Args:
        image_NCHW: uint8, 1 or 3 channels; only those shown are read.
        captions: one for each; the rows are only as high as the longest caption needs.
        facts: what the pictures are and how many, such as "48 of 7,215".
        columns: at most so many pictures in a row; fewer where that makes the last row fuller.

    Raises:
        ValueError: images of another shape or type, other than one caption for each, or no columns.
    """
    check_images("image_grid", image_NCHW, captions)
    if columns < 1:
        raise ValueError(f"image_grid needs at least 1 column, got {columns}")
    shown = captions[:MOST]
    rows = max(1, math.ceil(len(shown) / columns))
    columns, row = max(1, math.ceil(len(shown) / rows)), _SIDE + _GAP + _caption_height(shown)
    width, left = width_and_left(columns * (_SIDE + _GAP) - _GAP)
    height = TOP + rows * row + TOP - _GAP
    facts = _facts_if_cut(facts, len(captions), len(shown))
    with saved_figure(path, width, height, title, facts, layout=None) as figure:
        axes = axes_in_inches(figure, width, height)
        for place, caption in enumerate(shown):
            corner = (left + place % columns * (_SIDE + _GAP), TOP + place // columns * row)
            picture(axes, corner, np.asarray(image_NCHW[place]), _SIDE, interpolation=SMOOTH)
            _caption_below(axes, corner, caption, _SIDE)
        if not len(shown):
            _write_none(axes, width, height)
    return path


def image_pairs(
    path: Path,
    left_NCHW: np.ndarray,
    right_NCHW: np.ndarray,
    captions: Sequence[str],
    *,
    title: str,
    facts: str,
) -> Path:
    """Pairs of pictures side by side, each pair on a grey ground with its caption of up to two lines. Of more than 48
    pairs the first 48, as the facts then say.

    Args:
        left_NCHW, right_NCHW: uint8, 1 or 3 channels, equally many; only those shown are read.
        captions: one for each pair.
        facts: what the pairs are and how many.

    Raises:
        ValueError: images of another shape or type, or other than one caption for each pair.
    """
    check_images("image_pairs, left", left_NCHW, captions)
    check_images("image_pairs, right", right_NCHW, captions)
    shown = captions[:MOST_PAIRS]
    rows, inner = max(1, math.ceil(len(shown) / PAIRS)), 2 * _PAIR_SIDE + _PAIR_GAP
    columns, cell, row = (
        max(1, math.ceil(len(shown) / rows)),
        inner + 2 * _PADDING,
        _PAIR_SIDE + 2 * _PADDING + _caption_height(shown),
    )
    width, left = width_and_left(columns * (cell + _MARGIN) - _MARGIN)
    height = TOP + rows * (row + _MARGIN) - _MARGIN + TOP
    facts = _facts_if_cut(facts, len(captions), len(shown))
    with saved_figure(path, width, height, title, facts, layout=None) as figure:
        axes = axes_in_inches(figure, width, height)
        for place, caption in enumerate(shown):
            x, y = left + place % columns * (cell + _MARGIN), TOP + place // columns * (row + _MARGIN)
            axes.add_patch(Rectangle((x, y), cell, row, facecolor=_TINT, zorder=-1))
            x, y = x + _PADDING, y + _PADDING
            for start, image_NCHW in ((x, left_NCHW), (x + _PAIR_SIDE + _PAIR_GAP, right_NCHW)):
                picture(axes, (start, y), np.asarray(image_NCHW[place]), _PAIR_SIDE, interpolation=SMOOTH)
            _caption_below(axes, (x, y + _PAIR_SIDE - _SIDE), caption, inner)
        if not len(shown):
            _write_none(axes, width, height)
    return path


def check_images(caller: str, image_NCHW: np.ndarray, labels: Sized) -> None:
    """Raise `ValueError` unless these are uint8 images of 1 or 3 channels, as many as labels or captions."""
    if image_NCHW.ndim != 4 or image_NCHW.shape[1] not in (1, 3) or image_NCHW.dtype != np.uint8:
        raise ValueError(
            f"{caller}: images have to be uint8 N×1×H×W or N×3×H×W, got {image_NCHW.dtype} of shape {image_NCHW.shape}"
        )
    if len(image_NCHW) != len(labels):
        raise ValueError(f"{caller}: {len(image_NCHW)} images need as many captions or labels, got {len(labels)}")


def width_and_left(content: float) -> tuple[float, float]:
    """Width of a figure in inches, and where its content starts: below the heading's first letter."""
    width = max(_MIN_WIDTH, content / (1 - 2 * _EDGE))
    return width, _EDGE * width


def axes_in_inches(figure: Figure, width: float, height: float) -> Axes:
    """Axes below the heading in inches, from the upper left corner."""
    axes = figure.add_axes((0, 0, width / figure.get_figwidth(), height / figure.get_figheight()))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return axes


def fitted_text(axes: Axes, x: float, y: float, text: str, room: float, **look: Any) -> None:
    """Text that is cut until it is at most `room` inches wide, whatever its letters are; nothing for a blank one."""
    if not text.strip():
        return
    limit = _LETTERS
    shown = axes.text(x, y, printable([text], limit)[0], **look)
    while limit > 3 and shown.get_window_extent().width > room * axes.figure.dpi:
        limit = min(limit, len(shown.get_text())) - 1
        shown.set_text(printable([text], limit)[0])


def _caption_below(axes: Axes, corner: tuple[float, float], caption: str, room: float) -> None:
    x, y = corner
    for line, text in enumerate(caption.split("\n", 1)):
        fitted_text(axes, x, y + _SIDE + _LINE * (line + 0.9), text, room, size=_SIZE)


def _caption_height(captions: Sequence[str]) -> float:
    """Inches that the longest caption needs, of up to two lines."""
    lines = max((len(caption.split("\n", 1)) for caption in captions if caption.strip()), default=0)
    return _LINE * lines + _FOOT * (lines > 0)


def _facts_if_cut(facts: str, total: int, num_shown: int) -> str:
    return facts if num_shown == total else f"{facts} · {num_shown} of {total:,} shown"


def _write_none(axes: Axes, width: float, height: float) -> None:
    axes.text(width / 2, height / 2, "none", ha="center", va="center", color=GREY, size=12)
