"""Pictures and labels that stand out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emoexp import figures
from emoexp.auditing.checks import labels, standouts
from emoexp.auditing.subject import Chapter, Finding, Subject, by_class, table_of
from emoexp.pages.page import Picture, Section
from emoexp.runs import folder as running

SHOWN = 40  # rows that a table of the page lists


def pictures(subject: Subject) -> Chapter:
    """Blank, small, oddly shaped and differently sized pictures, and files that could not be used."""
    data = subject.data
    flat, nearly = standouts.blank(data.images)
    found = {"blank": flat, "nearly blank": nearly}
    if subject.facts is not None:
        width, height = subject.facts.width, subject.facts.height
        (usual_width, usual_height), other = standouts.other_sizes(width, height)
        found["smaller than used"] = standouts.enlarged(width, height, data.images.shape[2])
        found["long"] = standouts.oddly_shaped(width, height)
        found[f"not {usual_width}x{usual_height}"] = other
    rows = [_row(subject, index, kind) for kind, hits in found.items() for index in hits]
    unusable = [{"file": name, "why": why} for name, why in data.left_out]
    broken = [row for row in unusable if row["why"] != "has no label" and "different labels" not in row["why"]]
    counts = {"blank": len(flat), "nearly_blank": len(nearly), "unreadable": len(broken)}
    if subject.facts is not None:
        kinds = list(found)[2:]
        counts |= dict(zip(("small", "shapes", "sizes"), (len(found[kind]) for kind in kinds), strict=True))
    told = [f"{len(hits):,} pictures are {kind}." for kind, hits in found.items()]
    told.append(f"{len(unusable):,} files are not among the images, {len(broken):,} of them because of damage.")
    findings = [Finding(kind, count, f"{count} pictures: {_WORDS[kind]}") for kind, count in counts.items()]
    note = f"At most {SHOWN} of {{}}; all in the JSON."
    tables = [
        table_of("standouts", "Pictures that stand out", note.format(len(rows)), rows[:SHOWN]),
        table_of("left_out", "Files that are not among the images", note.format(len(unusable)), unusable[:SHOWN]),
    ]
    numbers = {"standouts": rows, "left_out": unusable, "counts": counts}
    return Chapter(Section("Pictures that stand out", told, tables, _sheet(subject, found)), findings, numbers)


_WORDS = {
    "blank": "one flat tone",
    "nearly_blank": f"hardly any contrast (deviation below {standouts.NEARLY:g} of 255 grey levels)",
    "unreadable": "cannot be read",
    "small": "smaller in the file than they are used",
    "shapes": "one side at least twice the other",
    "sizes": "of another size than nine in ten",
}


def _row(subject: Subject, index: int, kind: str) -> dict[str, Any]:
    row = {"image": str(subject.data.names[index]), "label and part": subject.caption(index), "what": kind}
    if subject.facts is not None:
        row["size"] = f"{subject.facts.width[index]}x{subject.facts.height[index]}"
    return row


def _sheet(subject: Subject, found: dict[str, np.ndarray]) -> list[Picture]:
    chosen = [(int(index), kind) for kind, hits in found.items() for index in hits[: subject.pictures]]
    if not chosen:
        return []
    index = np.array([place for place, _ in chosen])
    path = figures.sheet_of(
        subject.figure("standouts"),
        subject.data.images[index],
        [f"{kind}\n{subject.caption(place)}" for place, kind in chosen],
        title="Pictures that stand out",
        facts=f"{len(chosen)} of {sum(map(len, found.values())):,}",
    )
    return [Picture(path, "Pictures that stand out, as they are used in training.")]


def suspicious(subject: Subject, runs: Any) -> Chapter:
    """Labels that look wrong, from what trained runs said of images they were not trained on.

    runs: folders or patterns of run folders; None says how to come by this chapter.

    Raises:
        ValueError: a pattern that finds nothing, or runs that know none of these images.
    """
    title = "Labels that look wrong"
    if runs is None:
        return Chapter(Section(title, [_HOW]))
    folders = running.match_folders(runs, "audit.runs")
    probability_NC, said = _probabilities(subject, folders)
    found = labels.suspects(probability_NC, subject.data.labels)
    names, label_N = subject.names, subject.data.labels
    rows = [
        {"image": str(subject.data.names[i]), "label": names[given], "rather": names[other], "score": float(score)}
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
        table_of("suspects", "Worst first", f"At most {SHOWN} of {len(rows)}; all in the JSON.", rows[:SHOWN]),
    ]
    right = float((probability_NC[known_N].argmax(1) == label_N[known_N]).mean())
    told = [
        f"{known_N.sum():,} of {len(known_N):,} images were predicted by {len(folders)} runs that had not seen them, "
        f"{100 * right:.1f} % of them as they are labelled. {len(rows):,} labels look wrong.",
        "Believe the head of the list, and look at the pictures: what a model cannot tell apart looks like wrong "
        "labels too, so that a model of low accuracy suspects far too many.",
    ]
    finding = Finding("labels", len(rows), f"{len(rows)} labels are contradicted by predictions on unseen images")
    numbers = {"suspects": rows, "suspects_per_class": classes, "predicted": int(known_N.sum()), "accuracy": right}
    return Chapter(Section(title, [*told, *said], tables, _suspects_sheet(subject, found)), [finding], numbers)


_HOW = (
    "Not looked for: name trained runs of these data with audit.runs=<folder or pattern>. Runs of all folds "
    "(--multirun split=kfold 'split.fold=range(5)') have predicted every image once without having seen it."
)


def _suspects_sheet(subject: Subject, found: labels.Suspects) -> list[Picture]:
    worst = slice(None, subject.pictures)
    captions = [
        f"{subject.names[given]}\nrather {subject.names[other]}"
        for given, other in zip(found.given[worst], found.suggested[worst], strict=True)
    ]
    path = figures.sheet_of(
        subject.figure("suspects"),
        subject.data.images[found.index[worst]],
        captions,
        title="Labels that look wrong, the worst first",
        facts=f"{len(captions)} of {len(found.index):,}",
    )
    return [Picture(path, "Labels that look wrong: as given, and what the runs would rather say.")]


def _probabilities(subject: Subject, folders: Sequence[Path]) -> tuple[np.ndarray, list[str]]:
    """Mean probabilities of each image by the runs that had it in val or test, NaN where none had; and warnings."""
    data = subject.data
    place = {name: index for index, name in enumerate(data.names.tolist())}
    total, times, said = np.zeros((len(place), len(subject.names))), np.zeros(len(place)), []
    for folder in folders:
        for part in ("val", "test"):
            path = folder / "predictions" / f"{part}.npz"
            if not path.is_file():
                continue
            with np.load(path) as kept:
                if tuple(kept["class_names"].tolist()) != subject.names:
                    raise ValueError(f"{folder} knows other classes than these data: {', '.join(kept['class_names'])}")
                rows = [place.get(name, -1) for name in kept["names"].tolist()]
                here = np.array([row for row in rows if row >= 0], np.int64)
                total[here] += kept["probability"][np.array(rows) >= 0]
                times[here] += 1
        said += _corrected(folder)
    if not times.any():
        raise ValueError(f"audit.runs: none of {len(folders)} folders holds predictions of these images")
    probability = np.full(total.shape, np.nan)
    np.divide(total, times[:, None], out=probability, where=times[:, None] > 0)
    probability /= np.where(times > 0, probability.sum(1), 1)[:, None]
    return probability, list(dict.fromkeys(said))


def _corrected(folder: Path) -> list[str]:
    path = folder / "manifest.json"
    strategy = (json.loads(path.read_text()).get("params") or {}).get("imbalance") if path.is_file() else None
    if strategy in (None, "none", "augment"):
        return []
    return [
        f"Runs with imbalance={strategy} say rare classes too often for this: runs with imbalance=none judge better."
    ]
