"""Kept results: what was kept is read as it was, and what a stranger hands over is read as data or refused."""

import csv
import gzip
import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import write_run

from emoexp.runs import kept, kept_predictions
from emoexp.runs.kept_schema import KeptResultsError
from emoexp.runs.records import RunFolder, complete_predictions

ALL = [0, 1, 2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    outputs = tmp_path_factory.mktemp("runs")
    return [write_run(outputs, arm, seed, 0.7) for arm in ("mish", "relu") for seed in range(2)]


def keep(out: Path, folders: list[Path], classes: list[int] = ALL) -> Path:
    records = [RunFolder(folder) for folder in folders]
    return kept.write(out, "made_up", records, {record.name: classes for record in records})


@pytest.fixture
def table(folders, tmp_path) -> Path:
    return keep(tmp_path, folders)


def predictions_beside(table: Path) -> Path:
    return table.with_name("made_up.predictions.npz")


def test_what_was_kept_is_read_as_it_was(folders, table):
    assert [run.name for run in kept.read(table)] == [folder.name for folder in folders]
    for run, folder in zip(kept.read(table), map(RunFolder, folders), strict=True):
        assert run.is_finished and run.manifest == folder.manifest and run.metrics == folder.metrics
        assert (run.started, run.seconds, run.status["ended"]) == (folder.started, 7.5, folder.status["ended"])
        one, other = run.predictions, folder.predictions
        assert one.is_complete and one.is_of_same_images(other) and other.is_of_same_images(one)
        assert np.array_equal(one.predicted_N, other.predicted_N) and one.num_classes == 3
        assert np.abs(one.probability_NK - other.probability_NK).max() < 2**-11
        assert kept.record_of(run.label) == run and run.label == f"{table}:{run.name}"


def test_equal_runs_give_equal_bytes_and_kept_runs_can_be_kept_again(folders, table, tmp_path):
    again = keep(tmp_path / "again", folders)
    from_table = kept.write(tmp_path / "third", "made_up", kept.read(table), {f.name: ALL for f in folders})
    for other in (again, from_table):
        assert other.read_bytes() == table.read_bytes()
        assert predictions_beside(other).read_bytes() == predictions_beside(table).read_bytes()


def test_of_some_classes_the_probabilities_are_kept_and_of_all_images_the_predicted_class(folders, tmp_path):
    for run, folder in zip(kept.read(keep(tmp_path, folders, [2])), map(RunFolder, folders), strict=True):
        one, other = run.predictions, folder.predictions
        assert not one.is_complete and one.probability_of(0) is None
        assert np.array_equal(one.predicted_N, other.predicted_N)
        assert np.array_equal(one.probability_of(2), other.probability_of(2).astype(np.float16))


def test_test_parts_that_differ_are_kept_apart_and_shared_ones_once(tmp_path):
    folders = [write_run(tmp_path / "outputs", "mish", seed, 0.7) for seed in range(3)]
    path = folders[2] / "predictions" / "test.npz"
    with np.load(path) as arrays:
        reordered = {name: array[::-1] for name, array in arrays.items()}
    np.savez_compressed(path, names=np.array([f"face {k}" for k in range(120)]), **reordered)
    (folders[1] / "predictions" / "test.npz").unlink()
    runs = kept.read(keep(tmp_path, folders))
    assert runs[1].predictions is None
    assert not runs[0].predictions.is_of_same_images(runs[2].predictions)
    assert runs[0].predictions.names_N is None and runs[2].predictions.names_N[0] == "face 0"
    with np.load(tmp_path / "made_up.predictions.npz") as arrays:
        assert {name for name in arrays if name.startswith("target")} == {"target_0", "target_1"}
    (tmp_path / "made_up.predictions.npz").unlink()
    assert runs[0].predictions is None


def test_the_likeliest_class_stays_the_likeliest_in_half_precision():
    close = np.array([[0.5 - 1e-6, 0.5 + 1e-6], [0.5 + 1e-6, 0.5 - 1e-6], [0.25, 0.75]])
    half = kept_predictions.half_precision(close)
    assert half.argmax(1).tolist() == [1, 0, 1] and half.dtype == np.float16


@given(
    st.dictionaries(
        st.text(min_size=1),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
        | st.sampled_from(["NaN", "null", "5", "[1]", "=1+1", "-x", '"', "1e999", " 7", "{}"])
        | st.lists(st.integers()),
    )
)
def test_every_plain_value_comes_back_from_its_cell(values):
    cells = {column: kept._encoded(value) for column, value in kept._flat({"tags": values}, "manifest")}
    assert all(cell and not cell.startswith(("=", "@", "+")) for cell in cells.values())
    row = {column: kept._decoded(Path("t"), 1, column, cell) for column, cell in cells.items()}
    assert kept._nested(Path("t"), row)["manifest"] == {"tags": values}


def test_runs_are_found_by_name_in_folders_and_tables(folders, table, tmp_path):
    name = folders[0].name
    assert [record.label for record in kept.find(tmp_path, name)] == [f"{table}:{name}"]
    assert kept.find(tmp_path, "run-mish-s0") == [] and kept.latest_finished(tmp_path, "other") is None
    later = write_run(tmp_path, "mish", 0, 0.7, suffix=".2")
    assert [record.label for record in kept.find(tmp_path, name)] == [str(later), f"{table}:{name}"]
    assert kept.latest_finished(tmp_path, name).label == str(later)
    assert [record.name for record in kept.records_at([table, later])] == [*(f.name for f in folders), later.name]
    with pytest.raises(ValueError, match="is no run"):
        kept.records_at([tmp_path])
    with pytest.raises(KeptResultsError, match="has no run x"):
        kept.record_of(f"{table}:x")


def test_a_table_that_changes_is_read_again(folders, table, tmp_path):
    assert len(kept.read(table)) == 4
    keep(tmp_path, folders[:2])
    os.utime(table, (1, 1))
    assert len(kept.read(table)) == 2


def test_what_cannot_be_kept_is_refused(tmp_path):
    running = write_run(tmp_path, "mish", 0, 0.7, "RUNNING")
    with pytest.raises(ValueError, match="is not finished"):
        keep(tmp_path, [running])
    strange = write_run(tmp_path, "mish", 1, 0.7, colour="red")
    with pytest.raises(ValueError, match=r"manifest.json has keys that are not kept: colour"):
        keep(tmp_path, [strange])
    twice = write_run(tmp_path, "mish", 2, 0.7)
    with pytest.raises(ValueError, match="stands there twice"):
        keep(tmp_path, [twice, twice])
    assert not list(tmp_path.glob("made_up*"))


# what a stranger hands over


def changed(table: Path, change) -> Path:
    """The table after `change` has had its lines of cells."""
    lines = list(csv.reader(io.StringIO(gzip.decompress(table.read_bytes()).decode(), newline="")))
    lines = change(lines) or lines
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    table.write_bytes(gzip.compress(text.getvalue().encode()))
    return table


def cell(column: str, value: str):
    """A change of the first run's cell, in a column that is added where there is none."""

    def change(lines: list[list[str]]) -> None:
        if column not in lines[0]:
            for number, line in enumerate(lines):
                line.append("" if number else column)
        lines[1][lines[0].index(column)] = value

    return change


def without(column: str):
    def change(lines: list[list[str]]) -> list[list[str]]:
        index = lines[0].index(column)
        return [line[:index] + line[index + 1 :] for line in lines]

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (cell("colour", "red"), "column 'colour' is unknown"),
        (cell("metrics:colour", "red"), "column 'metrics:colour' is unknown"),
        (cell("weights:test", "1"), "column 'weights:test' is unknown"),
        (cell("metrics:test:accuracy", "NaN"), "row 1, metrics:test:accuracy: a finite number"),
        (cell("metrics:test:accuracy", "Infinity"), "row 1, metrics:test:accuracy: a finite number"),
        (cell("metrics:test:accuracy", "1e999"), "row 1, metrics:test:accuracy: a finite number"),
        (cell("metrics:test:accuracy", "9" * 5000), "row 1, metrics:test:accuracy: a finite number"),
        (cell("metrics:test:accuracy", "[" * 100_000), "row 1, metrics:test:accuracy: a finite number"),
        (cell("metrics:test:accuracy", '{"a":1}'), "row 1, metrics:test:accuracy: a finite number"),
        (cell("metrics:test:accuracy", "1.5"), "metrics:test:accuracy: a number from 0 to 1 is expected; it is 1.5"),
        (cell("metrics:test:accuracy", "high"), "a number from 0 to 1 is expected; it is 'high'"),
        (cell("metrics:test:n", "-1"), "metrics:test:n: a number of images"),
        (cell("metrics:test:confusion", "[[1,2],[3,4]]"), "metrics:test:confusion: 3 x 3 numbers"),
        (cell("metrics:test:confusion", "[[1,0,0],[0,1,0],[0,0,1]]"), "a sum of n, 120, is expected; it is 3"),
        (cell("metrics:test:per_class:joy:recall", "0.5"), "'joy' is no class of the data"),
        (cell("metrics:test:per_class:angry:recall", "7"), "per_class:angry:recall: a number from 0 to 1"),
        (cell("metrics:test:per_class", "7"), "lies above a column|lies below a column"),
        (cell("manifest:data:classes", '["a","a"]'), "manifest:data:classes: a list of class names"),
        (cell("manifest:data:counts:train", "[1,2]"), "manifest:data:counts:train: 3 numbers of images"),
        (cell("manifest:params:seed", "x"), "manifest:params:seed: a whole number"),
        (cell("started", ""), "started: a number of seconds is expected; it is None"),
        (cell("seconds", "-3"), "seconds: a number of seconds is expected; it is -3"),
        (cell("name", "../../etc"), "row 1, name: letters, digits"),
        (cell("name", ""), "row 1, name: letters, digits"),
        (cell("name", "run-mish-s1-0000000"), "run run-mish-s1-0000000 stands there twice"),
        (without("seconds"), "the columns name, started, ended, seconds are expected"),
        (without("metrics:epochs"), "metrics:test and metrics:epochs are expected"),
        (without("manifest:versions:torch"), "manifest:versions is missing"),
        (lambda lines: [*lines, ["x"]], "row 5: .* cells are expected; it has 1"),
        (lambda lines: [lines[0] + ["name"], *(line + [""] for line in lines[1:])], "each column once"),
        (lambda lines: [[]], "the columns name, started"),
    ],
)
def test_a_table_with_anything_unexpected_is_refused_in_one_line(table, change, why):
    with pytest.raises(KeptResultsError, match=why) as caught:
        kept.read(changed(table, change))
    assert str(caught.value).startswith(f"{table}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"name,started\n",
        gzip.compress(b"\xff\xfe", mtime=0),
        gzip.compress(b'"a', mtime=0),
        gzip.compress(b"name," * 9, mtime=0)[:-9],
        gzip.compress(b"a" * 2_000_000, mtime=0),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "made_up.runs.csv.gz"
    path.write_bytes(content)
    with pytest.raises(KeptResultsError) as caught:
        kept.read(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_table_that_unpacks_to_too_much_is_refused(table, monkeypatch):
    monkeypatch.setattr(kept, "_MAX_BYTES", 1000)
    with pytest.raises(KeptResultsError, match="more than 1000 bytes"):
        kept.read(table)


def test_links_are_not_followed(folders, table, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (table, predictions_beside(table)):
        path.rename(elsewhere / path.name)
        path.symlink_to(elsewhere / path.name)
    with pytest.raises(KeptResultsError, match="not a link"):
        kept.read(table)
    table.unlink()
    (elsewhere / table.name).rename(table)
    with pytest.raises(KeptResultsError, match="not a link"):
        _ = kept.read(table)[0].predictions


class Executed:
    """An object that runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def half(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array.flat[0] = value
    return array


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("extra_0", lambda a: np.zeros(3), "unknown array 'extra_0'"),
        ("target_0", lambda a: np.array([Executed()] * 120, object), "no file of plain arrays|Object arrays"),
        ("target_0", lambda a: a[:-1], "predicted_0: shape|probability_0: shape|clean_0: shape"),
        ("target_0", lambda a: a.astype(float), "target_0: shape .* and a type of kind u are expected"),
        ("target_0", lambda a: half(a, 3), "target_0: class indices below 3"),
        ("predicted_0", lambda a: half(a, 9), "predicted_0: class indices below 3"),
        ("predicted_0", lambda a: half(a, (int(a.flat[0]) + 1) % 3), "predicted_0: the likeliest class"),
        ("probability_0", lambda a: half(a, math.nan), "probability_0: numbers from 0 to 1"),
        ("probability_0", lambda a: half(a, 1.5), "probability_0: numbers from 0 to 1"),
        ("probability_0", lambda a: a[..., :2], "probability_0: shape"),
        ("classes_0", lambda a: a[::-1], "classes_0: increasing class indices"),
        ("num_classes_0", lambda a: np.array(-1), "num_classes_0: at least 2"),
        ("num_classes_0", lambda a: np.array(4), "120 images of 3 classes are expected"),
        ("runs_0", lambda a: np.array(["other", *a[1:]]), "other is no run of made_up.runs.csv.gz"),
        ("runs_0", lambda a: np.array([a[1], *a[1:]]), "stands there twice"),
        ("runs_0", None, "runs_0 is missing"),
    ],
)
def test_predictions_with_anything_unexpected_are_refused_in_one_line(table, tmp_path, monkeypatch, name, change, why):
    monkeypatch.chdir(tmp_path)
    path = predictions_beside(table)
    with np.load(path) as arrays:
        content = dict(arrays)
    if change is None:
        del content[name]
    else:
        content[name] = change(content.get(name))
    np.savez(path, allow_pickle=True, **content)
    with pytest.raises(KeptResultsError, match=why) as caught:
        _ = kept.read(table)[0].predictions
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert not Path("executed").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_a_file_without_predictions_is_refused(table, content):
    predictions_beside(table).write_bytes(content)
    run = kept.read(table)[0]
    if content.startswith(b"PK"):  # an archive without members: predictions of nobody
        assert run.predictions is None
        return
    with pytest.raises(KeptResultsError, match="no file of plain arrays"):
        _ = run.predictions


def test_predictions_that_unpack_to_too_much_are_refused(table, monkeypatch):
    monkeypatch.setattr(kept_predictions, "MAX_BYTES", 100)
    with pytest.raises(KeptResultsError, match="more than 100 bytes"):
        _ = kept.read(table)[0].predictions


def test_predictions_of_more_classes_than_a_byte_holds(tmp_path):
    rng = np.random.default_rng(0)
    many = complete_predictions(rng.dirichlet(np.ones(300), 5), np.array([0, 299, 7, 256, 255]))
    path = tmp_path / "many.predictions.npz"
    path.write_bytes(kept_predictions.packed({"run": many}, {"run": range(300)}))
    found = kept_predictions.unpacked(path)["run"]
    assert np.array_equal(found.target_N, many.target_N) and np.array_equal(found.predicted_N, many.predicted_N)


def test_the_results_of_this_repository_are_read(monkeypatch):
    results = Path(__file__).parents[2] / "benchmarks" / "results"
    tables = sorted(results.glob("*.runs.csv.gz"))
    runs = [run for table in tables for run in kept.read(table)]
    assert len(tables) == 7 and len(runs) == 557
    assert all(run.predictions is not None and run.manifest["results_version"] == 1 for run in runs)
    assert all(run.metrics["test"]["accuracy"] == np.trace(run.metrics["test"]["confusion"]) / run.metrics["test"]["n"]
               for run in runs)  # fmt: skip
