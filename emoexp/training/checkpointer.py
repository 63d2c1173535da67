"""What a training leaves on disk as it goes: the last and the best checkpoint, the history, the times.

They are written together, so that a killed run finds them of one moment, and at most once a second: on a GPU an epoch
of small images takes a tenth of a second, and a disk as long to confirm four files. What was not written is trained
again, to the same bits.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from emoexp.runs import checkpoint
from emoexp.runs.folder import Run
from emoexp.training.loop import EpochResult
from emoexp.training.step import TrainState

EVERY_S = 1.0


class Checkpointer:
    """Keeps what each epoch leaves. last.pt counts: the history is written from the same state.

    model_spec: kept beside the best weights. changed: called after each write.
    """

    def __init__(self, run: Run, state: TrainState, model_spec: dict[str, Any], changed: Callable[[], None]) -> None:
        self._run, self._state, self._model_spec, self._changed = run, state, model_spec, changed
        self._times = _read_times(run, len(state.history))
        self._best: dict[str, Any] | None = None
        self._written = -EVERY_S

    def epoch(self, epoch: EpochResult) -> None:
        """Note a finished epoch, and write if the last time is long enough ago."""
        self._times.append(_time_row(epoch))
        if epoch.best:
            weights = {name: value.detach().clone() for name, value in self._state.model.state_dict().items()}
            self._best = {"model_spec": self._model_spec, "epoch": len(self._state.history), "model": weights}
        if time.monotonic() - self._written >= EVERY_S:
            self.write()

    def write(self) -> None:
        """Write where the state stands, and all that was noted."""
        if self._best is not None:
            checkpoint.save(self._run.folder / "best.pt", self._best)
        checkpoint.save(self._run.folder / "last.pt", self._state.payload())
        self._run.write_lines("history.jsonl", self._state.history)
        self._run.write_lines("times.jsonl", self._times)
        self._best, self._written = None, time.monotonic()
        self._changed()


def _read_times(run: Run, epochs: int) -> list[dict[str, Any]]:
    """The times of the epochs that the checkpoint holds."""
    path = run.folder / "times.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [row for row in rows if row["epoch"] <= epochs]


def _time_row(epoch: EpochResult) -> dict[str, Any]:
    """Seconds of an epoch; kept apart from the history, which equal runs share bit for bit."""
    return {
        "epoch": int(epoch.row["epoch"]),
        "ended": time.time(),
        "train_seconds": epoch.train_seconds,
        "eval_seconds": epoch.eval_seconds,
        "images_per_second": epoch.images / epoch.train_seconds,
    }
