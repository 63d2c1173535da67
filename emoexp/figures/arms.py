"""Arms of a comparison as figures: seeds and means, differences with intervals, recall of a class against accuracy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from emoexp.figures.sheet import DASHED, FAINT, GREY, INK, PALETTE, printable, sheet

_ROW, _LABELS = 0.34, 34  # inches a row; letters of a label
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
    with sheet(path, 7.6, 0.7 + _ROW * len(arms), title, facts) as figure:
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
    with sheet(path, 7.6, 0.7 + _ROW * len(arms), title, facts) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=1)
        for row, (value, interval, said) in enumerate(zip(difference_A, interval_A, verdict_A, strict=True)):
            colour = {"better": PALETTE[2], "worse": PALETTE[1]}.get(said, GREY)
            if interval is not None:
                axes.plot(interval, [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot([value], [row], "o", color=colour, markersize=6)
            end = max(value, interval[1] if interval else value)
            axes.annotate(said, (end, row), (6, 0), textcoords="offset points", va="center", color=colour, size=8)
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
    edge = pareto(x_A, y_A)
    with sheet(path, 7.6, 4.9, title, f"{facts} · line: Pareto edge of the means") as figure:
        axes = figure.subplots()
        axes.grid()
        axes.plot([x_A[i] for i in edge], [y_A[i] for i in edge], color=FAINT, linewidth=1.6, zorder=1)
        for row, name in enumerate(printable(arms, _LABELS)):
            colour, mark = PALETTE[row % len(PALETTE)], _MARKS[row // len(PALETTE) % len(_MARKS)]
            axes.plot(x_AS[row], y_AS[row], mark, color=colour, markersize=3.5, alpha=0.45, zorder=2)
            axes.plot([x_A[row]], [y_A[row]], mark, color=colour, label=name, markersize=9, mec="white", zorder=3)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return path


def pareto(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Indices of the points that no other one beats in one and equals or beats in the other, by growing x."""
    kept = [
        i
        for i in range(len(x))
        if not any(x[j] >= x[i] and y[j] >= y[i] and (x[j] > x[i] or y[j] > y[i]) for j in range(len(x)))
    ]
    return sorted(kept, key=lambda i: (x[i], -y[i]))


def overlay(
    path: Path,
    arms: Sequence[str],
    curves_AS: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]],
    ap_A: Sequence[float],
    prevalence: float,
    title: str,
    facts: str,
) -> Path:
    """Precision over recall of one class: arms in colours, one thin line a seed; dashed the prevalence, the AP of
    chance. curves_AS: (recall_K, precision_K) of each seed of each arm. ap_A: mean AP."""
    with sheet(path, 7.6, 4.7, title, facts) as figure:
        axes = figure.subplots()
        axes.grid()
        for row, (name, curves) in enumerate(zip(printable(arms, _LABELS), curves_AS, strict=True)):
            style = "-" if row < len(PALETTE) else "--"
            for place, (recall_K, precision_K) in enumerate(curves):
                label = f"AP {ap_A[row]:.3f}  {name}" if place == 0 else None
                line = axes.step(np.append(0.0, recall_K), np.append(precision_K[:1], precision_K), style, where="pre")[
                    0
                ]
                line.set(color=PALETTE[row % len(PALETTE)], linewidth=1.0, alpha=0.65, label=label)
        axes.axhline(prevalence, color=GREY, linewidth=1, linestyle=DASHED, label=f"AP {prevalence:.3f}  chance")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03))
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        for line in legend.get_lines():
            line.set(linewidth=2.2, alpha=1)
    return path
