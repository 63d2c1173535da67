"""What a cell of a sweep costs besides its training, and what a second worker gains: python benchmarks/sweep.py

Whole commands are timed, on new folders with MLflow's database in them. The price of a cell is the slope: the time of
a sweep of many cells less that of a sweep of one, by the number of cells more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TINY = "data.size=420 data.test_per_class=12 image_size=16 batch_size=32 epochs=1 architecture.widths=[4,8]".split()
LONGER = "experiment=small epochs=4 tracking.log_model=false".split()
BESIDE = ("train", "predict", "figures", "bootstrap", "export")


def timed(words: list[str], seeds: range, workers: int) -> tuple[float, list[dict[str, float]]]:
    """Seconds of a sweep over seeds, by the clock on the wall, and what each of its cells says it was spent on."""
    asked = [sys.executable, "-m", "emoexp.train", "--multirun", *words, f"seed=range({seeds.start},{seeds.stop})"]
    asked += [f"workers={workers}", "threads=1"]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            asked, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        wall = time.perf_counter() - started
        return wall, [
            json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).glob("outputs/*/seconds.json")
        ]


def overhead(cells: int) -> dict[str, float]:
    """Seconds that a cell of a warm worker takes, by what they are spent on; "overhead" is none of it."""
    one, _ = timed(TINY, range(0, 1), 1)
    many, spent = timed(TINY, range(0, cells + 1), 1)
    later = sorted(spent, key=lambda parts: -sum(parts.values()))[1:]  # less the first, which warms the worker up
    parts = {part: sum(one[part] for one in later) / cells for part in BESIDE}
    whole = (many - one) / cells
    return {"whole": whole, **parts, "overhead": whole - sum(parts.values())}


def gain(rounds: int) -> None:
    """Print how much faster two workers are than one, both on one thread each."""
    ratios = []
    for _ in range(rounds):
        walls = {}
        for workers in (1, 2):
            few, _ = timed(LONGER, range(0, workers), workers)
            many, _ = timed(LONGER, range(0, 6), workers)
            walls[workers] = (many - few) / (6 - workers)  # seconds a cell
        ratios.append(walls[1] / walls[2])
        print(f"seconds a cell: one worker {walls[1]:.1f}, two {walls[2]:.1f}; ratio {ratios[-1]:.2f}", flush=True)
    print(f"two workers are {sorted(ratios)[len(ratios) // 2]:.2f} times one ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    print("a cell of a warm worker, seconds: " + ", ".join(f"{k} {v:.2f}" for k, v in overhead(asked.cells).items()))
    gain(asked.rounds)
