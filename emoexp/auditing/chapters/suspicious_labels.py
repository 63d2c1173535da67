"""Chapter on labels that look wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emoexp import figures
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.checks import label_errors
from emoexp.auditing.findings import Chapter, Finding, by_class, table_of
from emoexp.pages.page import Picture, Section
from emoexp.runs import files
from emoexp.runs import folder as folders_of_runs
from emoexp.runs.records import read_predictions

MAX_LISTED = 40  # rows that a table of the page lists


def suspicious_labels(audit_data: AuditData, runs: Any) -> Chapter:
    """Labels that look wrong, from predictions of runs for images on which they were not trained.

    runs: run folders or patterns of them; None: the chapter explains how to get its content.

    Raises:
        ValueError: a pattern that matches no folder, or runs without predictions for these images.
    """
    title = "Labels that look wrong"
    if runs is None:
        return Chapter(Section(title, [_HOW_TO_GET_THIS_CHAPTER]))
    folders = folders_of_runs.match_folders(runs, "audit.runs")
    probability_NC, warnings = _probabilities(audit_data, folders)
    suspects = label_errors.suspicious_labels(probability_NC, audit_data.dataset.labels)
    names, label_N = audit_data.class_names, audit_data.dataset.labels
    rows = [
        {
            "image": str(audit_data.dataset.names[i]),
            "label": names[label],
            "rather": names[suggestion],
            "score": float(score),
        }
        for i, label, suggestion, score in zip(
            suspects.index, suspects.label, suspects.suggestion, suspects.score, strict=True
        )
    ]
    known_N = ~np.isnan(probability_NC).all(1)
    columns = {"predicted": np.bincount(label_N[known_N], minlength=len(names)).tolist()}
    columns["look wrong"] = np.bincount(suspects.label, minlength=len(names)).tolist()
    classes = by_class(names, columns)
    tables = [
        table_of(
            "suspects_per_class", "By class", "Confident learning (Northcutt et al., 2021), both prunings.", classes
        ),
        table_of(
            "suspects", "Worst first", f"At most {MAX_LISTED} of {len(rows)}; all in the JSON.", rows[:MAX_LISTED]
        ),
    ]
    accuracy = float((probability_NC[known_N].argmax(1) == label_N[known_N]).mean())
    sentences = [
        f"For {known_N.sum():,} of {len(known_N):,} images there are predictions of {len(folders)} runs that were not "
        f"trained on them; {100 * accuracy:.1f} % of these agree with the label. {len(rows):,} labels look wrong.",
        "Trust the first ones of the list most, and look at the pictures: where a model cannot distinguish two "
        "classes, right labels look wrong too, so that a model of low accuracy suspects far too many.",
    ]
    finding = Finding("labels", len(rows), f"{len(rows)} labels contradict predictions on unseen images")
    numbers = {"suspects": rows, "suspects_per_class": classes, "predicted": int(known_N.sum()), "accuracy": accuracy}
    return Chapter(Section(title, [*sentences, *warnings], tables, _figure(audit_data, suspects)), [finding], numbers)


_HOW_TO_GET_THIS_CHAPTER = (
    "Not tested: give trained runs on these data with audit.runs=<folder or pattern>. The runs of all folds together "
    "(--multirun split=kfold 'split.fold=range(5)') have a prediction for every image by a run not trained on it."
)


def _figure(audit_data: AuditData, suspects: label_errors.SuspiciousLabels) -> list[Picture]:
    worst = slice(None, audit_data.pictures)
    captions = [
        f"{audit_data.class_names[label]}\nrather {audit_data.class_names[suggestion]}"
        for label, suggestion in zip(suspects.label[worst], suspects.suggestion[worst], strict=True)
    ]
    path = figures.image_grid(
        audit_data.figure("suspects"),
        audit_data.dataset.images[suspects.index[worst]],
        captions,
        title="Labels that look wrong, the worst first",
        facts=f"{len(captions)} of {len(suspects.index):,}",
    )
    return [Picture(path, "Labels that look wrong, and the class that the runs predict instead.")]


def _probabilities(audit_data: AuditData, folders: Sequence[Path]) -> tuple[np.ndarray, list[str]]:
    """Mean probabilities of each image over the runs that had it in val or test, NaN if there is none; and warnings."""
    index_of = {name: index for index, name in enumerate(audit_data.dataset.names.tolist())}
    total, num_predictions = np.zeros((len(index_of), len(audit_data.class_names))), np.zeros(len(index_of))
    warnings: list[str] = []
    for folder in folders:
        for part in ("val", "test"):
            path = folder / "predictions" / f"{part}.npz"
            if not path.is_file():
                continue
            predictions = read_predictions(path)
            if predictions.class_names != audit_data.class_names:
                names = ", ".join(predictions.class_names)
                raise ValueError(f"{folder} has other classes than these data: {names}")
            if predictions.names_N is None:
                raise ValueError(f"{path}: the names of the images are missing")
            rows = [index_of.get(name, -1) for name in predictions.names_N.tolist()]
            index = np.array([row for row in rows if row >= 0], np.int64)
            total[index] += predictions.probability_NK[np.array(rows) >= 0]
            num_predictions[index] += 1
        warnings += _strategy_warning(folder)
    if not num_predictions.any():
        raise ValueError(f"audit.runs: none of {len(folders)} folders holds predictions of these images")
    probability = np.full(total.shape, np.nan)
    np.divide(total, num_predictions[:, None], out=probability, where=num_predictions[:, None] > 0)
    probability /= np.where(num_predictions > 0, probability.sum(1), 1)[:, None]
    return probability, list(dict.fromkeys(warnings))


def _strategy_warning(folder: Path) -> list[str]:
    """A warning if a run was trained with a strategy that shifts its predictions towards rare classes."""
    strategy = (files.read_json(folder / "manifest.json").get("params") or {}).get("imbalance")
    if strategy in (None, "none", "augment"):
        return []
    return [
        f"Runs with imbalance={strategy} predict rare classes too often for this test: use runs with imbalance=none."
    ]
