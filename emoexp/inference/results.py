"""Results of a model on a part of the data, at the end of training and in evaluation: metrics, tables, figures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emoexp.metrics import bootstrap, classification
from emoexp.runs import files
from emoexp.runs.files import json_values
from emoexp.runs.tables import write_table
from emoexp.training import leaky_protocol as leaky

RESAMPLES = 1000  # of the bootstrap
MIN_IMAGES = 10  # of which an interval is shown


@dataclass(frozen=True)
class Predictions:
    """Predicted probabilities for a part, with its labels and images.

    probability_NC: float32. target_N: int64. clean_N: bool, images whose pixels are in no earlier part; None
    where that is unknown. image_MCHW:
    uint8, the images of all parts, which may be memory-mapped. index_N: the part's rows in image_MCHW. names: source of
    each image of the part.
    """

    part: str
    probability_NC: np.ndarray
    target_N: np.ndarray
    clean_N: np.ndarray | None
    image_MCHW: np.ndarray
    index_N: np.ndarray
    names: Sequence[str]
    class_names: Sequence[str]
    majority: int
    leaky: bool = False  # copies were made before the split; every file that is written says so

    @property
    def title(self) -> str:
        """The part's name in figures."""
        return f"{self.part} · {leaky.MARK}" if self.leaky else self.part


def summary(predictions: Predictions, clean: bool) -> dict[str, Any]:
    """Metrics with bootstrap intervals, of all images of a part or of the clean ones, ready for JSON. Deterministic."""
    chosen_N = predictions.clean_N if clean else np.ones(len(predictions.target_N), bool)
    if chosen_N is None:
        return {"n": None}
    if not chosen_N.any():
        return {"n": 0}
    probability, target = predictions.probability_NC[chosen_N].astype(np.float64), predictions.target_N[chosen_N]
    out = classification.summarise(probability, target, predictions.class_names, majority=predictions.majority)
    out["interval"] = bootstrap.bootstrap(probability, target, resamples=RESAMPLES)
    out["clean"] = clean
    out |= {"protocol": "leaky"} if predictions.leaky else {}
    return json_values(out)


def summaries(predictions: Predictions) -> tuple[dict[str, Any], dict[str, Any]]:
    """`summary` of all images and of the clean ones, which are often all."""
    whole = summary(predictions, clean=False)
    is_all_clean = predictions.clean_N is not None and bool(predictions.clean_N.all())
    return whole, (whole | {"clean": True} if is_all_clean else summary(predictions, clean=True))


def write(folder: Path, predictions: Predictions, whole: dict[str, Any], clean: dict[str, Any]) -> None:
    """Write predictions, a per-class table and the figures of a part into the folders of a run.

    whole, clean: results of `summary` for all images and for the clean ones.
    """
    from emoexp import figures  # imported here, because matplotlib is slow to load and training does not need it

    for name in ("predictions", "tables", "figures"):
        (folder / name).mkdir(exist_ok=True)
    _save_predictions(folder / "predictions" / f"{predictions.part}.npz", predictions)
    protocol_column = {"protocol": leaky.MARK} if predictions.leaky else {}
    write_table(
        folder / "tables" / f"{predictions.part}_per_class.csv",
        [row | protocol_column for row in per_class(whole, clean)],
    )
    title = predictions.title
    figure_folder = folder / "figures"
    probability, names = predictions.probability_NC.astype(np.float64), list(predictions.class_names)
    confusion = classification.confusion(predictions.target_N, probability.argmax(1), len(names))
    figures.confusion(figure_folder / f"{predictions.part}_confusion.png", confusion, names, title)
    figures.precision_recall(
        figure_folder / f"{predictions.part}_precision_recall.png", probability, predictions.target_N, names, title
    )
    figures.mistakes(
        figure_folder / f"{predictions.part}_mistakes.png",
        predictions.image_MCHW,
        predictions.index_N,
        predictions.target_N,
        probability,
        names,
        list(predictions.names),
        title=f"{predictions.title}: most confident mistakes (true → predicted, confidence)",
    )


def _save_predictions(path: Path, predictions: Predictions) -> None:
    buffer = io.BytesIO()
    clean = {} if predictions.clean_N is None else {"clean": predictions.clean_N}
    arrays = {
        "probability": predictions.probability_NC.astype(np.float32),
        "target": predictions.target_N,
        **clean,
        "names": np.asarray(predictions.names, str),
        "class_names": np.asarray(predictions.class_names, str),
    }
    arrays |= {"protocol": np.asarray(leaky.MARK)} if predictions.leaky else {}
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    files.write_bytes(path, buffer.getvalue())


def per_class(whole: dict[str, Any], clean: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a class: images, precision, recall with its 95 % Wilson interval, F1, average precision, prevalence; and
    images, recall and F1 of the clean ones."""
    rows = []
    for name, values in whole.get("per_class", {}).items():
        count = values["n"]
        low, high = bootstrap.wilson(round((values["recall"] or 0) * count), count) if count else (None, None)
        clean_values = clean.get("per_class", {}).get(name, {})
        rows.append({"class": name, **values, "recall_low": low, "recall_high": high})
        rows[-1] |= {f"clean_{key}": clean_values.get(key) for key in ("n", "recall", "f1")}
    return rows


def headline(whole: dict[str, Any]) -> str:
    """A summary in one line: the main metrics with intervals, the majority baseline, and what became of classes without
    images. Of few images, and where every resample has the same value, an interval would say more than is known."""
    if not whole.get("n"):
        return "no images"
    parts = []
    for key in ("macro_f1", "balanced_accuracy", "accuracy"):
        low, high = whole["interval"][key]
        has_interval = low < high and whole["n"] >= MIN_IMAGES
        interval = f"[{low:.3f}, {high:.3f}]" if has_interval else "(too few images for an interval)"
        parts.append(f"{key.replace('_', ' ')} {whole[key]:.3f} {interval}")
    parts.append(f"worst class {whole['worst_class']} recall {whole['worst_recall']:.3f}")
    parts.append(f"majority baseline accuracy {whole['majority']['accuracy']:.3f}")
    if whole.get("absent"):
        names = ", ".join(whole["absent"])
        parts.append(f"no images of {names}: macro f1 counts 0 for them, the other metrics leave them out")
    mark = f"{leaky.MARK}. " if whole.get("protocol") == "leaky" else ""
    return f"{mark}n {whole['n']}: " + ", ".join(parts)
