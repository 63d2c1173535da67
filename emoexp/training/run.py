"""One run from its configuration to its results: the story that all the other modules serve, top to bottom."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emoexp.config import build_data, build_model, build_strategy, naming
from emoexp.config.schema import Experiment, Machine
from emoexp.data import leaks, near_duplicates
from emoexp.data.dataset import Dataset
from emoexp.data.near_duplicates import NearDuplicates
from emoexp.imbalance import ledger, strategy
from emoexp.inference import results
from emoexp.models import mish
from emoexp.runs import checkpoint, machine
from emoexp.runs import folder as runs
from emoexp.runs.folder import Run
from emoexp.runs.process import (
    ending,
    interruptible,
    logging_to,
    logging_to_stdout,
    mirror,
    progress,
    terminable,
    tracked,
)
from emoexp.training import leaky_protocol, loop, posthoc_fit, setup
from emoexp.training.batches import evaluation, resident
from emoexp.training.checkpointer import Keeper
from emoexp.training.step import Recipe, Row, State

log = logging.getLogger("emoexp")


def train(
    experiment: Experiment,
    place: Machine,
    load: Callable[[Experiment, Machine], Dataset] = build_data.load_data,
    opened: Callable[[Run], None] = lambda run: None,
) -> dict[str, Any]:
    """Train, or go on with, or simply return, the run that a configuration names.

    Args:
        load: how the images are read; a worker that trains many runs keeps them from one to the next.
        opened: told of the run before anything is done with it.

    Returns:
        What stands in the run's metrics.json.
    """
    logging_to_stdout()
    started = time.perf_counter()
    device = machine.choose(place.device)
    machine.prepare(device, place.threads, experiment.precision, experiment.deterministic)
    mish.prepare(place.cache)
    data = load(experiment, place)
    plan = build_strategy.build_strategy(experiment, place, data)
    name, made = naming.name(experiment), manifest(experiment, data, plan, device, place)
    whole = asdict(experiment) | asdict(place)
    with runs.opened(Path(place.outputs), name, made, whole, place.resume) as run:
        opened(run)
        run.join(place.sweep)
        run.seconds["prepare"] = time.perf_counter() - started
        if run.finished:
            log.info("%s is finished:", run.folder)
            metrics: dict[str, Any] = run.read("metrics.json")
            log.info("test   %s", results.headline(metrics["test"]))
            mirror(run, place)
            return metrics
        with terminable(), logging_to(run.folder / "run.log"), tracked(run, place) as changed, ending(run):
            return train_in(run, experiment, place, data, plan, device, changed)


def train_in(
    run: Run,
    experiment: Experiment,
    place: Machine,
    data: Dataset,
    plan: strategy.Strategy,
    device: torch.device,
    changed: Callable[[], None],
) -> dict[str, Any]:
    """Everything between an open folder and its results. `changed` is told whenever the folder has."""
    log.info("run    %s", run.folder)
    record_leaks(run, data, near_duplicates.load(data, build_data.folder_of(place.cache)))
    np.save(run.folder / "seen.npy", np.concatenate([data.digest[data.where(part)] for part in ("train", "val")]))
    record_ledger(run, plan, data, build_strategy.heuristics(experiment, plan))
    image_NCHW = resident(data.images, device)
    recipe = setup.recipe_of(experiment, place, data, plan, image_NCHW, device)
    state = setup.initial_state(experiment, place, data, device)
    resume(run, state, device)
    log.info(
        "model  %s, %s parameters, %s on %s with %d threads",
        *(experiment.architecture["name"], f"{sum(p.numel() for p in state.model.parameters()):,}"),
        *(experiment.activation["name"], device, torch.get_num_threads()),
    )
    with run.timed("train"):
        train_epochs(run, recipe, state, build_model.card_of(experiment, data), changed)
    machine.give_back()
    found = conclude(run, experiment, place, recipe, state.history, data)
    if place.tracking.get("log_model"):
        with run.timed("export"):
            export(run, place)
    run.write("seconds.json", run.seconds)
    run.write("metrics.json", found)
    return found


def manifest(
    experiment: Experiment, data: Dataset, plan: strategy.Strategy, device: torch.device, place: Machine
) -> dict[str, Any]:
    """What made a run: its configuration and what a configuration cannot know."""
    chosen = asdict(experiment)
    chosen["data"] = {key: value for key, value in chosen["data"].items() if key not in naming.PATHS}
    git = runs.git()
    return results.plain(
        {
            "run": naming.name(experiment),
            "experiment": chosen,
            "params": naming.params(experiment),
            "code": naming.code_digest(place.allow),
            "data": data.fingerprint,
            "kernels": {"mish": mish.kernel()} | ({"step": "compiled"} if place.executor == "compiled" else {}),
            "git": git,
            **machine.facts(device),
            "tags": {
                "data_notes": " ".join(data.notes),
                "double_correction": ledger.warning(plan, data.class_names) or "no",
                "heuristics": "; ".join(build_strategy.heuristics(experiment, plan)) or "none",
                "leaks": leaks.summary(leaks.count(data, None)),
                **({"protocol": leaky_protocol.MARK} if data.leaky else {}),
            },
        }
    )


def record_leaks(run: Run, data: Dataset, near: NearDuplicates | None) -> None:
    """Say what was loaded, what was repaired, dropped or missing, and what leaks from part to part; keep the leaks.

    near: near duplicates, None where nobody has searched.
    """
    for note in data.notes:
        log.info("data   %s", note)
    found = leaks.count(data, near.group_N if near else None)
    for part in ("train", "val", "test"):
        counts = ", ".join(f"{name} {count}" for name, count in zip(data.class_names, data.counts(part), strict=True))
        told = leaks.sentence(found.get(part, {}))
        log.info("%-6s %d images: %s%s", part, len(data.where(part)), counts, f"; {told}" if told else "")
    if near is None:
        log.info("leaks  near duplicates were not searched: python -m emoexp.audit with the same data does it once")
    run.write("leaks.json", {"near_searched": near is not None, "classes": list(data.class_names), "parts": found})


def record_ledger(run: Run, plan: strategy.Strategy, data: Dataset, heuristics: list[str]) -> None:
    """Print and keep the ledger; name a double correction, and what is no prior."""
    rows, timeline = ledger.rows(plan, data.class_names), ledger.timeline(plan)
    warning = ledger.warning(plan, data.class_names)
    log.info("ledger of the prior that training aims at:\n%s", results.table(rows))
    if len(timeline) > 1:
        log.info("by epochs:\n%s", results.table(by_epochs(timeline, data.class_names)))
    for text in heuristics:
        log.info("ledger heuristic, which is no prior: %s", text)
    if warning:
        log.warning(warning)
    factor = ledger.over_correction(plan)
    run.write(
        "ledger.json",
        {
            **{"classes": rows, "over_correction": factor, "warning": warning, "draws": plan.epoch_size},
            **{"timeline": timeline, "heuristics": heuristics},
        },
    )
    results.write_table(run.folder / "ledger.csv", rows)


def by_epochs(timeline: list[dict[str, Any]], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The effective prior of each class in the first, middle and last of what a run does."""
    shown = [timeline[k] for k in sorted({0, len(timeline) // 2, len(timeline) - 1})]
    return [
        {"epochs": "{}-{}".format(*period["epochs"])}
        | {name: round(prior, 4) for name, prior in zip(class_names, period["effective_prior"], strict=True)}
        for period in shown
    ]


def resume(run: Run, state: State, device: torch.device) -> None:
    """Go on from the last checkpoint, where there is one."""
    last = run.folder / "last.pt"
    if last.is_file():
        state.restore(checkpoint.load(last), device)
        log.info("going on from epoch %d, step %d", state.epoch + 1, state.step)


def train_epochs(run: Run, recipe: Recipe, state: State, card: dict[str, Any], changed: Callable[[], None]) -> None:
    """Train, and keep what each epoch leaves; told to stop, keep where the state stands between two steps."""
    keeper = Keeper(run, state, card, changed)
    with interruptible() as asked, progress(recipe.epochs, lambda: state.epoch, changed) as shown:
        try:
            for epoch in loop.fit(recipe, state, lambda step, steps: bool(shown(step, steps)) or asked()):
                keeper.epoch(epoch)
                log.info(epoch_line(epoch, recipe))
            keeper.write()
        except loop.Interrupted:
            keeper.write()
            log.info("stopped at epoch %d, step %d; the same command goes on from here", state.epoch + 1, state.step)
            raise KeyboardInterrupt from None


def epoch_line(epoch: loop.Epoch, recipe: Recipe) -> str:
    """An epoch in one line of the log."""
    row = epoch.row
    rate = epoch.images / epoch.train_seconds
    return (
        f"epoch  {row['epoch']:3.0f}/{recipe.epochs}  train loss {row['train/loss']:.4f}  "
        f"val loss {row['val/loss']:.4f}  macro-F1 {row['val/macro_f1']:.4f}  accuracy {row['val/accuracy']:.4f}  "
        f"worst recall {row['val/worst_recall']:.3f}  {rate:.0f} images/s{'  best' if epoch.best else ''}"
    )


def export(run: Run, place: Machine) -> None:
    """The best model as a program of its own, model.pt2, for MLflow and for anyone without this package."""
    best = checkpoint.load(run.folder / "best.pt")
    card = best["card"]
    if card["activation"]["name"] == "mish":  # the same function, in the form that torch can export
        card["activation"]["kernel"] = "native"
    checkpoint.export(run.folder / "model.pt2", build_model.trained_model(best, place.allow), card)


def conclude(
    run: Run, experiment: Experiment, place: Machine, recipe: Recipe, history: Sequence[Row], data: Dataset
) -> dict[str, Any]:
    """The best epoch's model, fitted on validation where the strategy says so, on validation and, once, on test:
    predictions, metrics, tables, figures."""
    best = checkpoint.load(run.folder / "best.pt")
    best.pop("posthoc", None)  # of a conclusion that did not come to its end
    model = build_model.trained_model(best, place.allow)
    model = model.to(recipe.batches.device).to(memory_format=torch.channels_last)
    found: dict[str, Any] = {"best": {key: runs.finite(value) for key, value in history[best["epoch"] - 1].items()}}
    if fitted := posthoc_fit.fit(run, experiment, place, recipe, model, best, data):
        found["posthoc"] = fitted
    found["epochs"] = len(history)
    found["drawn"] = recipe.batches.drawn(len(history))
    for part in ("val", "test"):
        with run.timed("predict"):
            predictions = predict_part(model, recipe, data, part)
        with run.timed("bootstrap"):
            found[part] = results.summary(predictions, clean=False)
            found[f"{part}_clean"] = results.summary(predictions, clean=True)
        with run.timed("figures"):
            results.write(run.folder, predictions, found[part], found[f"{part}_clean"])
        log.info("%-6s %s", part, results.headline(found[part]))
    log.info("clean  %s", results.headline(found["test_clean"]))
    with run.timed("figures"):
        draw(run, history, data, best["epoch"])
    log.info("test, per class:\n%s", results.table(results.per_class(found["test"], found["test_clean"])))
    return found


def draw(run: Run, history: Sequence[Row], data: Dataset, best: int) -> None:
    """The figures of a training as a whole: what it aimed at, and how it went."""
    from emoexp import figures  # matplotlib, only now: no step waits for it

    folder, kept = run.folder / "figures", run.read("ledger.json")
    figures.ledger(folder / "ledger.png", kept["classes"], title=marked("What training aims at", data))
    if len(kept["timeline"]) > 1:
        figures.prior_course(
            folder / "prior_course.png",
            kept["timeline"],
            data.class_names,
            len(data.where("train")),
            title=marked("The prior by epochs", data),
        )
    figures.training(
        folder / "training.png",
        history,
        best=best,
        images=len(data.where("val")),
        title=marked("Training", data),
    )


def marked(title: str, data: Dataset) -> str:
    """The title of a figure, which says so where the protocol is leaky."""
    return f"{title} · {leaky_protocol.MARK}" if data.leaky else title


def predict_part(model: nn.Module, recipe: Recipe, data: Dataset, part: str) -> results.Predictions:
    """Probabilities of one part."""
    index, batches = data.where(part), recipe.batches
    chunks = evaluation(batches.image_NCHW, torch.from_numpy(index), batches.normalisation, batches.device)
    probability = loop.probabilities(loop.predict(model, chunks, recipe.precision)).astype(np.float32)
    return results.Predictions(
        part=part,
        probability_NC=probability,
        target_N=data.labels[index],
        clean_N=data.clean(part),
        image_MCHW=data.images,
        index_N=index,
        names=data.names[index].tolist(),
        class_names=data.class_names,
        majority=int(data.counts("train").argmax()),
        leaky=data.leaky,
    )
