"""The end of a run: the best epoch's model on validation and, once, on test."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from emoexp.config import best_model, build_model
from emoexp.config.schema import Experiment, Machine
from emoexp.data.dataset import Dataset
from emoexp.inference import predict, results
from emoexp.inference.export import export_program
from emoexp.models.network import Network
from emoexp.runs.files import finite_or_none
from emoexp.runs.folder import Run
from emoexp.runs.tables import table
from emoexp.training import leaky_protocol, posthoc_fit
from emoexp.training.setup import TrainSetup
from emoexp.training.step import Row

log = logging.getLogger("emoexp")
MANY_CLASSES = 100  # above, judging takes more than seconds


def conclude(
    run: Run, experiment: Experiment, machine: Machine, setup: TrainSetup, history: Sequence[Row], data: Dataset
) -> dict[str, Any]:
    """Fit the strategy's post-hoc column, then evaluate the best epoch's model on validation and, once, on test.

    Writes predictions, tables and figures.

    Returns:
        The content of metrics.json.
    """
    best = best_model.read(run.folder / "best.pt", machine.allow)
    best = dataclasses.replace(best, fit=None)  # an earlier call that was interrupted has written one
    model = build_model.trained_model(best, machine.allow)
    model = model.to(setup.step_setup.device).to(memory_format=torch.channels_last)
    metrics: dict[str, Any] = {"best": {key: finite_or_none(value) for key, value in history[best.epoch - 1].items()}}
    if fitted := posthoc_fit.fit(run, experiment, machine, setup, model, best, data):
        metrics["posthoc"] = fitted
    metrics["epochs"] = len(history)
    metrics["drawn"] = setup.samples.count_drawn(len(history))
    if len(data.class_names) > MANY_CLASSES:
        log.info("judge  intervals and figures of %d classes, which take a while", len(data.class_names))
    for part in ("val", "test"):
        with run.timed("predict"):
            predictions = predict_part(model, setup, data, part)
        with run.timed("bootstrap"):
            metrics[part], metrics[f"{part}_clean"] = results.summaries(predictions)
        with run.timed("figures"):
            results.write(run.folder, predictions, metrics[part], metrics[f"{part}_clean"])
        log.info("%-6s %s", part, results.headline(metrics[part]))
    log.info("clean  %s", results.headline(metrics["test_clean"]))
    with run.timed("figures"):
        draw(run, history, data, best.epoch)
    log.info("test, per class:\n%s", table(results.per_class(metrics["test"], metrics["test_clean"])))
    return metrics


def draw(run: Run, history: Sequence[Row], data: Dataset, best: int) -> None:
    """The figures of a whole training: the ledger, the prior by epochs, and the history."""
    from emoexp import figures  # here: it imports matplotlib, and no step has to wait for that

    folder, ledger = run.folder / "figures", run.read("ledger.json")
    figures.ledger(folder / "ledger.png", ledger["classes"], title=title_with_protocol("What training aims at", data))
    if len(ledger["timeline"]) > 1:
        figures.prior_course(
            folder / "prior_course.png",
            ledger["timeline"],
            data.class_names,
            len(data.where("train")),
            title=title_with_protocol("The prior by epochs", data),
        )
    figures.training(
        folder / "training.png",
        history,
        best=best,
        images=len(data.where("val")),
        title=title_with_protocol("Training", data),
    )


def title_with_protocol(title: str, data: Dataset) -> str:
    """The title of a figure; where the protocol is leaky, with the mark of that."""
    return f"{title} · {leaky_protocol.MARK}" if data.leaky else title


def predict_part(model: Network, setup: TrainSetup, data: Dataset, part: str) -> results.Predictions:
    """The model's predictions for one part of the data."""
    index_N, step_setup = data.where(part), setup.step_setup
    images = predict.batches(
        step_setup.image_NCHW, torch.from_numpy(index_N), step_setup.normalisation, step_setup.device
    )
    logits_NC = predict.logits(model, images, step_setup.precision)
    return results.Predictions(
        part=part,
        probability_NC=predict.probabilities(logits_NC).astype(np.float32),
        target_N=data.labels[index_N],
        clean_N=data.clean(part),
        image_MCHW=data.images,
        index_N=index_N,
        names=data.names[index_N].tolist(),
        class_names=data.class_names,
        majority=int(data.counts("train").argmax()),
        leaky=data.leaky,
    )


def export(run: Run, machine: Machine) -> None:
    """Write the best model as model.pt2, an exported program that runs without this package; MLflow gets it too."""
    best = best_model.read(run.folder / "best.pt", machine.allow)
    if best.spec["activation"]["name"] == "mish":  # the same function, in the form that torch can export
        best.spec["activation"]["kernel"] = "native"
    export_program(run.folder / "model.pt2", build_model.trained_model(best, machine.allow), best.spec)
