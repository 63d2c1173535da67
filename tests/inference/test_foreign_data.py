"""Other people's images: all of a set without parts is judged, its test part where it has one, and it is said which."""

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from composing import TINY, checked
from PIL import Image
from test_evaluate import asked

from emoexp.inference import evaluate, predict_images
from emoexp.training import run as training

pytestmark = pytest.mark.usefixtures("blank_figures")
NAMES = ("happy", "sad")


def made(root: Path, *folders: str, each: int = 12, seed: int = 0, colour: bool = False) -> Path:
    rng = np.random.default_rng(seed)
    for name in folders:
        (root / name).mkdir(parents=True)
        for number in range(each):
            shape = (20, 16, 3) if colour else (20, 16)
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """The images that the run is trained on."""
    return made(tmp_path_factory.mktemp("own") / "set", *NAMES)


@pytest.fixture(scope="module")
def run(own, tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("run")
    usual = [word for word in TINY if not word.startswith("data.")]
    words = [*usual, "data=folder", f"data.root={own}", f"outputs={base}/outputs", f"cache={base}/cache", "epochs=1"]
    training.train(*checked(*words))
    return next((base / "outputs").iterdir())


def judged(run: Path, root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict, str]:
    capsys.readouterr()
    found = evaluate.evaluate(asked("evaluate", run, "data=folder", f"data.root={root}", *words))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("judge ")]
    return found, line


def test_its_own_data_keep_their_own_test_part(run, own, capsys):
    found, line = judged(run, own, capsys)
    assert found["test"]["n"] == found["test_clean"]["n"] == 6
    assert line == "judge  the test part, 6 of 24 images of the run's own data"


def test_all_of_a_set_without_parts_is_judged(run, tmp_path, capsys):
    """A quarter was judged, cut anew by the run's split, without a word."""
    found, line = judged(run, made(tmp_path / "other", *NAMES, each=18, seed=1), capsys)
    assert found["all"]["n"] == 36
    assert line == "judge  all 36 images of other data than the run's, which have no parts"


def test_the_test_part_of_a_set_with_parts_is_judged(run, tmp_path, capsys):
    folders = [f"{part}/{name}" for part in ("train", "test") for name in NAMES]
    found, line = judged(run, made(tmp_path / "other", *folders, each=5, seed=2), capsys)
    assert found["test"]["n"] == 10
    assert line == "judge  the test part, 10 of 20 images of other data than the run's"


def test_a_part_that_is_asked_for_is_judged_and_said(run, tmp_path, capsys):
    other = made(tmp_path / "other", *NAMES, each=18, seed=1)
    found, line = judged(run, other, capsys, "part=test")
    n = found["test"]["n"]
    assert line == f"judge  the test part, {n} of 36 images of other data than the run's, cut by the run's split"
    assert judged(run, other, capsys, "part=all")[0]["all"]["n"] == 36


def test_the_same_images_elsewhere_are_its_own(run, own, tmp_path, capsys):
    copied = made(tmp_path / "moved", *NAMES)
    assert "the run's own data" in judged(run, copied, capsys)[1]


# ---- predict


def table(path: Path, columns: str, rows: list[list[str]], separator: str = ",", encoding: str = "utf-8") -> Path:
    lines = [columns.replace(",", separator), *(separator.join(row) for row in rows)]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def pixels(value: int) -> str:
    return " ".join([str(value)] * 48 * 48)


def predicted(run: Path, tmp_path: Path, images: Path, *words: str) -> list[dict]:
    return predict_images.predict(asked("predict", run, f"images={images}", f"out={tmp_path / 'out.csv'}", *words))


@pytest.mark.parametrize("packed", [False, True])
def test_a_table_of_pixels_is_predicted(run, tmp_path, packed):
    path = table(tmp_path / "test.csv", "pixels", [[pixels(10)], [pixels(200)]])
    if packed:
        data, path = path.read_bytes(), tmp_path / "test.csv.gz"
        path.write_bytes(gzip.compress(data))
    rows = predicted(run, tmp_path, path)
    assert [row["image"] for row in rows] == [f"{path}:2", f"{path}:3"]
    picture = tmp_path / "grey.png"
    Image.fromarray(np.full((48, 48), 200, np.uint8)).save(picture)
    assert predicted(run, tmp_path, picture)[0]["confidence"] == rows[1]["confidence"]


def test_a_table_without_pixels_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"test\.csv:1: no column pixels in the header \(a, b\)"):
        predicted(run, tmp_path, table(tmp_path / "test.csv", "a,b", [["1", "2"]]))
    with pytest.raises(ValueError, match=r"test\.csv:2: 1 pixel values, expected 2304"):
        predicted(run, tmp_path, table(tmp_path / "test.csv", "pixels", [["7"]]))


def test_folders_are_walked_as_training_walks_them(run, tmp_path):
    root = made(tmp_path / "photos", "a", each=2)
    for stray in ("a/._0.png", "__MACOSX/0.png", ".ipynb_checkpoints/0.png"):
        (root / stray).parent.mkdir(exist_ok=True)
        (root / stray).write_bytes(b"no picture")
    os.rename(os.fsencode(root / "a" / "1.png"), os.fsencode(root / "a") + b"/\xe9.png")
    rows = predicted(run, tmp_path, root)
    assert [row["image"] for row in rows] == [f"{root}/a/0.png", f"{root}/a/\\xe9.png"]
    written = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert [line["image"] for line in csv.DictReader(written)] == [row["image"] for row in rows]


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device"])
def test_what_never_ends_is_refused_at_once(run, tmp_path, kind):
    root = made(tmp_path / "photos", "a", each=1)
    if kind == "pipe":
        os.mkfifo(root / "a" / "x.png")
        assert len(predicted(run, tmp_path, root)) == 1
        with pytest.raises(ValueError, match="neither a file nor a folder"):
            predicted(run, tmp_path, root / "a" / "x.png")
    elif kind == "device":
        with pytest.raises(ValueError, match="neither a file nor a folder"):
            predicted(run, tmp_path, Path("/dev/zero"))
    else:
        (root / "a" / "x.png").symlink_to("/dev/zero")
        with pytest.raises(ValueError, match=r"links.*a/x\.png"):
            predicted(run, tmp_path, root)
        assert len(predicted(run, tmp_path, root, "follow_links=true")) == 1


def test_colours_and_sizes_are_told(run, tmp_path, capsys):
    root = made(tmp_path / "photos", "a", each=3, colour=True)
    capsys.readouterr()
    predicted(run, tmp_path, root)
    said = capsys.readouterr().out
    assert "3 of 3 images are in colour and are read in grey; channels=3" in said
    assert "3 of 3 images are not square" in said
