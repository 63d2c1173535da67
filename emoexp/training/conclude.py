"""The end of a run: the best epoch's model on validation and, once, on test."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from emoexp.config import build_model
from emoexp.config.schema import Experiment, Machine
from emoexp.data.dataset import Dataset
from emoexp.inference import predict, results
from emoexp.inference.export import export_program
from emoexp.models.network import Network
from emoexp.runs import checkpoint
from emoexp.runs.files import finite
from emoexp.runs.folder import Run
from emoexp.runs.tables import table
from emoexp.training import leaky_protocol, posthoc_fit
from emoexp.training.setup import TrainSetup
from emoexp.training.step import Row

log = logging.getLogger("emoexp")


def conclude(
    run: Run, experiment: Experiment, machine: Machine, setup: TrainSetup, history: Sequence[Row], data: Dataset
) -> dict[str, Any]:
    """Evaluate the best epoch's model on validation and, once, on test, after the strategy's post-hoc fit: predictions,
    metrics, tables, figures."""
    best = checkpoint.load(run.folder / "best.pt")
    best.pop("posthoc", None)  # of a conclusion that did not come to its end
    model = build_model.trained_model(best, machine.allow)
    model = model.to(setup.step.device).to(memory_format=torch.channels_last)
    found: dict[str, Any] = {"best": {key: finite(value) for key, value in history[best["epoch"] - 1].items()}}
    if fitted := posthoc_fit.fit(run, experiment, machine, setup, model, best, data):
        found["posthoc"] = fitted
    found["epochs"] = len(history)
    found["drawn"] = setup.samples.drawn(len(history))
    for part in ("val", "test"):
        with run.timed("predict"):
            predictions = predict_part(model, setup, data, part)
        with run.timed("bootstrap"):
            found[part] = results.summary(predictions, clean=False)
            found[f"{part}_clean"] = results.summary(predictions, clean=True)
        with run.timed("figures"):
            results.write(run.folder, predictions, found[part], found[f"{part}_clean"])
        log.info("%-6s %s", part, results.headline(found[part]))
    log.info("clean  %s", results.headline(found["test_clean"]))
    with run.timed("figures"):
        draw(run, history, data, best["epoch"])
    log.info("test, per class:\n%s", table(results.per_class(found["test"], found["test_clean"])))
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


def predict_part(model: Network, setup: TrainSetup, data: Dataset, part: str) -> results.Predictions:
    """Probabilities of one part."""
    index, step = data.where(part), setup.step
    images = predict.batches(step.image_NCHW, torch.from_numpy(index), step.normalisation, step.device)
    probability = predict.probabilities(predict.logits(model, images, step.precision)).astype(np.float32)
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


def export(run: Run, machine: Machine) -> None:
    """The best model as a program of its own, model.pt2, for MLflow and for anyone without this package."""
    best = checkpoint.load(run.folder / "best.pt")
    spec = build_model.spec_of(best)
    if spec["activation"]["name"] == "mish":  # the same function, in the form that torch can export
        spec["activation"]["kernel"] = "native"
    export_program(run.folder / "model.pt2", build_model.trained_model(best, machine.allow), spec)
