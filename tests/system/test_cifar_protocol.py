"""The long-tailed CIFAR-10 protocol end to end, on ten classes of tiny pictures in the layout that it asks for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from composing import checked
from PIL import Image

from emoexp.config import build_data, build_training, options
from emoexp.inference import results
from emoexp.runs import checkpoint
from emoexp.training import conclude, run

pytestmark = pytest.mark.usefixtures("blank_figures")

QUICK = ["ldam_drw", "mislas", "remix_drw"]  # the others are marked slow
ROWS = [row if row in QUICK else pytest.param(row, marks=pytest.mark.slow) for row in options.listed("imbalance")]
RESTARTED = {"crt", "lws", "mislas"}  # whose second stage has the learning rate's schedule for itself
NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()
TRAIN, TEST, FACTOR = 60, 20, 20.0
COUNTS = [60, 43, 30, 22, 15, 11, 8, 5, 4, 3]  # int(60 * 20^(-i/9)), i = 0..9, by hand
NARROW = [
    "architecture.depth=8",
    "epochs=3",
    "batch_size=32",
    f"data.long_tail.factor={FACTOR}",
    "scheduler.warmup=0.667",  # two epochs
    "tracking=none",
    "device=cpu",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """<part>/<class>/<number>.png, 32x32 in colour: noise, and a bright bar whose height and colour tell the class."""
    root, random = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for part, number in (("train", TRAIN), ("test", TEST)):
        for c, name in enumerate(NAMES):
            (root / part / name).mkdir(parents=True)
            for k in range(number):
                pixels = random.integers(0, 120, (32, 32, 3)).astype(np.uint8)
                pixels[3 * c : 3 * c + 4, :, c % 3] = 250
                Image.fromarray(pixels).save(root / part / name / f"{k:04d}.png")
    return root


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """They take most of such a run's time, and are drawn elsewhere."""
    monkeypatch.setattr(results, "write", lambda *ignored: None)
    monkeypatch.setattr(conclude, "draw", lambda *ignored: None)


def asked(pictures: Path, base: Path, *words: str):
    """The experiment as its header says, in seconds."""
    places = [f"data.root={pictures}", f"outputs={base / 'outputs'}", f"cache={base / 'cache'}"]
    return checked("experiment=cifar10_lt", *NARROW, *places, *words)


def test_the_recipe_is_the_published_one():
    experiment = checked("experiment=cifar10_lt")[0]
    node = experiment.optimizer
    assert (node.lr, node.momentum, node.nesterov, node.weight_decay) == (0.1, 0.9, False, 2e-4)
    assert (experiment.epochs, experiment.batch_size, experiment.image_size, experiment.channels) == (200, 128, 32, 3)
    assert (experiment.monitor, experiment.patience, experiment.clip_norm) == ("epoch", None, None)
    tail = {"profile": "exponential", "factor": 100.0, "seed": 0}
    assert experiment.data.long_tail.plain() == tail and experiment.split.val_from == "test"
    schedule = [experiment.scheduler.build()(epoch, 200, []) for epoch in range(200)]
    assert schedule[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and set(schedule[4:160]) == {1.0}
    assert set(schedule[160:180]) == {0.01} and set(schedule[180:]) == {0.0001}


def test_one_group_of_parameters_decays_and_the_network_is_resnet32(pictures, tmp_path):
    experiment, place = asked(pictures, tmp_path, "architecture.depth=32")
    data = build_data.load_data(experiment, place)
    state = build_training.initial_state(experiment, data, torch.device("cpu"))
    (group,) = state.optimizer.param_groups
    assert group["weight_decay"] == 2e-4 and sum(p.numel() for p in group["params"]) == 464_154


@pytest.mark.parametrize("row", ROWS)
def test_a_row_runs_by_the_protocol(row, pictures, tmp_path):
    run.train(*asked(pictures, tmp_path, f"imbalance={row}"))
    (folder,) = (tmp_path / "outputs").iterdir()
    assert f"{pictures.name}-resnet32-relu-{row}-s0-" in folder.name
    ledger = json.loads((folder / "ledger.json").read_text())
    assert [line["images"] for line in ledger["classes"]] == COUNTS
    made = json.loads((folder / "manifest.json").read_text())
    assert made["data"]["counts"] == {"train": COUNTS, "val": [2] * 10, "test": [18] * 10}
    assert made["data"]["classes"] == NAMES and f"training keeps {sum(COUNTS)} of 600" in made["tags"]["data_notes"]

    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    metrics, best = json.loads((folder / "metrics.json").read_text()), checkpoint.load(folder / "best.pt")
    assert len(history) == metrics["epochs"] == metrics["best"]["epoch"] == best["epoch"] == 3
    last = checkpoint.load(folder / "last.pt")["model"]
    assert all(torch.equal(best["model"][name], value) for name, value in last.items())
    assert metrics["test"]["n"] == 180 and metrics["val"]["n"] == 20
    rates = [line["train/lr"] for line in history]  # of an epoch's last step
    expected = [0.075, 1e-5, 1e-3] if row in RESTARTED else [0.05, 0.1, 1e-5]
    assert rates == pytest.approx(expected, rel=1e-3)
    assert np.isfinite([value for line in history for value in line.values()]).all()


def test_the_last_epoch_counts_however_bad_it_is(pictures, tmp_path):
    """A rate that ruins the network at the end: the best epoch by validation would be another one."""
    words = ["scheduler.at=[0.6]", "scheduler.factors=[30.0]", "epochs=4"]
    run.train(*asked(pictures, tmp_path, *words))
    (folder,) = (tmp_path / "outputs").iterdir()
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert max(history, key=lambda line: line["val/macro_f1"])["epoch"] < 4
    assert json.loads((folder / "metrics.json").read_text())["best"]["epoch"] == 4
