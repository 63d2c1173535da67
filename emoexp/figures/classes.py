"""Figures of classes as horizontal bars and intervals: counts, the precision of a test part, confounds, and the gain by
leaks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from emoexp.figures.history import column
from emoexp.figures.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    PALETTE,
    SKY,
    VERMILION,
    most_and_fewest,
    printable,
    saved_figure,
)
from emoexp.metrics import class_balance

TOO_WIDE = 0.10  # half-width of the interval of a recall of one half above which a class is marked
_WIDTH, _LABELS = 8.2, 34  # inches; letters of a label
_ROOM = 5.2  # inches: largest width of a legend of several columns
_RECALL, _N, _POINTS = 34, 84, 62  # points right of the axes where a column of text ends
_SURE, _ALARM, _ALARMED, _BAND = (BLUE, SKY), (VERMILION, "#F0A27A"), "#FDEEE6", "#F5F5F5"


def class_counts(
    path: Path, count_PC: np.ndarray, class_names: Sequence[str], part_names: Sequence[str], *, title: str
) -> Path:
    """Images of each class in each part on a logarithmic scale, and the imbalance ratio of the first part, training:
    its largest class over its smallest one that has images.

    count_PC: images, a row for each part. Raises `ValueError` for counts of another shape, or without any.
    """
    count_PC = np.asarray(count_PC)
    if not count_PC.size or count_PC.shape != (len(part_names), len(class_names)):
        expected = f"{len(part_names)} parts × {len(class_names)} classes"
        raise ValueError(f"class_counts needs one count for each of {expected}, at least one, got {count_PC.shape}")
    names, parts = printable(class_names), printable(part_names)
    thick, (shown, left_out) = 0.84 / len(parts), most_and_fewest(count_PC[0])
    facts, part_totals = " · ".join([_imbalance_facts(count_PC, names, parts), *left_out]), count_PC.sum(axis=1)
    count_PC, names = count_PC[:, shown], [names[c] for c in shown]
    with saved_figure(path, _WIDTH, 0.85 + _height(names, parts), title, facts) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        for part, count_C in enumerate(count_PC):
            place_C, colour = np.arange(len(names)) + (part + 0.5) * thick - 0.42, PALETTE[part % len(PALETTE)]
            axes.barh(place_C, np.maximum(count_C, 0.1), 0.88 * thick, color=colour)
            for place, count in zip(place_C, count_C, strict=True):
                end = (max(count, 0.7), place)
                axes.annotate(f"{count:,}", end, (3, -0.5), textcoords="offset points", va="center", size=7.5)
        largest = max(10, count_PC.max())
        axes.set_xlim(0.7, largest * (largest / 0.7) ** 0.09)  # room for the numbers: 9 % of a logarithmic scale
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("images (logarithmic scale)")
        _rows(axes, names)
        _legend(axes, [f"{part}  {n:,}" for part, n in zip(parts, part_totals, strict=True)])
    return path


def _imbalance_facts(count_PC: np.ndarray, names: Sequence[str], parts: Sequence[str]) -> str:
    train_C = count_PC[0]
    facts = [f"n = {count_PC.sum():,} images"]
    if train_C.any():
        rarest = np.where(train_C > 0, train_C, train_C.max()).argmin()
        classes = f"{names[train_C.argmax()]} over {names[rarest]}"
        facts.append(f"imbalance ratio of {parts[0]} {class_balance.ratio(train_C):,.1f} ({classes})")
    absent = int((train_C == 0).sum())
    return " · ".join(facts + [f"{absent} of {len(names)} classes without any in {parts[0]}"] * (absent > 0))


def expected_intervals(path: Path, rows: Sequence[dict[str, Any]], *, title: str, level: float = 0.95) -> Path:
    """How precisely a test part of this size measures each class: the interval of its recall if all of its images are
    right, and if half are. A class is red if the second interval is wider than ±10 points.

    rows: class, n, low and high (all are right), half_low and half_high, shares. Raises `ValueError` without rows.
    """
    if not rows:
        raise ValueError("expected_intervals needs at least one class, got none")
    n = np.nansum(column(rows, "n"))
    shown, left_out = most_and_fewest(column(rows, "n"))
    rows = [rows[place] for place in shown]
    n_C, *end_4C = (column(rows, key) for key in ("n", "low", "high", "half_low", "half_high"))
    half_width_C = (end_4C[3] - end_4C[2]) / 2
    names = printable([str(row["class"]) for row in rows])
    facts = f"n = {n:,.0f} test images, beside each class its own · {100 * level:g} % Wilson intervals"
    facts = " · ".join([facts, *left_out])
    with saved_figure(path, _WIDTH, 0.8 + 0.4 * len(rows), title, facts) as figure:
        axes = figure.subplots()
        axes.axvline(0.5, color=FAINT, linewidth=0.8, zorder=0.9)
        for row, (low, high, half_low, half_high) in enumerate(zip(*end_4C, strict=True)):
            alarming = half_width_C[row] > TOO_WIDE
            colour_all, colour_half = _ALARM if alarming else _SURE
            axes.axhspan(row - 0.5, row + 0.5, color=_ALARMED if alarming else "none", linewidth=0)
            axes.barh([row - 0.17], [high - low], 0.3, left=[low], color=colour_all)
            axes.barh([row + 0.17], [half_high - half_low], 0.3, left=[half_low], color=colour_half)
            look = {"color": VERMILION, "weight": "bold"} if alarming else {}
            _write_beside(axes, row, _POINTS, f"±{100 * half_width_C[row]:.0f} points", size=8.5, **look)
        _write_beside(axes, -0.66, _POINTS, "if half", size=8.5)
        axes.set(xlim=(0, 1), xlabel="recall")
        _rows(axes, [f"{name}  {n:,.0f}" for name, n in zip(names, n_C, strict=True)])
        kinds = ("if all are right", "if half are right", f"if half: over ±{100 * TOO_WIDE:.0f} points")
        _legend(axes, kinds, (*_SURE, VERMILION))
    return path


def confound(path: Path, rows: Sequence[dict[str, Any]], *, title: str, images: int | None = None) -> Path:
    """How well each feature that shows no expression predicts the class (dot), beside chance (line) and its 95th
    percentile (band); best first, red beyond the band.

    Args:
        rows: feature, macro_f1, chance, chance_high, of 0..1.
        images: number of images, for the heading.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("confound needs at least one feature, got none")
    rows = [rows[place] for place in np.argsort(-column(rows, "macro_f1"), kind="stable")]
    score_F, chance_F, high_F = (column(rows, key) for key in ("macro_f1", "chance", "chance_high"))
    facts = f"{(score_F > high_F).sum()} of {len(rows)} beyond chance · line: chance, band: up to its 95th percentile"
    facts = facts if images is None else f"n = {images:,} images · {facts}"
    with saved_figure(path, _WIDTH, 0.65 + 0.3 * len(rows), title, facts) as figure:
        axes, edge = figure.subplots(), float(np.nanmax([score_F, high_F, np.full(len(rows), 0.05)]))
        place_F = np.arange(len(rows))
        axes.barh(place_F, high_F - chance_F, 0.62, left=chance_F, color=FAINT)
        axes.plot(chance_F, place_F, "|", color=INK, markersize=13, markeredgewidth=1.6)
        for place, score, high in zip(place_F, score_F, high_F, strict=True):
            colour, end = VERMILION if score > high else GREY, (np.fmax(score, high), place)
            axes.plot([score], [place], "o", color=colour, markersize=7)
            axes.annotate(f"{score:.3f}", end, (8, -0.5), textcoords="offset points", va="center", size=8, color=colour)
        axes.set(xlim=(0, 1.1 * edge), xlabel="macro-F1 from this fact alone")
        _rows(axes, printable([str(row["feature"]) for row in rows], _LABELS))
    return path


def leak_worth(path: Path, rows: Sequence[dict[str, Any]], *, title: str, facts: str) -> Path:
    """Recall of each class by arm, such as leaky and clean ones, with its interval; beside it the recall and n.

    Args:
        rows: class, and arms: label, recall, low and high (NaN where there is none), n.
        facts: what the interval is.

    Raises:
        ValueError: no rows or arms, or classes with different arms.
    """
    labels = [[str(arm["label"]) for arm in row["arms"]] for row in rows]
    if not labels or not labels[0] or any(row_labels != labels[0] for row_labels in labels):
        raise ValueError(f"leak_worth needs classes, and the same arms in each, got arms {labels}")
    names, arms = printable([str(row["class"]) for row in rows]), printable(labels[0], _LABELS)
    thick = 0.8 / len(arms)
    with saved_figure(path, _WIDTH, 0.9 + _height(names, arms), title, facts) as figure:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            axes.axhspan(place - 0.5, place + 0.5, color="none" if place % 2 else _BAND, linewidth=0)
            value_4A = [column(row["arms"], key) for key in ("recall", "low", "high", "n")]
            for arm, (recall, low, high, n) in enumerate(zip(*value_4A, strict=True)):
                y, colour = place - 0.4 + (arm + 0.5) * thick, PALETTE[arm % len(PALETTE)]
                axes.plot([low, high], [y, y], color=colour, linewidth=2, alpha=0.55, solid_capstyle="butt")
                axes.plot([recall], [y], "o", color=colour, markersize=5)
                _write_beside(axes, y, _RECALL, "–" if np.isnan(recall) else f"{recall:.3f}", size=7.5, color=colour)
                _write_beside(axes, y, _N, f"{n:,.0f}", size=7.5, color=GREY)
        _write_beside(axes, -0.6, _RECALL, "recall", size=8)
        _write_beside(axes, -0.6, _N, "n", size=8, color=GREY)
        axes.set(xlim=(-0.02, 1.02), xlabel="recall")
        _rows(axes, names)
        _legend(axes, arms)
    return path


def _height(names: Sequence[str], bars: Sequence[str]) -> float:
    """The height in inches of rows with several bars each."""
    return len(names) * (0.14 + 0.17 * len(bars))


def _write_beside(axes: Axes, row: float, end: float, text: str, **look: Any) -> None:
    """Write a row's text right of the axes; it ends `end` points from them."""
    place: Any = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate(text, (1, row), (end, 0), ha="right", va="center", **place, **look)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _legend(axes: Axes, labels: Sequence[str], colours: Sequence[str] = PALETTE) -> None:
    """A legend above the axes, with as many entries in a line as have room."""
    handles = [Patch(color=colours[entry % len(colours)]) for entry in range(len(labels))]
    look: Any = {"borderaxespad": 0.2, "handlelength": 1.2, "handleheight": 0.6}
    for columns in range(len(labels), 0, -1):
        legend = axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, **look)
        if legend.get_window_extent().width <= _ROOM * axes.figure.dpi:
            break
