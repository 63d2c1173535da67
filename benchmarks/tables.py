"""The tables of long runs in docs/results.md, rebuilt from their kept predictions: python benchmarks/tables.py"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from emoexp.metrics import classification

RUNS = Path(__file__).parent / "results" / "runs"
COLUMNS = ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall")


def judged(folder: Path) -> dict[str, dict[str, Any]]:
    """Metrics of a run's kept test predictions, on all images and on the clean ones."""
    kept = np.load(folder / "test.npz")
    names = [str(name) for name in kept["class_names"]]
    out = {}
    for which, keep in (("all", np.ones(len(kept["target"]), bool)), ("clean", kept["clean"])):
        out[which] = classification.summarise(kept["probability"][keep].astype(np.float64), kept["target"][keep], names)
    return out


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


def table(folders: list[Path]) -> str:
    """The runs that differ in their seed alone, each on all and on clean test images, then their means."""
    lines = ["| test images | n | accuracy | macro-F1 | balanced accuracy | worst recall | majority accuracy |"]
    lines.append("|---|---|---|---|---|---|---|")
    found = [(folder.name.rpartition("-s")[2].partition("-")[0], judged(folder)) for folder in folders]
    for which in ("all", "clean"):
        lines += [row(f"{which}, seed {seed}", one[which]) for seed, one in found]
        if len(found) > 1:
            lines.append(mean_row(f"{which}, mean of {len(found)}", [one[which] for _, one in found]))
    return "\n".join(lines)


def main() -> None:
    """Print a table for each group of runs."""
    groups = defaultdict(list)
    for folder in sorted(path.parent for path in RUNS.glob("*/test.npz")):
        groups[folder.name.rpartition("-s")[0]].append(folder)
    for name, folders in groups.items():
        print(f"{name}\n\n{table(folders)}\n")


if __name__ == "__main__":
    main()
