"""What happens in a worker process: it judges cells, and it trains one after another, staying warm in between."""

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
from emoexp.sweep.cells import BUSY, DONE, FAILED, FOUND, Cell, Outcome

_GRACE_S = 20.0  # for a run to be saved, once its supervisor is gone
TERMINATED = 143  # exit code of a worker that was told to stop
_STEPS = (2, 6)  # of a measurement: to warm up, and to be timed


@dataclass(frozen=True)
class Judged:
    """What a worker finds out about a cell before anything is trained.

    error: why it cannot be trained. folder: where its run lies or will lie. finished: whether it is. done, epochs:
    epochs that are trained, and in all. images: drawn an epoch. seconds_per_image: measured, where asked for. anew: in
    what a run of the same name differs, which is why this one begins beside it. device: its kind, cpu or cuda.
    """

    error: str | None = None
    folder: str = ""
    finished: bool = False
    done: int = 0
    epochs: int = 0
    images: int = 0
    seconds_per_image: float | None = None
    anew: str = ""
    device: str = ""


def begin(supervisor: int, output: str) -> None:
    """Start of a worker: its output goes to a file, and it does not outlive its supervisor."""
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system's, which a killed worker leaves behind
    threading.Thread(target=_outlive_nobody, args=(supervisor,), daemon=True).start()


def _outlive_nobody(supervisor: int) -> None:
    while os.getppid() == supervisor:
        time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGTERM)  # a run in progress is saved and says that it was killed
    time.sleep(_GRACE_S)
    os._exit(1)


_kept: dict[str, Any] = {}  # the last images that were read, by what describes them


def _load(experiment: Experiment, place: Machine) -> Any:
    """The images of a configuration, kept from one cell to the next."""

    about = [experiment.data.plain(), experiment.split.plain(), experiment.image_size, experiment.channels, place.cache]
    copies = experiment.imbalance.copies.plain() if experiment.protocol == "leaky" else None
    key = json.dumps([*about, experiment.protocol, copies])
    if key not in _kept:
        _kept.clear()
        _kept[key] = build_data.load_data(experiment, place)
    return _kept[key]


def run(cell: Cell) -> Outcome:
    """Train a cell, go on with it, or find it finished. Whatever it raises becomes its outcome."""
    from emoexp.runs import folder as runs
    from emoexp.training import run as training

    started = time.perf_counter()
    folder, finished = None, False

    def opened(run: runs.Run) -> None:
        nonlocal folder, finished
        folder, finished = str(run.folder), run.finished

    try:
        metrics = training.train(cell.experiment, cell.machine, load=_load, opened=opened)
    except runs.RunInUse:
        return Outcome(BUSY, folder)
    except KeyboardInterrupt:  # SIGTERM, or Ctrl-C: the run is saved, and whoever asked waits for the process to end
        os._exit(TERMINATED)
    except BaseException as error:  # noqa: BLE001 - a cell's code may even exit: that is this cell's end, not the sweep's
        said = f"{type(error).__name__}: {error}"
        return Outcome(FAILED, folder, time.perf_counter() - started, None, said, traceback.format_exc())
    finally:
        _release()
    return Outcome(FOUND if finished else DONE, folder, time.perf_counter() - started, metrics["test"].get("macro_f1"))


def _release() -> None:
    """Give back what a cell held. What is alive between two cells, modules above all, is not searched again."""
    gc.collect()
    gc.freeze()
    torch = sys.modules["torch"]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _prepared(cell: Cell) -> tuple[Any, Any, Any]:
    """Device, images and strategy of a cell."""
    from emoexp.models import mish
    from emoexp.runs import machine

    experiment, place = cell.experiment, cell.machine
    device = machine.choose(place.device)
    machine.prepare(device, place.threads, experiment.precision, experiment.deterministic)
    mish.prepare(place.cache)
    data = _load(experiment, place)
    return device, data, build_strategy.build_strategy(experiment, data)


def _located(cell: Cell) -> tuple[str, bool, str]:
    """The folder of a cell's run or its label in kept results, whether it is finished, and in what another run of its
    name differs."""
    from emoexp.runs import folder as runs
    from emoexp.runs import kept
    from emoexp.runs.manifest import differences
    from emoexp.training import run as training

    device, data, plan = _prepared(cell)
    made, name = training.manifest(cell.experiment, data, plan, device, cell.machine), naming.name(cell.experiment)
    outputs, resume = Path(cell.machine.outputs), cell.machine.resume
    folder, changes = runs.folder_for(outputs, name, made, resume)
    finished, begun = runs.is_finished(folder), (folder / "status.json").is_file()
    if finished or resume == "never":
        return str(folder), finished, "" if begun else "; ".join(changes)
    for record in reversed(kept.find_kept(outputs, name)):
        kept_changes = differences(record.manifest, made)
        if resume == "force" or not kept_changes:
            return record.label, True, ""
        changes = changes or kept_changes
    return str(folder), False, "" if begun else "; ".join(changes)


def judge(cells: list[Cell], timed: bool) -> list[Judged]:
    """Build everything that each cell needs, train nothing, and say what there is to do.

    A cell that differs from an earlier one in its seed alone is not built again. timed: measure some steps too.
    """
    built: dict[str, tuple[str | None, float | None]] = {}
    found = []
    for cell in cells:
        key = json.dumps(cell.experiment.plain() | {"seed": 0}, sort_keys=True, default=str)
        try:
            if key not in built:
                built[key] = (None, _built(cell, timed))
            place = _located(cell) if built[key][0] is None else ("", False, "")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a class of the user's own may raise anything, and even exit
            built[key] = (f"{type(error).__name__}: {error}", None)
            place = ("", False, "")
        found.append(_facts(cell, place, *built[key]))
    return found


def _facts(cell: Cell, place: tuple[str, bool, str], error: str | None, seconds: float | None) -> Judged:
    if error is not None:
        return Judged(error)
    folder, finished, anew = place
    history = Path(folder) / "history.jsonl"
    done = len(history.read_text().splitlines()) if history.is_file() else 0
    device, _, plan = _prepared(cell)
    return Judged(None, folder, finished, done, cell.experiment.epochs, plan.epoch_size, seconds, anew, device.type)


def _built(cell: Cell, timed: bool) -> float | None:
    """Build a cell whole, and on demand take a few steps: seconds an image."""
    import torch

    from emoexp.data.resident import resident
    from emoexp.training import loop

    device, data, plan = _prepared(cell)
    experiment, place = cell.experiment, cell.machine
    recipe = build_training.train_setup(experiment, place, data, plan, resident(data.images, device), device)
    state = build_training.initial_state(experiment, data, device)
    place.tracking.build()
    clock: list[float] = []

    def count(step: int, steps: int) -> bool:
        if timed and device.type == "cuda":
            torch.cuda.synchronize()
        clock.append(time.perf_counter())
        return len(clock) > sum(_STEPS) or not timed

    try:
        if timed:
            for _ in loop.fit(recipe, state, count):
                break  # an epoch of fewer steps
    except (loop.Interrupted, FloatingPointError):
        pass
    steps = clock[_STEPS[0] :] if len(clock) > _STEPS[0] + 1 else clock
    if len(steps) < 2:
        return None
    return (steps[-1] - steps[0]) / (len(steps) - 1) / experiment.batch_size
