"""Labels that look wrong."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emoexp import figures
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.checks import label_errors
from emoexp.auditing.findings import Chapter, Finding, by_class, table_of
from emoexp.pages.page import Picture, Section
from emoexp.runs import folder as folders_of_runs

LISTED = 40  # rows that a table of the page lists


def suspicious_labels(audit_data: AuditData, runs: Any) -> Chapter:
    """Labels that look wrong, from what trained runs predicted for images that they were not trained on.

    runs: folders or patterns of run folders; None: the chapter says how to get it.

    Raises:
        ValueError: a pattern that finds nothing, or runs that know none of these images.
    """
    title = "Labels that look wrong"
    if runs is None:
        return Chapter(Section(title, [_HOW_TO_GET_THIS_CHAPTER]))
    folders = folders_of_runs.match_folders(runs, "audit.runs")
    probability_NC, warnings = _probabilities(audit_data, folders)
    found = label_errors.suspicious_labels(probability_NC, audit_data.dataset.labels)
    names, label_N = audit_data.class_names, audit_data.dataset.labels
    rows = [
        {
            "image": str(audit_data.dataset.names[i]),
            "label": names[given],
            "rather": names[other],
            "score": float(score),
        }
        for i, given, other, score in zip(found.index, found.given, found.suggested, found.score, strict=True)
    ]
    known_N = ~np.isnan(probability_NC).all(1)
    columns = {"predicted": np.bincount(label_N[known_N], minlength=len(names)).tolist()}
    columns["look wrong"] = np.bincount(found.given, minlength=len(names)).tolist()
    classes = by_class(names, columns)
    tables = [
        table_of(
            "suspects_per_class", "By class", "Confident learning (Northcutt et al., 2021), both prunings.", classes
        ),
        table_of("suspects", "Worst first", f"At most {LISTED} of {len(rows)}; all in the JSON.", rows[:LISTED]),
    ]
    right = float((probability_NC[known_N].argmax(1) == label_N[known_N]).mean())
    sentences = [
        f"{known_N.sum():,} of {len(known_N):,} images were predicted by {len(folders)} runs that had not seen them, "
        f"{100 * right:.1f} % of them as they are labelled. {len(rows):,} labels look wrong.",
        "Believe the head of the list, and look at the pictures: what a model cannot tell apart looks like wrong "
        "labels too, so that a model of low accuracy suspects far too many.",
    ]
    finding = Finding("labels", len(rows), f"{len(rows)} labels are contradicted by predictions on unseen images")
    numbers = {"suspects": rows, "suspects_per_class": classes, "predicted": int(known_N.sum()), "accuracy": right}
    return Chapter(Section(title, [*sentences, *warnings], tables, _figure(audit_data, found)), [finding], numbers)


_HOW_TO_GET_THIS_CHAPTER = (
    "Not looked for: name trained runs of these data with audit.runs=<folder or pattern>. Runs of all folds "
    "(--multirun split=kfold 'split.fold=range(5)') have predicted every image once without having seen it."
)


def _figure(audit_data: AuditData, found: label_errors.SuspiciousLabels) -> list[Picture]:
    worst = slice(None, audit_data.pictures)
    captions = [
        f"{audit_data.class_names[given]}\nrather {audit_data.class_names[other]}"
        for given, other in zip(found.given[worst], found.suggested[worst], strict=True)
    ]
    path = figures.image_grid(
        audit_data.figure("suspects"),
        audit_data.dataset.images[found.index[worst]],
        captions,
        title="Labels that look wrong, the worst first",
        facts=f"{len(captions)} of {len(found.index):,}",
    )
    return [Picture(path, "Labels that look wrong: as given, and what the runs would rather say.")]


def _probabilities(audit_data: AuditData, folders: Sequence[Path]) -> tuple[np.ndarray, list[str]]:
    """Mean probabilities of each image by the runs that had it in val or test, NaN where none had; and warnings."""
    index_of = {name: index for index, name in enumerate(audit_data.dataset.names.tolist())}
    total, times = np.zeros((len(index_of), len(audit_data.class_names))), np.zeros(len(index_of))
    warnings: list[str] = []
    for folder in folders:
        for part in ("val", "test"):
            path = folder / "predictions" / f"{part}.npz"
            if not path.is_file():
                continue
            with np.load(path) as kept:
                if tuple(kept["class_names"].tolist()) != audit_data.class_names:
                    raise ValueError(f"{folder} knows other classes than these data: {', '.join(kept['class_names'])}")
                rows = [index_of.get(name, -1) for name in kept["names"].tolist()]
                here = np.array([row for row in rows if row >= 0], np.int64)
                total[here] += kept["probability"][np.array(rows) >= 0]
                times[here] += 1
        warnings += _strategy_warning(folder)
    if not times.any():
        raise ValueError(f"audit.runs: none of {len(folders)} folders holds predictions of these images")
    probability = np.full(total.shape, np.nan)
    np.divide(total, times[:, None], out=probability, where=times[:, None] > 0)
    probability /= np.where(times > 0, probability.sum(1), 1)[:, None]
    return probability, list(dict.fromkeys(warnings))


def _strategy_warning(folder: Path) -> list[str]:
    """A warning where a run was trained with a strategy that shifts its predictions towards rare classes."""
    path = folder / "manifest.json"
    strategy = (json.loads(path.read_text()).get("params") or {}).get("imbalance") if path.is_file() else None
    if strategy in (None, "none", "augment"):
        return []
    return [
        f"Runs with imbalance={strategy} say rare classes too often for this: runs with imbalance=none judge better."
    ]
