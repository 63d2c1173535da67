"""Sweeps as a person types them, with what goes wrong: kills, failing cells, two at once, clusters."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from composing import TINY

pytestmark = pytest.mark.slow
BASE = (*TINY, "threads=1")
PATIENCE_S = 400


def command(*words: str) -> list[str]:
    """A sweep's command line; options with dashes come first."""
    options = words[:2] if words and words[0] == "--config-dir" else ()
    return [sys.executable, "-m", "emoexp.train", "--multirun", *options, *BASE, *words[len(options) :]]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "PYTHONWARNINGS": "default"}


def sweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A sweep to its end, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = command(*words)
    return subprocess.run(
        asked, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=PATIENCE_S
    )


def begun(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A sweep under way, in a process group of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "out.txt").open("a") as out:
        about = {"cwd": folder, "env": environment(folder), "start_new_session": True}
        return subprocess.Popen(command(*words), stdout=out, stderr=out, text=True, **about)


def statuses(folder: Path, root: str = "outputs") -> Counter[str]:
    return Counter(json.loads(path.read_text())["status"] for path in (folder / root).glob("*/status.json"))


def results(folder: Path) -> dict[str, tuple[bytes, bytes, dict]]:
    """What runs must share bit for bit: metrics, history, and the weights of the best epoch."""
    from emoexp.runs import checkpoint

    found = {}
    for run in sorted((folder / "outputs").iterdir()):
        best = checkpoint.load(run / "best.pt")
        found[run.name] = ((run / "metrics.json").read_bytes(), (run / "history.jsonl").read_bytes(), best["model"])
    return found


def same(one: dict, other: dict) -> None:
    import torch

    assert one.keys() == other.keys() and one
    for name, (metrics, history, model) in one.items():
        assert (metrics, history) == other[name][:2], name
        assert all(torch.equal(model[key], other[name][2][key]) for key in model), name


def orphans(folder: Path) -> list[str]:
    """Processes whose working folder is this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve() and (process / "stat").read_text().split()[2] != "Z":
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def gone(folder: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while orphans(folder):
        assert time.monotonic() < end, orphans(folder)
        time.sleep(0.2)


CELLS = ("activation=relu,elu", "seed=0,1", "epochs=3")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = sweep(folder, *CELLS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 done" in done.stdout and "4 of 4 cells are finished" in done.stdout and done.stderr == ""
    return folder


def test_a_sweep_killed_at_five_random_moments_equals_an_undisturbed_one(undisturbed, tmp_path):
    draw = random.Random(7)
    for kill in range(5):
        process = begun(tmp_path, *CELLS, f"workers={1 + kill % 2}")
        time.sleep(draw.uniform(3, 14))
        if kill % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:  # the supervisor alone: its workers save their runs and follow
            process.kill()
        process.wait()
        gone(tmp_path)
    done = sweep(tmp_path, *CELLS)
    assert done.returncode == 0, done.stdout + done.stderr
    same(results(undisturbed), results(tmp_path))
    assert statuses(tmp_path) == {"FINISHED": 4} and statuses(tmp_path, "multirun") == {"FINISHED": 1}


def test_runs_beside_each_other_have_the_bits_of_runs_alone(tmp_path):
    together, alone = tmp_path / "together", tmp_path / "alone"
    alone.mkdir()
    done = sweep(together, "activation=relu,elu", "epochs=3", "workers=2")
    assert done.returncode == 0, done.stdout + done.stderr
    for activation in ("relu", "elu"):
        asked = [sys.executable, "-m", "emoexp.train", *BASE, f"activation={activation}", "epochs=3"]
        subprocess.run(asked, cwd=alone, env=environment(alone), check=True, capture_output=True, timeout=PATIENCE_S)
    same(results(together), results(alone))
    for run in (alone / "outputs").iterdir():
        assert (run / "last.pt").read_bytes() == (together / "outputs" / run.name / "last.pt").read_bytes()


OWN = '''
import os, sys
import torch
from torch import nn

class Counted(nn.ReLU):
    """Does its deed at the third training step."""
    steps = 0
    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            type(self).steps += 1
            if type(self).steps > 8:
                self.deed()
        return super().forward(x)

class Raising(Counted):
    def deed(self): raise KeyError("a mistake of one's own")

class Leaving(Counted):
    def deed(self): sys.exit(3)

class Dying(Counted):
    def deed(self): os._exit(5)

class Killed(Counted):
    def deed(self): os.kill(os.getpid(), 9)
'''


def own_package(folder: Path) -> tuple[str, ...]:
    """A user's activations, of which each goes wrong in its way, and the words that let them in."""
    (folder / "own_conf" / "activation").mkdir(parents=True)
    (folder / "own_cells.py").write_text(OWN)
    for name in ("raising", "leaving", "dying", "killed"):
        text = f"# {name}\nname: {name}\n_target_: own_cells.{name.capitalize()}\n_partial_: true\n"
        (folder / "own_conf" / "activation" / f"{name}.yaml").write_text(text)
    return "--config-dir", "own_conf", "allow=[own_cells]"


@pytest.mark.parametrize("workers", [1, 2])
def test_failing_exiting_dying_and_nan_cells_leave_the_others(tmp_path, workers):
    words = own_package(tmp_path)
    tracking = "tracking=mlflow" if workers == 1 else "tracking=none"
    done = sweep(tmp_path, *words, "activation=relu,raising,leaving,dying,killed,elu", tracking, f"workers={workers}")
    nan = sweep(tmp_path, "activation=relu,elu", "optimizer.lr=1e30", tracking, "on_error=continue")
    assert done.returncode == 2, done.stdout + done.stderr
    assert nan.returncode == 1, nan.stdout + nan.stderr
    table = re.split(r"^activation +seed", done.stdout, flags=re.MULTILINE)[1]
    assert "raising" in table and 'KeyError: "a mistake of one\'s own"' in table and "SystemExit: 3" in table
    assert "its process died: exit code 5" in table and "its process died: SIGKILL" in table
    assert "2 of 6 cells are finished" in done.stdout and "2 failed" in table and "2 died" in table
    assert "is not finite at epoch 1" in nan.stdout and "0 of 2 cells are finished" in nan.stdout
    assert statuses(tmp_path) == {"FINISHED": 2, "FAILED": 6}
    logs = {path.parent.name.split("-")[2]: path.read_text() for path in (tmp_path / "outputs").glob("*/run.log")}
    assert "Traceback" in logs["raising"] and "deed" in logs["raising"] and "SystemExit" in logs["leaving"]
    assert "exit code 5" in logs["dying"]
    assert statuses(tmp_path, "multirun") == {"FAILED": 2}
    if workers == 1:
        shown_in_mlflow(tmp_path)


def shown_in_mlflow(folder: Path) -> None:
    """The same is true in MLflow: children below their parents, failures with their reason, nothing RUNNING."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("emoexp").experiment_id])
    parents = {run.info.run_id: run for run in found if run.data.tags.get("kind") == "sweep"}
    cells = [run for run in found if run.info.run_id not in parents]
    assert Counter(run.info.status for run in cells) == {"FINISHED": 2, "FAILED": 6}
    assert {run.info.status for run in parents.values()} == {"FAILED"} and len(parents) == 2
    assert {run.data.tags["mlflow.parentRunId"] for run in cells} == set(parents)
    errors = " ".join(run.data.tags.get("emoexp.error", "") for run in cells)
    assert "a mistake of one's own" in errors and "exit code 5" in errors and "not finite" in errors
    for run in cells:
        assert {"activation", "imbalance", "seed", "optimizer.lr"} <= run.data.params.keys()
        if run.info.status == "FINISHED":
            assert {"best/macro_f1", "test/macro_f1", "test_clean/accuracy"} <= run.data.metrics.keys()
    failed = next(run for run in cells if run.data.params["activation"] == "raising")
    log = Path(client.download_artifacts(failed.info.run_id, "run.log")).read_text()
    assert "Traceback" in log and "deed" in log


def test_on_error_stop_starts_nothing_more(tmp_path):
    done = sweep(tmp_path, *own_package(tmp_path), "activation=raising,relu,elu", "on_error=stop")
    assert done.returncode == 1 and "on_error=stop" in done.stdout and "2 skipped" in done.stdout
    assert statuses(tmp_path) == {"FAILED": 1}


def test_a_cell_over_its_time_is_stopped_and_goes_on(tmp_path, undisturbed):
    late = sweep(tmp_path, "activation=relu", "epochs=3000", "time_limit=0.15", "patience=null")
    assert late.returncode == 1 and "over its time limit of 0.15 minutes" in late.stdout, late.stdout + late.stderr
    assert statuses(tmp_path) == {"KILLED": 1}
    history = next((tmp_path / "outputs").glob("*/history.jsonl"))
    before = len(history.read_text().splitlines())
    assert before > 0
    sweep(tmp_path, "activation=relu", "epochs=3000", "time_limit=0.15", "patience=null")
    assert len(history.read_text().splitlines()) > before


def test_extending_a_sweep_runs_only_what_is_new(undisturbed, tmp_path):
    sweep(tmp_path, "activation=relu,elu", "seed=0", "epochs=3")
    single = subprocess.run(
        [sys.executable, "-m", "emoexp.train", *BASE, "activation=relu", "seed=1", "epochs=3"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert single.returncode == 0
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").glob("*/metrics.json")}
    done = sweep(tmp_path, *CELLS)
    assert done.returncode == 0 and "3 found, 1 done" in done.stdout, done.stdout + done.stderr
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()) and len(stamps) == 3
    same(results(undisturbed), results(tmp_path))
    assert len(list((tmp_path / "multirun").iterdir())) == 1
    told = json.loads(next((tmp_path / "multirun").glob("*/cells.json")).read_text())
    assert len(told) == 4


def test_two_sweeps_at_once_do_not_run_a_cell_twice(undisturbed, tmp_path):
    both = [begun(tmp_path, *CELLS), begun(tmp_path, *CELLS)]
    assert [process.wait(PATIENCE_S) for process in both] == [0, 0], (tmp_path / "out.txt").read_text()
    same(results(undisturbed), results(tmp_path))
    for log in (tmp_path / "outputs").glob("*/run.log"):
        assert log.read_text().count("epoch    1/3") == 1, log.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["activation=relu,rellu"], "rellu"),
        (["architecture=emotion_cnn,vgg_a"], "widths"),
        (["activation=relu", "imbalance.epoch_size=pool,0"], "epoch_size"),
        (["activation=relu", "optimizer.lr=0.1,-1"], "learning rate"),
    ],
)
def test_a_wrong_cell_starts_nothing(tmp_path, words, said):
    done = sweep(tmp_path, *words)
    assert done.returncode == 1 and said in (done.stdout + done.stderr), done.stdout + done.stderr
    assert not (tmp_path / "outputs").exists()


def test_data_that_are_not_there_start_nothing(tmp_path):
    words = ["--multirun", "data=folder", "data.root=nowhere", "activation=relu,elu", "tracking=none"]
    asked = [sys.executable, "-m", "emoexp.train", *words]
    done = subprocess.run(asked, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1 and "nowhere" in done.stderr and "activation=relu seed=0, activation=elu" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_dry_run_only_tells(tmp_path):
    told = sweep(tmp_path, "activation=relu,elu", "dry_run=true")
    assert told.returncode == 0 and "0 of 2 cells are done; the others take about" in told.stdout
    assert not (tmp_path / "outputs").exists()
    assert sweep(tmp_path, "activation=relu").returncode == 0
    again = sweep(tmp_path, "activation=relu,elu", "dry_run=true")
    assert "1 of 2 cells are done" in again.stdout and statuses(tmp_path) == {"FINISHED": 1}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_leaves_nothing_running_and_goes_on(tmp_path, sent):
    words = ("activation=relu,elu", "epochs=2000", "patience=null", "workers=2")
    process = begun(tmp_path, *words)
    end = time.monotonic() + 120
    while len(list((tmp_path / "outputs").glob("*/last.pt"))) < 2 and time.monotonic() < end:
        time.sleep(0.2)
    if sent == signal.SIGINT:  # Ctrl-C goes to the whole group
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    assert process.wait(60) == 130, (tmp_path / "out.txt").read_text()
    gone(tmp_path)
    assert "goes on from here" in (tmp_path / "out.txt").read_text()
    assert statuses(tmp_path) == {"KILLED": 2} and statuses(tmp_path, "multirun") == {"KILLED": 1}
    before = [len(path.read_text().splitlines()) for path in sorted((tmp_path / "outputs").glob("*/history.jsonl"))]
    sweep(tmp_path, *words, "time_limit=0.5")
    after = [len(path.read_text().splitlines()) for path in sorted((tmp_path / "outputs").glob("*/history.jsonl"))]
    assert all(now > then for now, then in zip(after, before, strict=True))


def test_a_search_gives_an_arm_one_learning_rate(tmp_path):
    words = ("activation=relu,elu", "seed=0,1", "tune.lr=[0.00001,0.01]")
    done = sweep(tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(next((tmp_path / "multirun").glob("*/cells.json")).read_text())
    chosen = {row["axes"]["activation"]: row["chosen"]["optimizer.lr"] for row in told.values() if "chosen" in row}
    assert set(chosen) == {"relu", "elu"} and set(chosen.values()) <= {0.00001, 0.01}
    for folder in (tmp_path / "outputs").iterdir():
        params = json.loads((folder / "manifest.json").read_text())["params"]
        assert params["seed"] == 1000 or params["optimizer.lr"] == chosen[params["activation"]]
    again = sweep(tmp_path, *words)
    assert again.returncode == 0 and "4 found" in again.stdout
    report = [sys.executable, "-m", "emoexp.report", *BASE, *words]
    wrote = subprocess.run(report, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert (
        wrote.returncode == 0
        and "chosen optimizer.lr" in next((tmp_path / "multirun").glob("*/report/report.md")).read_text()
    )


MIRROR = """
import sys
from pathlib import Path
from emoexp.tracking import Settings, mirror
mirror(Path(sys.argv[1]), Settings(kind="mlflow"))
"""


def test_eight_processes_on_a_new_database_ten_times(tmp_path):
    """Once with eight whole trainings, nine times with what they do to a new database: eight good runs each time."""
    first = tmp_path / "first"
    first.mkdir()
    words = [sys.executable, "-m", "emoexp.train", *BASE, "tracking=mlflow", "tracking.log_model=false", "epochs=1"]
    started = [
        subprocess.Popen([*words, f"seed={seed}"], cwd=first, env=environment(first), stdout=-3) for seed in range(8)
    ]
    assert [process.wait(PATIENCE_S) for process in started] == [0] * 8
    assert good_runs(first) == 8
    for turn in range(9):
        again = tmp_path / str(turn)
        subprocess.run(["cp", "-r", first / "outputs", again], check=True)
        for state in again.glob("*/tracking.json"):
            state.unlink()
        folders = sorted(again.iterdir())
        started = [subprocess.Popen([sys.executable, "-c", MIRROR, folder], cwd=again) for folder in folders]
        assert [process.wait(PATIENCE_S) for process in started] == [0] * 8
        assert good_runs(again) == 8


def good_runs(folder: Path) -> int:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("emoexp").experiment_id])
    return len(
        {run.info.run_name for run in found if run.info.status == "FINISHED" and "test/macro_f1" in run.data.metrics}
    )


@pytest.mark.parametrize(
    ("launcher", "package"),
    [("submitit_local", "hydra_submitit_launcher"), ("ray", "hydra_ray_launcher")],
)
def test_beyond_one_machine(tmp_path, launcher, package, undisturbed):
    if find_spec(f"hydra_plugins.{package}") is None:
        pytest.skip(f"{package} is not installed: pip install '.[slurm,ray]'")
    path = os.environ.get("PYTHONPATH", "")
    words = (
        *own_package(tmp_path),
        f"hydra/launcher={launcher}",
        "activation=relu,raising,elu",
        "seed=0,1",
        "epochs=3",
    )
    asked = subprocess.run(
        command(*words),
        cwd=tmp_path,
        env=environment(tmp_path) | {"PYTHONPATH": f"{tmp_path}:{path}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert asked.returncode == 2, asked.stdout + asked.stderr
    assert "4 of 6 cells are finished" in asked.stdout and "a mistake of one's own" in asked.stdout
    assert statuses(tmp_path) == {"FINISHED": 4, "FAILED": 2}
    same(results(undisturbed), results_of_finished(tmp_path))


def results_of_finished(folder: Path) -> dict:
    for run in (folder / "outputs").iterdir():
        if not (run / "metrics.json").is_file():
            subprocess.run(["rm", "-r", run], check=True)
    return results(folder)


def test_folds_are_swept_in_one_command_and_reported_as_one(tmp_path):
    words = ["ablation=kfold", "split.folds=3", "split.fold=range(3)", "seed=0,1"]
    done = sweep(tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(tmp_path) == {"FINISHED": 6}
    asked = [sys.executable, "-m", "emoexp.report", *words, *BASE]
    told = subprocess.run(asked, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=100)
    assert told.returncode == 0, told.stdout + told.stderr
    (summary,) = tmp_path.glob("multirun/*/report/summary.json")
    found = json.loads(summary.read_text())
    (arm,) = found["tables"]["arms_test"]
    assert arm["n"] == 2 and [row["test_n"] for row in found["tables"]["runs"]] == [420, 420]  # every image once a seed
