"""Training over the epochs as a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from emoexp.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, VERMILION, saved_figure

# label, key of the history, colour, line
_LOSS = (("train", "train/loss", VERMILION, "--"), ("validation", "val/loss", BLUE, "-"))
_SCORE = (
    ("macro-F1, validation", "val/macro_f1", BLUE, "-"),
    ("balanced accuracy, validation", "val/balanced_accuracy", PINK, "-"),
    ("accuracy, validation", "val/accuracy", GREEN, "-"),
    ("worst recall, validation", "val/worst_recall", ORANGE, "-"),
    ("accuracy, train", "train/accuracy", VERMILION, "--"),
)
_RATE = (("learning rate", "train/lr", GREY, "-"),)
_DOTS = 30  # up to so many epochs, each epoch has a dot


def training(
    path: Path,
    history: Sequence[dict[str, Any]],
    *,
    best: int | None = None,
    images: int | None = None,
    title: str = "Training",
) -> Path:
    """Loss, scores and learning rate over the epochs, with the epoch `best` marked (default: the highest
    val/macro_f1).

    Rows are those of the run's history; a number that is missing, NaN or infinite leaves a gap. `images` is
    the number of validation images, for the heading. Raises `ValueError` for a history without rows or a
    `best` that it does not hold.
    """
    if not history:
        raise ValueError("the figure of training needs at least one epoch in the history, got none")
    epoch_E = np.array([row["epoch"] for row in history], dtype=np.float64)
    best = _highest(epoch_E, column(history, "val/macro_f1")) if best is None else best
    if best is not None and best not in epoch_E:
        raise ValueError(f"best epoch {best} is not in the history (epochs {epoch_E[0]:.0f} to {epoch_E[-1]:.0f})")
    with saved_figure(path, 8.2, 6.6, title, _facts(history, best, images)) as figure:
        loss, score, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 4, 1.5))
        panels = ((loss, "loss", _LOSS), (score, "score", _SCORE), (rate, "learning rate", _RATE))
        for axes, label, lines in panels:
            _panel(axes, label, lines, history, epoch_E)
            if best is not None:
                axes.axvline(best, color=INK, linewidth=0.9, linestyle=":", zorder=1.5)
        score.set_ylim(-0.02, 1.02)
        _scale(rate, column(history, "train/lr"))
        rate.set_xlabel("epoch" if best is None else f"epoch (dotted: {best}, the best)")
        rate.set_xlim(epoch_E[0] - 0.5, epoch_E[-1] + 0.5)
        rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return path


def column(rows: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    """One number of every row as float64, NaN where it is missing or not finite."""
    value_R = np.array([np.nan if row.get(key) is None else row[key] for row in rows], dtype=np.float64)
    return np.where(np.isfinite(value_R), value_R, np.nan)


def _highest(epoch_E: np.ndarray, score_E: np.ndarray) -> int | None:
    return int(epoch_E[np.nanargmax(score_E)]) if np.isfinite(score_E).any() else None


def _facts(history: Sequence[dict[str, Any]], best: int | None, images: int | None) -> str:
    facts = [f"epochs = {len(history)}"] + ([f"n = {images:,} validation images"] if images else [])
    at_best = [row for row in history if row["epoch"] == best]
    scores = (
        ("macro-F1", "val/macro_f1"),
        ("accuracy", "val/accuracy"),
        ("worst recall", "val/worst_recall"),
    )
    for name, key in scores:
        value_E = column(at_best, key)
        facts += [f"{name} {value:.3f}" for value in value_E if np.isfinite(value)]
    return " · ".join(facts) + (f" at epoch {best}" if at_best else "")


def _panel(
    axes: Axes,
    label: str,
    lines: Sequence[tuple[str, str, str, str]],
    history: Sequence[dict[str, Any]],
    epoch_E: np.ndarray,
) -> None:
    marker = "o" if len(history) <= _DOTS else None
    for name, key, colour, style in lines:
        value_E = column(history, key)
        if np.isfinite(value_E).any():
            axes.plot(epoch_E, value_E, color=colour, marker=marker, markersize=3, linestyle=style, label=name)
    if len(lines) > 1 and axes.lines:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    axes.set_ylabel(label)
    axes.grid(True)


def _scale(axes: Axes, rate_E: np.ndarray) -> None:
    """Logarithmic where the rate falls far and stays above zero."""
    rate_E = rate_E[np.isfinite(rate_E)]
    if rate_E.size and rate_E.min() > 0 and rate_E.max() / rate_E.min() > 20:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.1 * rate_E.max() if rate_E.size and rate_E.max() > 0 else 1.0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
