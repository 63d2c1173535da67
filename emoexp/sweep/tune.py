"""The same small search for a learning rate for every cell, on validation, before its seeds run."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from emoexp.runs import kept
from emoexp.runs.records import RunRecord
from emoexp.sweep.cells import Cell, Plan


def searches(plan: Plan) -> dict[tuple[str, ...], list[Cell]]:
    """For each arm the cells that try the learning rates of tune.lr, with a seed of their own."""
    tune = plan.settings.tune
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in plan.cells:
        if cell.arm not in found:
            found[cell.arm] = [_search(cell, rate, tune.seed, tune.epochs) for rate in tune.lr or ()]
    return found


def _search(cell: Cell, rate: float, seed: int, epochs: int | None) -> Cell:
    epochs = epochs or cell.experiment.epochs
    words = [f"optimizer.lr={rate}", f"seed={seed}", f"epochs={epochs}"]
    tried = cell.having(words, seed=seed, epochs=epochs, optimizer=cell.experiment.optimizer.having(lr=rate))
    return dataclasses.replace(tried, axes={**cell.axes, "optimizer.lr": str(rate)})


def chosen(plan: Plan, folders: Mapping[str, str | None]) -> list[Cell | None]:
    """The cells of a plan with the learning rate that their arm's finished searches chose; None where there is none.

    folders: of each search's name the folder of its run; of a name that is not there, the last finished run counts.
    """
    best = {arm: _best(cells, folders) for arm, cells in searches(plan).items()}
    return [None if (rate := best[cell.arm]) is None else _with(cell, rate) for cell in plan.cells]


def _with(cell: Cell, rate: float) -> Cell:
    tuned = cell.having([f"optimizer.lr={rate}"], optimizer=cell.experiment.optimizer.having(lr=rate))
    return dataclasses.replace(tuned, chosen={"optimizer.lr": rate})


def _best(cells: Iterable[Cell], folders: Mapping[str, str | None]) -> float | None:
    """The learning rate whose run was best by its monitor; of equals the smallest."""
    rated = sorted(_rated(cells, folders), reverse=True)
    return -rated[0][1] if rated else None


def _rated(cells: Iterable[Cell], folders: Mapping[str, str | None]) -> Iterator[tuple[float, float]]:
    for cell in cells:
        known = folders.get(cell.name)
        record = kept.record_of(known) if known else kept.latest_finished(Path(cell.machine.outputs), cell.name)
        value = judged(record, cell.experiment.monitor) if record and record.is_finished else None
        if value is not None:
            yield value, -float(cell.experiment.optimizer.lr)


def judged(record: RunRecord, monitor: str) -> float | None:
    """What a finished run was judged by on validation, larger being better; None where it was not a number."""
    value = record.metrics["best"].get(monitor)
    return None if value is None else -value if monitor.endswith("loss") else value
