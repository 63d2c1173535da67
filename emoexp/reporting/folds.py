"""Folds of one seed put together: their test parts, in which every image stands once, evaluated as one."""

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
    """The runs of all folds of one seed as one: its metrics are those of their test parts together."""

    folds: tuple[FinishedRun, ...] = ()

    @cached_property
    def predictions(self) -> TestPredictions | None:
        """Those of all folds, one after another; None where a fold's were not kept whole."""
        found = [fold.predictions for fold in self.folds]
        complete = [one for one in found if one is not None and one.is_complete]
        return records.concatenated(complete) if len(complete) == len(found) else None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """As a run's metrics.json has them, of test alone."""
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
        drawn = [fold.metrics.get("drawn") for fold in self.folds]
        if all(drawn):
            metrics["drawn"] = {key: sum(one[key] for one in drawn if one) for key in ("images", "originals")}
        return metrics

    @cached_property
    def seconds(self) -> float | None:
        """Of all folds together; None where one's were not kept."""
        known = [fold.seconds for fold in self.folds if fold.seconds is not None]
        return sum(known) if len(known) == len(self.folds) else None


def pool_folds(found: RunSet) -> RunSet:
    """Runs that were swept over folds, put together by seed; a seed that lacks a fold is left out. Others stay."""
    if not any(AXIS in run.axes for run in found.runs):
        return found
    groups: dict[tuple[object, ...], list[FinishedRun]] = {}
    for run in found.runs:
        groups.setdefault((*_other_axes(run).items(), run.seed), []).append(run)
    runs: list[FinishedRun] = []
    left_out = list(found.left_out)
    for folds in groups.values():
        folds.sort(key=lambda run: int(run.axes[AXIS]))
        first = folds[0]
        if missing := _missing_folds(folds):
            why = f"fold {', '.join(missing)} of its seed is not finished, or its predictions were not kept whole"
            left_out.append((first.record.name, why))
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
