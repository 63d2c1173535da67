"""Whole runs: what they leave, that they can be killed at any moment, and that equal runs are equal."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from composing import TINY, tiny

from emoexp.config import build_data, options
from emoexp.runs import checkpoint, machine, manifest
from emoexp.runs import folder as session_folder
from emoexp.runs import process as session
from emoexp.training import checkpointer, loop
from emoexp.training import run as training

pytestmark = pytest.mark.usefixtures("blank_figures")

LEFT = [
    "config.yaml",
    "manifest.json",
    "status.json",
    "history.jsonl",
    "times.jsonl",
    "metrics.json",
    "ledger.json",
    "ledger.csv",
    "best.pt",
    "last.pt",
    "run.log",
    "seen.npy",
    "predictions/val.npz",
    "predictions/test.npz",
    "tables/val_per_class.csv",
    "tables/test_per_class.csv",
    "figures/ledger.png",
    "figures/training.png",
    "figures/test_confusion.png",
    "figures/test_precision_recall.png",
    "figures/test_mistakes.png",
    "figures/val_confusion.png",
    "figures/val_precision_recall.png",
]


def run_folder(base: Path) -> Path:
    folders = sorted((base / "outputs").iterdir())
    assert len(folders) == 1, folders
    return folders[0]


def train(base: Path, *overrides: str) -> Path:
    training.train(*tiny(base, *overrides))
    return run_folder(base)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / "last.pt")["model"]


def equal_weights(one: Path, other: Path) -> bool:
    return alike(weights_of(one), weights_of(other))


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Equal weights of equal networks."""
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """One undisturbed run."""
    return train(tmp_path_factory.mktemp("undisturbed"))


def test_a_run_leaves_everything(finished):
    assert [name for name in LEFT if not (finished / name).is_file()] == []
    metrics = json.loads((finished / "metrics.json").read_text())
    assert {"best", "val", "test", "val_clean", "test_clean"} <= metrics.keys()
    assert json.loads((finished / "status.json").read_text())["status"] == "FINISHED"
    rows = [json.loads(line) for line in (finished / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    best = max(rows, key=lambda row: row["val/macro_f1"])
    assert metrics["best"]["epoch"] == best["epoch"]


def test_metrics_are_those_of_the_predictions(finished):
    from sklearn.metrics import accuracy_score, f1_score

    saved = np.load(finished / "predictions" / "test.npz")
    metrics = json.loads((finished / "metrics.json").read_text())["test"]
    predicted = saved["probability"].argmax(1)
    assert metrics["n"] == len(predicted) == 84
    assert metrics["accuracy"] == pytest.approx(accuracy_score(saved["target"], predicted))
    assert metrics["macro_f1"] == pytest.approx(f1_score(saved["target"], predicted, average="macro"))


def test_equal_runs_give_equal_bytes(finished, tmp_path):
    other = train(tmp_path)
    assert other.name == finished.name
    for name in (
        "metrics.json",
        "history.jsonl",
        "ledger.csv",
        "tables/test_per_class.csv",
        "predictions/test.npz",
    ):
        assert (other / name).read_bytes() == (finished / name).read_bytes(), name
    assert equal_weights(finished, other)


def test_another_seed_is_another_run(finished, tmp_path):
    other = train(tmp_path, "seed=1")
    assert other.name != finished.name and not equal_weights(finished, other)


def test_a_finished_run_is_returned_without_training(tmp_path, monkeypatch):
    first = training.train(*tiny(tmp_path))
    monkeypatch.setattr(loop, "train_epoch", lambda *arguments: pytest.fail("trained again"))
    assert training.train(*tiny(tmp_path)) == first
    run_folder(tmp_path)


class Stops:
    """Interrupts training after a number of steps, as a signal would."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def stop_after(monkeypatch, steps: int) -> None:
    from contextlib import contextmanager

    @contextmanager
    def stop_on_signal():
        yield Stops(steps)

    monkeypatch.setattr(training, "stop_on_signal", stop_on_signal)


@pytest.mark.parametrize("steps", [3, 9, 13])
def test_interrupted_and_resumed_it_ends_the_same(finished, tmp_path, monkeypatch, steps):
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            training.train(*tiny(tmp_path))
    folder = run_folder(tmp_path)
    assert json.loads((folder / "status.json").read_text())["status"] == "KILLED"
    training.train(*tiny(tmp_path))
    assert run_folder(tmp_path) == folder and equal_weights(folder, finished)
    for name in ("metrics.json", "history.jsonl"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert len((folder / "times.jsonl").read_text().splitlines()) == 2


def test_what_was_not_yet_written_is_trained_again(tmp_path, monkeypatch):
    """Epochs shorter than a second share their writing; a process that dies in between loses them, and no bit."""
    whole = train(tmp_path / "whole", "epochs=4")
    written, original, train_epoch = [], checkpoint.save, loop.train_epoch
    monkeypatch.setattr(checkpointer, "MIN_INTERVAL_S", 1e9)
    monkeypatch.setattr(checkpoint, "save", lambda path, payload: (written.append(path.name), original(path, payload)))

    class Killed(BaseException):
        pass

    def dies(recipe, state, *others):
        if state.epoch == 3:
            raise Killed
        train_epoch(recipe, state, *others)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_epoch", dies)
        with pytest.raises(Killed):
            training.train(*tiny(tmp_path, "epochs=4"))
    assert written == ["best.pt", "last.pt"]  # the first epoch's
    folder = train(tmp_path, "epochs=4")
    assert json.loads((folder / "times.jsonl").read_text().splitlines()[0])["epoch"] == 1
    assert equal_weights(folder, whole) and len((folder / "times.jsonl").read_text().splitlines()) == 4
    for name in ("metrics.json", "history.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("missing", ["history.jsonl", "times.jsonl"])
def test_killed_after_the_checkpoint_and_before_a_table(finished, tmp_path, monkeypatch, missing):
    """The times of that epoch are lost; the run goes on, is stopped and goes on again, and ends with the same bits."""
    monkeypatch.setattr(checkpointer, "MIN_INTERVAL_S", -1.0)
    original, kills = session_folder.Run.write_lines, iter([1, 2])

    def killed(run, name, rows, original=original):
        if name == missing and next(kills, None) is not None:
            raise SystemExit(9)
        original(run, name, rows)

    monkeypatch.setattr(session_folder.Run, "write_lines", killed)
    for _ in range(2):
        with pytest.raises(SystemExit):
            training.train(*tiny(tmp_path))
    training.train(*tiny(tmp_path))
    assert equal_weights(run_folder(tmp_path), finished)
    assert (run_folder(tmp_path) / "history.jsonl").read_bytes() == (finished / "history.jsonl").read_bytes()
    training.train(*tiny(tmp_path))


def test_killed_between_best_and_last_checkpoint(finished, tmp_path, monkeypatch):
    original = checkpoint.save

    class Killed(BaseException):
        pass

    def save(path, payload):
        if path.name == "last.pt":
            raise Killed
        original(path, payload)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        with pytest.raises(Killed):
            training.train(*tiny(tmp_path))
    training.train(*tiny(tmp_path))
    assert (run_folder(tmp_path) / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()


def test_results_of_another_version_are_not_continued_in_silence(tmp_path, monkeypatch, capsys):
    training.train(*tiny(tmp_path))
    monkeypatch.setattr(manifest, "RESULTS_VERSION", 1000)
    training.train(*tiny(tmp_path))
    first, second = sorted((tmp_path / "outputs").iterdir())
    assert second.name == f"{first.name}.2"
    said = capsys.readouterr().out
    assert "was started with different results_version (1, now 1000)" in said and "resume=force" in said
    training.train(*tiny(tmp_path))  # fits the second one
    assert len(list((tmp_path / "outputs").iterdir())) == 2


def test_resume_force_goes_on(tmp_path, monkeypatch):
    stop_after(monkeypatch, 9)
    with pytest.raises(KeyboardInterrupt):
        training.train(*tiny(tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr(manifest, "RESULTS_VERSION", 1000)
    training.train(*tiny(tmp_path, "resume=force"))
    kept = json.loads((run_folder(tmp_path) / "manifest.json").read_text())
    assert kept["results_version"] == 1000 and "results_version (" in kept["continued"][0][0]


def test_resume_never_starts_beside(tmp_path):
    training.train(*tiny(tmp_path))
    training.train(*tiny(tmp_path, "resume=never"))
    assert len(list((tmp_path / "outputs").iterdir())) == 2


def test_other_data_are_not_continued_in_silence(tmp_path, monkeypatch, capsys):
    training.train(*tiny(tmp_path))
    original = build_data.load_data

    def altered(experiment, place):
        import dataclasses

        data = original(experiment, place)
        images = np.array(data.images)
        images[0] ^= 1
        from emoexp.data.dataset import digests

        return dataclasses.replace(data, images=images, digest=digests(images))

    training.train(*tiny(tmp_path), load=altered)
    assert len(list((tmp_path / "outputs").iterdir())) == 2
    assert "different data." in capsys.readouterr().out


def test_two_processes_do_not_train_one_run(tmp_path):
    import fcntl

    folder = train(tmp_path)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is training"):
            training.train(*tiny(tmp_path))


@pytest.mark.parametrize("override", ["optimizer.lr=1e30", "optimizer=sgd optimizer.lr=1e30"])
def test_a_loss_that_is_not_finite_fails_the_run(tmp_path, override):
    with pytest.raises(FloatingPointError, match="not finite at epoch 1"):
        training.train(*tiny(tmp_path, *override.split()))
    status = json.loads((run_folder(tmp_path) / "status.json").read_text())
    assert status["status"] == "FAILED" and "not finite" in status["error"]
    assert "Traceback" in (run_folder(tmp_path) / "run.log").read_text()


def test_a_full_disk_fails_the_run_and_keeps_what_there_is(tmp_path, monkeypatch):
    stop_after(monkeypatch, 9)
    with pytest.raises(KeyboardInterrupt):
        training.train(*tiny(tmp_path))
    monkeypatch.undo()
    folder = run_folder(tmp_path)
    before = (folder / "last.pt").read_bytes()

    def full(path, payload):
        raise OSError(f"could not save {path} (No space left on device); the old file, if there was one, is unchanged")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="No space left"):
        training.train(*tiny(tmp_path))
    assert (folder / "last.pt").read_bytes() == before


ROWS = options.listed("imbalance")


def only_train(*arguments) -> Path:
    """A run without its results: its last checkpoint is all that is looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "conclude", lambda *ignored: {})
        training.train(*tiny(*arguments))
    return arguments[0]


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, Path]:
    """Two epochs of every named strategy."""
    base = tmp_path_factory.mktemp("rows")
    for row in ROWS:
        only_train(base, f"imbalance={row}")
    return {row: next((base / "outputs").glob(f"*-relu-{row}-s0-*")) for row in ROWS}


AFTERWARDS = {"logit_adjustment", "tau_norm", "nearest_class_mean"}  # rows that train as none does


@pytest.mark.slow
def test_all_rows_train_differently(rows):
    assert all(equal_weights(rows[row], rows["none"]) for row in AFTERWARDS)
    weights = {row: weights_of(folder) for row, folder in rows.items() if row not in AFTERWARDS}
    same = [(a, b) for k, a in enumerate(weights) for b in list(weights)[:k] if alike(weights[a], weights[b])]
    assert same == []


OVER = {  # rows whose prior goes beyond equal classes
    "sampler_weighted_loss": "double correction",
    "augment_sampler_weighted_loss": "double correction",
    "vs": "over-correction",  # its published tau is 1.2
    "remix_drw": "double correction",  # labels move to rare classes, and their weights count the images
}


@pytest.mark.slow
def test_corrections_that_go_too_far_are_named(rows):
    for row, folder in rows.items():
        ledger = json.loads((folder / "ledger.json").read_text())
        assert (ledger["warning"] or "").startswith(OVER.get(row, "")) and (row in OVER or ledger["warning"] is None)
        assert (ledger["over_correction"] > 1.05) == (row in OVER), row


CHANGES = [
    "augmentation=none",
    "augmentation=strong",
    "activation=leaky_relu",
    "scheduler=constant",
    "scheduler=cosine",
    "imbalance=augment imbalance.copies.redraw=epoch",
    "imbalance.epoch_size=100",
    "clip_norm=0.01",
    "batch_size=16",
    "precision=bf16",
]


def test_no_option_is_dead(tmp_path, monkeypatch):
    """Every option changes what is trained; one that changed nothing would be a lie in a table. (Those of the imbalance
    columns and of optimizers: test_contract.)"""
    monkeypatch.setattr(machine, "_bf16_arithmetic", lambda: True)  # on other processors it is refused
    folders = [run_folder(only_train(tmp_path / row, "epochs=1", f"imbalance={row}")) for row in ("none", "augment")]
    for k, overrides in enumerate(CHANGES):
        folders.append(run_folder(only_train(tmp_path / str(k), "epochs=1", *overrides.split())))
    called, weights = ["none", "augment", *CHANGES], [weights_of(folder) for folder in folders]
    pairs = [(j, k) for k in range(len(folders)) for j in range(k)]
    assert [(called[j], called[k]) for j, k in pairs if alike(weights[j], weights[k])] == []


def test_precision_that_would_only_cost_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_bf16_arithmetic", lambda: False)
    with pytest.raises(ValueError, match="no bf16 arithmetic"):
        only_train(tmp_path, "precision=bf16")


@pytest.mark.parametrize("executor", ["graph", "compiled"])
def test_what_only_a_gpu_can_do_is_refused_on_a_cpu(executor, tmp_path):
    with pytest.raises(ValueError, match=f"executor={executor} is for CUDA.*leave executor=auto"):
        only_train(tmp_path, f"executor={executor}", "device=cpu")


def test_eager_steps_are_the_usual_ones_on_a_cpu(tmp_path):
    """How steps are carried out decides neither the run's name nor its result."""
    folder = run_folder(only_train(tmp_path / "eager", "epochs=1", "executor=eager", "device=cpu"))
    other = run_folder(only_train(tmp_path / "auto", "epochs=1", "executor=auto", "device=cpu"))
    assert folder.name == other.name and equal_weights(folder, other)


def command(base: Path, *overrides: str) -> list[str]:
    places = [f"outputs={base / 'outputs'}", f"cache={base / 'cache'}", "threads=1"]
    return [sys.executable, "-m", "emoexp.train", *TINY, *places, *overrides]


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_no_bit(tmp_path):
    """A real process, killed again and again, ends with the bits of one that was not."""
    long = ("epochs=12", "data.size=1500")
    subprocess.run(command(tmp_path / "whole", *long), check=True, capture_output=True, timeout=300)
    kills = 0
    for delay in (0.3, 1.2, 0.7, 2.0):
        with subprocess.Popen(command(tmp_path / "killed", *long), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for line in process.stdout:
                if line.startswith("epoch"):
                    break
            time.sleep(delay / 4)
            process.kill()
        kills += process.returncode == -signal.SIGKILL
    subprocess.run(command(tmp_path / "killed", *long), check=True, capture_output=True, timeout=300)
    whole, killed = run_folder(tmp_path / "whole"), run_folder(tmp_path / "killed")
    assert kills >= 2
    for name in ("metrics.json", "history.jsonl"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    assert equal_weights(whole, killed)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130)])
def test_signals_leave_a_checkpoint_and_a_killed_run(tmp_path, number, code):
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(tmp_path, "epochs=200"), text=True, **both) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code and "the same command goes on from here" in said
    folder = run_folder(tmp_path)
    assert json.loads((folder / "status.json").read_text())["status"] == "KILLED"
    assert checkpoint.load(folder / "last.pt")["epoch"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["| head -1", ">&- 2>&-"])
def test_a_training_whose_output_nobody_reads_goes_on(tmp_path, redirection):
    line = f"{shlex.join(command(tmp_path))} {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    folder = run_folder(tmp_path)
    assert json.loads((folder / "status.json").read_text())["status"] == "FINISHED"
    if redirection.startswith("|"):
        assert "standard output cannot be written (Broken pipe); training goes on" in (folder / "run.log").read_text()


def test_the_log_holds_what_was_said(finished):
    text = (finished / "run.log").read_text()
    for word in ("run    ", "train ", "ledger of the prior", "epoch    1/2", "test   n 84", "clean  n "):
        assert word in text
    assert not any(isinstance(h, session.logging.FileHandler) for h in session.log.handlers)


def test_mlflow_shows_how_a_run_ended(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    shown = ("tracking=mlflow", f"tracking.uri={uri}", f"tracking.artifacts={tmp_path / 'artifacts'}")
    stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        training.train(*tiny(tmp_path, *shown))
    monkeypatch.undo()
    client = MlflowClient(uri)
    (experiment,) = [found for found in client.search_experiments() if found.name == "emoexp"]
    (killed,) = client.search_runs([experiment.experiment_id])
    assert killed.info.status == "KILLED"
    training.train(*tiny(tmp_path, *shown))
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == killed.info.run_id and run.info.status == "FINISHED"
    metrics = json.loads((run_folder(tmp_path) / "metrics.json").read_text())
    assert run.data.metrics["test/macro_f1"] == pytest.approx(metrics["test"]["macro_f1"])
    assert len(client.get_metric_history(run.info.run_id, "val/macro_f1")) == 2
    assert run.outputs.model_outputs and run.data.params["imbalance"] == "none"
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id, "figures")}
    assert {"figures/test_confusion.png", "figures/test_precision_recall.png"} <= artifacts
