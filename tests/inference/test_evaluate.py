"""A trained model on other images: judged by name of class, asked without labels."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from composing import composed, tiny
from PIL import Image

from emoexp.config import checks
from emoexp.config.schema import Node
from emoexp.inference import evaluate, predict_images
from emoexp.training import run as training

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run on drawn faces."""
    base = tmp_path_factory.mktemp("run")
    training.train(*tiny(base))
    return next((base / "outputs").iterdir())


def asked(name: str, run: Path, *overrides: str) -> Node:
    places = [f"run={run}", f"cache={run.parents[1] / 'cache'}"]
    return checks.plain(composed(*places, *overrides, name=name))


TINY_FACES = ("data=faces", "data.size=420", "data.test_per_class=12")


def test_evaluating_its_own_test_part_gives_the_same_metrics(run):
    found = evaluate.evaluate(asked("evaluate", run, *TINY_FACES, "part=test"))
    there = json.loads((run / "metrics.json").read_text())
    for key in ("accuracy", "macro_f1", "confusion", "per_class", "interval"):
        assert found["test"][key] == there["test"][key]
    assert found["test_clean"]["n"] == there["test_clean"]["n"]
    kept = next((run / "evaluations").glob("faces-test-*"))
    assert {"metrics.json", "figures", "predictions", "tables"} <= {path.name for path in kept.iterdir()}


def test_nothing_is_clean_that_the_model_was_trained_on(run):
    assert evaluate.evaluate(asked("evaluate", run, *TINY_FACES, "part=train"))["train_clean"] == {"n": 0}


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of classes, named and ordered otherwise than the model's."""
    random = np.random.default_rng(0)
    for name, count in {"surprise": 3, "HAPPY": 2, "joy": 4}.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        for k in range(count):
            pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{k}.png")
    return tmp_path / "set"


def test_classes_are_matched_by_name(run, pictures):
    plain = asked("evaluate", run, "data=folder", f"data.root={pictures}", "part=all", "classes={joy: happy}")
    found = evaluate.evaluate(plain)["all"]
    assert {name: values["n"] for name, values in found["per_class"].items() if values["n"]} == {
        "happy": 6,
        "surprise": 3,
    }
    assert set(found["absent"]) == {"angry", "disgust", "fear", "sad", "neutral"}


def test_a_class_that_the_model_does_not_know_is_named(run, pictures):
    with pytest.raises(ValueError, match=r"not know the classes joy; it knows angry, .*\{joy: angry\}"):
        evaluate.evaluate(asked("evaluate", run, "data=folder", f"data.root={pictures}", "part=all"))


def test_a_run_that_is_not_there_names_its_neighbours(run):
    with pytest.raises(ValueError, match=f"holds no best.pt; run folders beside it: {run.name}"):
        evaluate.evaluate(asked("evaluate", run.parent / "nothing", "data=faces"))


def test_what_has_to_be_given_is_named():
    with pytest.raises(ValueError, match="images has to be given: images="):
        checks.plain(composed("run=x", name="predict"))


def test_an_unknown_part_is_named(run):
    with pytest.raises(ValueError, match="or null for what suits the data; it is exam"):
        evaluate.evaluate(asked("evaluate", run, "data=faces", "part=exam"))


def test_predictions_are_probabilities_of_each_image(run, pictures, tmp_path):
    out = tmp_path / "table.csv"
    rows = predict_images.predict(asked("predict", run, f"images={pictures}", f"out={out}"))
    assert len(rows) == 9 and rows[0]["image"].endswith("HAPPY/0.png")
    names = [key for key in rows[0] if key not in ("image", "predicted", "confidence")]
    assert names == ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    for row in rows:
        assert sum(row[name] for name in names) == pytest.approx(1, abs=1e-3)
        assert row["confidence"] == max(row[name] for name in names) == row[row["predicted"]]
    assert [line["predicted"] for line in csv.DictReader(out.read_text().splitlines())] == [
        row["predicted"] for row in rows
    ]


def test_predictions_do_not_depend_on_the_company(run, pictures, tmp_path):
    one = asked("predict", run, f"images={pictures / 'joy' / '1.png'}", f"out={tmp_path / 'a.csv'}")
    many = asked("predict", run, f"images={pictures / 'joy'}", f"out={tmp_path / 'b.csv'}")
    assert predict_images.predict(one)[0] == predict_images.predict(many)[1]


def test_unreadable_images_are_listed_or_left_out(run, pictures, tmp_path):
    (pictures / "joy" / "9.png").write_bytes(b"<html>")
    plain = asked("predict", run, f"images={pictures}", f"out={tmp_path / 'a.csv'}")
    with pytest.raises(ValueError, match=r"9\.png"):
        predict_images.predict(plain)
    assert len(predict_images.predict(plain | {"on_corrupt": "drop"})) == 9


@pytest.mark.parametrize(("images", "told"), [("nowhere", "no such file or folder"), ("empty", "no images in it")])
def test_wrong_paths_are_named(run, tmp_path, images, told):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=told):
        predict_images.predict(asked("predict", run, f"images={tmp_path / images}"))
