"""Arms of a comparison as figures: seeds and means, differences with intervals, recall of a class against accuracy."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from emoexp.figures.curves import Curve, mean_curve
from emoexp.figures.style import DASHED, FAINT, GREY, INK, PALETTE, printable, saved_figure

_ROW, _LABELS = 0.34, 34  # inches of a row; at most so many letters of a label
_LETTER, _ENTRY = 0.072, 0.185  # inches in a legend: width of a letter, height of an entry
_MAX_IN_ONE_PANEL = 4  # where there are more arms, each one has a panel of precision over recall
_MARKS = "os^Dv<>P"


def seeds(
    path: Path,
    arms: Sequence[str],
    value_AS: Sequence[Sequence[float]],
    interval_A: Sequence[tuple[float, float] | None],
    title: str,
    facts: str,
) -> Path:
    """Every seed of every arm as a dot, the mean as a bar, its interval over seeds as a line."""
    with saved_figure(path, 7.6, 0.7 + _ROW * len(arms), title, facts) as figure:
        axes = figure.subplots()
        for row, (values, interval) in enumerate(zip(value_AS, interval_A, strict=True)):
            colour = PALETTE[row % len(PALETTE)]
            if interval is not None:
                axes.plot(interval, [row, row], color=colour, linewidth=2.2, alpha=0.5, solid_capstyle="butt")
            axes.plot(values, np.full(len(values), row), "o", color=colour, markersize=4.5, alpha=0.75)
            axes.plot([np.mean(values)], [row], "|", color=INK, markersize=15, markeredgewidth=1.8)
        _rows(axes, arms)
    return path


def differences(
    path: Path,
    arms: Sequence[str],
    difference_A: Sequence[float],
    interval_A: Sequence[tuple[float, float] | None],
    verdict_A: Sequence[str],
    title: str,
    facts: str,
) -> Path:
    """Differences from the baseline in points, with their intervals and the line of no difference."""
    with saved_figure(path, 7.6, 0.7 + _ROW * len(arms), title, facts) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=1)
        for row, (value, interval, verdict) in enumerate(zip(difference_A, interval_A, verdict_A, strict=True)):
            colour = {"better": PALETTE[2], "worse": PALETTE[1]}.get(verdict, GREY)
            if interval is not None:
                axes.plot(interval, [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot([value], [row], "o", color=colour, markersize=6)
            end = max(value, interval[1] if interval else value)
            axes.annotate(verdict, (end, row), (6, 0), textcoords="offset points", va="center", color=colour, size=8)
        axes.margins(x=0.22)
        _rows(axes, arms)
    return path


def _rows(axes: Axes, arms: Sequence[str]) -> None:
    axes.set_yticks(range(len(arms)), printable(arms, _LABELS))
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def tradeoff(
    path: Path,
    arms: Sequence[str],
    x_AS: Sequence[Sequence[float]],
    y_AS: Sequence[Sequence[float]],
    x_label: str,
    y_label: str,
    title: str,
    facts: str,
) -> Path:
    """One quantity against another: each seed a small mark, each arm's mean a large one, and the Pareto edge, beyond
    which no arm has more of both."""
    x_A, y_A = [float(np.mean(x)) for x in x_AS], [float(np.mean(y)) for y in y_AS]
    edge, names = pareto(x_A, y_A), printable(arms, _LABELS)
    size = (5.6 + _LETTER * max(len(name) for name in names), max(4.9, 0.6 + _ENTRY * len(names)))
    with saved_figure(path, *size, title, f"{facts} · line: Pareto edge of the means") as figure:
        axes = figure.subplots()
        axes.grid()
        axes.plot([x_A[i] for i in edge], [y_A[i] for i in edge], color=FAINT, linewidth=1.6, zorder=1)
        for row, name in enumerate(names):
            colour, mark = PALETTE[row % len(PALETTE)], _MARKS[row // len(PALETTE) % len(_MARKS)]
            axes.plot(x_AS[row], y_AS[row], mark, color=colour, markersize=3.5, alpha=0.45, zorder=2)
            axes.plot([x_A[row]], [y_A[row]], mark, color=colour, label=name, markersize=9, mec="white", zorder=3)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return path


def pareto(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Indices of the points of the Pareto edge, by increasing x: no other point is at least as large in both and larger
    in one. A point with a NaN is never among them."""
    defined = [i for i in range(len(x)) if not (math.isnan(x[i]) or math.isnan(y[i]))]

    def is_dominated(i: int) -> bool:
        return any(x[j] >= x[i] and y[j] >= y[i] and (x[j] > x[i] or y[j] > y[i]) for j in defined)

    return sorted((i for i in defined if not is_dominated(i)), key=lambda i: (x[i], -y[i]))


def overlay(
    path: Path,
    arms: Sequence[str],
    curves_AS: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]],
    ap_A: Sequence[float],
    prevalence: float,
    title: str,
    facts: str,
) -> Path:
    """Precision over recall of one class: one thin line a seed, a thick one their mean, whose area is the mean AP;
    dashed the prevalence, the AP of chance. Up to 4 arms share one panel, more get one each, with the mean of all
    arms in grey. curves_AS: (recall_K, precision_K) of each seed of each arm. ap_A: mean AP."""
    names = printable(arms, _LABELS)
    seeds_AS = [[Curve(name, *steps, 1, prevalence) for steps in curves_AS[row]] for row, name in enumerate(names)]
    facts = f"{facts} · thick: mean over seeds"
    if len(names) <= _MAX_IN_ONE_PANEL:
        with saved_figure(path, 5.6 + _LETTER * max(len(name) for name in names), 4.7, title, facts) as figure:
            _in_one_panel(figure.subplots(), names, seeds_AS, ap_A, prevalence)
        return path
    columns = min(_MAX_IN_ONE_PANEL, math.ceil(math.sqrt(len(names))))
    rows = math.ceil(len(names) / columns)
    facts = f"{facts} · grey: mean of all arms · dashed: chance {prevalence:.3f}"
    with saved_figure(path, 2.3 * columns + 0.5, 2.0 * rows + 0.4, title, facts) as figure:
        axes_RC = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        _in_panels(axes_RC, names, seeds_AS, ap_A, prevalence)
        figure.supxlabel("recall")
        figure.supylabel("precision")
    return path


def _in_one_panel(
    axes: Axes, names: Sequence[str], seeds_AS: Sequence[Sequence[Curve]], ap_A: Sequence[float], prevalence: float
) -> None:
    for name, seeds, ap, colour in zip(names, seeds_AS, ap_A, PALETTE, strict=False):
        _arm(axes, seeds, colour, f"AP {ap:.3f}  {name}")
    axes.axhline(prevalence, color=GREY, linewidth=1, linestyle=DASHED, label=f"AP {prevalence:.3f}  chance")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03))
    axes.grid()
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _in_panels(
    axes_RC: np.ndarray,
    names: Sequence[str],
    seeds_AS: Sequence[Sequence[Curve]],
    ap_A: Sequence[float],
    prevalence: float,
) -> None:
    overall = mean_curve([curve for seeds in seeds_AS for curve in seeds])
    panels, columns = list(axes_RC.flat), axes_RC.shape[1]
    for row, axes in enumerate(panels[: len(names)]):
        _steps(axes, overall, color=FAINT, linewidth=1.6)
        _arm(axes, seeds_AS[row], PALETTE[0], None)
        axes.axhline(prevalence, color=GREY, linewidth=1, linestyle=DASHED)
        axes.set_title(f"{names[row]}\nAP {ap_A[row]:.3f}", fontsize=7.5)
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.tick_params(labelsize=7.5, labelbottom=row + columns >= len(names))  # only in the lowest panel of a column
        axes.grid()
    for axes in panels[len(names) :]:
        axes.set_axis_off()


def _arm(axes: Axes, seeds: Sequence[Curve], colour: str, label: str | None) -> None:
    for curve in seeds:
        _steps(axes, curve, color=colour, linewidth=0.8, alpha=0.4)
    _steps(axes, mean_curve(seeds), color=colour, linewidth=1.8, label=label)


def _steps(axes: Axes, curve: Curve, **line: Any) -> None:
    """Draw precision k over the recalls (R_k-1, R_k], as the area under the curve counts it."""
    recall_K, precision_K = np.append(0.0, curve.recall_K), np.append(curve.precision_K[:1], curve.precision_K)
    axes.step(recall_K, precision_K, where="pre", **line)
