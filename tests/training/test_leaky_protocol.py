"""The one breach of split-first: possible in one experiment alone, and marked in everything that it leaves."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from composing import TINY, checked
from PIL import Image

from emoexp import figures
from emoexp.config import build_data, build_strategy, naming
from emoexp.inference import evaluate
from emoexp.runs import checkpoint
from emoexp.training import leaky_protocol, run

pytestmark = pytest.mark.usefixtures("blank_figures")

RARE = 6


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two common classes and a rare one, as folders; the pictures are blobs whose place says the class."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name, number in (("happy", 60), ("neutral", 60), ("contempt", RARE)):
        (root / name).mkdir()
        for k in range(number):
            pixels = rng.integers(60, 120, (20, 20)).astype(np.uint8)
            place = {"happy": 2, "neutral": 8, "contempt": 14}[name]
            pixels[place : place + 4, 4:16] = 220
            Image.fromarray(pixels).save(root / name / f"{k}.png")
    return root


def plan(photographs, base, *words):
    """The pared-down experiment on these pictures, in seconds."""
    tiny = [word for word in TINY if not word.startswith(("data.", "architecture.", "activation"))]
    return checked(
        "experiment=pared_down_vgg",
        "data=folder",
        f"data.root={photographs}",
        *tiny,
        "architecture={width: 2, dense: 8}",
        *([] if "imbalance/copies=none" in words else ["imbalance.copies.least=30"]),
        f"outputs={base / 'outputs'}",
        f"cache={base / 'cache'}",
        *words,
    )


def test_copies_cross_parts_only_where_the_protocol_is_leaky(photographs, tmp_path):
    rare = 0  # contempt comes first
    data = build_data.load_data(*plan(photographs, tmp_path, "protocol=leaky"))
    assert data.leaky and data.counts("train")[rare] + data.counts("val")[rare] + data.counts("test")[rare] == 30
    test, train = data.where("test"), data.where("train")
    shared = np.isin(data.digest[test], data.digest[train])
    assert shared.any() and (data.labels[test][shared] == rare).all()
    assert (~data.clean("test")[shared]).all() and data.fingerprint["seen_before"]["test"] >= shared.sum()
    names = {str(name) for name in data.names if "#copy" in str(name)}
    assert len(names) == 30 - RARE and all(name.startswith("contempt/") for name in names)
    pixels = {image.tobytes() for image in data.images}
    assert len(pixels) == len(data.images)  # a copy looks different
    plan_of = build_strategy.build_strategy(plan(photographs, tmp_path, "protocol=leaky")[0], data)
    assert int((plan_of.copy_P > 0).sum()) == 0  # none is made a second time

    clean = build_data.load_data(*plan(photographs, tmp_path))
    assert not clean.leaky and len(clean.labels) == 120 + RARE and clean.clean("test").all()
    strategy = build_strategy.build_strategy(plan(photographs, tmp_path)[0], clean)
    assert strategy.count_C[rare] == 30 and clean.fingerprint["images"] == data.fingerprint["images"]


@pytest.mark.parametrize(
    "words",
    [
        ["protocol=leaky"],
        ["experiment=fer2013", "protocol=leaky"],
        ["experiment=emotion_cnn_reference", "protocol=leaky"],
        ["protocol=leaky", "data=facial_expressions", "imbalance/copies=floor"],
    ],
)
def test_no_other_experiment_may_leak(words):
    with pytest.raises(ValueError, match=r"only experiment=pared_down_vgg"):
        checked(*words)


def test_other_words_for_a_protocol_are_refused():
    with pytest.raises(ValueError, match="protocol is one of clean, leaky; it is dirty"):
        checked("protocol=dirty")


@pytest.mark.parametrize(
    ("words", "why"),
    [(["imbalance/copies=none"], "makes no copies"), (["split=official"], "split=stratified, not split=official")],
)
def test_what_would_not_leak_is_refused(photographs, tmp_path, words, why):
    with pytest.raises(ValueError, match=why):
        build_data.load_data(*plan(photographs, tmp_path, "protocol=leaky", *words))


def test_every_output_of_a_leaky_run_says_so(photographs, tmp_path, monkeypatch):
    titles = []
    for name in ("confusion", "precision_recall", "mistakes", "training", "ledger"):
        real = getattr(figures, name)

        def spy(*args, real=real, **keys):
            titles.append(next((str(a) for a in (*args, *keys.values()) if leaky_protocol.MARK in str(a)), None))
            return real(*args, **keys)

        monkeypatch.setattr(figures, name, spy)
    experiment, place = plan(photographs, tmp_path, "protocol=leaky")
    run.train(experiment, place)
    (folder,) = (tmp_path / "outputs").iterdir()
    content = json.loads((folder / "manifest.json").read_text())["data"]["images"][:12]
    named = dataclasses.replace(experiment, data=experiment.data.identified(content))
    assert "-leaky-" in folder.name and naming.name(named) == folder.name
    assert len(titles) >= 8 and all(titles)  # ledger, training, and three of each part
    found = json.loads((folder / "metrics.json").read_text())
    assert {found[part]["protocol"] for part in ("val", "test", "val_clean", "test_clean")} == {"leaky"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["tags"]["protocol"] == leaky_protocol.MARK and manifest["params"]["protocol"] == "leaky"
    assert leaky_protocol.MARK in manifest["tags"]["data_notes"]
    assert "have the pixels of an image in an earlier part" in manifest["tags"]["leaks"]
    for part in ("val", "test"):
        rows = list(csv.DictReader((folder / "tables" / f"{part}_per_class.csv").read_text().splitlines()))
        assert {row["protocol"] for row in rows} == {leaky_protocol.MARK}
        assert str(np.load(folder / "predictions" / f"{part}.npz")["protocol"]) == leaky_protocol.MARK
    assert (folder / "run.log").read_text().count(leaky_protocol.MARK) >= 4
    assert checkpoint.load(folder / "best.pt")["model_spec"]["protocol"] == "leaky"
    plain = {
        "run": str(folder),
        "device": "cpu",
        "threads": 1,
        "cache": None,
        "allow": [],
        "part": "test",
        "classes": None,
    }
    judged = evaluate.evaluate(plain | {"data": experiment.data, "split": experiment.split})
    assert judged["test"]["protocol"] == "leaky"


def test_a_clean_run_says_nothing_of_it(photographs, tmp_path):
    run.train(*plan(photographs, tmp_path))
    (folder,) = (tmp_path / "outputs").iterdir()
    assert "leaky" not in folder.name and "LEAKY" not in (folder / "run.log").read_text()
    assert "protocol" not in json.loads((folder / "metrics.json").read_text())["test"]
    assert "protocol" not in json.loads((folder / "manifest.json").read_text())["tags"]


def test_a_leaky_run_is_the_same_twice_and_never_the_clean_one(photographs, tmp_path):
    words = [plan(photographs, tmp_path, f"protocol={name}")[0] for name in ("clean", "leaky")]
    assert naming.name(words[0]) != naming.name(words[1])
    first, again = (build_data.load_data(*plan(photographs, tmp_path / k, "protocol=leaky")) for k in "ab")
    assert first.fingerprint == again.fingerprint and first.images.tobytes() == again.images.tobytes()
    other = build_data.load_data(*plan(photographs, tmp_path, "protocol=leaky", "seed=5"))
    assert other.fingerprint["content"] != first.fingerprint["content"]  # the split goes with the seed
