"""Heatmaps of arms by class: recall of every class, and how confusions differ from a baseline's."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from emoexp.figures.style import ABSENT, INK, most_and_fewest, printable, saved_figure

_RECALL_COLOURS = LinearSegmentedColormap.from_list(
    "recall", ["#FFFFFF", "#BBD6EA", "#4A92C5", "#0B3C6B"]
).with_extremes(bad=ABSENT)
_DIFFERENCE_COLOURS = LinearSegmentedColormap.from_list(
    "difference", ["#A3380A", "#F0B08C", "#FFFFFF", "#8DBDE0", "#0B4F8A"]
).with_extremes(bad=ABSENT)
_DARK = 0.18  # relative luminance below which white letters stand out better than black ones
_COLUMNS = 3
_MAX_NAMED = 60  # classes whose names stand beside a confusion
_MAX_WITH_NUMBERS = 12  # up to so many classes, the cells of a confusion have room for numbers
_LARGEST_SIDE = 6.0  # inches of a confusion
_SHORT = 9  # a name of at most so many letters fits above a cell


def recalls(
    path: Path, arms: Sequence[str], class_names: Sequence[str], recall_AC: np.ndarray, n_C: Sequence[int], title: str
) -> Path:
    """Mean recall of each class (columns, with its training images) by arm (rows), in percent. NaN stays empty."""
    shown, left_out = most_and_fewest(np.asarray(n_C))
    all_named = list(zip(class_names, n_C, strict=True))
    recall_AC, named = np.asarray(recall_AC, float)[:, shown], [all_named[c] for c in shown]
    names, numbers = printable([name for name, _ in named]), [f"{n:,}" for _, n in named]
    short = max(len(name) for name in names) <= _SHORT
    labels = [f"{name}\n{n}" if short else f"{name}  {n}" for name, n in zip(names, numbers, strict=True)]
    size = (2.6 + 0.62 * len(names), (0.75 if short else 2.0) + 0.34 * len(arms))
    facts = " · ".join(["recall in %, mean over seeds · below a class: its training images", *left_out])
    with saved_figure(path, max(5.5, size[0]), size[1], title, facts) as figure:
        axes = figure.subplots()
        image = np.ma.masked_invalid(np.asarray(recall_AC, float))
        axes.imshow(image, cmap=_RECALL_COLOURS, vmin=0, vmax=1, aspect="auto")
        _write_numbers(axes, image, _RECALL_COLOURS(image), lambda value: f"{100 * value:.0f}", 8.5)
        _label_sides(axes, labels, printable(arms, 34))
        if not short:
            axes.tick_params(axis="x", labelrotation=90)
    return path


def confusion_differences(
    path: Path,
    arms: Sequence[str],
    difference_ACC: np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> Path:
    """For each arm its confusion (shares of the true class) minus the baseline's, in points; one scale for all."""
    rows, names = math.ceil(len(arms) / _COLUMNS), printable(class_names, 10)
    columns, labels, has_numbers = min(_COLUMNS, len(arms)), printable(arms, 34), len(names) <= _MAX_WITH_NUMBERS
    side = min(1.3 + (0.3 if has_numbers else 0.13) * len(names), _LARGEST_SIDE)
    points_ACC = 100 * np.asarray(difference_ACC, float)
    largest = max(1.0, float(np.nan_to_num(np.abs(points_ACC)).max()))
    facts = "share of the true class (row) by prediction (column), in points · blue: more, red: less · diagonal: recall"
    if not has_numbers:
        facts += f" · full colour: {largest:.0f} points"
    with saved_figure(path, max(5.5, columns * side + 0.3), rows * (side + 0.25), title, facts, "compressed") as figure:
        for panel, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            if panel >= len(arms):
                axes.set_axis_off()
                continue
            image = np.ma.masked_invalid(points_ACC[panel])
            axes.imshow(image, cmap=_DIFFERENCE_COLOURS, vmin=-largest, vmax=largest)
            if has_numbers:
                _write_numbers(
                    axes,
                    image,
                    _DIFFERENCE_COLOURS((image + largest) / (2 * largest)),
                    lambda value: f"{round(value)}",
                    7,
                )
            axes.set_title(labels[panel])
            if len(names) > _MAX_NAMED:
                axes.set(xticks=[], yticks=[])
                continue
            _label_sides(axes, names, names if panel % columns == 0 else [""] * len(names))
            axes.tick_params(axis="x", labelrotation=90)
            if not has_numbers:
                axes.tick_params(labelsize=6.5)
    return path


def _write_numbers(
    axes: Axes, image: np.ma.MaskedArray, colour: np.ndarray, text_of: Callable[[float], str], size: float
) -> None:
    dark = np.asarray(colour)[..., :3] ** 2.2 @ (0.2126, 0.7152, 0.0722) < _DARK
    for (row, column), value in np.ndenumerate(np.ma.filled(image, np.nan)):
        text = "–" if math.isnan(value) else text_of(value)
        ink = "white" if dark[row, column] else INK
        letters = axes.text(column, row, text, ha="center", va="center", color=ink, size=size)
        letters.set_in_layout(False)


def _label_sides(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelsize=8.5)
    axes.spines[:].set_visible(False)
