"""Pools the folds of one seed: their test parts, which together hold every image once, are evaluated as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from emoexp.inference import results
from emoexp.reporting.collect import FinishedRun, RunSet
from emoexp.runs import records
from emoexp.runs.records import TestPredictions

AXIS = "split.fold"


@dataclass(frozen=True)
class PooledRun(FinishedRun):
    """The runs of all folds of one seed as one run: its metrics are those of their test parts together."""

    folds: tuple[FinishedRun, ...] = ()

    @cached_property
    def predictions(self) -> TestPredictions | None:
        """The predictions of all folds, one after another; None where those of a fold were not kept for all classes."""
        complete = [fold.predictions for fold in self.folds if fold.predictions and fold.predictions.is_complete]
        return records.concatenated(complete) if len(complete) == len(self.folds) else None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """As in a run's metrics.json, of the test part only."""
        predictions = self.predictions
        assert predictions is not None and predictions.clean_N is not None, "pool_folds leaves such a seed out"
        data = self.folds[0].manifest["data"]
        test = results.Predictions(
            part="test",
            probability_NC=predictions.probability_NK,
            target_N=predictions.target_N,
            clean_N=predictions.clean_N.astype(bool),
            image_MCHW=np.empty(0, np.uint8),
            index_N=np.empty(0, np.int64),
            names=[],
            class_names=data["classes"],
            majority=int(np.argmax(data["counts"]["train"])),
        )
        metrics: dict[str, Any] = {
            "test": results.summary(test, clean=False),
            "test_clean": results.summary(test, clean=True),
            "epochs": sum(fold.metrics["epochs"] for fold in self.folds) / len(self.folds),
        }
        draw_counts = [fold.metrics.get("drawn") for fold in self.folds]
        if all(draw_counts):
            totals = {key: sum(counts[key] for counts in draw_counts if counts) for key in ("images", "originals")}
            metrics["drawn"] = totals
        return metrics

    @cached_property
    def seconds(self) -> float | None:
        """Seconds of all folds together; None where those of a fold were not kept."""
        seconds = [fold.seconds for fold in self.folds if fold.seconds is not None]
        return sum(seconds) if len(seconds) == len(self.folds) else None


def pool_folds(run_set: RunSet) -> RunSet:
    """The runs with the folds of each seed pooled; a seed that lacks a fold is left out. Runs without folds stay."""
    if not any(AXIS in run.axes for run in run_set.runs):
        return run_set
    groups: dict[tuple[object, ...], list[FinishedRun]] = {}
    for run in run_set.runs:
        groups.setdefault((*_other_axes(run).items(), run.seed), []).append(run)
    runs: list[FinishedRun] = []
    left_out = list(run_set.left_out)
    for folds in groups.values():
        folds.sort(key=lambda run: int(run.axes[AXIS]))
        first = folds[0]
        if missing := _missing_folds(folds):
            reason = f"fold {', '.join(missing)} of its seed is not finished, or its predictions were not kept whole"
            left_out.append((first.record.name, reason))
        else:
            runs.append(PooledRun(first.record, _other_axes(first), first.seed, first.chosen, tuple(folds)))
    return RunSet(runs, left_out)


def _other_axes(run: FinishedRun) -> dict[str, str]:
    return {axis: value for axis, value in run.axes.items() if axis != AXIS}


def _missing_folds(folds: Sequence[FinishedRun]) -> list[str]:
    """The numbers of the folds of a seed that cannot be pooled."""
    usable = set()
    for fold in folds:
        predictions = fold.predictions
        if predictions is not None and predictions.is_complete and predictions.clean_N is not None:
            usable.add(int(fold.axes[AXIS]))
    count = int(folds[0].manifest["params"]["split.folds"])
    return [str(number) for number in range(count) if number not in usable]
