"""Keep the results of finished runs in two small files, for a repository: python benchmarks/keep.py NAME SOURCE [...]

A source is a sweep's folder (multirun/<sweep>: its finished cells), a run's folder, or a table that was kept before,
so that a table can be made again with more runs:

    python benchmarks/keep.py methods_faces multirun/methods-faces-0123abcd
    python benchmarks/keep.py methods_faces benchmarks/results/methods_faces.runs.csv.gz outputs/faces-*

writes benchmarks/results/methods_faces.runs.csv.gz and methods_faces.predictions.npz; emoexp/runs/kept.py says what
stands in them. A report and a sweep with outputs=benchmarks/results find these runs as if their folders lay there.

Of each test image the predicted class is kept, and in half precision the probabilities of all classes, or with
--probabilities rarest only that of the class with the fewest training images in all runs, of which a report draws
precision over recall. That makes the file a quarter as large.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from emoexp.runs import kept
from emoexp.runs.records import RunRecord
from emoexp.sweep.cells import SweepFolder

RESULTS = Path(__file__).parent / "results"


def records_of(sources: Iterable[Path]) -> list[RunRecord]:
    """The finished runs of sweeps, run folders and tables, each once, by name."""
    found: dict[str, RunRecord] = {}
    for source in sources:
        is_sweep = (source / "cells.json").is_file()
        labels = [label for label in SweepFolder(source).finished_runs().values() if label] if is_sweep else []
        records = [kept.record_of(label) for label in labels] if is_sweep else kept.records_at([source])
        found.update({record.name: record for record in records})
    return [found[name] for name in sorted(found)]


def class_indices(records: Iterable[RunRecord], probabilities: str) -> dict[str, list[int]]:
    """The classes whose probabilities are kept, of each run by its name."""
    counts = {record.name: record.manifest["data"]["counts"]["train"] for record in records}
    if probabilities == "all":
        return {name: list(range(len(count_C))) for name, count_C in counts.items()}
    if len({len(count_C) for count_C in counts.values()}) > 1:
        raise ValueError("--probabilities rarest is for runs of the same classes: keep other data under another name")
    rarest = int(np.sum(list(counts.values()), 0).argmin())
    return {name: [rarest] for name in counts}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the two files")
    parser.add_argument("sources", nargs="+", type=Path, help="folders of sweeps or runs, or tables of kept results")
    parser.add_argument("--probabilities", choices=("all", "rarest"), default="all")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the two files")
    options = parser.parse_args()
    try:
        records = records_of(options.sources)
        table = kept.write(options.out, options.name, records, class_indices(records, options.probabilities))
    except ValueError as error:
        parser.exit(1, f"{error}\n")
    size = sum(path.stat().st_size for path in table.parent.glob(f"{options.name}.*")) / 1e6
    print(f"{table}: {len(records)} runs, {size:.1f} MB with their predictions")


if __name__ == "__main__":
    main()
