"""Sweeps as processes, at moments that hurt: within a step, twice interrupted, a worker shot, others at its cells."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from composing import TINY

pytestmark = pytest.mark.slow
PATIENCE_S = 300
LONG = ("epochs=3000", "patience=null")
STEPS_OF_SECONDS = (  # an epoch of minutes, whose steps take about a second
    *("image_size=48", "architecture.widths=[16,32,64,128]", "architecture.dense=64"),
    *("batch_size=512", "imbalance.epoch_size=200000"),
)


def command(*words: str, multirun: bool = True) -> list[str]:
    """The words of a command line; options stand before them, as Hydra wants it."""
    options = ["--multirun"] * multirun + ["--config-dir=own_conf"] * ("allow=[own_cells]" in words)
    return [sys.executable, "-m", "emoexp.train", *options, *TINY, "threads=1", *words]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}


def typed(folder: Path, *words: str, multirun: bool = True) -> subprocess.CompletedProcess[str]:
    """A command to its end, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"cwd": folder, "env": environment(folder), "timeout": PATIENCE_S}
    return subprocess.run(command(*words, multirun=multirun), capture_output=True, text=True, **about)


def begun(folder: Path, *words: str, multirun: bool = True) -> subprocess.Popen[bytes]:
    """A command under way, in a process group of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "out.txt").open("a") as out:
        about = {"cwd": folder, "env": environment(folder), "start_new_session": True}
        return subprocess.Popen(command(*words, multirun=multirun), stdout=out, stderr=out, **about)


def said(folder: Path) -> str:
    return (folder / "out.txt").read_text()


def wait_for(what: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    """Until something is so; a process that has ended before will not make it so."""
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it never came to this"
        assert process is None or process.poll() is None, f"ended with {process.returncode} before"
        time.sleep(0.05)


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in (folder / "outputs").glob("*/status.json"))


def statuses(folder: Path, root: str = "outputs") -> Counter[str]:
    return Counter(json.loads(path.read_text())["status"] for path in (folder / root).glob("*/status.json"))


def logged(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / "outputs").glob("*/run.log")))


def at_work(folder: Path) -> dict[int, str]:
    """Processes whose working folder is this one: their ids and words."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve() and (process / "stat").read_text().split()[2] != "Z":
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def trainers(folder: Path) -> list[int]:
    """The workers: processes that multiprocessing spawned."""
    return [number for number, words in at_work(folder).items() if "spawn_main" in words]


@pytest.fixture
def place(tmp_path):
    """A folder; whatever was begun in it and is still there afterwards is ended."""
    yield tmp_path
    for number in at_work(tmp_path):
        os.kill(number, signal.SIGKILL)


# interrupted


def test_ctrl_c_within_a_long_step_keeps_the_steps_before(place):
    """A person who stops a sweep in the middle of an epoch of minutes loses a step at most, as in a single run."""
    process = begun(place, "activation=relu,elu", *STEPS_OF_SECONDS)
    wait_for(lambda: "model  " in logged(place), process)
    time.sleep(20)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(90) == 130, said(place)
    assert statuses(place) == {"KILLED": 1} and statuses(place, "multirun") == {"KILLED": 1}
    assert "stopped at epoch 1, step" in logged(place), logged(place)
    assert len(list((place / "outputs").glob("*/last.pt"))) == 1


def test_sigterm_within_a_long_step_keeps_the_steps_before(place):
    process = begun(place, "activation=relu,elu", *STEPS_OF_SECONDS)
    wait_for(lambda: "model  " in logged(place), process)
    time.sleep(20)
    process.terminate()
    assert process.wait(90) == 130, said(place)
    assert statuses(place) == {"KILLED": 1} and statuses(place, "multirun") == {"KILLED": 1}
    assert "stopped at epoch 1, step" in logged(place), logged(place)


@pytest.mark.parametrize("pause_s", [0.02, 0.15, 0.6])
def test_ctrl_c_twice_leaves_nothing_running(place, pause_s):
    process = begun(place, "activation=relu,elu", "workers=2", *LONG)
    wait_for(lambda: len(list((place / "outputs").glob("*/last.pt"))) == 2, process)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(pause_s)
    assert process.wait(90) in (130, -signal.SIGINT), said(place)  # the second may come when all is done but the exit
    wait_for(lambda: not at_work(place))
    assert "Traceback" not in said(place), said(place)
    assert statuses(place) == {"KILLED": 2} and statuses(place, "multirun") == {"KILLED": 1}


# killed


def results(folder: Path) -> dict[str, tuple[bytes, bytes, dict]]:
    """What runs share bit for bit: metrics, history, weights of the best epoch."""
    from emoexp.runs import checkpoint

    return {
        run.name: (
            (run / "metrics.json").read_bytes(),
            (run / "history.jsonl").read_bytes(),
            checkpoint.load(run / "best.pt")["model"],
        )
        for run in runs(folder)
    }


def test_killed_whenever_runs_move_it_ends_as_an_undisturbed_one_and_trains_none_twice(tmp_path, place):
    """Five kills, each a random number of epochs after the last: they meet training, not the imports before it."""
    import torch

    cells, whole, killed = ("activation=relu,elu", "seed=0,1", "epochs=8"), place / "whole", place / "killed"
    done = typed(whole, *cells)
    assert done.returncode == 0, done.stdout + done.stderr
    draw, finished = random.Random(11), {}
    for kill in range(5):
        process = begun(killed, *cells)
        aim = logged(killed).count(" epoch ") + draw.randint(1, 7)
        wait_for(lambda aim=aim, process=process: logged(killed).count(" epoch ") >= aim or process.poll() is not None)
        time.sleep(draw.uniform(0, 0.2))
        os.killpg(process.pid, signal.SIGKILL) if kill % 2 else process.kill()
        process.wait()
        wait_for(lambda: not at_work(killed))
        for run in runs(killed):
            if json.loads((run / "status.json").read_text())["status"] == "FINISHED":
                stamp = (run / "metrics.json").stat().st_mtime_ns
                assert finished.setdefault(run, stamp) == stamp, f"{run} was concluded twice"
    done = typed(killed, *cells)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all((run / "metrics.json").stat().st_mtime_ns == stamp for run, stamp in finished.items())
    one, other = results(whole), results(killed)
    assert one.keys() == other.keys() and len(one) == 4
    for name, (metrics, history, model) in one.items():
        assert (metrics, history) == other[name][:2], name
        assert all(torch.equal(model[key], other[name][2][key]) for key in model), name


@pytest.mark.parametrize(
    ("sent", "state", "status"), [(signal.SIGKILL, "died", "FAILED"), (signal.SIGTERM, "killed", "KILLED")]
)
def test_a_worker_that_is_shot_costs_its_cell_alone(place, sent, state, status):
    process = begun(place, "activation=relu,elu", "epochs=60", "patience=null")
    wait_for(lambda: list((place / "outputs").glob("*/last.pt")), process)
    (number,) = trainers(place)
    os.kill(number, sent)
    assert process.wait(PATIENCE_S) == 2, said(place)
    assert f"1 {state}, 1 done" in said(place), said(place)
    assert statuses(place) == {status: 1, "FINISHED": 1}
    again = typed(place, "activation=relu,elu", "epochs=60", "patience=null")
    assert again.returncode == 0 and "1 found, 1 done" in again.stdout.replace("1 done, 1 found", "1 found, 1 done")
    assert "going on from epoch" in logged(place)


def test_a_cell_over_its_time_again_and_again_ends_as_an_undisturbed_one(place):
    words = ("activation=relu", "epochs=400", "patience=null")
    assert typed(place / "whole", *words).returncode == 0
    for _ in range(12):
        done = typed(place / "late", *words, "time_limit=0.12")
        assert done.returncode in (0, 1) and ("over its time limit" in done.stdout) == bool(done.returncode)
        assert statuses(place / "late") == {"KILLED" if done.returncode else "FINISHED": 1}
        if done.returncode == 0:
            break
    assert typed(place / "late", *words).returncode == 0
    (one,), (other,) = results(place / "whole").values(), results(place / "late").values()
    assert one[:2] == other[:2]


# others at work


def test_overlapping_sweeps_and_a_single_run_at_once_show_each_run_once(place):
    shown = ("tracking=mlflow", "tracking.log_model=false", "epochs=3")
    processes = [
        begun(place, "activation=relu", "seed=0,1", *shown),
        begun(place, "activation=relu", "seed=1,2", *shown),
        begun(place, "activation=relu", "seed=2", *shown, multirun=False),
    ]
    codes = [process.wait(PATIENCE_S) for process in processes]
    single = codes.pop()
    assert codes == [0, 0], said(place)
    assert single == 0 or "another process is training" in said(place), said(place)
    assert statuses(place) == {"FINISHED": 3} and statuses(place, "multirun") == {"FINISHED": 1}
    for log in (place / "outputs").glob("*/run.log"):
        assert log.read_text().count("epoch    1/3") == 1, log.read_text()
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("emoexp").experiment_id])
    assert Counter(run.info.status for run in found) == {"FINISHED": 4}
    (parent,) = [run for run in found if run.data.tags.get("kind") == "sweep"]
    children = [run for run in found if run is not parent]
    assert {run.data.params["seed"] for run in children} == {"0", "1", "2"}
    assert {run.data.tags.get("mlflow.parentRunId") for run in children} == {parent.info.run_id}


def test_a_sweep_waits_for_a_single_run_that_is_at_its_cell(place):
    words = ("activation=relu", "epochs=150", "patience=null")
    single = begun(place, *words, multirun=False)
    wait_for(lambda: list((place / "outputs").glob("*/last.pt")), single)
    done = typed(place, *words)
    assert single.wait(PATIENCE_S) == 0 and done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 cells are finished" in done.stdout
    (run,) = runs(place)
    assert (run / "run.log").read_text().count("run    outputs/") == 1
    (sweep,) = (place / "multirun").iterdir()
    assert json.loads((run / "sweeps.json").read_text()) == [str(sweep.relative_to(place))]


def test_a_tracking_server_that_is_not_there_costs_no_cell(place):
    server = ("tracking=server", "tracking.uri=http://127.0.0.1:9", "tracking.timeout_s=3")
    done = typed(place, "activation=relu,elu", "seed=0", *server)
    assert done.returncode == 0 and "2 of 2 cells are finished" in done.stdout, done.stdout + done.stderr
    assert statuses(place) == {"FINISHED": 2} and statuses(place, "multirun") == {"FINISHED": 1}
    assert "tracking" in done.stdout


# a person's own classes

OWN = '''
import sys
from torch import nn


class Unbuilt(nn.ReLU):
    """Cannot be built, and takes the process with it."""

    def __init__(self, *arguments, **values):
        sys.exit(3)
'''


def test_a_class_that_exits_when_it_is_built_is_named_and_starts_nothing(place):
    (place / "own_conf" / "activation").mkdir(parents=True)
    (place / "own_cells.py").write_text(OWN)
    text = "# exits\nname: unbuilt\n_target_: own_cells.Unbuilt\n_partial_: true\n"
    (place / "own_conf" / "activation" / "unbuilt.yaml").write_text(text)
    done = typed(place, "allow=[own_cells]", "activation=relu,unbuilt")
    assert done.returncode == 1 and "activation=unbuilt seed=0" in done.stderr, (done.returncode, done.stderr)
    assert not (place / "outputs").exists()


# speed


def test_two_workers_are_faster_than_one(place):
    count, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    if count < 2 or load > 0.5:
        pytest.skip(f"{count} cores with a load of {load:.1f}: times would say nothing")
    words = ("activation=relu,elu", "seed=0,1,2", "epochs=40", "patience=null")
    seconds = []
    for workers in (1, 2):
        started = time.perf_counter()
        assert typed(place / str(workers), *words, f"workers={workers}").returncode == 0
        seconds.append(time.perf_counter() - started)
    assert seconds[1] < 0.75 * seconds[0], seconds
