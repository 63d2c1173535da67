"""A run's folder is read by a schema: of over a thousand alterations each is refused in one line, or harmless."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from composing import composed, tiny

from emoexp import sync
from emoexp.config import checks
from emoexp.inference import evaluate
from emoexp.reporting import collect
from emoexp.reporting.soundness import damage
from emoexp.runs import files, run_schema
from emoexp.runs.records import RunFolder, read_predictions
from emoexp.tracking import Settings
from emoexp.tracking import record as tracking_record
from emoexp.training import run as training

pytestmark = pytest.mark.usefixtures("blank_figures")

ODD = (None, -1, 99, 10**30, 5.5, "x", [], {}, True, [1, "x"], {"x": 1})
RAW = (b"", b"null", b"[]", b'"x"', b"7", b"{", b'{"a": NaN}', b'{"a": 1e999}', b"[" * 100_000, b"\xff\xfe", b"{}x")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("finished")
    training.train(*tiny(base, "epochs=2"))
    return next((base / "outputs").iterdir())


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "outputs" / finished.name))


def altered(content: Any) -> Iterator[Any]:
    """The content with one value at a time replaced by odd ones, or left out, to a depth of two."""
    for key in content if isinstance(content, dict) else ():
        for odd in ODD:
            if odd != content[key] or type(odd) is not type(content[key]):
                yield content | {key: odd}
        yield {other: value for other, value in content.items() if other != key}
        for inner in altered(content[key]) if key in ("test", "data") else ():
            yield content | {key: inner}


def readers(folder: Path) -> dict[str, Callable[[], Any]]:
    """What reads each file."""
    record = RunFolder(folder)
    return {
        "status.json": lambda: (record.is_finished, tracking_record.read(folder)),
        "manifest.json": lambda: (damage(record), tracking_record.read(folder)),
        "metrics.json": lambda: (damage(record), tracking_record.read(folder)),
        "history.jsonl": lambda: tracking_record.read(folder),
        "times.jsonl": lambda: (record.seconds, tracking_record.read(folder)),
        "seconds.json": lambda: files.read_json(folder / "seconds.json"),
        "sweeps.json": lambda: files.read_list(folder / "sweeps.json"),
        "predictions/test.npz": lambda: read_predictions(folder / "predictions" / "test.npz"),
        "seen.npy": lambda: files.read_digests(folder / "seen.npy"),
    }


def outcome(folder: Path, name: str) -> str | None:
    """What reading a file says; None where it is taken. Anything but a ValueError of one line fails the test."""
    try:
        readers(folder)[name]()
    except ValueError as error:
        message = str(error)
        assert "\n" not in message and Path(name).name in message, message
        return message
    return None


@pytest.mark.parametrize("name", ["status.json", "manifest.json", "metrics.json", "seconds.json"])
def test_a_value_of_another_kind_is_refused_or_harmless(folder, name):
    content = json.loads((folder / name).read_text())
    before = RunFolder(folder).metrics["test"]
    refused = taken = 0
    for changed in altered(content):
        (folder / name).write_text(json.dumps(changed))
        message = outcome(folder, name)
        why = message if message is not None or name == "seconds.json" else damage(RunFolder(folder))
        if why is None:
            taken += 1
            if name == "metrics.json":  # what a report shows is what it was
                after = RunFolder(folder).metrics["test"]
                for key in ("n", "accuracy", "macro_f1", "balanced_accuracy", "worst_recall", "confusion"):
                    assert after.get(key) in (before[key], None), (key, changed)
        else:
            refused += 1
    (folder / name).write_text(json.dumps(content))
    assert outcome(folder, name) is None and refused > 5, (refused, taken)


@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("name", ["status.json", "manifest.json", "metrics.json", "history.jsonl", "sweeps.json"])
def test_what_is_no_such_json_is_refused_with_the_file(folder, name, raw):
    line = raw + b"\n" if name.endswith("jsonl") and raw else raw
    (folder / name).write_bytes(line)
    fine = raw == b"[]" if name == "sweeps.json" else name == "history.jsonl" and raw == b""
    assert (outcome(folder, name) is None) == fine


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ('{"epoch": 2}', "line 1: epoch is 1; it is 2"),
        ('{"epoch": "0"}', "line 1: epoch is 1; it is 0"),
        ('{"epoch": 1}\n{"epoch": 1}', "line 2: epoch is 2; it is 1"),
        ('{"epoch": -1}', "it is -1"),
        ("3", "line 1 is a node of keys; it is 3"),
        ('{"epoch": 1, "val/loss": [1]}', "val/loss is a finite number"),
    ],
)
def test_a_history_counts_its_epochs(folder, rows, told):
    (folder / "history.jsonl").write_text(rows + "\n")
    assert told in (outcome(folder, "history.jsonl") or "")


@pytest.mark.parametrize(
    ("epochs", "fine"), [((1, 2), True), ((2,), True), ((1, 3), True), ((2, 1), False), ((1, 1), False)]
)
def test_times_may_have_gaps_and_no_way_back(folder, epochs, fine):
    rows = [{"epoch": epoch, "train_seconds": 1.0, "eval_seconds": 0.5} for epoch in epochs]
    (folder / "times.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (outcome(folder, "times.jsonl") is None) == fine


def test_predictions_are_probabilities_of_the_images_of_their_classes(folder):
    path = folder / "predictions" / "test.npz"
    arrays = dict(np.load(path))

    def said(**changed: Any) -> str:
        np.savez(path, **{key: value for key, value in (arrays | changed).items() if value is not None})
        return outcome(folder, "predictions/test.npz") or damage(RunFolder(folder)) or ""

    assert said() == ""
    probability, target = arrays["probability"], arrays["target"]
    assert "probability is missing" in said(probability=None) and "target is missing" in said(target=None)
    assert "for each image and class" in said(probability=probability[:, 0])
    assert "sums to 1" in said(probability=probability * 2) and "sums to 1" in said(probability=-probability)
    assert "sums to 1" in said(probability=np.full_like(probability, np.nan))
    assert "target has" in said(target=target[:-1]) and "target has" in said(target=target.astype(float))
    assert "target holds classes" in said(target=target + 90) and "target holds classes" in said(target=target - 90)
    assert "clean has" in said(clean=np.ones(3, bool)) and "names has" in said(names=np.arange(len(target)))
    assert "class_names has" in said(class_names=np.array(["a"]))
    assert "no file of plain arrays" in said(names=np.array([{}] * len(target), object))
    assert "another confusion" in said(target=(target + 1) % 7)
    assert "another confusion" in said(probability=np.roll(probability, 1, axis=1))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "no file of plain arrays" in outcome(folder, "predictions/test.npz")


def test_metrics_that_contradict_their_confusion_are_refused(folder):
    content = json.loads((folder / "metrics.json").read_text())
    for key, value, told in (
        ("macro_f1", 0.9, "metrics.json: test.macro_f1 is 0.9, and its confusion gives"),
        ("macro_f1", 5.0, "test.macro_f1 is a number from 0 to 1 or null; it is 5.0"),
        ("n", 10**9, "a sum of n, 1000000000, is expected"),
    ):
        changed = copy.deepcopy(content)
        changed["test"][key] = value
        (folder / "metrics.json").write_text(json.dumps(changed))
        assert told in damage(RunFolder(folder))


@pytest.mark.parametrize("name", ["status.json", "metrics.json", "predictions/test.npz"])
def test_one_damaged_run_of_four_is_left_out_and_named(finished, tmp_path, name):
    folders = [Path(shutil.copytree(finished, tmp_path / f"run{number}")) for number in range(4)]
    for number, path in enumerate(folders):
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["params"]["seed"] = number
        (path / "manifest.json").write_text(json.dumps(manifest))
    (folders[2] / name).write_bytes((folders[2] / name).read_bytes()[:40])
    found = collect.collect(collect.requests_of(map(RunFolder, folders)), mixed=False)
    assert sorted(run.seed for run in found.runs) == [0, 1, 3]
    ((label, reason),) = found.left_out
    assert label == str(folders[2]) and reason.startswith("damaged: ") and Path(name).name in reason


def test_sync_goes_on_with_the_others(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folders = [Path(shutil.copytree(finished, tmp_path / "outputs" / f"run{number}")) for number in range(2)]
    (folders[0] / "history.jsonl").write_text('{"epoch": 7}\n')
    counts = sync.sync(tmp_path / "outputs", Settings("mlflow"))
    assert counts["failed"] == counts["mirrored"] == 1
    assert "history.jsonl: line 1: epoch is 1; it is 7" in capsys.readouterr().out


def asked(run: Path) -> dict[str, Any]:
    words = [f"run={run}", "cache=null", "data=faces", "data.size=420", "data.test_per_class=12"]
    return checks.plain(composed(*words, name="evaluate"))


def test_without_the_images_of_training_nothing_is_called_clean(folder, capsys):
    """Every image counted as clean."""
    (folder / "seen.npy").unlink()
    found = evaluate.evaluate(asked(folder))
    assert found["test"]["n"] == 84 and found["test_clean"] == {"n": None}
    said = capsys.readouterr().out
    assert "clean  is unknown" in said and "clean  n" not in said
    (kept,) = (folder / "evaluations").glob("*/predictions/test.npz")
    assert "clean" not in dict(np.load(kept))


@pytest.mark.parametrize("array", [np.zeros(3), np.array([b"x" * 32] * 4).reshape(2, 2), np.array(["x" * 32])])
def test_damaged_images_of_training_are_refused(folder, array):
    np.save(folder / "seen.npy", array)
    with pytest.raises(ValueError, match=r"seen\.npy: expected an array of hashes"):
        evaluate.evaluate(asked(folder))


def test_links_and_too_large_files_are_refused(folder, tmp_path, monkeypatch):
    (tmp_path / "secret.json").write_text("{}")
    (folder / "metrics.json").unlink()
    (folder / "metrics.json").symlink_to(tmp_path / "secret.json")
    assert "is no plain file" in outcome(folder, "metrics.json")
    monkeypatch.setattr(files, "MAX_TEXT", 10)
    assert "more than 10 bytes" in outcome(folder, "status.json")


def test_a_message_shows_odd_values_in_one_short_line():
    assert run_schema.shown("a\nb\x1b[31m") == "a b [31m" and len(run_schema.shown("x" * 999)) == 60
