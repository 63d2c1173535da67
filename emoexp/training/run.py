"""One run, from its configuration to its results: what `python -m emoexp.train` does, in the order of the code."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emoexp.config import build_data, build_model, build_strategy, build_training, naming, sources
from emoexp.config.schema import Experiment, Machine
from emoexp.data import leaks, near_duplicates
from emoexp.data.dataset import Dataset
from emoexp.data.resident import resident
from emoexp.imbalance import ledger
from emoexp.imbalance.strategy import Strategy
from emoexp.inference import results
from emoexp.models import mish
from emoexp.runs import files
from emoexp.runs import machine as machines
from emoexp.runs.files import json_values
from emoexp.runs.folder import Run, open_run
from emoexp.runs.manifest import facts
from emoexp.runs.process import (
    logging_to,
    logging_to_stdout,
    mirror,
    progress_bar,
    record_status,
    sigterm_interrupts,
    stop_on_signal,
    track,
)
from emoexp.training import leaky_protocol
from emoexp.training.checkpointer import Checkpointer, restore
from emoexp.training.conclude import conclude, export
from emoexp.training.loop import Interrupted, fit
from emoexp.training.run_log import epoch_line, record_leaks, record_ledger
from emoexp.training.setup import TrainSetup
from emoexp.training.step import TrainState

log = logging.getLogger("emoexp")


def train(
    experiment: Experiment,
    machine: Machine,
    load: Callable[[Experiment, Machine], Dataset] = build_data.load_data,
    on_open: Callable[[Run], None] = lambda run: None,
) -> dict[str, Any]:
    """Train the run of a configuration: start it, continue it, or only return the results of a finished one.

    Args:
        load: a function that reads the images; a worker that trains many runs passes one that keeps them in memory.
        on_open: called with the run once its folder is open, before anything is written or trained.

    Returns:
        The content of the run's metrics.json.
    """
    logging_to_stdout()
    started = time.perf_counter()
    device = machines.choose(machine.device)
    machines.prepare(device, machine.threads, experiment.precision, experiment.deterministic)
    mish.prepare(machine.cache)
    data = load(experiment, machine)
    experiment = sources.identified(experiment, data)
    strategy = build_strategy.build_strategy(experiment, data)
    memory_said = build_training.check_memory(experiment, len(data.class_names), strategy.epoch_size, device)
    name, run_manifest = naming.name(experiment), manifest(experiment, data, strategy, device, machine)
    full_config = experiment.plain() | machine.plain()
    with open_run(Path(machine.outputs), name, run_manifest, full_config, machine.resume) as run:
        on_open(run)
        run.add_to_sweep(machine.sweep)
        run.seconds["prepare"] = time.perf_counter() - started
        if run.finished:
            return finished_metrics(run, machine)
        with (
            sigterm_interrupts(),
            logging_to(run.folder / "run.log"),
            track(run, machine) as notify_tracker,
            record_status(run),
        ):
            setup, state = prepare_training(run, experiment, machine, data, strategy, device)
            if memory_said:
                log.info("memory %s", memory_said)
            checkpointer = Checkpointer(run, state, build_model.model_spec(experiment, data), notify_tracker)
            with (
                run.timed("train"),
                stop_on_signal() as stop_requested,
                progress_bar(setup.epochs, lambda: state.epoch, notify_tracker) as show_progress,
            ):

                def stop(step: int, steps: int) -> bool:
                    show_progress(step, steps)
                    return stop_requested()

                before = [] if state.epoch or state.step else [p.detach().clone() for p in state.model.parameters()]
                try:
                    for result in fit(setup, state, stop):
                        warn_of_weights_that_stay(before, state)
                        before = []
                        checkpointer.add_epoch(result)
                        log.info(epoch_line(result, setup.epochs))
                    checkpointer.write()
                except Interrupted:
                    checkpointer.write()
                    position = f"epoch {state.epoch + 1}, step {state.step}"
                    log.info("stopped at %s; the same command goes on from here", position)
                    raise KeyboardInterrupt from None
            machines.release_unused_memory()
            metrics = conclude(run, experiment, machine, setup, state.history, data)
            if machine.tracking.keeps_model:
                with run.timed("export"):
                    export(run, machine)
            run.write("seconds.json", run.seconds)
            run.write("metrics.json", metrics)
            return metrics


def warn_of_weights_that_stay(before: list[torch.Tensor], state: TrainState) -> None:
    """Warn where an epoch changed no weight: it trained nothing. before: the weights, none to compare nothing."""
    if before and all(map(torch.equal, before, state.model.parameters())):
        rate = state.optimizer.param_groups[0]["base_lr"]
        log.warning("this epoch changed no weight: optimizer.lr=%g is too small, or clip_norm is", rate)


def finished_metrics(run: Run, machine: Machine) -> dict[str, Any]:
    """The metrics of a run that was finished before. MLflow gets what it lacks of the run."""
    log.info("%s is finished:", run.folder)
    metrics: dict[str, Any] = run.read("metrics.json")
    log.info("test   %s", results.headline(metrics["test"]))
    mirror(run, machine)
    return metrics


def prepare_training(
    run: Run, experiment: Experiment, machine: Machine, data: Dataset, strategy: Strategy, device: torch.device
) -> tuple[TrainSetup, TrainState]:
    """Write leaks and ledger, build setup and state, and load the last checkpoint if there is one."""
    log.info("run    %s", run.folder)
    record_leaks(run, data, near_duplicates.load(data, sources.folder_of(machine.cache)))
    seen = np.concatenate([data.digest[data.where(part)] for part in ("train", "val")])
    files.write_array(run.folder / "seen.npy", seen)
    record_ledger(run, strategy, data, build_strategy.heuristics(experiment, strategy))
    setup = build_training.train_setup(experiment, machine, data, strategy, resident(data.images, device), device)
    state = build_training.initial_state(experiment, data, device)
    last_checkpoint = run.folder / "last.pt"
    if last_checkpoint.is_file():
        restore(last_checkpoint, setup, state)
        log.info("going on from epoch %d, step %d", state.epoch + 1, state.step)
    size = f"{sum(p.numel() for p in state.model.parameters()):,} parameters"
    placement = f"{experiment.activation.name} on {device} with {torch.get_num_threads()} threads"
    log.info("model  %s, %s, %s", experiment.architecture.name, size, placement)
    return setup, state


def manifest(
    experiment: Experiment, data: Dataset, strategy: Strategy, device: torch.device, machine: Machine
) -> dict[str, Any]:
    """The content of manifest.json: the configuration, and all else that decides a run's result."""
    values = experiment.plain()
    values["data"] = {key: value for key, value in values["data"].items() if key not in naming.PATHS}
    return json_values(
        {
            "run": naming.name(experiment),
            "params": naming.params(experiment),
            **facts(values, machine.allow),
            "data": data.fingerprint | {"source": experiment.data.label},
            **({"weights": weights} if (weights := experiment.architecture.weights_hash()) else {}),
            "kernels": {"mish": mish.kernel()} | ({"step": "compiled"} if machine.executor == "compiled" else {}),
            **machines.facts(device),
            "tags": {
                "data_notes": " ".join(data.notes),
                "double_correction": ledger.warning(strategy, data.class_names) or "no",
                "heuristics": "; ".join(build_strategy.heuristics(experiment, strategy)) or "none",
                "leaks": leaks.summary(leaks.count(data, None)),
                **({"protocol": leaky_protocol.MARK} if data.leaky else {}),
            },
        }
    )
