"""Precision over recall as a figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from emoexp.figures.style import BLUE, DASHED, FAINT, INK, MAX_CLASSES, PALETTE, printable, saved_figure
from emoexp.metrics.classification import check, precision_recall_steps

_MAX_IN_ONE_PANEL = len(PALETTE)  # where there are more classes than colours, each one has a panel


@dataclass(frozen=True)
class Curve:
    """Steps of a precision-recall curve with its name, number of images and prevalence (the AP of chance)."""

    name: str
    recall_K: np.ndarray
    precision_K: np.ndarray
    n: int
    prevalence: float

    @property
    def ap(self) -> float:
        """The area under the steps; NaN for a class without images."""
        return float(np.sum(np.diff(self.recall_K, prepend=0.0) * self.precision_K)) if self.n else math.nan


def precision_recall(
    path: Path, probability_NC: np.ndarray, target_N: np.ndarray, class_names: Sequence[str], title: str
) -> Path:
    """One stepwise precision-recall curve per class with its AP and, dashed, its prevalence, which is the
    AP of chance. Of more than MAX_CLASSES classes those with the lowest AP are shown.

    Micro: all (image, class) pairs in one list. Macro: at each recall the mean precision over the classes
    that have images; the area under it is exactly macro AP. Up to 8 classes share one panel, more get one
    each. Raises `ValueError` as `classification.summarise` does.
    """
    probability_NC, target_N = check(probability_NC, target_N, class_names)
    truth_NC = np.eye(len(class_names), dtype=bool)[target_N]
    names = printable(class_names)
    classes = [_curve(name, probability_NC[:, c], truth_NC[:, c]) for c, name in enumerate(names)]
    micro, macro = _curve("micro", probability_NC.ravel(), truth_NC.ravel()), mean_curve(classes)
    facts = (
        f"n = {len(target_N):,} · macro AP {macro.ap:.3f} (chance {macro.prevalence:.3f}) · "
        f"micro AP {micro.ap:.3f} (chance {micro.prevalence:.3f})"
    )
    if len(classes) <= _MAX_IN_ONE_PANEL:
        with saved_figure(path, 8.6, 4.7, title, facts) as figure:
            _in_one_panel(figure.subplots(), classes, micro, macro)
        return path
    if len(classes) > MAX_CLASSES:
        facts += f" · {MAX_CLASSES} of {len(classes):,} classes: those with the lowest AP"
        lowest = sorted(range(len(classes)), key=lambda c: (math.isnan(classes[c].ap), classes[c].ap))[:MAX_CLASSES]
        classes = [classes[c] for c in sorted(lowest)]
    columns = math.ceil(math.sqrt(1.4 * (len(classes) + 1)))
    rows = math.ceil((len(classes) + 1) / columns)
    facts += " · grey: macro, dashed: prevalence (chance)"
    with saved_figure(path, 1.55 * columns + 0.6, 1.65 * rows + 0.4, title, facts) as figure:
        axes_RC = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        _in_panels(axes_RC, classes, micro, macro)
        figure.supxlabel("recall")
        figure.supylabel("precision")
    return path


def mean_curve(classes: Sequence[Curve]) -> Curve:
    """The macro curve: at every recall the mean of the precisions that the classes with images have there."""
    present = [curve for curve in classes if curve.n]
    recall_K = np.unique(np.concatenate([curve.recall_K for curve in present]))
    precision = [curve.precision_K[np.searchsorted(curve.recall_K, recall_K)] for curve in present]
    prevalence = float(np.mean([curve.prevalence for curve in present]))
    return Curve("macro", recall_K, np.mean(precision, axis=0), sum(curve.n for curve in present), prevalence)


def _curve(name: str, score_N: np.ndarray, positive_N: np.ndarray) -> Curve:
    n = int(positive_N.sum())
    recall_K, precision_K = precision_recall_steps(score_N, positive_N) if n else (np.zeros(0), np.zeros(0))
    return Curve(name, recall_K, precision_K, n, n / len(positive_N))


def _in_one_panel(axes: Axes, classes: Sequence[Curve], micro: Curve, macro: Curve) -> None:
    for curve, colour in zip(classes, PALETTE, strict=False):
        if not curve.n:
            axes.plot([], [], color=FAINT, label=f"AP –        {curve.name} (no images)")
            continue
        _draw(axes, curve, color=colour, linewidth=1.4, label=f"AP {curve.ap:.3f}  {curve.name} ({curve.n:,})")
        axes.axhline(curve.prevalence, color=colour, linewidth=0.8, linestyle=DASHED, zorder=1.2)
    _draw(axes, micro, color=INK, linewidth=1.8, label=f"AP {micro.ap:.3f}  micro")
    _draw(
        axes,
        macro,
        color=INK,
        linewidth=1.8,
        linestyle=":",
        label=f"AP {macro.ap:.3f}  macro (mean precision)",
    )
    axes.plot([], [], color=FAINT, linewidth=0.8, linestyle=DASHED, label="prevalence: the AP of chance")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03))
    axes.grid(True)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0,
        title="class (images)",
        alignment="left",
    )


def _in_panels(axes_RC: np.ndarray, classes: Sequence[Curve], micro: Curve, macro: Curve) -> None:
    overall_axes, *class_axes = axes_RC.ravel()
    _draw(overall_axes, micro, color=INK, linewidth=1.4, label=f"micro {micro.ap:.3f}")
    _draw(overall_axes, macro, color=FAINT, linewidth=1.4, label=f"macro {macro.ap:.3f}")
    overall_axes.legend(loc="lower left", fontsize=6.5, borderaxespad=0.1, handlelength=1.2)
    overall_axes.set_title("all classes", fontsize=7)
    for axes, curve in zip(class_axes, classes, strict=False):
        facts = f"AP {curve.ap:.3f} ({curve.n:,})" if curve.n else "no images"
        axes.set_title(f"{curve.name}\n{facts}", fontsize=7)
        if curve.n:
            _draw(axes, macro, color=FAINT, linewidth=0.9)
            _draw(axes, curve, color=BLUE, linewidth=1.3)
            axes.axhline(curve.prevalence, color=BLUE, linewidth=0.8, linestyle=DASHED)
    for axes in axes_RC.ravel():
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.tick_params(labelsize=7)
        axes.grid(True)
    columns, unused = axes_RC.shape[1], class_axes[len(classes) :]
    for axes in unused:
        axes.set_axis_off()
    for axes in axes_RC.ravel()[axes_RC.size - len(unused) - columns : axes_RC.size - len(unused)]:
        axes.tick_params(labelbottom=True)  # the lowest panel of each column, also where the last row is not full


def _draw(axes: Axes, curve: Curve, **line: Any) -> None:
    """Draw precision k over the recalls (R_k-1, R_k], as the area under the curve counts it."""
    recall, precision = np.append(0.0, curve.recall_K), np.append(curve.precision_K[0], curve.precision_K)
    axes.step(recall, precision, where="pre", **line)
