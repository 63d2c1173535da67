"""Keep finished runs small enough for the repository: python benchmarks/keep.py outputs/fer2013-* [...]

What reports and extended sweeps read goes to benchmarks/results/cells: everything but weights, figures and logs. Test
probabilities are kept in half precision, and say of every image the same class as before.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from emoexp.runs import folder as runs

CELLS = Path(__file__).parent / "results" / "cells"
KEPT = ("config.yaml", "manifest.json", "metrics.json", "status.json", "history.jsonl", "times.jsonl", "seconds.json")


def keep(folder: Path) -> Path:
    """Copy what counts of a finished run."""
    if not runs.is_finished(folder):
        sys.exit(f"{folder} is no finished run")
    target = CELLS / folder.name
    (target / "predictions").mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copyfile(folder / name, target / name)
    status = json.loads((target / "status.json").read_text()) | {"host": None, "pid": None}
    (target / "status.json").write_text(json.dumps(status, indent=1, sort_keys=True) + "\n")
    with np.load(folder / "predictions" / "test.npz") as whole:
        np.savez_compressed(
            target / "predictions" / "test.npz",
            probability=halved(whole["probability"]),
            target=whole["target"].astype(np.uint8),
            clean=whole["clean"],
            class_names=whole["class_names"],
        )
    return target


def halved(probability_NC: np.ndarray) -> np.ndarray:
    """Half precision, in which the likeliest class stays the likeliest."""
    half_NC, best_N = probability_NC.astype(np.float16), probability_NC.argmax(1)
    row = np.arange(len(best_N))
    top_N = half_NC.max(1)
    moved = half_NC.argmax(1) != best_N
    half_NC[row[moved], best_N[moved]] = np.nextafter(top_N[moved], np.float16(2))
    assert (half_NC.argmax(1) == best_N).all()
    return half_NC


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(keep(Path(argument)))
