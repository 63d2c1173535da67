"""Folds of one seed put together: their test parts, in which every image stands once, judged as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from emoexp.inference import results
from emoexp.reporting.cells import Gathered, Made
from emoexp.runs import records
from emoexp.runs.records import TestPredictions

AXIS = "split.fold"


@dataclass(frozen=True)
class Pooled(Made):
    """The runs of all folds of one seed as one: its metrics are those of their test parts together."""

    folds: tuple[Made, ...] = ()

    @cached_property
    def predictions(self) -> TestPredictions | None:
        """Those of all folds, one after another; None where a fold's were not kept whole."""
        kept = [fold.predictions for fold in self.folds]
        complete = [one for one in kept if one is not None and one.is_complete]
        return records.concatenated(complete) if len(complete) == len(kept) else None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """As a run's metrics.json has them, of test alone."""
        kept = self.predictions
        assert kept is not None and kept.clean_N is not None, "pooled leaves such a seed out"
        data = self.folds[0].manifest["data"]
        joined = results.Predictions(
            part="test",
            probability_NC=kept.probability_NK,
            target_N=kept.target_N,
            clean_N=kept.clean_N.astype(bool),
            image_MCHW=np.empty(0, np.uint8),
            index_N=np.empty(0, np.int64),
            names=[],
            class_names=data["classes"],
            majority=int(np.argmax(data["counts"]["train"])),
        )
        found: dict[str, Any] = {"test": results.summary(joined, clean=False)}
        found["test_clean"] = results.summary(joined, clean=True)
        found["epochs"] = sum(fold.metrics["epochs"] for fold in self.folds) / len(self.folds)
        costs = [fold.metrics.get("drawn") for fold in self.folds]
        if all(costs):
            found["drawn"] = {key: sum(cost[key] for cost in costs if cost) for key in ("images", "originals")}
        return found

    @cached_property
    def seconds(self) -> float | None:
        """Of all folds together; None where one's were not kept."""
        found = [fold.seconds for fold in self.folds]
        kept = [one for one in found if one is not None]
        return sum(kept) if len(kept) == len(found) else None


def pooled(found: Gathered) -> Gathered:
    """Runs that were swept over folds, put together by seed; a seed that lacks a fold is left out. Others stay."""
    if not any(AXIS in cell.axes for cell in found.cells):
        return found
    groups: dict[tuple[object, ...], list[Made]] = {}
    for cell in found.cells:
        others = {axis: value for axis, value in cell.axes.items() if axis != AXIS}
        groups.setdefault((*others.items(), cell.seed), []).append(cell)
    cells: list[Made] = []
    left_out = list(found.left_out)
    for folds in groups.values():
        folds.sort(key=lambda cell: int(cell.axes[AXIS]))
        if missing := _missing(folds):
            why = f"fold {', '.join(missing)} of its seed is not finished, or its predictions were not kept whole"
            left_out.append((folds[0].record.name, why))
        else:
            cells.append(_joined(folds))
    return Gathered(cells, left_out)


def _joined(folds: Sequence[Made]) -> Pooled:
    axes = {axis: value for axis, value in folds[0].axes.items() if axis != AXIS}
    return Pooled(folds[0].record, axes, folds[0].seed, folds[0].chosen, tuple(folds))


def _missing(folds: Sequence[Made]) -> list[str]:
    there = {int(fold.axes[AXIS]): fold.predictions for fold in folds}
    wanted = int(next(iter(folds)).manifest["params"]["split.folds"])
    usable = {
        number
        for number, found in there.items()
        if found is not None and found.is_complete and found.clean_N is not None
    }
    return [str(number) for number in range(wanted) if number not in usable]
