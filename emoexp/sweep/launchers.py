"""Beyond one machine: cells as jobs of one of Hydra's launchers, SLURM through submitit or a Ray cluster."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from emoexp.runs import folder as runs
from emoexp.sweep.cells import DIED, DONE, FAILED, KILLED, Cell, Outcome

log = logging.getLogger("emoexp")
UNTOUCHED = "was not run: see the launcher's own output"
Engine = Callable[[Sequence[Cell], Path], Iterator[tuple[Cell, Outcome]]]


def engine(launcher: Any, name: str) -> Engine:
    """A launcher of Hydra's as something that runs cells; what became of them is read from their folders."""

    def launch(cells: Sequence[Cell], sweep: Path) -> Iterator[tuple[Cell, Outcome]]:
        log.info("%s takes %d cells; their output is below %s", name, len(cells), sweep)
        launcher.config.hydra.sweep.dir = str(sweep)  # a launcher keeps its own files there
        words = [[*cell.overrides, f"sweep={sweep}"] for cell in cells]
        before = {cell.name: last(cell) for cell in cells}
        trouble = None
        try:
            launcher.launch(words, initial_job_idx=0)
        except Exception as error:  # noqa: BLE001 - whatever a cluster raises: the other cells' results are in their folders
            trouble = f"{name}: {type(error).__name__}: {error}"
            log.error(trouble)
        for cell in cells:
            untouched = last(cell) == before[cell.name]
            yield cell, Outcome(FAILED, error=trouble or UNTOUCHED) if untouched else outcome(cell, trouble)

    return launch


def last(cell: Cell) -> tuple[str, str] | None:
    """The folder that was begun last under a cell's name, and what its status is."""
    folder = runs.latest(Path(cell.machine.outputs), cell.name)
    return None if folder is None else (folder.name, (folder / "status.json").read_text())


def outcome(cell: Cell, trouble: str | None = None) -> Outcome:
    """What the folders say of a cell that somebody else ran."""
    folder = runs.latest(Path(cell.machine.outputs), cell.name)
    if folder is None:
        return Outcome(FAILED, error=trouble or UNTOUCHED)
    status = json.loads((folder / "status.json").read_text())
    if status["status"] == "FINISHED":
        metrics = json.loads((folder / "metrics.json").read_text())
        seconds = status["ended"] - status["started"]
        return Outcome(DONE, str(folder), seconds, metrics["test"].get("macro_f1"))
    state = {"FAILED": FAILED, "KILLED": KILLED}.get(status["status"], DIED)
    return Outcome(state, str(folder), error=status["error"] or trouble or "the process died without a word")
