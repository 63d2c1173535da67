"""What a sweep does with a run from outside: accept a finished one, end one whose process died, show one in MLflow."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from emoexp import tracking
from emoexp.runs import files
from emoexp.runs import folder as runs
from emoexp.runs.process import tracking_settings
from emoexp.runs.records import RunRecord
from emoexp.sweep.cells import DIED, FOUND, OVER_TIME, Cell, Outcome, SweepFolder

log = logging.getLogger("emoexp")


def finished_before(cell: Cell, record: RunRecord) -> Outcome:
    """The outcome of a cell that was finished before; its run's folder, where there is one, joins the sweep."""
    if record.location.is_dir():
        runs.add_to_sweep(record.location, cell.machine.sweep)
    return Outcome(FOUND, record.label, None, record.metrics["test"].get("macro_f1"))


def close_run(cell: Cell, outcome: Outcome) -> Outcome:
    """Where a cell's process has died or was ended, write so into its run, which could not do it itself.

    Returns:
        The outcome, with the run's folder where it was not known.
    """
    if outcome.state not in (DIED, OVER_TIME):
        return outcome
    folder = runs.latest(Path(cell.machine.outputs), cell.name)
    if folder is None:
        return outcome
    with files.lock(folder / "lock", wait=False) as is_free:
        status = files.read_json(folder / "status.json").get("status")
        if is_free and status in ("RUNNING", "KILLED"):
            runs.write_status(folder, "FAILED" if outcome.state == DIED else "KILLED", outcome.error)
            with (folder / "run.log").open("a") as text:
                text.write(f"{outcome.error}\n")
    return dataclasses.replace(outcome, folder=str(folder))


def show_in_mlflow(sweep: SweepFolder, cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> None:
    """Show in MLflow what it lacks: the sweep, then its cells that were finished before, that ended before the sweep
    was there to be their parent, or whose process died."""
    if not cells:
        return
    shown = [(sweep.path, cells[0])]
    for cell in cells:
        folder = outcomes[cell.name].folder
        if folder and Path(folder).is_dir():  # a kept run has no folder
            shown.append((Path(folder), cell))
    for path, cell in shown:
        settings = tracking_settings(cell.machine)
        try:
            if tracking.behind(path, settings, ask=False):
                tracking.mirror(path, settings)
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises: the folders have everything
            log.warning("tracking: %s is not shown yet: %s; `make sync` adds it", path, error)
            return
