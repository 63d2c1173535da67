"""Run folders that are made up: their numbers are known, and nothing was trained."""

import json
from pathlib import Path

import numpy as np

from emoexp.metrics import classification
from emoexp.runs import folder as runs
from emoexp.runs.files import json_values

CLASSES = ["angry", "happy", "rare <b>"]
TARGET = np.repeat([0, 1, 2], [40, 60, 20])


def write_run(
    outputs: Path, arm: str, seed: int, right: float, status: str = "FINISHED", suffix: str = "", **manifest
) -> Path:
    """A run's folder: its model is right on a share of the images."""
    rng = np.random.default_rng([seed, sum(map(ord, arm))])
    predicted_N = np.where(rng.random(120) < right, TARGET, rng.integers(0, 3, 120))
    probability = np.full((120, 3), 0.1)
    probability[np.arange(120), predicted_N] = 0.8
    folder = outputs / f"run-{arm}-s{seed}-0000000{suffix}"
    (folder / "predictions").mkdir(parents=True)
    runs.write_status(folder, "RUNNING")
    data = {"content": "c" * 64, "classes": CLASSES, "counts": {"train": [400, 600, 9]}, "source": "made up"}
    facts = {
        "results_version": 1,
        "packages": {},
        "data": data,
        "versions": {"torch": "2"},
        "kernels": {},
        "device": "cpu x",
        "threads": 1,
    }
    facts["experiment"] = {"activation": {"name": arm, "kernel": arm[:1]}, "seed": seed}
    params = {"activation": arm, "activation.kernel": arm[:1], "seed": seed, "epochs": 3}
    (folder / "manifest.json").write_text(json.dumps({"run": folder.name, "params": params} | facts | manifest))
    if status == "FINISHED":
        keep = {"test": np.ones(120, bool), "test_clean": np.arange(120) % 10 > 0}
        found = {
            part: json_values(classification.summarise(probability[k], TARGET[k], CLASSES)) for part, k in keep.items()
        }
        drawn = {"images": 3000, "originals": 900 + seed, "items": 900, "pool": 1009}
        (folder / "metrics.json").write_text(json.dumps({"best": {}, "epochs": 3, "drawn": drawn} | found))
        np.savez_compressed(
            folder / "predictions" / "test.npz", probability=probability, target=TARGET, clean=keep["test_clean"]
        )
        rows = [{"epoch": e, "train_seconds": 2.0, "eval_seconds": 0.5} for e in (1, 2, 3)]
        (folder / "times.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs.write_status(folder, status, "ValueError: why" if status == "FAILED" else None)
    return folder
