"""Runs cells on other machines, as jobs of one of Hydra's launchers: SLURM through submitit, or a Ray cluster."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from emoexp.runs import files
from emoexp.runs import folder as runs
from emoexp.sweep.cells import DIED, DONE, FAILED, KILLED, Cell, Outcome

log = logging.getLogger("emoexp")
NOT_RUN = "was not run: see the launcher's own output"
CellRunner = Callable[[Sequence[Cell], Path], Iterator[tuple[Cell, Outcome]]]  # cells, the sweep's folder


def cell_runner(launcher: Any, name: str) -> CellRunner:
    """A function that runs cells by a launcher of Hydra's; their outcomes are read from their folders."""

    def run(cells: Sequence[Cell], sweep: Path) -> Iterator[tuple[Cell, Outcome]]:
        log.info("%s takes %d cells; their output is below %s", name, len(cells), sweep)
        launcher.config.hydra.sweep.dir = str(sweep)  # a launcher keeps its own files there
        words = [[*cell.overrides, f"sweep={sweep}"] for cell in cells]
        old_status = {cell.name: latest_status(cell) for cell in cells}
        failure = None
        try:
            launcher.launch(words, initial_job_idx=0)
        except Exception as error:  # noqa: BLE001 - a cluster may raise anything, and the results are in the cells' folders
            failure = f"{name}: {type(error).__name__}: {error}"
            log.error(failure)
        for cell in cells:
            is_unchanged = latest_status(cell) == old_status[cell.name]
            yield cell, Outcome(FAILED, error=failure or NOT_RUN) if is_unchanged else outcome_of(cell, failure)

    return run


def latest_status(cell: Cell) -> tuple[str, str] | None:
    """The last folder of a cell's name, and the content of its status.json."""
    folder = runs.latest(Path(cell.machine.outputs), cell.name)
    return None if folder is None else (folder.name, (folder / "status.json").read_text(encoding="utf-8"))


def outcome_of(cell: Cell, failure: str | None = None) -> Outcome:
    """The outcome of a cell that a launcher ran, by the cell's folder. failure: what the launcher raised."""
    folder = runs.latest(Path(cell.machine.outputs), cell.name)
    if folder is None:
        return Outcome(FAILED, error=failure or NOT_RUN)
    status = files.read_json(folder / "status.json")
    if status["status"] == "FINISHED":
        metrics = files.read_json(folder / "metrics.json")
        seconds = status["ended"] - status["started"]
        return Outcome(DONE, str(folder), seconds, metrics["test"].get("macro_f1"))
    state = {"FAILED": FAILED, "KILLED": KILLED}.get(status["status"], DIED)
    return Outcome(state, str(folder), error=status["error"] or failure or "the process died and left no error message")
