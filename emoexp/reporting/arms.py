"""Arms: runs that differ in their seed alone. Their values over seeds, and their differences from a baseline."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emoexp.metrics import bootstrap, classification, compare
from emoexp.metrics.compare import METRICS, Difference, Spread
from emoexp.reporting.collect import FinishedRun
from emoexp.runs.records import TestPredictions

LEAKY = "leaky"  # the verdict where only one of two arms is leaky: tested on relatives of its training images
PARTS = {"test": "all test images", "test_clean": "clean test images"}


@dataclass(frozen=True)
class Arm:
    """The runs of one combination of axes, by seed."""

    label: str
    axes: dict[str, str]
    runs: dict[int, FinishedRun]

    @property
    def is_leaky(self) -> bool:
        """Whether its copies were made before the split."""
        return any(run.is_leaky for run in self.runs.values())

    def values(self, metric: str, part: str) -> dict[int, float]:
        """A metric of each seed that has it."""
        values = {seed: (run.metrics.get(part) or {}).get(metric) for seed, run in self.runs.items()}
        return {seed: float(value) for seed, value in values.items() if value is not None}

    def spread(self, metric: str, part: str, level: float) -> Spread | None:
        """Mean, deviation and interval over seeds; None without a value."""
        values = list(self.values(metric, part).values())
        return compare.spread(values, level) if values else None

    def worst_class(self, part: str) -> str:
        """The class that most often has the worst recall, and at how many seeds, where it is not the same at all."""
        names = Counter(str((run.metrics.get(part) or {}).get("worst_class")) for run in self.runs.values())
        name, times = names.most_common(1)[0]
        return name if times == len(self.runs) else f"{name} ({times} of {len(self.runs)})"

    def recall(self, class_name: str, part: str = "test") -> list[float]:
        """Recall of a class at each seed."""
        rows = [(run.metrics.get(part) or {}).get("per_class", {}).get(class_name, {}) for run in self.runs.values()]
        return [float(row["recall"]) for row in rows if row.get("recall") is not None]

    def mean_cost(self, key: str) -> float | None:
        """Mean over seeds of a cost of training: "seconds", or "images" or "originals" drawn; None where not kept."""
        if key == "seconds":
            costs = [run.seconds for run in self.runs.values()]
        else:
            costs = [(run.metrics.get("drawn") or {}).get(key) for run in self.runs.values()]
        kept_costs = [float(cost) for cost in costs if cost is not None]
        return float(np.mean(kept_costs)) if len(kept_costs) == len(self.runs) else None

    @property
    def confusion(self) -> np.ndarray:
        """The confusion of all test images as shares of the true class, C x C, mean over seeds."""
        counts = np.array([run.metrics["test"]["confusion"] for run in self.runs.values()], float)
        total = counts.sum(2, keepdims=True)
        share = np.full(counts.shape, np.nan)  # stays NaN for a class without images
        np.divide(counts, total, out=share, where=total > 0)
        return np.asarray(share.mean(0))


def group_by_arm(runs: Sequence[FinishedRun]) -> list[Arm]:
    """The arms, in the order of their first runs; each with its seeds in increasing order."""
    groups: dict[tuple[str, ...], dict[int, FinishedRun]] = {}
    for run in runs:
        groups.setdefault(tuple(run.axes.values()), {})[run.seed] = run
    return [
        Arm(", ".join(key) or "all", next(iter(by_seed.values())).axes, dict(sorted(by_seed.items())))
        for key, by_seed in groups.items()
    ]


def baseline_arm(arms: Sequence[Arm], label: object) -> Arm:
    """The arm that the others are compared with: the arm of a label, which may be a number; for None the first arm.

    Raises:
        ValueError: there is no such arm.
    """
    for arm in arms:
        if label is None or str(label) in (arm.label, *(f"{axis}={value}" for axis, value in arm.axes.items())):
            return arm
    raise ValueError(f"baseline={label} is no arm; there are {'; '.join(arm.label for arm in arms)}")


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline in one metric: over seeds, and over images where predictions were kept.

    holm: p after Holm's correction for the arms that were compared in this metric. detectable: the smallest true
    difference that is detected 4 times in 5, at the strictest step of that correction. images: interval of the
    difference over images. both: interval over seeds and images.
    """

    arm: Arm
    metric: str
    over_seeds: Difference
    holm: float | None
    detectable: float | None
    verdict: str
    images: tuple[float, float] | None
    both: tuple[float, float] | None


def compare_arms(arms: Sequence[Arm], base: Arm, part: str, level: float, resamples: int) -> list[Comparison]:
    """Every arm but the baseline against it, in every metric, by the seeds that both have."""
    compared = [arm for arm in arms if arm is not base]
    intervals = {arm.label: _bootstrap(arm, base, part, level, resamples) for arm in compared}
    comparisons = []
    for metric in METRICS:
        differences = [(arm, _paired(arm, base, metric, part, level)) for arm in compared]
        defined = [(arm, difference) for arm, difference in differences if difference is not None]
        tested = [(arm, difference.p) for arm, difference in defined if difference.p is not None]
        adjusted = dict(zip([arm.label for arm, _ in tested], compare.holm([p for _, p in tested]), strict=True))
        for arm, difference in defined:
            p = adjusted.get(arm.label)
            verdict = compare.verdict(difference.difference, p, 1 - level)
            interval = intervals[arm.label].get(metric, {})
            comparison = Comparison(
                arm=arm,
                metric=metric,
                over_seeds=difference,
                holm=p,
                detectable=_detectable(difference, 1 - level, len(tested)),
                verdict=verdict if arm.is_leaky == base.is_leaky else LEAKY,
                images=interval.get("images"),
                both=interval.get("both"),
            )
            comparisons.append(comparison)
    return comparisons


def _detectable(difference: Difference, alpha: float, tests: int) -> float | None:
    if difference.sd is None or difference.detectable is None:
        return None
    return compare.detectable(difference.sd, difference.n, alpha / max(tests, 1))


def _paired(arm: Arm, base: Arm, metric: str, part: str, level: float) -> Difference | None:
    arm_values, base_values = arm.values(metric, part), base.values(metric, part)
    seeds = [seed for seed in arm_values if seed in base_values]
    if not seeds:
        return None
    return compare.paired_difference([arm_values[seed] for seed in seeds], [base_values[seed] for seed in seeds], level)


def _bootstrap(arm: Arm, base: Arm, part: str, level: float, resamples: int) -> dict[str, Any]:
    """Bootstrap intervals of the difference of two arms; empty unless both kept predictions of the same images in one
    order."""
    seeds = [seed for seed in arm.runs if seed in base.runs]
    arm_predictions, base_predictions = _predictions(arm, seeds), _predictions(base, seeds)
    if not seeds or len(arm_predictions) < len(seeds) or len(base_predictions) < len(seeds):
        return {}
    first = arm_predictions[0]
    if not all(first.is_of_same_images(predictions) for predictions in [*arm_predictions, *base_predictions]):
        return {}
    if part == "test_clean" and first.clean_N is None:
        return {}
    keep_N = first.clean_N if part == "test_clean" else np.ones(len(first.target_N), bool)
    arm_SN = np.stack([predictions.predicted_N[keep_N] for predictions in arm_predictions])
    base_SN = np.stack([predictions.predicted_N[keep_N] for predictions in base_predictions])
    target_N = first.target_N[keep_N]
    return bootstrap.difference_intervals(
        arm_SN, base_SN, target_N, first.num_classes, resamples=resamples, level=level
    )


def _predictions(arm: Arm, seeds: Sequence[int]) -> list[TestPredictions]:
    """The predictions of an arm's runs at some seeds, without the runs whose predictions were not kept."""
    predictions = [arm.runs[seed].predictions for seed in seeds]
    return [run_predictions for run_predictions in predictions if run_predictions is not None]


def precision_recall(run: FinishedRun, class_index: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Recall and precision of a class at every threshold, of one run; None where its probabilities were not kept."""
    predictions = run.predictions
    if predictions is None or not (predictions.target_N == class_index).any():
        return None
    probability_N = predictions.probability_of(class_index)
    if probability_N is None:
        return None
    is_class_N = predictions.target_N == class_index
    return classification.precision_recall_steps(probability_N.astype(float), is_class_N)
