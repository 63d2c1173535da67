"""What a sweep does with its runs: accepts finished ones, closes those whose process died, shows them in MLflow."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from emoexp import tracking
from emoexp.runs import files
from emoexp.runs import folder as runs
from emoexp.runs.process import tracking_settings
from emoexp.runs.records import RunRecord
from emoexp.sweep.cells import DIED, FINISHED_BEFORE, OVER_TIME, Cell, Outcome, SweepFolder
from emoexp.sweep.pool import OUT_OF_MEMORY

log = logging.getLogger("emoexp")


def finished_before(cell: Cell, record: RunRecord) -> Outcome:
    """The outcome of a cell that was finished before. The folder of its run, if there is one, is added to the sweep."""
    if record.location.is_dir():
        runs.add_to_sweep(record.location, cell.machine.sweep)
    return Outcome(FINISHED_BEFORE, record.label, None, record.metrics["test"].get("macro_f1"))


def close_run(cell: Cell, outcome: Outcome) -> Outcome:
    """Where a cell's process died or was ended, write that into its run, since the process could not.

    Returns:
        The outcome, with the folder of the run.
    """
    if outcome.state not in (DIED, OVER_TIME):
        return outcome
    folder = runs.latest(Path(cell.machine.outputs), cell.name)
    if folder is None:
        return outcome
    if outcome.error and outcome.error.endswith(OUT_OF_MEMORY) and (said := _memory_line(folder)):
        outcome = dataclasses.replace(outcome, error=f"{outcome.error}: {said}")
    with files.lock(folder / "lock", wait=False) as is_free:
        status = files.read_json(folder / "status.json").get("status")
        if is_free and status in ("RUNNING", "KILLED"):
            runs.write_status(folder, "FAILED" if outcome.state == DIED else "KILLED", outcome.error)
            with (folder / "run.log").open("a", encoding="utf-8") as text:
                text.write(f"{outcome.error}\n")
    return dataclasses.replace(outcome, folder=str(folder))


def _memory_line(folder: Path) -> str | None:
    """What the log of a run says about the memory that a step needs."""
    path = folder / "run.log"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition("memory ")[2] for line in reversed(lines) if "memory about " in line), None)


def show_in_mlflow(sweep: SweepFolder, cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> None:
    """Bring MLflow up to date: with the sweep first, since it is the parent run, then with its cells.

    A cell has done this itself, except where it was finished before, ended before MLflow had the sweep, or died.
    """
    if not cells:
        return
    folders = [(sweep.path, cells[0])]
    for cell in cells:
        folder = outcomes[cell.name].folder
        if folder and Path(folder).is_dir():  # a kept run has no folder
            folders.append((Path(folder), cell))
    for path, cell in folders:
        settings = tracking_settings(cell.machine)
        try:
            if tracking.behind(path, settings, ask=False):
                tracking.mirror(path, settings)
        except Exception as error:  # noqa: BLE001 - MLflow may raise anything, and the folders have everything
            log.warning("tracking: %s is not shown yet: %s; `make sync` adds it", path, error)
            return
