"""How much a leaky protocol raises the metrics: tables and a figure of leaky arms, clean arms, and guessing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emoexp import figures
from emoexp.metrics import bootstrap, compare
from emoexp.pages.page import Picture, Table
from emoexp.reporting.arms import Arm
from emoexp.reporting.collect import FinishedRun

_COLUMNS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "without": "accuracy without the copied classes",
    "majority": "always the largest class",
    "two": "right on the two largest classes alone",
}


def section(folder: Path, arms: Sequence[Arm], level: float) -> tuple[list[Table], list[Picture]]:
    """The tables and the figure; none where no arm is leaky."""
    first_runs = [next(iter(arm.runs.values())) for arm in arms]
    if not any(run.is_leaky for run in first_runs):
        return [], []
    copied = copied_classes(first_runs)
    names = first_runs[0].manifest["data"]["classes"]
    rows = [{"class": name, "arms": [_recall(arm, name, level) for arm in arms]} for name in names]
    facts = (
        f"mean over seeds; the wider of the {100 * level:g} % t and Wilson intervals · leaky: copied before the split"
    )
    path = figures.leak_worth(folder / "leak_worth.png", rows, title="Recall by protocol, on test", facts=facts)
    picture = Picture(path, "What each protocol says of each class. A leaky arm is tested on relatives of what it saw.")
    return [_arms_table(arms, copied), _classes_table(rows)], [picture]


def copied_classes(runs: Sequence[FinishedRun]) -> list[int]:
    """Indices of the classes that were copied before the split: those of which a leaky run has more images."""
    count_C = {run.is_leaky: _count_images(run) for run in runs}
    return [] if len(count_C) < 2 else np.flatnonzero(count_C[True] > count_C[False]).tolist()


def _count_images(run: FinishedRun) -> np.ndarray:
    """Images of each class in all parts."""
    return np.array([run.manifest["data"]["counts"][part] for part in ("train", "val", "test")]).sum(0)


def baselines(run: FinishedRun, copied: Sequence[int]) -> dict[str, float | None]:
    """A run's accuracy and macro-F1 on test; its accuracy without some classes; and the accuracy of guessing."""
    test = run.metrics["test"]
    confusion, train = np.array(test["confusion"], float), np.array(run.manifest["data"]["counts"]["train"])
    count_C, largest = confusion.sum(1), np.argsort(-train, kind="stable")
    uncopied = np.setdiff1d(np.arange(len(count_C)), copied)
    return {
        "accuracy": test["accuracy"],
        "macro_f1": test["macro_f1"],
        "without": float(confusion[uncopied, uncopied].sum() / count_C[uncopied].sum()) if len(copied) else None,
        "majority": float(count_C[largest[0]] / count_C.sum()),
        "two": float(count_C[largest[:2]].sum() / count_C.sum()),
    }


def _arms_table(arms: Sequence[Arm], copied: Sequence[int]) -> Table:
    rows, text_rows = [], []
    for arm in arms:
        by_seed = [baselines(run, copied) for run in arm.runs.values()]
        row: dict[str, Any] = {"arm": arm.label, "seeds": len(by_seed)}
        text = {"arm": arm.label, "seeds": str(len(by_seed))}
        for key, title in _COLUMNS.items():
            values = [value for run_baselines in by_seed if (value := run_baselines[key]) is not None]
            row[key] = float(np.mean(values)) if values else None
            text[title] = _mean_and_sd(values) if values else "–"
        rows.append(row)
        text_rows.append(text)
    names = next(iter(arms[0].runs.values())).manifest["data"]["classes"]
    classes = ", ".join(names[c] for c in copied) or "unknown, for want of a clean arm"
    note = f"Mean ± standard deviation over seeds. In the leaky arms test holds copies too. Copied classes: {classes}."
    return Table("protocols", "What the protocol is worth", note, rows, text_rows)


def _mean_and_sd(values: Sequence[float]) -> str:
    sd = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{sd}"


def _recall(arm: Arm, name: str, level: float) -> dict[str, Any]:
    """Mean recall over seeds, with the wider of two intervals: t over seeds, and Wilson over images."""
    recalls = arm.recall(name)
    images = sum(run.metrics["test"]["per_class"].get(name, {}).get("n") or 0 for run in arm.runs.values())
    mean = float(np.mean(recalls)) if recalls else float("nan")
    if not images:
        return {"label": arm.label, "recall": mean, "low": mean, "high": mean, "n": 0}
    spread = compare.spread(recalls, level)
    low, high = bootstrap.wilson(round(mean * images), images, level)
    low = low if spread.low is None else max(0.0, min(low, spread.low))
    high = high if spread.high is None else min(1.0, max(high, spread.high))
    return {"label": arm.label, "recall": mean, "low": low, "high": high, "n": images}


def _classes_table(rows: Sequence[dict[str, Any]]) -> Table:
    numbers = [
        {"class": row["class"]} | {f"{arm['label']} {key}": arm[key] for arm in row["arms"] for key in ("recall", "n")}
        for row in rows
    ]
    text_rows = [
        {"class": row["class"]} | {arm["label"]: f"{arm['recall']:.3f} (n {arm['n']})" for arm in row["arms"]}
        for row in rows
    ]
    note = "Recall on test, mean over seeds; n: test images of all seeds together."
    return Table("protocols_per_class", "What the protocol is worth, by class", note, numbers, text_rows)
