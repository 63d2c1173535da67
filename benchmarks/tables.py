"""The tables of long runs in docs/results.md, rebuilt from their kept predictions: python benchmarks/tables.py"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from emoexp.metrics import classification
from emoexp.runs import kept
from emoexp.runs.records import RunRecord

RUNS = Path(__file__).parent / "results" / "long_runs.runs.csv.gz"
COLUMNS = ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall")


def metrics(record: RunRecord) -> dict[str, dict[str, Any]]:
    """Metrics of a run's kept test predictions, on all images and on the clean ones."""
    found, names = record.predictions, record.manifest["data"]["classes"]
    assert found is not None and found.is_complete and found.clean_N is not None
    probability_NC = found.probability_NK.astype(np.float64)
    parts = {"all": np.ones(len(found.target_N), bool), "clean": found.clean_N}
    return {
        part: classification.summarise(probability_NC[keep_N], found.target_N[keep_N], names)
        for part, keep_N in parts.items()
    }


def row(title: str, found: dict[str, Any]) -> str:
    """One line of a Markdown table."""
    numbers = " | ".join(f"{found[column]:.3f}" for column in COLUMNS)
    majority = found["majority"]["accuracy"]
    return f"| {title} | {found['n']} | {numbers} ({found['worst_class']}) | {majority:.3f} |"


def mean_row(title: str, found: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds."""
    values = np.array([[one[column] for column in COLUMNS] for one in found])
    spread = values.std(0, ddof=1) if len(found) > 1 else np.zeros(len(COLUMNS))
    numbers = " | ".join(f"**{m:.3f}** ± {s:.3f}" for m, s in zip(values.mean(0), spread, strict=True))
    return f"| {title} | {found[0]['n']} | {numbers} | {found[0]['majority']['accuracy']:.3f} |"


def table(records: list[RunRecord]) -> str:
    """The runs that differ in their seed alone, each on all and on clean test images, then their means."""
    lines = ["| test images | n | accuracy | macro-F1 | balanced accuracy | worst recall | majority accuracy |"]
    lines.append("|---|---|---|---|---|---|---|")
    found = [(record.manifest["params"]["seed"], metrics(record)) for record in records]
    for which in ("all", "clean"):
        lines += [row(f"{which}, seed {seed}", one[which]) for seed, one in found]
        if len(found) > 1:
            lines.append(mean_row(f"{which}, mean of {len(found)}", [one[which] for _, one in found]))
    return "\n".join(lines)


def main() -> None:
    """Print a table for each group of runs."""
    groups = defaultdict(list)
    for record in kept.read(RUNS):
        groups[record.name.rpartition("-s")[0]].append(record)
    for name, records in groups.items():
        print(f"{name}\n\n{table(records)}\n")


if __name__ == "__main__":
    main()
