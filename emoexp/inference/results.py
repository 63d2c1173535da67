"""What a trained model leaves about a part of the data, in training and in evaluation: metrics, tables, figures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emoexp.metrics import bootstrap, classification
from emoexp.runs import files
from emoexp.runs.files import json_values
from emoexp.runs.tables import table, write_table  # noqa: F401 - table: of training.run and inference.evaluate
from emoexp.training import leaky_protocol as leaky

RESAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class Predictions:
    """Probabilities of a part, with what is needed to judge them.

    probability_NC: float32. target_N: int64. clean_N: bool, images whose pixels stand in no part that came before.
    image_MCHW: uint8, the images of all parts, which may be memory-mapped; index_N: the part's rows in it. names: where
    each image of the part comes from.
    """

    part: str
    probability_NC: np.ndarray
    target_N: np.ndarray
    clean_N: np.ndarray
    image_MCHW: np.ndarray
    index_N: np.ndarray
    names: Sequence[str]
    class_names: Sequence[str]
    majority: int
    leaky: bool = False  # copies were made before the split: everything that is written says so

    @property
    def title(self) -> str:
        """What figures call the part."""
        return f"{self.part} · {leaky.MARK}" if self.leaky else self.part


def summary(found: Predictions, clean: bool) -> dict[str, Any]:
    """Metrics with bootstrap intervals, of all or of the clean images of a part; JSON-able, equal for equal runs."""
    keep = found.clean_N if clean else np.ones(len(found.target_N), bool)
    if not keep.any():
        return {"n": 0}
    probability, target = found.probability_NC[keep].astype(np.float64), found.target_N[keep]
    out = classification.summarise(probability, target, found.class_names, majority=found.majority)
    out["interval"] = bootstrap.bootstrap(probability, target, resamples=RESAMPLES)
    out["clean"] = clean
    out |= {"protocol": "leaky"} if found.leaky else {}
    return json_values(out)


def write(folder: Path, found: Predictions, whole: dict[str, Any], clean: dict[str, Any]) -> None:
    """Predictions, a per-class table and the figures of a part, into the folders of a run.

    whole, clean: what `summary` says of all images and of the clean ones.
    """
    from emoexp import figures  # matplotlib, only now: no step waits for it

    for name in ("predictions", "tables", "figures"):
        (folder / name).mkdir(exist_ok=True)
    _save_predictions(folder / "predictions" / f"{found.part}.npz", found)
    marked = {"protocol": leaky.MARK} if found.leaky else {}
    write_table(folder / "tables" / f"{found.part}_per_class.csv", [row | marked for row in per_class(whole, clean)])
    title = found.title
    draw = folder / "figures"
    probability, names = found.probability_NC.astype(np.float64), list(found.class_names)
    confusion = classification.confusion(found.target_N, probability.argmax(1), len(names))
    figures.confusion(draw / f"{found.part}_confusion.png", confusion, names, title)
    figures.precision_recall(draw / f"{found.part}_precision_recall.png", probability, found.target_N, names, title)
    figures.mistakes(
        draw / f"{found.part}_mistakes.png",
        found.image_MCHW,
        found.index_N,
        found.target_N,
        probability,
        names,
        list(found.names),
        title=f"{found.title}: most confident mistakes (true → predicted, confidence)",
    )


def _save_predictions(path: Path, found: Predictions) -> None:
    buffer = io.BytesIO()
    arrays = {
        "probability": found.probability_NC.astype(np.float32),
        "target": found.target_N,
        "clean": found.clean_N,
        "names": np.asarray(found.names, str),
        "class_names": np.asarray(found.class_names, str),
    }
    arrays |= {"protocol": np.asarray(leaky.MARK)} if found.leaky else {}
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    files.write_bytes(path, buffer.getvalue())


def per_class(whole: dict[str, Any], clean: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a class: images, precision, recall with its 95 % Wilson interval, F1, average precision, prevalence; and
    images, recall and F1 of the clean ones."""
    rows = []
    for name, values in whole.get("per_class", {}).items():
        count = values["n"]
        low, high = bootstrap.wilson(round((values["recall"] or 0) * count), count) if count else (None, None)
        beside = clean.get("per_class", {}).get(name, {})
        rows.append({"class": name, **values, "recall_low": low, "recall_high": high})
        rows[-1] |= {f"clean_{key}": beside.get(key) for key in ("n", "recall", "f1")}
    return rows


def headline(whole: dict[str, Any]) -> str:
    """One line of a summary: what counts, with intervals, beside the majority baseline."""
    if not whole.get("n"):
        return "no images"
    parts = []
    for key in ("macro_f1", "balanced_accuracy", "accuracy"):
        low, high = whole["interval"][key]
        parts.append(f"{key.replace('_', ' ')} {whole[key]:.3f} [{low:.3f}, {high:.3f}]")
    parts.append(f"worst class {whole['worst_class']} recall {whole['worst_recall']:.3f}")
    parts.append(f"majority baseline accuracy {whole['majority']['accuracy']:.3f}")
    mark = f"{leaky.MARK}. " if whole.get("protocol") == "leaky" else ""
    return f"{mark}n {whole['n']}: " + ", ".join(parts)
