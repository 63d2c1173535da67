"""A cell of a sweep, its outcome, and the folder multirun/<sweep>, which records both."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from emoexp.config import naming
from emoexp.config.schema import Experiment, Machine, Sweep
from emoexp.runs import files
from emoexp.runs import folder as runs

# states of a cell, as cells.json and the tables have them
DONE, FINISHED_BEFORE = "done", "found"  # finished by this command, or already before it
FAILED, DIED, OVER_TIME, KILLED = "failed", "died", "over time", "killed"
WAITING, SKIPPED, BUSY = "waiting", "skipped", "busy"  # busy: another process is training it
FINISHED_STATES = (DONE, FINISHED_BEFORE)


@dataclass(frozen=True)
class Cell:
    """One configuration of a sweep.

    overrides: its words of the command line. axes: the values that distinguish it from other cells, without the seed.
    chosen: values that a search on validation chose for it.
    """

    overrides: tuple[str, ...]
    experiment: Experiment
    machine: Machine
    axes: dict[str, str]
    chosen: dict[str, float] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        """The name of its run's folder."""
        return naming.name(self.experiment)

    @property
    def arm(self) -> tuple[str, ...]:
        """The values of its axes: equal for cells that differ in their seed alone."""
        return tuple(self.axes.values())

    @property
    def label(self) -> str:
        """Its name in messages."""
        return " ".join([f"{axis}={value}" for axis, value in self.axes.items()] + [f"seed={self.experiment.seed}"])

    def with_experiment(self, words: Iterable[str], **values: Any) -> "Cell":
        """The same cell with other fields of its experiment, and the words that set them."""
        experiment = dataclasses.replace(self.experiment, **values)
        return dataclasses.replace(self, overrides=(*self.overrides, *words), experiment=experiment)

    def with_machine(self, **values: Any) -> "Cell":
        """The same cell with other fields of its machine."""
        return dataclasses.replace(self, machine=dataclasses.replace(self.machine, **values))


@dataclass(frozen=True)
class CellRequest:
    """A cell as a report asks for it: the name of its run, its axes, its seed, what a search chose for it."""

    name: str
    axes: dict[str, str]
    seed: int
    chosen: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a cell: its state, its run, seconds, macro-F1 on test, and the error if there was one.

    folder: the folder of its run, or the label of a kept run (see `emoexp.runs.kept.record_of`).
    """

    state: str
    folder: str | None = None
    seconds: float | None = None
    macro_f1: float | None = None
    error: str | None = None
    traceback: str | None = None


@dataclass(frozen=True)
class Plan:
    """A composed sweep.

    axes: the keys that it varies, without the seed. settings: how the cells are run. duplicates: how many combinations
    were left out because they name the same run as another one.
    """

    name: str
    axes: tuple[str, ...]
    cells: tuple[Cell, ...]
    settings: Sweep
    duplicates: int = 0


def sweep_name(title: str, cells: list[Cell], axes: Iterable[str], settings: Sweep) -> str:
    """A name from the title, the data, and the values that all cells share, so that it stays the same when the sweep is
    extended, narrowed or repeated."""
    choices = [dict(_flat(naming.choices(cell.experiment))) for cell in cells]
    varied = tuple(axes)
    shared = {
        key: value
        for key, value in choices[0].items()
        if all(cell_choices.get(key) == value for cell_choices in choices)
        and key != "seed"
        and not any(key == axis or key.startswith(f"{axis}.") for axis in varied)
    }
    if settings.tune.lr:
        shared["tune"] = settings.tune.plain()
    digest = hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()[:8]
    labels = {cell.experiment.data.label for cell in cells}
    data = labels.pop() if len(labels) == 1 else cells[0].experiment.data.name
    return naming.safe(f"{title}-{data}") + f"-{digest}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}".removesuffix(".name"), value


class SweepFolder:
    """The folder multirun/<sweep>: cells.json, sweep.log, and status.json and manifest.json in a run's form, from which
    MLflow shows the sweep as a parent run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Mark the sweep as alive while the block runs. Several processes may work on one sweep at the same time."""
        self.path.mkdir(parents=True, exist_ok=True)
        with files.shared_lock(self.path / "lock"):
            yield

    def begin(self, plan: Plan, command: str) -> None:
        """Write manifest, status and cells before the first cell starts. Cells of earlier commands stay listed."""
        tags = {"kind": "sweep", "command": command}
        for axis in plan.axes:
            tags[f"axis.{axis}"] = ", ".join(dict.fromkeys(cell.axes[axis] for cell in plan.cells))
        tags["axis.seed"] = ", ".join(map(str, sorted({cell.experiment.seed for cell in plan.cells})))
        manifest = {
            "run": plan.name,
            "params": {"data": plan.cells[0].experiment.data.name},  # MLflow lets no param change, and a sweep may grow
            "tags": tags,
            "settings": dataclasses.asdict(plan.settings),
        }
        files.write_json(self.path / "manifest.json", manifest)
        self.write_status("RUNNING")
        self.record({cell.name: Outcome(WAITING) for cell in plan.cells}, plan.cells)

    def write_status(self, status: str, error: str | None = None) -> None:
        """RUNNING, FINISHED, FAILED or KILLED, in status.json as a run has it."""
        runs.write_status(self.path, status, error)

    def finished_runs(self) -> dict[str, str | None]:
        """The folder of the run of each finished cell in cells.json, by the cell's name."""
        rows = files.read_json(self.path / "cells.json")
        return {name: row.get("folder") for name, row in rows.items() if row.get("state") in FINISHED_STATES}

    def record(self, outcomes: Mapping[str, Outcome], cells: Iterable[Cell]) -> None:
        """Add cells and outcomes to cells.json. The outcome WAITING does not replace that of a finished cell."""
        with files.lock(self.path / "cells.lock"):
            rows = files.read_json(self.path / "cells.json")
            for cell in cells:
                row = rows.get(cell.name, {"state": WAITING})
                row["axes"] = cell.axes
                row["seed"] = cell.experiment.seed
                row["overrides"] = list(cell.overrides)
                if cell.chosen:
                    row["chosen"] = cell.chosen
                outcome = outcomes.get(cell.name)
                if outcome is not None and (outcome.state != WAITING or row["state"] not in FINISHED_STATES):
                    values = dataclasses.asdict(outcome)
                    del values["traceback"]
                    if (
                        outcome.state == FINISHED_BEFORE
                        and row["state"] in FINISHED_STATES
                        and row.get("seconds") is not None
                    ):
                        del values["seconds"]  # keep the seconds of the training
                    row.update(values, time=time.time())
                rows[cell.name] = row
            files.write_json(self.path / "cells.json", rows)
