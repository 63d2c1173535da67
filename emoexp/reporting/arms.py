"""Arms: cells that differ in their seed alone. Their values over seeds, and their differences from a baseline."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emoexp.metrics import bootstrap, classification, compare
from emoexp.metrics.compare import METRICS, Difference, Spread
from emoexp.reporting.cells import Made

LEAKY = "leaky"  # the verdict where one of both was tested on relatives of what it was trained on
PARTS = {"test": "all test images", "test_clean": "clean test images"}


@dataclass(frozen=True)
class Arm:
    """The cells of one combination of axes, by seed."""

    label: str
    axes: dict[str, str]
    cells: dict[int, Made]

    @property
    def is_leaky(self) -> bool:
        """Whether its copies were made before the split."""
        return any(cell.is_leaky for cell in self.cells.values())

    def values(self, metric: str, part: str) -> dict[int, float]:
        """A metric of each seed that has it."""
        found = {seed: (cell.metrics.get(part) or {}).get(metric) for seed, cell in self.cells.items()}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def spread(self, metric: str, part: str, level: float) -> Spread | None:
        """Mean, deviation and interval over seeds; None without a value."""
        values = list(self.values(metric, part).values())
        return compare.spread(values, level) if values else None

    def worst_class(self, part: str) -> str:
        """The class that is recalled worst at most seeds, and at how many where it changes."""
        names = Counter(str((cell.metrics.get(part) or {}).get("worst_class")) for cell in self.cells.values())
        name, times = names.most_common(1)[0]
        return name if times == len(self.cells) else f"{name} ({times} of {len(self.cells)})"

    def recall(self, class_name: str, part: str = "test") -> list[float]:
        """Recall of a class at each seed."""
        rows = [(cell.metrics.get(part) or {}).get("per_class", {}).get(class_name, {}) for cell in self.cells.values()]
        return [float(row["recall"]) for row in rows if row.get("recall") is not None]

    def mean_cost(self, key: str) -> float | None:
        """Mean over seeds of what training cost: seconds, or images and originals drawn; None where not kept."""
        if key == "seconds":
            found = [cell.seconds for cell in self.cells.values()]
        else:
            found = [(cell.metrics.get("drawn") or {}).get(key) for cell in self.cells.values()]
        kept = [float(value) for value in found if value is not None]
        return float(np.mean(kept)) if len(kept) == len(self.cells) else None

    @property
    def confusion(self) -> np.ndarray:
        """Shares of the true class, C x C, mean over seeds, of all test images."""
        counts = np.array([cell.metrics["test"]["confusion"] for cell in self.cells.values()], float)
        total = counts.sum(2, keepdims=True)
        share = np.full(counts.shape, np.nan)  # stays where a class has no images
        np.divide(counts, total, out=share, where=total > 0)
        return np.asarray(share.mean(0))


def group(cells: Sequence[Made]) -> list[Arm]:
    """Arms in the order of their first cells, each with its seeds in order."""
    found: dict[tuple[str, ...], dict[int, Made]] = {}
    for cell in cells:
        found.setdefault(tuple(cell.axes.values()), {})[cell.seed] = cell
    return [
        Arm(", ".join(key) or "all", next(iter(by_seed.values())).axes, dict(sorted(by_seed.items())))
        for key, by_seed in found.items()
    ]


def baseline(arms: Sequence[Arm], asked: object) -> Arm:
    """The arm that others are compared with: the first, or the one of this label, which may be a number.

    Raises:
        ValueError: there is no such arm.
    """
    for arm in arms:
        if asked is None or str(asked) in (arm.label, *(f"{axis}={value}" for axis, value in arm.axes.items())):
            return arm
    raise ValueError(f"baseline={asked} is no arm; there are {'; '.join(arm.label for arm in arms)}")


@dataclass(frozen=True)
class Compared:
    """An arm against the baseline in one metric: over seeds, and over images where predictions were kept.

    holm: p adjusted for the arms that were compared in this metric. detectable: the smallest true difference that is
    found 4 times in 5 where all of them are compared, at the strictest step of that adjustment. images, both: intervals
    of the difference.
    """

    arm: Arm
    metric: str
    over_seeds: Difference
    holm: float | None
    detectable: float | None
    verdict: str
    images: tuple[float, float] | None
    both: tuple[float, float] | None


def compare_arms(arms: Sequence[Arm], base: Arm, part: str, level: float, resamples: int) -> list[Compared]:
    """Every arm but the baseline against it, in every metric, by the seeds that both have."""
    others = [arm for arm in arms if arm is not base]
    boots = {arm.label: _bootstrap(arm, base, part, level, resamples) for arm in others}
    found = []
    for metric in METRICS:
        rows = [(arm, _paired(arm, base, metric, part, level)) for arm in others]
        rows_with = [(arm, difference) for arm, difference in rows if difference is not None]
        tested = [(arm, difference.p) for arm, difference in rows_with if difference.p is not None]
        adjusted = dict(zip([arm.label for arm, _ in tested], compare.holm([p for _, p in tested]), strict=True))
        for arm, difference in rows_with:
            p = adjusted.get(arm.label)
            said = compare.verdict(difference.difference, p, 1 - level)
            said = said if arm.is_leaky == base.is_leaky else LEAKY
            boot = boots[arm.label].get(metric, {})
            seen = _detectable(difference, 1 - level, len(tested))
            found.append(Compared(arm, metric, difference, p, seen, said, boot.get("images"), boot.get("both")))
    return found


def _detectable(found: Difference, alpha: float, tests: int) -> float | None:
    if found.sd is None or found.detectable is None:
        return None
    return compare.detectable(found.sd, found.n, alpha / max(tests, 1))


def _paired(arm: Arm, base: Arm, metric: str, part: str, level: float) -> Difference | None:
    one, other = arm.values(metric, part), base.values(metric, part)
    seeds = [seed for seed in one if seed in other]
    if not seeds:
        return None
    return compare.paired([one[seed] for seed in seeds], [other[seed] for seed in seeds], level)


def _bootstrap(arm: Arm, base: Arm, part: str, level: float, resamples: int) -> dict[str, Any]:
    """The bootstrap's intervals of two arms; empty unless both kept predictions of the same images in one order."""
    seeds = [seed for seed in arm.cells if seed in base.cells]
    one = [found for seed in seeds if (found := arm.cells[seed].predictions) is not None]
    other = [found for seed in seeds if (found := base.cells[seed].predictions) is not None]
    if not seeds or len(one) < len(seeds) or len(other) < len(seeds):
        return {}
    first = one[0]
    if not all(first.is_of_same_images(found) for found in [*one, *other]):
        return {}
    if part == "test_clean" and first.clean_N is None:
        return {}
    keep = first.clean_N if part == "test_clean" else np.ones(len(first.target_N), bool)
    a_SN = np.stack([found.predicted_N[keep] for found in one])
    b_SN = np.stack([found.predicted_N[keep] for found in other])
    target_N = first.target_N[keep]
    return bootstrap.difference_intervals(a_SN, b_SN, target_N, first.num_classes, resamples=resamples, level=level)


def precision_recall(cell: Made, class_index: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Recall and precision of a class at every threshold, of one run; None where its probabilities were not kept."""
    kept = cell.predictions
    if kept is None or not (kept.target_N == class_index).any():
        return None
    probability_N = kept.probability_of(class_index)
    if probability_N is None:
        return None
    return classification.precision_recall_steps(probability_N.astype(float), kept.target_N == class_index)
