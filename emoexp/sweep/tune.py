"""A small search for the learning rate of each arm, the same for all arms: on validation, before the seeds run."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from emoexp.runs import kept
from emoexp.runs.records import RunRecord
from emoexp.sweep.cells import Cell, Plan


def search_cells(plan: Plan) -> dict[tuple[str, ...], list[Cell]]:
    """For each arm the cells that try the learning rates of tune.lr, with the seed tune.seed."""
    tune = plan.settings.tune
    cells: dict[tuple[str, ...], list[Cell]] = {}
    for cell in plan.cells:
        if cell.arm not in cells:
            cells[cell.arm] = [_search_cell(cell, rate, tune.seed, tune.epochs) for rate in tune.lr or ()]
    return cells


def _search_cell(cell: Cell, rate: float, seed: int, epochs: int | None) -> Cell:
    epochs = epochs or cell.experiment.epochs
    words = [f"optimizer.lr={rate}", f"seed={seed}", f"epochs={epochs}"]
    search = cell.with_experiment(words, seed=seed, epochs=epochs, optimizer=cell.experiment.optimizer.having(lr=rate))
    return dataclasses.replace(search, axes={**cell.axes, "optimizer.lr": str(rate)})


def with_best_rates(plan: Plan, folders: Mapping[str, str | None]) -> list[Cell | None]:
    """The cells of a plan, with the learning rate that was best in the searches of their arm; None for a cell whose arm
    has no finished search.

    folders: by the name of each search the folder of its run, or the label of its kept run. For a name without one, the
    finished run that was started last counts.
    """
    rates = {arm: _best_rate(cells, folders) for arm, cells in search_cells(plan).items()}
    return [None if (rate := rates[cell.arm]) is None else _with_rate(cell, rate) for cell in plan.cells]


def _with_rate(cell: Cell, rate: float) -> Cell:
    tuned = cell.with_experiment([f"optimizer.lr={rate}"], optimizer=cell.experiment.optimizer.having(lr=rate))
    return dataclasses.replace(tuned, chosen={"optimizer.lr": rate})


def _best_rate(cells: Iterable[Cell], folders: Mapping[str, str | None]) -> float | None:
    """The learning rate whose run has the best monitored value; of equal ones the smallest."""
    scores = sorted(_scores(cells, folders), reverse=True)
    return -scores[0][1] if scores else None


def _scores(cells: Iterable[Cell], folders: Mapping[str, str | None]) -> Iterator[tuple[float, float]]:
    """Score and negative learning rate of each search that is finished."""
    for cell in cells:
        label = folders.get(cell.name)
        record = kept.record_of(label) if label else kept.latest_finished(Path(cell.machine.outputs), cell.name)
        score = validation_score(record, cell.experiment.monitor) if record and record.is_finished else None
        if score is not None:
            yield score, -float(cell.experiment.optimizer.lr)


def validation_score(record: RunRecord, monitor: str) -> float | None:
    """The monitored value of a finished run's best epoch, larger being better; None where it was not a number."""
    value = record.metrics["best"].get(monitor)
    return None if value is None else -value if monitor.endswith("loss") else value
