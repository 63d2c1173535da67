"""What a worker process does: it checks cells, and it trains one after another without being started again."""

import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emoexp.config import build_data, build_strategy, build_training, naming
from emoexp.config.schema import Experiment, Machine
from emoexp.runs import system_errors
from emoexp.sweep.cells import BUSY, DONE, FAILED, FINISHED_BEFORE, Cell, Outcome

_GRACE_S = 20.0  # seconds that a worker has to save its run after its supervisor is gone
TERMINATED = 143  # exit code of a worker that was told to stop
_STEPS = (2, 6)  # steps of a measurement: those that warm up, and those that are timed


@dataclass(frozen=True)
class Preflight:
    """The result of checking a cell before anything is trained.

    error: why it cannot be trained. folder: the folder of its run, which may not exist yet, or the label of its kept
    run. finished: whether the run is finished. epochs_done: epochs that are trained. epochs: epochs in all.
    images_per_epoch: draws of an epoch. seconds_per_image: of training; None where it was not measured. changes: where
    the run starts anew because an earlier one of its name differs, in what that one differs. device: cpu, cuda or mps.
    """

    error: str | None = None
    folder: str = ""
    finished: bool = False
    epochs_done: int = 0
    epochs: int = 0
    images_per_epoch: int = 0
    seconds_per_image: float | None = None
    changes: str = ""
    device: str = ""


def start(supervisor: int, output: str) -> None:
    """Called first in a worker: send its output to a file, and end it when its supervisor ends.

    Args:
        supervisor: process id. output: the file.
    """
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    tqdm.set_lock(
        threading.RLock()
    )  # tqdm's default lock is a system semaphore, which a killed worker would leave behind
    threading.Thread(target=_end_with, args=(supervisor,), daemon=True).start()


def _end_with(supervisor: int) -> None:
    while os.getppid() == supervisor:
        time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGTERM)  # a run in progress is saved and says that it was killed
    time.sleep(_GRACE_S)
    os._exit(1)


_loaded: dict[str, Any] = {}  # the last images that were read, by the values that decide them


def _load(experiment: Experiment, machine: Machine) -> Any:
    """The images of a configuration, kept from one cell to the next."""
    values = [
        experiment.data.plain(),
        experiment.split.plain(),
        experiment.image_size,
        experiment.channels,
        machine.cache,
    ]
    copies = experiment.imbalance.copies.plain() if experiment.protocol == "leaky" else None
    key = json.dumps([*values, experiment.protocol, copies])
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = build_data.load_data(experiment, machine)
    return _loaded[key]


def train_cell(cell: Cell) -> Outcome:
    """Train a cell, continue it, or find it finished. Where it raises an error, that becomes its outcome."""
    from emoexp.runs import folder as runs
    from emoexp.training import run as training

    start_time = time.perf_counter()
    folder, finished = None, False

    def note_run(run: runs.Run) -> None:
        nonlocal folder, finished
        folder, finished = str(run.folder), run.finished

    try:
        metrics = training.train(cell.experiment, cell.machine, load=_load, on_open=note_run)
    except runs.RunInUse:
        return Outcome(BUSY, folder)
    except KeyboardInterrupt:  # SIGTERM, or Ctrl-C: the run is saved, and the sender waits until this process ends
        os._exit(TERMINATED)
    except BaseException as error:  # noqa: BLE001 - a cell's code may even exit; only this cell fails then
        message = system_errors.explained(error) or f"{type(error).__name__}: {error}"
        return Outcome(FAILED, folder, time.perf_counter() - start_time, None, message, traceback.format_exc())
    finally:
        _release_memory()
    return Outcome(
        FINISHED_BEFORE if finished else DONE, folder, time.perf_counter() - start_time, metrics["test"].get("macro_f1")
    )


def _release_memory() -> None:
    """Free the memory of a cell. What stays alive between cells, mostly modules, is left out of later collections."""
    gc.collect()
    gc.freeze()
    torch = sys.modules["torch"]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _prepare(cell: Cell) -> tuple[Any, Any, Any]:
    """Device, images and strategy of a cell."""
    from emoexp.models import mish
    from emoexp.runs import machine

    experiment, settings = cell.experiment, cell.machine
    device = machine.choose(settings.device)
    machine.prepare(device, settings.threads, experiment.precision, experiment.deterministic)
    mish.prepare(settings.cache)
    data = _load(experiment, settings)
    return device, data, build_strategy.build_strategy(experiment, data)


def _find_run(cell: Cell) -> tuple[str, bool, str]:
    """The folder of a cell's run or the label of its kept run; whether it is finished; and where it starts anew because
    an earlier run of its name differs, in what that one differs."""
    from emoexp.runs import folder as runs
    from emoexp.runs import kept
    from emoexp.runs.manifest import differences
    from emoexp.training import run as training

    device, data, strategy = _prepare(cell)
    manifest = training.manifest(cell.experiment, data, strategy, device, cell.machine)
    name, outputs, resume = naming.name(cell.experiment), Path(cell.machine.outputs), cell.machine.resume
    folder, changes = runs.folder_for(outputs, name, manifest, resume)
    finished, exists = runs.is_finished(folder), (folder / "status.json").is_file()
    if not finished and resume != "never":
        for record in reversed(kept.find_kept(outputs, name)):
            kept_changes = differences(record.manifest, manifest)
            if resume == "force" or not kept_changes:
                return record.label, True, ""
            changes = changes or kept_changes
    return str(folder), finished, "" if exists else "; ".join(changes)


def preflight(cells: list[Cell], timed: bool) -> list[Preflight]:
    """Build everything that each cell needs, without training, and find its run.

    A cell that differs from an earlier one only in its seed is not built again. timed: also measure some steps.
    """
    built: dict[str, tuple[str | None, float | None]] = {}  # error and seconds per image, by the cell without its seed
    preflights = []
    for cell in cells:
        key = json.dumps(cell.experiment.plain() | {"seed": 0}, sort_keys=True, default=str)
        run = ("", False, "")
        try:
            if key not in built:
                built[key] = (None, _build(cell, timed))
            if built[key][0] is None:
                run = _find_run(cell)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a class of the user's own may raise anything, and even exit
            built[key] = (f"{type(error).__name__}: {error}", None)
        preflights.append(_preflight_of(cell, run, *built[key]))
    return preflights


def _preflight_of(cell: Cell, run: tuple[str, bool, str], error: str | None, seconds: float | None) -> Preflight:
    if error is not None:
        return Preflight(error)
    folder, finished, changes = run
    history = Path(folder) / "history.jsonl"
    device, _, strategy = _prepare(cell)
    return Preflight(
        folder=folder,
        finished=finished,
        epochs_done=len(history.read_text(encoding="utf-8").splitlines()) if history.is_file() else 0,
        epochs=cell.experiment.epochs,
        images_per_epoch=strategy.epoch_size,
        seconds_per_image=seconds,
        changes=changes,
        device=device.type,
    )


def _build(cell: Cell, timed: bool) -> float | None:
    """Build everything that a cell needs; with `timed` also take a few steps.

    Returns:
        Seconds per image; None where they were not measured.
    """
    import torch

    from emoexp.data.resident import resident
    from emoexp.training import loop

    device, data, strategy = _prepare(cell)
    experiment, machine = cell.experiment, cell.machine
    build_training.check_memory(experiment, len(data.class_names), strategy.epoch_size, device)
    setup = build_training.train_setup(experiment, machine, data, strategy, resident(data.images, device), device)
    state = build_training.initial_state(experiment, data, device)
    machine.tracking.build()
    clock: list[float] = []

    def count(step: int, steps: int) -> bool:
        if timed and device.type == "cuda":
            torch.cuda.synchronize()
        clock.append(time.perf_counter())
        return len(clock) > sum(_STEPS) or not timed

    try:
        if timed:
            for _ in loop.fit(setup, state, count):
                break  # the epoch had fewer steps than are to be measured
    except (loop.Interrupted, FloatingPointError):
        pass
    steps = clock[_STEPS[0] :] if len(clock) > _STEPS[0] + 1 else clock
    if len(steps) < 2:
        return None
    return (steps[-1] - steps[0]) / (len(steps) - 1) / experiment.batch_size
