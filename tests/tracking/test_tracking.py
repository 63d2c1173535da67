"""MLflow mirrors run folders: nothing twice, nothing lost, and training never waits."""

import json
import logging
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from emoexp import sync
from emoexp.metrics import classification
from emoexp.runs import files
from emoexp.tracking import Settings, Tracker, behind, client, close_dead, locate, mirror, record, thread
from emoexp.tracking.mirror import Mirror
from emoexp.tracking.settings import address_of, create_once, is_locked, redact

EPOCHS = 3
CLASSES = ("anger", "joy", "fear (x)")
PER_EPOCH = 7  # numbers in a row of `write_history` and its times


# ---------------------------------------------------------------- a run folder, and what MLflow made of it


def write_run(folder: Path, *, epochs: int = EPOCHS, status: str = "FINISHED", model: bool = False) -> Path:
    for part in ("figures", "tables"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 100).save(folder / "figures" / "confusion.png")
    (folder / "tables" / "per_class.csv").write_text("class,n\nanger,3\n")
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "run.log").write_text("epoch 1\n")
    (folder / "lock").touch()
    manifest = {
        "run": folder.name,
        "params": {
            "seed": 0,
            "imbalance": "sampler",
            "optimizer.lr": 1e-3,
            "patience": None,
            "trivial": True,
        },
        "tags": {"ablation": "imbalance"},
        "data": {"source": "faces", "content": "ab" * 32, "counts": {"train": [3, 9]}},
        "device": "cpu",
        "threads": 2,
        "versions": {"torch": "2.15.0"},
        "git": {"commit": "c" * 40, "dirty": True},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_history(folder, epochs)
    if status == "FINISHED":
        write_metrics(folder)
    if model:
        with zipfile.ZipFile(folder / "model.pt2", "w") as archive:  # logging a program does not load it
            archive.writestr("m/extra/emoexp.json", json.dumps({"class_names": CLASSES, "shape": [1, 8, 8]}))
    write_status(folder, status)
    return folder


def write_status(folder: Path, status: str, error: str | None = None) -> None:
    ended = None if status == "RUNNING" else 1.7e9 + 100
    who = {"pid": 1, "host": socket.gethostname()}
    content = {"status": status, "started": 1.7e9, "ended": ended, "error": error, **who}
    (folder / "status.json").write_text(json.dumps(content))


def write_history(folder: Path, epochs: int, **changed: float) -> None:
    rows = [
        {"epoch": e, "train/lr": 1e-3, "train/loss": 1 / e, "val/macro_f1": e / 10, "val/accuracy": 0.5} | changed
        for e in range(1, epochs + 1)
    ]
    times = [
        {
            "epoch": e,
            "ended": 1.7e9 + 10 * e,
            "train_seconds": 9.5,
            "eval_seconds": 0.5,
            "images_per_second": 9.0,
        }
        for e in range(1, epochs + 1)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "times.jsonl").write_text("".join(json.dumps(row) + "\n" for row in times))


def write_metrics(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    summary = classification.summarise(rng.dirichlet(np.ones(3), 60), np.arange(60) % 3, CLASSES)
    content = {
        "best": {"epoch": 2, "val/macro_f1": 0.2},
        "val": summary,
        "test": summary,
        "test_clean": summary,
    }
    (folder / "metrics.json").write_text(json.dumps(content))
    return content


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's schema, made once: that takes seconds."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    client.prepare()
    create_once(path, client._create_schema)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def place(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a fresh store."""
    shutil.copy(template, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


HERE = Settings("mlflow")
BARE = Settings("mlflow", log_model=False)


def query(place: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(place / "mlflow.db")) as connection:
        return connection.execute(sql).fetchall()


def snapshot(place: Path, name: str = "a") -> dict[str, list[tuple]]:
    """Everything that MLflow stores of a run, ids and the run's name aside."""
    ours = f"(select run_uuid from runs where name = '{name}')"
    return {
        "runs": query(place, f"select status, start_time, end_time from runs where run_uuid in {ours}"),
        "metrics": query(
            place,
            f"select key, step, value, is_nan, timestamp from metrics where run_uuid in {ours} order by 1, 2",
        ),
        "params": query(place, f"select key, value from params where run_uuid in {ours} order by 1"),
        "tags": query(
            place,
            f"select key, value from tags where run_uuid in {ours} and value != '{name}'"
            " and key not in ('emoexp.folder', 'emoexp.path') order by 1",
        ),
        "datasets": query(
            place,
            "select d.name, digest from inputs join datasets d on source_id = dataset_uuid"
            f" where destination_id in {ours}",
        ),
        "outputs": query(place, f"select destination_type, step from inputs where source_id in {ours}"),
        "models": query(place, f"select name, status from logged_models where source_run_id in {ours}"),
    }


def only_run(place: Path) -> Any:
    from mlflow import MlflowClient

    found = MlflowClient(f"sqlite:///{place / 'mlflow.db'}").search_runs(["1"])
    assert len(found) == 1
    return found[0]


# ---------------------------------------------------------------- what is shown


def test_a_finished_run_is_shown_whole(place: Path) -> None:
    folder = write_run(place / "outputs" / "a", model=True)
    mirror(folder, HERE)
    run = only_run(place)
    assert run.info.run_name == "a"
    assert (run.info.status, run.info.start_time, run.info.end_time) == (
        "FINISHED",
        1_700_000_000_000,
        1_700_000_100_000,
    )
    assert run.data.params == {
        "seed": "0", "imbalance": "sampler", "optimizer.lr": "0.001", "patience": "null", "trivial": "true",
    }  # fmt: skip
    wanted = {
        "ablation": "imbalance",
        "device": "cpu",
        "threads": "2",
        "versions.torch": "2.15.0",
        "git.dirty": "true",
        "mlflow.source.git.commit": "c" * 40,
        "data.content": "ab" * 32,
        "emoexp.run": "a",
    }
    assert wanted.items() <= run.data.tags.items()
    assert "emoexp.error" not in run.data.tags
    data = run.inputs.dataset_inputs[0]
    assert (data.dataset.name, data.dataset.digest) == ("faces", "ab" * 18)
    assert json.loads(data.dataset.profile)["counts"] == {"train": [3, 9]}
    assert [tag.value for tag in data.tags] == ["training"]
    kept = place / "mlartifacts" / "emoexp" / run.info.run_id / "artifacts"
    shown = {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()}
    assert shown == {
        "config.yaml", "manifest.json", "metrics.json", "history.jsonl", "times.jsonl", "run.log",
        "figures/confusion.png", "tables/per_class.csv",
    }  # fmt: skip


def test_metrics_are_those_of_the_folder(place: Path) -> None:
    folder = write_run(place / "outputs" / "a")
    summary = write_metrics(folder)["test"]
    mirror(folder, BARE)
    run = only_run(place)
    shown = run.data.metrics
    for part in ("test", "test_clean"):
        for key, value in classification.flatten_summary(summary, part).items():
            assert shown[key] == pytest.approx(value, rel=1e-12), key
    assert shown["best/epoch"] == 2 and shown["best/macro_f1"] == 0.2
    assert shown["val/macro_f1"] == 0.3, "the series of epochs, not the best epoch's value"
    assert shown["best/accuracy"] == summary["accuracy"], "what is a series under val/ is under best/ at the end"
    assert shown["val/mcc"] == summary["mcc"]
    series = query(place, "select step, timestamp, value from metrics where key = 'train/loss' order by step")
    assert series == [(e, 1_700_000_000_000 + 10_000 * e, 1 / e) for e in (1, 2, 3)]


@pytest.mark.parametrize("status", ["RUNNING", "FINISHED", "FAILED", "KILLED"])
def test_status(place: Path, status: str) -> None:
    folder = write_run(place / "outputs" / "a", status=status)
    write_status(folder, status, error="loss is not finite" if status == "FAILED" else None)
    mirror(folder, BARE)
    run = only_run(place)
    assert run.info.status == status
    assert run.info.end_time == (None if status == "RUNNING" else 1_700_000_100_000)
    assert run.data.tags.get("emoexp.error") == ("loss is not finite" if status == "FAILED" else None)


def test_only_finite_numbers_are_points(place: Path) -> None:
    folder = write_run(place / "outputs" / "a", status="RUNNING", epochs=1)
    rows = '{"epoch": 1, "train/loss": 0.5, "val/loss": null, "val/worst_class": "fear"}\n'
    (folder / "history.jsonl").write_text(rows)
    mirror(folder, BARE)
    mirror(folder, BARE)
    assert query(place, "select key from metrics where key not like 'time/%'") == [("train/loss",)]
    for number in ("NaN", "Infinity", "1e999"):  # no run writes them: a number that is not finite is null
        (folder / "history.jsonl").write_text(rows.replace("null", number))
        with pytest.raises(ValueError, match=r"history\.jsonl, line 1, is not JSON: .* is no finite number"):
            mirror(folder, BARE)


def test_odd_names_and_long_values(place: Path) -> None:
    folder = write_run(place / "outputs" / "a", status="RUNNING", epochs=1)
    odd = ["f1/anger (%)", "f1/anger [%]", "a//b", "/a", "..", "ä=ö", "k" * 300, "k" * 301]
    (folder / "history.jsonl").write_text(json.dumps({"epoch": 1} | dict.fromkeys(odd, 0.5)) + "\n")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"params": dict.fromkeys(odd, "v" * 7000), "tags": dict.fromkeys(odd, "v" * 9000)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    mirror(folder, BARE)
    before = snapshot(place)
    mirror(folder, BARE)
    assert snapshot(place) == before
    run = only_run(place)
    assert len([key for key in run.data.metrics if not key.startswith("time/")]) == len(odd)
    assert len(run.data.params) == len(odd)
    assert {len(value) for value in run.data.params.values()} <= set(range(5900, 6001))
    assert all("crc32" in value for value in run.data.params.values())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(min_size=1, max_size=300), unique=True, max_size=5))
@example(["a/../b", "b", "./b", "b/", "A", "a b", "a\nb", "."])
def test_names_are_valid_and_different(keys: list[str]) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

    names = [record.name(key) for key in keys]
    assert len(set(names)) == len(keys)
    for name in names:
        assert len(name) <= 250
        for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
            validate(name)


def test_a_link_carries_no_other_file_out(place: Path) -> None:
    folder = write_run(place / "outputs" / "a")
    (place / "private.txt").write_text("private")
    (folder / "figures" / "link.png").symlink_to(place / "private.txt")
    mirror(folder, BARE)
    assert not list((place / "mlartifacts").rglob("link.png"))


# ---------------------------------------------------------------- again, later, interrupted


def test_mirroring_twice_changes_nothing(place: Path) -> None:
    folder = write_run(place / "outputs" / "a", model=True)
    mirror(folder, HERE)
    before = snapshot(place)
    assert len(before["metrics"]) > EPOCHS * PER_EPOCH
    for forget in ([], ["files", "model", "mirrored"], ["files", "model", "mirrored", "run_id"]):
        state = json.loads((folder / "tracking.json").read_text())
        (folder / "tracking.json").write_text(json.dumps({k: v for k, v in state.items() if k not in forget}))
        mirror(folder, HERE)
        assert snapshot(place) == before, forget


def test_a_resumed_run_adds_its_new_rows(place: Path) -> None:
    folder = write_run(place / "outputs" / "a", epochs=2, status="KILLED")
    write_status(folder, "KILLED", error="killed")
    mirror(folder, BARE)
    write_status(folder, "RUNNING")
    write_history(folder, 3)
    mirror(folder, BARE)
    run = only_run(place)
    assert run.info.status == "RUNNING" and "emoexp.error" not in run.data.tags
    write_run(folder, epochs=4)
    mirror(folder, BARE)
    assert only_run(place).info.status == "FINISHED"
    steps = query(
        place,
        "select key, count(*), count(distinct step), max(step) from metrics where step > 0 group by key",
    )
    assert len(steps) == PER_EPOCH and {row[1:] for row in steps} == {(4, 4, 4)}


def test_an_epoch_that_was_repeated_after_a_kill_is_not_doubled(place: Path) -> None:
    folder = write_run(place / "outputs" / "a", epochs=2, status="RUNNING")
    mirror(folder, BARE)
    before = snapshot(place)
    text = (folder / "times.jsonl").read_text().replace("1700000020.0", "1700005555.0").replace("9.5", "7.25")
    (folder / "times.jsonl").write_text(text)  # the same epochs, at another time and speed
    mirror(folder, BARE)
    assert snapshot(place) == before


def test_a_changed_value_becomes_the_shown_one(place: Path) -> None:
    folder = write_run(place / "outputs" / "a", epochs=2, status="RUNNING")
    mirror(folder, BARE)
    write_history(folder, 2, **{"val/accuracy": 0.75})
    text = (folder / "times.jsonl").read_text().replace("1700000010.0", "1700000030.0")
    (folder / "times.jsonl").write_text(text.replace("1700000020.0", "1700000040.0"))
    for _ in range(2):
        mirror(folder, BARE)
        assert only_run(place).data.metrics["val/accuracy"] == 0.75
        rows = query(place, "select step, value from metrics where key = 'val/accuracy' order by step, timestamp")
        assert rows == [(1, 0.5), (1, 0.75), (2, 0.5), (2, 0.75)]


def test_a_changed_param_is_told_in_a_tag(place: Path) -> None:
    folder = write_run(place / "outputs" / "a")
    mirror(folder, BARE)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"imbalance": "sampler"', '"imbalance": "none"'))
    mirror(folder, BARE)
    run = only_run(place)
    assert run.data.params["imbalance"] == "sampler"
    assert run.data.tags["emoexp.changed"] == "imbalance: sampler -> none"


def test_a_changed_figure_is_uploaded_again(place: Path) -> None:
    folder = write_run(place / "outputs" / "a")
    mirror(folder, BARE)
    Image.new("L", (9, 9), 7).save(folder / "figures" / "confusion.png")
    assert behind(folder, BARE)
    mirror(folder, BARE)
    (shown,) = (place / "mlartifacts").rglob("confusion.png")
    assert shown.read_bytes() == (folder / "figures" / "confusion.png").read_bytes()
    assert not behind(folder, BARE)


def test_a_row_cut_short_waits_and_one_without_its_time_too(place: Path) -> None:
    folder = write_run(place / "outputs" / "a", epochs=2, status="RUNNING")
    whole = (folder / "history.jsonl").read_bytes()
    (folder / "history.jsonl").write_bytes(whole + b'{"epoch": 3, "train/lo')
    mirror(folder, BARE)
    (folder / "history.jsonl").write_bytes(whole + b'{"epoch": 3, "train/loss": 0.25}\n')
    mirror(folder, BARE)
    assert query(place, "select max(step) from metrics") == [(2,)]
    write_status(folder, "KILLED")
    for _ in range(2):  # its time will never come: the epoch's number stands in
        mirror(folder, BARE)
        assert query(place, "select step, timestamp from metrics where step > 2") == [(3, 1_700_000_000_003)]
    (folder / "history.jsonl").write_bytes(b"not json\n" + whole)
    with pytest.raises(ValueError, match=r"history\.jsonl, line 1, is not JSON"):
        mirror(folder, BARE)


CALLS = ["create_run", "log_batch", "log_inputs", "log_artifact", "set_terminated", "create_experiment",
         "create_logged_model", "log_model_artifacts", "finalize_logged_model", "log_outputs"]  # fmt: skip


class Outage(Exception):
    pass


def break_call(patch: pytest.MonkeyPatch, number: int, after: bool) -> Callable[[], int]:
    """The number-th call that writes fails, before or after its work is done. Returns how many were made."""
    from mlflow import MlflowClient

    made = [0]

    def breaking(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            made[0] += 1
            number_of_this = made[0]
            if number_of_this == number and not after:
                raise Outage
            result = original(self, *args, **kwargs)
            if number_of_this == number:
                raise Outage
            return result

        return call

    for name in CALLS:
        patch.setattr(MlflowClient, name, breaking(getattr(MlflowClient, name)))
    return lambda: made[0]


@pytest.mark.parametrize("after", [False, True])
def test_a_failure_at_any_call_leaves_nothing_doubled_or_lost(
    place: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    # The model's files are written by MLflow without a call to its store, and slowly.
    monkeypatch.setattr("emoexp.tracking.model._save_model", lambda target, *_: target.mkdir())
    mirror(write_run(place / "outputs" / "a", model=True), HERE)
    whole = snapshot(place)
    for number in range(1, 40):
        here = Settings("mlflow", experiment=f"experiment {number}")
        folder = write_run(place / "outputs" / f"a{number}", model=True)
        shutil.copystat(place / "outputs" / "a" / "metrics.json", folder / "metrics.json")  # the stamp of its points
        with monkeypatch.context() as patch:
            made = break_call(patch, number, after)
            try:
                mirror(folder, here)
            except Outage:
                assert made() == number
            else:
                break
        mirror(folder, here)
        assert snapshot(place, folder.name) == whole, number
    else:
        pytest.fail("it never came through")
    assert made() > 12, "so many calls were broken, one by one"


def test_the_store_is_asked_anew_after_a_failure(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(place / "outputs" / "a", epochs=1, status="RUNNING")
    store = locate(BARE)
    assert store is not None
    live = Mirror(folder, BARE, store)
    live.sync()
    write_history(folder, 2)
    with monkeypatch.context() as patch:
        break_call(patch, 1, after=True)  # the points arrive, the answer does not
        with pytest.raises(Outage):
            live.sync()
    live.failed("away")
    assert json.loads((folder / "tracking.json").read_text())["error"] == "away"
    with closing(sqlite3.connect(place / "mlflow.db")) as connection, connection:
        connection.execute("delete from metrics")  # and the server comes back from an old copy
    live.sync()
    assert "error" not in json.loads((folder / "tracking.json").read_text())
    assert query(place, "select count(*) from metrics") == [(2 * PER_EPOCH,)]


def test_another_store_gets_the_whole_run(place: Path, template: Path) -> None:
    folder = write_run(place / "outputs" / "a")
    mirror(folder, BARE)
    shutil.copy(template, place / "other.db")
    other = Settings("mlflow", uri="sqlite:///other.db", log_model=False, experiment="second")
    assert behind(folder, other)
    mirror(folder, other)
    assert not behind(folder, other)
    with closing(sqlite3.connect(place / "other.db")) as connection:
        assert connection.execute("select count(*) from metrics").fetchall() == query(
            place, "select count(*) from metrics"
        )
    (place / "other.db").unlink()


def test_a_run_deleted_by_a_person_stays_deleted(place: Path) -> None:
    from mlflow import MlflowClient

    folder = write_run(place / "outputs" / "a")
    mirror(folder, BARE)
    MlflowClient(f"sqlite:///{place}/mlflow.db").delete_run(only_run(place).info.run_id)
    assert not behind(folder, BARE)


def test_a_deleted_experiment_is_named(place: Path) -> None:
    from mlflow import MlflowClient

    folder = write_run(place / "outputs" / "a")
    mirror(folder, BARE)
    MlflowClient(f"sqlite:///{place}/mlflow.db").delete_experiment("1")
    with pytest.raises(ValueError, match="experiment=emoexp was deleted"):
        mirror(write_run(place / "outputs" / "b"), BARE)


def test_no_secret_is_logged(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOEXP_TEST_TOKEN", "s3cret-in-the-environment")
    folder = write_run(place / "outputs" / "a", model=True)
    mirror(folder, HERE)
    for path in place.rglob("*"):
        assert not path.is_file() or b"s3cret-in-the-environment" not in path.read_bytes(), path
    assert redact("http://me:pass@host:1/x and //a@b") == "http://***@host:1/x and //***@b"


# ---------------------------------------------------------------- runs left by dead processes


def test_dead_runs_are_closed_and_live_ones_left(place: Path) -> None:
    outputs = place / "outputs"
    for name in ("dead", "live", "gone"):
        mirror(write_run(outputs / name, status="RUNNING"), BARE)
    mirror(write_run(outputs / "done"), BARE)
    shutil.rmtree(outputs / "gone")
    with files.lock(outputs / "live" / "lock"):
        assert close_dead(outputs, BARE) == ["dead"]
        assert close_dead(outputs, BARE) == []
    status = json.loads((outputs / "dead" / "status.json").read_text())
    assert status["status"] == "KILLED" and status["started"] == 1.7e9 and status["ended"] > 1.7e9
    shown = dict(query(place, "select name, status from runs"))
    assert shown == {"dead": "KILLED", "live": "RUNNING", "gone": "KILLED", "done": "FINISHED"}


def test_dead_runs_are_closed_without_mlflow(tmp_path: Path) -> None:
    write_run(tmp_path / "a", status="RUNNING")
    assert close_dead(tmp_path, Settings("none")) == ["a"]
    assert files.read_json(tmp_path / "a" / "status.json")["status"] == "KILLED"


# ---------------------------------------------------------------- the live thread


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    """A tracker whose thread does not meet the next test, also where it was given up on or this test fails."""
    tracker = Tracker()
    yield tracker
    tracker.close(0.0)
    for running in threading.enumerate():
        if running.name == "tracking":
            running.join(60)
            assert not running.is_alive()


def test_a_live_run_is_followed(place: Path, tracker: Tracker, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_run(place / "outputs" / "a", epochs=0, status="RUNNING")
    tracker.start(folder, BARE)
    for epoch in range(1, 6):
        write_history(folder, epoch)
        started = time.perf_counter()
        tracker.notify()
        assert time.perf_counter() - started < 0.5
    write_run(folder, epochs=5)
    tracker.close()
    assert only_run(place).info.status == "FINISHED"
    assert query(place, "select count(*) from metrics where step > 0") == [(5 * PER_EPOCH,)]
    assert not caplog.records
    assert sys.getswitchinterval() == pytest.approx(0.005), "as it was before"


def test_nothing_begins_before_the_first_notice(place: Path, tracker: Tracker) -> None:
    """MLflow's import would make a process wait that has its first step before it."""
    folder = write_run(place / "outputs" / "a", epochs=1)
    tracker.start(folder, BARE)
    assert not [thread for thread in threading.enumerate() if thread.name == "tracking"]
    tracker.close()  # a last time, which here is the first
    assert only_run(place).info.status == "FINISHED"


def test_the_next_run_replays_what_was_missed(place: Path, tracker: Tracker) -> None:
    outputs = place / "outputs"
    write_run(outputs / "missed")
    write_run(outputs / "dead", status="RUNNING")
    (write_run(outputs / "broken") / "status.json").write_text("no json\n")
    (write_run(outputs / "torn") / "history.jsonl").write_text("no json\n")
    folder = write_run(outputs / "a", epochs=1, status="RUNNING")
    with files.lock(folder / "lock"):
        tracker.start(folder, BARE, outputs)
        tracker.notify()
        until = time.monotonic() + 30
        wanted = {"missed": "FINISHED", "dead": "KILLED", "a": "RUNNING"}
        while dict(query(place, "select name, status from runs")) != wanted and time.monotonic() < until:
            time.sleep(0.05)
        assert dict(query(place, "select name, status from runs")) == wanted
        tracker.close()


def listening(answer: bytes | None) -> tuple[socket.socket, str]:
    """A server on the loopback that says this to everything; None: it takes the call and never answers."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        kept: list[socket.socket] = []
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # the test has closed it
                for connection in kept:
                    connection.close()
                return
            kept.append(connection)
            if answer is not None:
                connection.recv(65536)
                connection.sendall(answer)
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return server, f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["refuses", "500", "hangs"])
def test_a_server_that_is_away_costs_nothing(
    place: Path, kind: str, tracker: Tracker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    answer = None if kind == "hangs" else b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    server, uri = listening(answer)
    if kind == "refuses":
        server.close()
    folder = write_run(place / "outputs" / "a", epochs=1, status="RUNNING")
    started = time.perf_counter()
    tracker.start(folder, Settings("server", uri=uri.replace("//", "//me:hushhush@"), log_model=False))
    for epoch in range(1, 4):
        write_history(folder, epoch)
        tracker.notify()
    assert time.perf_counter() - started < 2.0
    write_run(folder)
    started = time.perf_counter()
    tracker.close(timeout_s=0.5 if kind == "hangs" else 20.0)
    assert time.perf_counter() - started < (3.0 if kind == "hangs" else 15.0)
    server.close()
    told = [entry.getMessage() for entry in caplog.records]
    assert "python -m emoexp.sync" in told[-1] and len(told) <= 2
    for text in [*told, (folder / "tracking.json").read_text()]:
        assert "hushhush" not in text
    mirror(folder, BARE)  # a store that is there
    assert query(place, "select count(*) from metrics where step > 0") == [(EPOCHS * PER_EPOCH,)]


def test_a_locked_database_delays_nobody(place: Path, tracker: Tracker, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_run(place / "outputs" / "a", epochs=1, status="RUNNING")
    mirror(folder, BARE)
    with closing(sqlite3.connect(place / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        tracker.start(folder, BARE)
        write_run(folder)
        started = time.perf_counter()
        tracker.notify()
        tracker.close(timeout_s=0.3)
        assert time.perf_counter() - started < 5.0, "MLflow itself waits 20 s for a lock"
        other.execute("ROLLBACK")
    assert ["python -m emoexp.sync" in entry.getMessage() for entry in caplog.records] == [True]
    mirror(folder, BARE)
    assert only_run(place).info.status == "FINISHED"
    assert query(place, "select count(*) from metrics where step > 0") == [(EPOCHS * PER_EPOCH,)]


def test_a_lock_that_nobody_gives_back_is_not_waited_for(
    place: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a training waited for the whole of tracking.timeout_s, a minute."""
    monkeypatch.setattr(thread, "LOCKED_S", 0.5)
    folder = write_run(place / "outputs" / "a", epochs=1, status="RUNNING")
    mirror(folder, BARE)
    database = place / "mlflow.db"
    assert not is_locked(database) and not is_locked(None) and not is_locked(place / "missing.db")
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert is_locked(database)
        tracker.start(folder, BARE)
        write_run(folder)
        started = time.perf_counter()
        tracker.close(timeout_s=60)
        assert time.perf_counter() - started < 5.0
        other.execute("ROLLBACK")
    mirror(folder, BARE)
    assert only_run(place).info.status == "FINISHED"


def test_a_store_that_cannot_be_written_is_told_once(
    place: Path, tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    (place / "file").write_text("not a folder")
    folder = write_run(place / "outputs" / "a", status="RUNNING")
    tracker.start(folder, Settings("mlflow", uri="sqlite:///file/mlflow.db"))
    for _ in range(5):
        tracker.notify()
        time.sleep(0.02)
    tracker.close()
    told = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(told) == 2 and "training goes on" in told[0] and "emoexp.sync" in told[1]
    assert "file" in json.loads((folder / "tracking.json").read_text())["error"]


def test_none_does_not_import_mlflow(tmp_path: Path) -> None:
    write_run(tmp_path / "a", status="RUNNING")
    code = (
        "import sys, pathlib; from emoexp import tracking; p = pathlib.Path(sys.argv[1]);"
        "s = tracking.Settings('none');"
        "t = tracking.Tracker(); t.start(p / 'a', s, p); t.notify(); t.close(); tracking.mirror(p / 'a', s);"
        "assert not tracking.behind(p / 'a', s); tracking.close_dead(p, s);"
        "sys.exit(any(name.partition('.')[0] in ('mlflow', 'torch', 'hydra') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=60)
    assert not (tmp_path / "a" / "tracking.json").exists()


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "wandb"}, "choose one of mlflow, server, none"),
        ({"kind": "mlflow", "uri": "./mlruns"}, r"sqlite:///\./mlruns\.db"),
        ({"kind": "server", "uri": "file:///x/mlruns"}, "sqlite:////x/mlruns.db"),
        ({"kind": "mlflow", "uri": "http://me:pw@host:5000"}, r"http://\*\*\*@host:5000.*tracking=server"),
        ({"kind": "mlflow", "uri": "sqlite:///:memory:"}, "an SQLite file"),
        ({"kind": "mlflow", "experiment": ""}, "experiment"),
        ({"kind": "mlflow", "timeout_s": 0.0}, "timeout_s"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**options)


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match="needs an address"):
        locate(Settings("server"))
    store = locate(Settings("mlflow"), tmp_path)
    assert store is not None and not store.notes
    assert store.uri == f"sqlite:///{tmp_path}/mlflow.db" and store.artifacts == f"file://{tmp_path}/mlartifacts"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    server = locate(Settings("server"), tmp_path)
    assert server is not None and (server.uri, server.database, server.artifacts) == (
        "http://there:5000",
        None,
        None,
    )
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").touch()
    store = locate(Settings("mlflow"), tmp_path)
    assert store is not None and store.uri.endswith("/mlflow.db")
    assert ["MLFLOW_TRACKING_URI" in store.notes[0], "--backend-store-uri" in store.notes[1]] == [True, True]


def test_options_are_settings() -> None:
    import yaml

    folder = Path(__file__).parents[2] / "conf" / "tracking"
    for path in sorted(folder.glob("*.yaml")):
        options = yaml.safe_load(path.read_text())
        assert options.pop("name") == path.stem == options["kind"]
        assert Settings(**options) == Settings(path.stem), "the file shows the defaults"
    assert {path.stem for path in folder.glob("*.yaml")} == {"mlflow", "server", "none"}


def test_the_schema_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"

    def dies(uri: str) -> None:
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("create table half (a)")
        raise Outage

    with pytest.raises(Outage):
        create_once(path, dies)
    assert not path.exists()

    def works(uri: str) -> None:
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("create table whole (a)")

    create_once(path, works)
    create_once(path, dies)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select name from sqlite_master").fetchall() == [("whole",)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# ---------------------------------------------------------------- python -m emoexp.sync


def test_sync(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = place / "outputs"
    mirror(write_run(outputs / "current"), BARE)
    write_run(outputs / "missed")
    write_run(outputs / "dead", status="RUNNING")
    write_run(outputs / "live", status="RUNNING")
    (write_run(outputs / "broken") / "status.json").write_text("no json\n")
    with files.lock(outputs / "live" / "lock"):
        counts = sync.sync(outputs, BARE)
        lines = capsys.readouterr().out.splitlines()
        again = sync.sync(outputs, BARE)
    assert counts == {"current": 1, "mirrored": 1, "closed": 1, "live": 1, "failed": 1}
    assert again == {"current": 3, "live": 1, "failed": 1}
    assert [line.split()[:2] for line in lines[:5]] == [
        ["failed", "broken:"], ["current", "current"], ["closed", "dead"], ["live", "live"],
        ["mirrored", "missed"],
    ]  # fmt: skip
    assert "status.json is not JSON" in lines[0]
    assert lines[5] == "5 runs: 1 closed, 1 current, 1 failed, 1 live, 1 mirrored"


def test_sync_says_why_and_what_to_do(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The experiment was deleted in MLflow's page: the total said only how many had failed."""
    for name in "ab":
        mirror(write_run(place / "outputs" / name), BARE)
    from mlflow import MlflowClient

    api = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    number = api.get_experiment_by_name("emoexp").experiment_id
    api.delete_experiment(number)
    assert sync.sync(place / "outputs", BARE)["failed"] == 2
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("2 failed: tracking.experiment=emoexp was deleted in MLflow")
    restore = re.search(r"`(mlflow experiments restore --experiment-id \d+)`", last)[1]
    assert restore.endswith(f" {number}")
    api.restore_experiment(number)
    write_run(place / "outputs" / "c")
    assert sync.sync(place / "outputs", BARE)["failed"] == 0


def test_sync_needs_runs_and_a_store(place: Path) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        sync.sync(place / "nowhere", BARE)
    with pytest.raises(ValueError, match="tracking=none"):
        sync.sync(place, Settings("none"))


# ---------------------------------------------------------------- slow: processes, servers and models


@pytest.mark.slow
def test_the_sync_command(place: Path) -> None:
    write_run(place / "outputs" / "a")
    command = [sys.executable, "-m", "emoexp.sync"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["mirrored  a", "1 runs: 1 mirrored"]
    (place / "outputs" / "a" / "history.jsonl").write_text("no json\n")
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 1
    done = subprocess.run([*command, "outputs=x"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "is no folder" in done.stderr and "Traceback" not in done.stderr


MIRROR = "import sys, pathlib, emoexp.tracking as t; t.mirror(pathlib.Path(sys.argv[1]), t.Settings('mlflow'))"


@pytest.mark.slow
def test_four_processes_on_a_fresh_database(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    runs = [write_run(tmp_path / "outputs" / name, model=True) for name in "abcd"]
    started = [subprocess.Popen([sys.executable, "-c", MIRROR, run], cwd=tmp_path) for run in runs]
    assert [process.wait(120) for process in started] == [0, 0, 0, 0]
    shown_of = {name: snapshot(tmp_path, name) for name in "abcd"}
    assert query(tmp_path, "select distinct experiment_id from runs") == [(1,)]
    assert {len(shown["metrics"]) for shown in shown_of.values()} == {len(shown_of["a"]["metrics"])}
    assert [shown["runs"][0][0] for shown in shown_of.values()] == ["FINISHED"] * 4
    models = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_logged_models(["1"])
    assert [model.status for model in models] == ["READY"] * 4


@pytest.mark.slow
def test_a_killed_mirror_is_completed(place: Path) -> None:
    folder = write_run(place / "outputs" / "a", model=True)
    for call in ("create_run", "log_batch", "log_artifact", "finalize_logged_model"):
        code = (
            "import os, signal, mlflow; from mlflow import MlflowClient as C; "
            f"C.{call} = lambda *a, _do=C.{call}, **k: (_do(*a, **k), os.kill(os.getpid(), signal.SIGKILL)); " + MIRROR
        )
        done = subprocess.run([sys.executable, "-c", code, folder], timeout=60, check=False)
        assert done.returncode == -signal.SIGKILL, call
    mirror(folder, HERE)
    assert only_run(place).info.status == "FINISHED"
    assert query(place, "select count(*) from metrics where step > 0") == [(EPOCHS * PER_EPOCH,)]
    assert query(place, "select count(*) from logged_models") == [(1,)]


def reachable(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_a_server_that_comes_back_gets_everything_once(
    place: Path, tracker: Tracker, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    here = Settings("server", uri=f"http://127.0.0.1:{port}")
    folder = write_run(place / "outputs" / "a", epochs=2, status="RUNNING")
    tracker.start(folder, here)
    command = [str(Path(sys.executable).parent / "mlflow"), "server", "--port", str(port), "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (place / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not reachable(port) and time.monotonic() < until:
            time.sleep(0.2)
        write_run(folder, model=True)
        tracker.notify()
        tracker.close()
        mirror(folder, here)
        client = MlflowClient(here.uri)
        (run,) = client.search_runs(["1"])
        assert run.info.status == "FINISHED"
        assert [model.status for model in client.search_logged_models(["1"])] == ["READY"]
        for key in ("train/loss", "val/accuracy", "time/train_seconds"):
            assert [point.step for point in client.get_metric_history(run.info.run_id, key)] == [1, 2, 3]
        (figure,) = client.list_artifacts(run.info.run_id, "figures")
        assert figure.path == "figures/confusion.png"
        assert capsys.readouterr().out == "", "MLflow likes to print addresses"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.mark.slow
def test_the_logged_model_takes_raw_images(place: Path) -> None:
    import mlflow
    import torch
    from mlflow import MlflowClient

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.dense = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(4, 3)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.dense(self.convolution(image.float() / 255).mean((2, 3))).softmax(1)

    folder, network = write_run(place / "outputs" / "a"), Network().eval()
    image = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    batch = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(network, (torch.from_numpy(image[:2]),), dynamic_shapes=(batch,))
    described = json.dumps({"class_names": CLASSES, "shape": [1, 8, 8]})
    torch.export.save(program, folder / "model.pt2", extra_files={"emoexp.json": described})
    mirror(folder, HERE)
    store = f"sqlite:///{place}/mlflow.db"
    mlflow.set_tracking_uri(store)
    try:
        model = mlflow.pyfunc.load_model(f"runs:/{only_run(place).info.run_id}/model")
    finally:
        mlflow.set_tracking_uri("")
    assert model.metadata.metadata["class_names"] == list(CLASSES)
    (logged,) = MlflowClient(store).search_logged_models(["1"])
    assert logged.status == "READY" and logged.source_run_id == only_run(place).info.run_id
    expected = network(torch.from_numpy(image)).detach().numpy()
    np.testing.assert_allclose(model.predict(image), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict(image[:1]), expected[:1], atol=1e-6)
    with pytest.raises(mlflow.MlflowException, match="does not match expected shape"):
        model.predict(image[:, :, :4])
    alone = model.get_raw_model()
    np.testing.assert_allclose(alone.predict(image[:, 0].astype(np.int64)), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"0\.\.255"):
        alone.predict(image / 255)


@pytest.mark.parametrize("name", ["a?b", "100%", "a%20b", "a#b", "a b"])
def test_a_folder_of_any_name_holds_its_own_database(name, place, monkeypatch):
    folder, database = place / name, f"{name.encode().hex()}.db"  # MLflow keeps a store for each address in a process
    folder.mkdir()
    shutil.move(place / "mlflow.db", folder / database)
    monkeypatch.chdir(folder)
    mirror(write_run(folder / "outputs" / "a"), Settings("mlflow", uri=f"sqlite:///{database}", log_model=False))
    with closing(sqlite3.connect(folder / database)) as connection:
        assert connection.execute("select status from runs").fetchall() == [("FINISHED",)]
    assert {path.name for path in place.iterdir()} == {name}
    monkeypatch.chdir(place.parent)
    assert locate(Settings("mlflow", uri=address_of(folder / database))).database == folder / database
