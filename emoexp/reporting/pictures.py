"""The figures of a report, each with its caption."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emoexp import figures
from emoexp.pages.page import Picture
from emoexp.reporting.arms import Arm, Comparison, precision_recall
from emoexp.reporting.tables import TITLES


def draw(
    folder: Path,
    arms: Sequence[Arm],
    comparisons: Sequence[Comparison],
    base: Arm,
    metric: str,
    class_name: str,
    level: float,
) -> list[Picture]:
    """Draw all figures of a report. A figure that needs predictions which were not kept is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    labels, data = [arm.label for arm in arms], next(iter(arms[0].runs.values())).manifest["data"]
    names = [str(name) for name in data["classes"]]
    spreads = [arm.spread(metric, "test", level) for arm in arms]
    ends = [(s.low, s.high) if s and s.low is not None and s.high is not None else None for s in spreads]
    fewest, most = min(len(arm.runs) for arm in arms), max(len(arm.runs) for arm in arms)
    seeds = f"{fewest} seeds an arm" if fewest == most else f"{fewest} to {most} seeds an arm"
    values = [list(arm.values(metric, "test").values()) or [np.nan] for arm in arms]
    title = f"{TITLES[metric]} on test"
    facts = f"{seeds} · line: {100 * level:g} % t interval of the mean · bar: mean"
    pictures = [
        Picture(
            figures.seeds(folder / "seeds.png", labels, values, ends, title, facts), f"{TITLES[metric]} of every seed."
        )
    ]
    if len(arms) > 1:
        pictures += _difference_figures(folder, arms, [c for c in comparisons if c.metric == metric], base, level)
        pictures.append(_tradeoff(folder, arms, class_name, seeds))
    recall = np.array([[_mean(arm.recall(name)) for name in names] for arm in arms])
    path = figures.recalls(
        folder / "recalls.png", labels, names, recall, data["counts"]["train"], "recall of each class"
    )
    pictures.append(Picture(path, "Recall of each class by arm, mean over seeds."))
    return pictures + _curves(folder, arms, class_name, names.index(class_name))


def _difference_figures(
    folder: Path, arms: Sequence[Arm], comparisons: Sequence[Comparison], base: Arm, level: float
) -> list[Picture]:
    """Figures of the differences from the baseline: in the metric, and in the confusions."""
    compared = [arm for arm in arms if arm is not base]
    pictures = []
    if comparisons:
        differences = [comparison.over_seeds for comparison in comparisons]
        path = figures.differences(
            folder / "differences.png",
            [comparison.arm.label for comparison in comparisons],
            [100 * difference.difference for difference in differences],
            [None if d.low is None or d.high is None else (100 * d.low, 100 * d.high) for d in differences],
            [comparison.verdict for comparison in comparisons],
            f"{TITLES[comparisons[0].metric]}: points above {base.label}",
            f"paired by seed · {100 * level:g} % t intervals over seeds · verdicts after Holm's correction",
        )
        pictures.append(Picture(path, f"Differences from {base.label} in points."))
    names = [str(name) for name in next(iter(base.runs.values())).manifest["data"]["classes"]]
    change = np.stack([arm.confusion - base.confusion for arm in compared])
    labels = [arm.label for arm in compared]
    path = figures.confusion_differences(
        folder / "confusions.png", labels, change, names, f"confusion minus that of {base.label}"
    )
    pictures.append(Picture(path, f"What is confused more or less often than with {base.label}, mean over seeds."))
    return pictures


def _tradeoff(folder: Path, arms: Sequence[Arm], class_name: str, seeds: str) -> Picture:
    path = figures.tradeoff(
        folder / "tradeoff.png",
        [arm.label for arm in arms],
        [list(arm.values("accuracy", "test").values()) for arm in arms],
        [arm.recall(class_name) or [np.nan] * len(arm.runs) for arm in arms],
        "accuracy",
        f"recall of {class_name}",
        f"recall of {class_name} against accuracy, on test",
        seeds,
    )
    return Picture(path, f"Recall of {class_name} against accuracy: small marks are seeds, large ones means.")


def _curves(folder: Path, arms: Sequence[Arm], class_name: str, class_index: int) -> list[Picture]:
    """The figure of precision over recall of one class; none where the predictions of a run were not kept."""
    curves: list[list[tuple[np.ndarray, np.ndarray]]] = []
    for arm in arms:
        arm_curves = [precision_recall(run, class_index) for run in arm.runs.values()]
        curves.append([curve for curve in arm_curves if curve is not None])
        if len(curves[-1]) < len(arm_curves):
            return []
    ap = [_mean([float(np.sum(np.diff(r, prepend=0.0) * p)) for r, p in arm_curves]) for arm_curves in curves]
    row: dict[str, Any] = next(iter(arms[0].runs.values())).metrics["test"]["per_class"][class_name]
    facts = f"{row['n']:,} images of it in test · one line a seed"
    title = f"precision over recall of {class_name}, on test"
    labels = [arm.label for arm in arms]
    path = figures.overlay(folder / "precision_recall.png", labels, curves, ap, row["prevalence"], title, facts)
    return [Picture(path, f"Precision over recall of {class_name}, of every seed of every arm.")]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
