"""The ledger of priors as a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from emoexp.figures.history import column
from emoexp.figures.style import (
    BLUE,
    DASHED,
    FAINT,
    GREEN,
    INK,
    MAX_CLASSES,
    SKY,
    VERMILION,
    most_and_fewest,
    printable,
    saved_figure,
)


def ledger(path: Path, rows: Sequence[dict[str, Any]], *, title: str = "What training aims at") -> Path:
    """On the left, of each class: images, copies, expected draws in an epoch. On the right: the prior of the data, the
    prior that training aims at, and the uniform one; of a run in two stages, those of the second.

    rows: the ledger's, with class, images, copies, draws, weight, prior and effective_prior. Raises `ValueError`
    without rows.
    """
    if not rows:
        raise ValueError("the figure of the ledger needs at least one class, got none")
    keys = ("images", "copies", "draws")
    images, copies, draws = (round(float(np.nansum(column(rows, key)))) for key in keys)
    shown, left_out = most_and_fewest(column(rows, "images"))
    facts = " · ".join([f"n = {images:,} training images + {copies:,} copies · {draws:,} draws an epoch", *left_out])
    uniform, rows = 1 / len(rows), [rows[place] for place in shown]
    names, place_C = printable([str(row["class"]) for row in rows]), np.arange(len(rows))
    original_C, copy_C, draw_C = (column(rows, key) for key in keys)
    with saved_figure(path, 10.6, 1.2 + 0.46 * len(rows), title, facts) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        _holdings(left, place_C, original_C, copy_C, draw_C)
        prior_C, effective_C, weight_C = (column(rows, key) for key in ("prior", "effective_prior", "weight"))
        _priors(right, place_C, prior_C, effective_C, weight_C, uniform)
        left.set_yticks(place_C, names)
        left.set_ylim(len(rows) - 0.4, -0.6)
        for axes in (left, right):
            axes.grid(True, axis="x")
            axes.tick_params(axis="y", length=0)
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handlelength=1.4)
    return path


def _holdings(axes: Axes, place_C: np.ndarray, original_C: np.ndarray, copy_C: np.ndarray, draw_C: np.ndarray) -> None:
    axes.barh(place_C, original_C, 0.62, color=BLUE, label="images")
    axes.barh(place_C, copy_C, 0.62, left=original_C, color=SKY, label="copies")
    axes.plot(draw_C, place_C, "|", markersize=13, markeredgewidth=2.2, color=VERMILION, label="draws an epoch")
    end_C = np.fmax(original_C + copy_C, draw_C)
    text = [
        f"{image:,.0f}" + (f" + {copy:,.0f}" if copy else "") + f" → {draw:,.0f}"
        for image, copy, draw in zip(original_C, copy_C, draw_C, strict=True)
    ]
    _write_beside(axes, place_C, end_C, text, room=1.36)
    axes.set_xlabel("images + copies → draws")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _priors(
    axes: Axes,
    place_C: np.ndarray,
    prior_C: np.ndarray,
    effective_C: np.ndarray,
    weight_C: np.ndarray,
    uniform: float,
) -> None:
    axes.barh(place_C - 0.2, prior_C, 0.36, color=FAINT, label="data")
    axes.barh(place_C + 0.2, effective_C, 0.36, color=GREEN, label="training aims at")
    axes.axvline(uniform, color=INK, linewidth=1, linestyle=DASHED, label="uniform")
    end_C = np.fmax(np.fmax(prior_C, effective_C), uniform)
    text = [
        f"{prior:.3f} → {effective:.3f}  (weight {weight:.3g})"
        for prior, effective, weight in zip(prior_C, effective_C, weight_C, strict=True)
    ]
    _write_beside(axes, place_C, end_C, text, room=1.66)
    axes.set_xticks([share for share in axes.get_xticks() if share <= min(1.0, axes.get_xlim()[1])])
    axes.set_xlabel("prior of the data → prior that training aims at")


def prior_course(
    path: Path,
    timeline: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    images: int,
    *,
    title: str = "The prior by epochs",
) -> Path:
    """The prior of each class that training aims at, over the epochs; rarer classes have darker lines.

    timeline: the ledger's periods, each with its first and last epoch, from 1, and its effective prior. images: number
    of training images. Raises `ValueError` without any period.
    """
    if not timeline:
        raise ValueError("the figure of the prior by epochs needs at least one period, got none")
    prior_TC = np.array([period["effective_prior"] for period in timeline], dtype=np.float64)
    edge_T = [period["epochs"][0] - 0.5 for period in timeline] + [timeline[-1]["epochs"][1] + 0.5]
    rank_C = prior_TC[0].argsort(kind="stable").argsort(kind="stable") / max(prior_TC.shape[1] - 1, 1)
    facts = f"n = {images:,} training images · epochs = {timeline[-1]['epochs'][1]} · dashed: uniform"
    with saved_figure(path, 8.2, 4.2, title, facts) as figure:
        axes = figure.subplots()
        for name, prior_T, rank in zip(printable(class_names), prior_TC.T, rank_C, strict=True):
            axes.stairs(
                prior_T, edge_T, baseline=None, color=colormaps["viridis"](0.9 * rank), linewidth=1.8, label=name
            )
        axes.axhline(1 / prior_TC.shape[1], color=INK, linewidth=1, linestyle=DASHED)
        axes.set_ylim(0, 1.08 * prior_TC.max())
        axes.set_xlim(edge_T[0], edge_T[-1])
        axes.set_ylabel("prior that training aims at")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(True)
        if len(class_names) <= MAX_CLASSES:
            look: Any = {"borderaxespad": 0, "ncols": 1 + len(class_names) // 16}
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), **look)
    return path


def _write_beside(axes: Axes, place_C: np.ndarray, end_C: np.ndarray, text: Sequence[str], *, room: float) -> None:
    """Text at the end of each bar, in an axis that is longer than the longest bar by the factor `room`."""
    edge = float(np.nanmax(end_C))
    for place, end, line in zip(place_C, end_C, text, strict=True):
        axes.text(end + 0.02 * edge, place, line, va="center", fontsize=7.5)
    axes.set_xlim(0, room * edge)
