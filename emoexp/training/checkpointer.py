"""What a training writes to disk while it runs: the last and the best checkpoint, the history, the times.

The files are written together, so that a resumed run finds all of them from the same moment. They are written at most
once a second: on a GPU an epoch of small images takes a tenth of a second, and so does the writing of four files to a
disk. Epochs that were not written before a kill are trained again, to the same bits.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from emoexp.runs import checkpoint
from emoexp.runs.folder import Run
from emoexp.training.loop import EpochResult
from emoexp.training.step import TrainState

MIN_INTERVAL_S = 1.0


class Checkpointer:
    """Writes the checkpoints of a run. A resumed run starts from last.pt, which holds the history too.

    model_spec: saved beside the best weights. on_write: called after each write.
    """

    def __init__(self, run: Run, state: TrainState, model_spec: dict[str, Any], on_write: Callable[[], None]) -> None:
        self._run, self._state, self._model_spec, self._on_write = run, state, model_spec, on_write
        self._times = _read_times(run, len(state.history))
        self._best: dict[str, Any] | None = None
        self._last_write = -MIN_INTERVAL_S

    def add_epoch(self, result: EpochResult) -> None:
        """Add a finished epoch, and write all files if the last write is at least a second ago."""
        self._times.append(_time_row(result))
        if result.best:
            weights = {name: value.detach().clone() for name, value in self._state.model.state_dict().items()}
            self._best = {"model_spec": self._model_spec, "epoch": len(self._state.history), "model": weights}
        if time.monotonic() - self._last_write >= MIN_INTERVAL_S:
            self.write()

    def write(self) -> None:
        """Write the state, the history and the times, and the best weights where they are new."""
        if self._best is not None:
            checkpoint.save(self._run.folder / "best.pt", self._best)
        checkpoint.save(self._run.folder / "last.pt", self._state.payload())
        self._run.write_lines("history.jsonl", self._state.history)
        self._run.write_lines("times.jsonl", self._times)
        self._best, self._last_write = None, time.monotonic()
        self._on_write()


def _read_times(run: Run, epochs: int) -> list[dict[str, Any]]:
    """The times of the epochs that the checkpoint holds."""
    path = run.folder / "times.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [row for row in rows if row["epoch"] <= epochs]


def _time_row(result: EpochResult) -> dict[str, Any]:
    """The times of an epoch. They do not stand in the history, so that equal runs have the same history bit for bit."""
    return {
        "epoch": int(result.row["epoch"]),
        "ended": time.time(),
        "train_seconds": result.train_seconds,
        "eval_seconds": result.eval_seconds,
        "images_per_second": result.images / result.train_seconds,
    }
