"""The audit: faults of every kind, planted in a folder of pictures, are found; a sound folder raises no alarm."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from composing import composed
from PIL import Image

from emoexp import cli
from emoexp.auditing import audit
from emoexp.auditing.findings import KINDS
from emoexp.config import checks, schema
from emoexp.training import run as training

pytestmark = pytest.mark.usefixtures("blank_figures")

CLASSES = ("angry", "happy", "sad")
PARTS = {"train": 30, "val": 12, "test": 12}


def picture(number: int, side: int = 40) -> np.ndarray:
    """A picture of its own: smooth blotches that no other number has, uint8."""
    coarse = np.random.default_rng(number).integers(20, 235, (7, 7)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def save(root: Path, name: str, pixels: np.ndarray | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pixels, bytes):
        path.write_bytes(pixels)
    else:
        Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """Pictures of people of whom nobody stands in two parts; label and picture have nothing to do with each other."""
    root, number = tmp_path_factory.mktemp("sound"), 0
    for part, size in PARTS.items():
        for k in range(size * len(CLASSES)):
            number += 1
            letters = "".join("abcdefghij"[int(digit)] for digit in str(number))
            save(root, f"{part}/{CLASSES[k % 3]}/{letters}_{k % 2}.png", picture(number))
    return root


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    shutil.copytree(sound, tmp_path / "images")
    return tmp_path / "images"


def plain(root: Path, base: Path, *words: str) -> schema.Node:
    told = [f"data.root={root}", f"outputs={base / 'outputs'}", f"cache={base / 'cache'}", "tracking=none", "threads=1"]
    size = "image_size=40"
    return checks.plain(composed("data=folder", *told, size, *words, name="audit"))


def audited(root: Path, base: Path, *words: str) -> dict:
    """What an audit's JSON says."""
    failed = audit.audit(plain(root, base, *words))
    (place,) = (base / "outputs").glob("audit-*")
    found = json.loads((place / "report" / "audit.json").read_text())
    return found | {"failed": failed, "folder": place}


def counts(found: dict) -> dict[str, int]:
    return {kind: row["count"] for kind, row in found["findings"].items() if row["count"]}


IDENTITY = r"data.identity='^([a-j]+)_'"


def test_sound_data_raise_no_alarm(sound, tmp_path):
    found = audited(sound, tmp_path, IDENTITY, f"audit.fail_on=[{','.join(kind for kind in KINDS if kind != 'few')}]")
    assert counts(found) == {"few": 3} and found["failed"] == []  # twelve test images of a class are few
    assert found["numbers"]["leaks"]["test"]["n"] == 36 and found["numbers"]["ratio"] == 1


def original(root: Path, part: str, label: str, index: int = 0) -> tuple[Path, np.ndarray]:
    path = sorted((root / part / label).iterdir())[index]
    return path, np.asarray(Image.open(path))


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


NEAR = {
    "shifted": lambda pixels: np.pad(pixels, ((2, 0), (0, 3)), mode="edge")[:-2, 3:],
    "mirrored": lambda pixels: pixels[:, ::-1],
    "brightened": lambda pixels: np.clip(pixels.astype(float) * 1.1 + 20, 0, 255).astype(np.uint8),
    "re-encoded": lambda pixels: jpeg(pixels, 40),
    "resized": lambda pixels: np.asarray(Image.fromarray(pixels).resize((25, 25)).resize((40, 40))),
}


@pytest.mark.parametrize("kind", NEAR)
def test_a_near_duplicate_across_parts_is_found(folder, tmp_path, kind):
    _, pixels = original(folder, "train", "angry")
    save(folder, "test/angry/planted_9.png", NEAR[kind](pixels))
    found = audited(folder, tmp_path, IDENTITY, "audit.fail_on=[near_leaks,leaks]")
    assert counts(found) == {"near_leaks": 1, "near_duplicates": 1, "few": 3} and found["failed"] == ["near_leaks"]
    assert found["numbers"]["leaks"]["test"]["per_class"]["near"] == [1, 0, 0]


def test_the_same_picture_in_two_parts_is_found_by_its_pixels(folder, tmp_path):
    _path, pixels = original(folder, "val", "sad")
    Image.fromarray(pixels).save(folder / "test" / "sad" / "planted_9.bmp")  # other bytes, the same pixels
    found = audited(folder, tmp_path, "audit.fail_on=[leaks]")
    assert counts(found) == {"leaks": 1, "duplicates": 1, "few": 3} and found["failed"] == ["leaks"]
    assert found["numbers"]["leaks"]["test"]["per_class"]["exact"] == [0, 0, 1]


def test_one_picture_with_two_labels_is_found(folder, tmp_path):
    _path, pixels = original(folder, "train", "angry", 3)
    Image.fromarray(pixels).save(folder / "train" / "happy" / "planted_9.png")
    _, other = original(folder, "train", "angry", 4)
    Image.fromarray(NEAR["mirrored"](other)).save(folder / "train" / "sad" / "mirror_9.png")
    found = audited(folder, tmp_path)
    assert counts(found) == {"conflicts": 2, "duplicates": 1, "near_duplicates": 1, "few": 3}
    labels = sorted(row["labels"] for row in found["numbers"]["conflicts"])
    assert labels == ["angry, happy", "angry, sad"] and (found["folder"] / "figures" / "conflicts.png").is_file()


def test_a_person_in_two_parts_is_found(folder, tmp_path):
    path, _ = original(folder, "train", "happy")
    person = path.stem.partition("_")[0]
    save(folder, f"test/sad/{person}_7.png", picture(10_001))
    found = audited(folder, tmp_path, IDENTITY)
    assert found["findings"]["people"]["count"] == 1 and found["numbers"]["people"]["in_several_parts"] == 1
    assert found["numbers"]["leaks"]["test"]["per_class"]["person"] == [0, 0, 1]


def test_frames_of_a_video_across_parts_are_found(folder, tmp_path):
    start, end = picture(20_001).astype(float), picture(20_002).astype(float)
    for k in range(40):
        pixels = (start + (end - start) * k / 39).astype(np.uint8)
        save(folder, f"{'test' if k % 8 == 7 else 'train'}/happy/clip_{k:04d}.png", pixels)
    found = audited(folder, tmp_path)
    assert found["numbers"]["frames"]["verdict"] == "frames"


def test_pictures_that_stand_out_are_found(folder, tmp_path):
    save(folder, "train/angry/blank_1.png", np.full((40, 40), 77, np.uint8))
    save(folder, "train/angry/small_1.png", picture(30_001, 12))
    save(folder, "train/happy/long_1.png", np.hstack([picture(30_002), picture(30_003), picture(30_004)]))
    save(folder, "test/happy/broken_1.png", b"\x89PNG\r\n\x1a\n nothing more")
    found = audited(folder, tmp_path)
    seen = counts(found)
    assert {kind: seen[kind] for kind in ("blank", "small", "shapes", "sizes", "unreadable")} == {
        "blank": 1, "small": 1, "shapes": 1, "sizes": 2, "unreadable": 1,
    }  # fmt: skip
    assert found["numbers"]["left_out"][0]["file"] == "test/happy/broken_1.png"
    assert "not 40x40" in {row["what"] for row in found["numbers"]["standouts"]}


def test_a_class_that_betrays_itself_by_its_source_is_found(folder, tmp_path):
    for path in folder.glob("*/angry/*.png"):
        Image.open(path).convert("RGB").save(path)
    found = audited(folder, tmp_path)
    rows = {row["feature"]: row for row in found["numbers"]["confounds"]}
    assert rows["colour mode"]["verdict"] == "predicts" and rows["colour mode"]["gives_away"] == "angry"
    assert rows["brightness"]["verdict"] == "does not" and counts(found)["confounds"] >= 1


def test_wrong_labels_are_found_in_what_folds_predicted(folder, tmp_path):
    rng, names, target, truth = np.random.default_rng(0), [], [], []
    for path in sorted(folder.rglob("*.png")):
        names.append(path.relative_to(folder).as_posix())
        truth.append(CLASSES.index(path.parent.name))
    target = np.array(truth)
    wrong = rng.choice(len(target), 6, replace=False)
    said = target.copy()
    said[wrong] = (target[wrong] + 1) % 3  # the model sees another class than the folder says
    probability = np.full((len(said), 3), 0.05)
    probability[np.arange(len(said)), said] = 0.9
    (tmp_path / "runs" / "one" / "predictions").mkdir(parents=True)
    keep = {"probability": probability.astype(np.float32), "names": np.array(names)}
    keep |= {"class_names": np.array(CLASSES), "target": target}
    np.savez(tmp_path / "runs" / "one" / "predictions" / "test.npz", **keep)
    found = audited(folder, tmp_path, f"audit.runs={tmp_path / 'runs'}/*")
    suspected = {row["image"] for row in found["numbers"]["suspects"]}
    assert suspected == {names[k] for k in wrong} and found["numbers"]["predicted"] == len(names)
    assert all(row["rather"] != row["label"] for row in found["numbers"]["suspects"])
    with pytest.raises(ValueError, match=r"audit\.runs=.*finds no folder"):
        audited(folder, tmp_path, f"audit.runs={tmp_path}/nowhere*")


def test_the_pages_are_whole(sound, tmp_path):
    found = audited(sound, tmp_path, IDENTITY)
    page = (found["folder"] / "report" / "audit.html").read_text()
    text = (found["folder"] / "report" / "audit.md").read_text()
    for heading in ("Findings", "Classes", "Leaks between parts", "Duplicates", "People", "Source confounds", "Faces"):
        assert f">{heading}</h2>" in page and f"## {heading}" in text
    linked = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert linked and all((found["folder"] / "report" / link).resolve().is_file() for link in linked)
    assert page.count("data:image/png;base64,") == len(linked) and "http" not in page.replace("<!doctype html>", "")
    for name in ("findings", "counts", "expected", "leaks_test", "duplicates", "confounds"):
        assert (found["folder"] / "tables" / f"{name}.csv").is_file()
    assert json.loads((found["folder"] / "status.json").read_text())["status"] == "FINISHED"
    again = audited(sound, tmp_path, IDENTITY)
    assert again["folder"] == found["folder"] and again["findings"] == found["findings"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["audit.fail_on=[leeks]"], "did you mean leaks"),
        (["audit.fail_on=leaks"], "is a list such as"),
        (["audit.pictures=0"], "at least 1"),
        (["data.root=/nowhere/at/all"], "finds nothing"),
    ],
)
def test_bad_options_are_named(sound, tmp_path, words, why):
    with pytest.raises(ValueError, match=why):
        audited(sound, tmp_path, *words)


def test_runs_know_what_an_audit_found(folder, tmp_path):
    _, pixels = original(folder, "train", "angry")
    save(folder, "test/angry/planted_9.png", NEAR["mirrored"](pixels))
    told = ["data=folder", f"data.root={folder}", f"outputs={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}"]
    small = ["image_size=40", "epochs=1", "architecture=shallow_cnn", "architecture.width=2", "architecture.dense=4"]

    def leaks_of(*words: str) -> dict:
        composition = composed(*told, *small, "tracking=none", "threads=1", *words)
        experiment, place = checks.checked(composition)
        training.train(experiment, place)
        newest = max((tmp_path / "outputs").glob(f"{folder.name}-*"), key=lambda path: path.stat().st_mtime)
        return json.loads((newest / "leaks.json").read_text())

    before = leaks_of()
    assert not before["near_searched"] and "near" not in before["parts"]["test"]
    audited(folder, tmp_path)
    after = leaks_of("seed=1")
    assert after["near_searched"] and after["parts"]["test"]["near"] == 1
    assert leaks_of("data.leaks=drop")["parts"]["test"]["near"] == 0
    with pytest.raises(ValueError, match=r"data\.leaks=refuse"):
        leaks_of("data.leaks=refuse")


def test_help_names_the_findings(capsys):
    text = cli.help_text("audit")
    assert "data=" in text and "split=" in text and all(kind in text for kind in KINDS)


@pytest.mark.slow
def test_the_command_ends_with_its_exit_code(folder, tmp_path):
    _path, pixels = original(folder, "val", "sad")
    Image.fromarray(pixels).save(folder / "test" / "sad" / "planted_9.bmp")
    words = ["data=folder", f"data.root={folder}", "image_size=40", f"cache={tmp_path / 'cache'}", "threads=1"]

    def run(*more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "emoexp.audit", *words, *more], cwd=tmp_path, capture_output=True, text=True
        )

    assert run("audit.fail_on=[people]").returncode == 0
    failed = run("audit.fail_on=[leaks,conflicts]")
    assert failed.returncode == 3 and "audit.fail_on: leaks" in failed.stdout and "conflicts" not in failed.stdout[-80:]
    wrong = run("audit.fail_on=[leeks]")
    assert wrong.returncode == 1 and "did you mean leaks" in wrong.stderr and "Traceback" not in wrong.stderr
    assert (tmp_path / "mlflow.db").is_file()
