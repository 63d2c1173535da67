"""What a training writes to disk while it runs: the last and the best checkpoint, the history, the times.

The files are written together, so that a resumed run finds all of them from the same moment. They are written at most
once a second: on a GPU an epoch of small images takes a tenth of a second, and so does the writing of four files to a
disk. Epochs that were not written before a kill are trained again, to the same bits.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from emoexp.config import best_model
from emoexp.config.fields import NotNegative, Range, accepted, check_keys
from emoexp.runs import checkpoint, files
from emoexp.runs.folder import Run
from emoexp.training.loop import EpochResult
from emoexp.training.setup import TrainSetup
from emoexp.training.step import TrainState, zero_sums

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


def restore(path: Path, setup: TrainSetup, state: TrainState) -> None:
    """Load last.pt into the state of a training that is about to start, which is then the saved one, bit for bit.

    Raises:
        ValueError: names the file and what in it does not belong to this training.
    """
    payload = checkpoint.load(path)
    try:
        _check(payload, setup, state)
        state.restore(payload, setup.step_setup.device)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: {told}. Delete the file, and the run starts anew") from error


def _check(payload: dict[str, Any], setup: TrainSetup, state: TrainState) -> None:
    """Refuse what a training of this setup cannot have written: its maker may be a stranger, or a broken disk."""
    keys = ("model", "optimizer", "epoch", "step", "history", "running")
    check_keys("", "last.pt", payload, keys)
    if missing := [key for key in keys if key not in payload]:
        raise ValueError(f"{missing[0]} is missing")
    epoch = accepted("epoch", Annotated[int, Range(least=0, most=setup.epochs)], payload["epoch"])
    accepted("step", Annotated[int, Range(least=0, most=setup.steps_per_epoch)], payload["step"])
    history = payload["history"]
    if not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
        raise ValueError("history is a list of rows")
    if [row.get("epoch") for row in history] != list(range(1, epoch + 1)):
        raise ValueError(f"history has a row for each of the {epoch} finished epochs; it has {len(history)} rows")
    for name, tensor in payload["model"].items():
        best_model.check_tensor(f"model.{name}", tensor)
    best_model.check_shapes(state.model.state_dict(), payload["model"])
    for row in history:
        for key, value in row.items():
            accepted(f"history.{key}", float | None, value)
    _check_optimizer(state, payload["optimizer"])
    for name, tensor in payload["running"].items():
        best_model.check_tensor(f"running.{name}", tensor, dimensions=0)
    if payload["running"].keys() - zero_sums(setup.step_setup.device).keys():
        raise ValueError(f"running holds sums of an epoch; it holds {', '.join(map(str, payload['running']))}")


def _check_optimizer(state: TrainState, saved: dict[str, Any]) -> None:
    """The optimizer has the options of this training, and finite tensors of its parameters' shapes."""
    check_keys("optimizer.", "last.pt", saved, ("state", "param_groups"))
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    groups = state.optimizer.state_dict()["param_groups"]
    if len(saved["param_groups"]) != len(groups):
        raise ValueError(f"optimizer.param_groups has {len(groups)} groups; it has {len(saved['param_groups'])}")
    for found, group in zip(saved["param_groups"], groups, strict=True):
        accepted("optimizer.param_groups.lr", NotNegative, found["lr"])
        for key in group.keys() - {"lr"}:
            if key not in found:
                raise ValueError(f"optimizer.param_groups.{key} is missing")
            if found[key] != group[key]:
                raise ValueError(f"optimizer.param_groups.{key} is {group[key]}; it is {found[key]}")
    for number, values in saved["state"].items():
        place = accepted("optimizer.state", Annotated[int, Range(least=0, most=len(parameters) - 1)], number)
        for name, tensor in values.items():
            key = f"optimizer.state.{number}.{name}"
            if tensor is not None:
                best_model.check_tensor(key, tensor)
                if tensor.shape not in (parameters[place].shape, ()):
                    raise ValueError(f"{key} is of shape {list(parameters[place].shape)}; it is {list(tensor.shape)}")


def _read_times(run: Run, epochs: int) -> list[dict[str, Any]]:
    """The times of the epochs that the checkpoint holds."""
    return [row for row in files.read_json_lines(run.folder / "times.jsonl") if row["epoch"] <= epochs]


def _time_row(result: EpochResult) -> dict[str, Any]:
    """The times of an epoch. They do not stand in the history, so that equal runs have the same history bit for bit."""
    return {
        "epoch": int(result.row["epoch"]),
        "ended": time.time(),
        "train_seconds": result.train_seconds,
        "eval_seconds": result.eval_seconds,
        "images_per_second": result.images / result.train_seconds,
    }
