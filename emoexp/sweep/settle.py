"""What a sweep does for a run from outside: find a finished one, end one whose process died, show one in MLflow."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from emoexp import tracking
from emoexp.runs import files
from emoexp.runs import folder as runs
from emoexp.runs.process import tracking_settings
from emoexp.runs.records import RunRecord
from emoexp.sweep.cells import DIED, FOUND, LATE, Cell, Folder, Outcome

log = logging.getLogger("emoexp")


def found(cell: Cell, record: RunRecord) -> Outcome:
    """A cell that was finished before; its run becomes a member of the sweep too, where it has a folder of its own."""
    if record.location.is_dir():
        runs.add_to_sweep(record.location, cell.machine.sweep)
    return Outcome(FOUND, record.label, None, record.metrics["test"].get("macro_f1"))


def settled(cell: Cell, outcome: Outcome) -> Outcome:
    """The outcome of a cell whose process could not speak for itself, written into its run too."""
    if outcome.state not in (DIED, LATE):
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


def mirrored(sweep: Folder, cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> None:
    """Show in MLflow what it lacks: the sweep, then its cells that were finished before, that ended before the sweep
    was there to be their parent, or whose process died."""
    shown = [(sweep.path, cells[0])] if cells else []
    folders = [(Path(outcomes[cell.name].folder or ""), cell) for cell in cells if outcomes[cell.name].folder]
    shown += [(folder, cell) for folder, cell in folders if folder.is_dir()]  # a kept run has none
    for folder, cell in shown:
        settings = tracking_settings(cell.machine)
        try:
            if tracking.behind(folder, settings, ask=False):
                tracking.mirror(folder, settings)
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises: the folders have everything
            log.warning("tracking: %s is not shown yet: %s; `make sync` adds it", folder, error)
            return
