"""Sweeps without their processes: how they are composed, named, searched, written down and concluded."""

import dataclasses
import fcntl
import json
import re
from pathlib import Path

import pytest
from composing import planned

from emoexp import cli
from emoexp.config import naming, options
from emoexp.config.schema import Sweep, Tune
from emoexp.runs import folder as runs
from emoexp.sweep import compose, launchers, messages, outcomes, supervise, tune
from emoexp.sweep.cells import DIED, DONE, FAILED, FINISHED_BEFORE, OVER_TIME, WAITING, Cell, Outcome, Plan, SweepFolder
from emoexp.sweep.worker import Preflight

cli.register_sweeper()
HOLDS = {
    "smoke": 8,
    "activation": 24,
    "imbalance": 48,
    "imbalance_x_activation": 192,
    "architecture": 30,
    "optimizer": 18,
    "kfold": 15,
    "methods": 180,
}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned("activation=relu,mish", "seed=range(3)", "tracking=none")


def test_the_ablations_are_all_known():
    assert set(options.listed("ablation")) == set(HOLDS)


LARGE = {"imbalance_x_activation", "methods"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in HOLDS])
def test_an_ablation_spans_what_it_says(name):
    span = compose.sweep_request([f"ablation={name}"])
    assert len(span.cells) == len({cell.name for cell in span.cells}) == HOLDS[name]
    assert span.folder.name.startswith(f"{name}-faces-") and "seed" not in span.axes
    assert {tuple(cell.axes) for cell in span.cells} == {tuple(span.axes)}


@pytest.mark.slow
def test_every_row_stands_in_an_ablation():
    rows, methods = (
        {cell.axes["imbalance"] for cell in compose.sweep_request([f"ablation={name}"]).cells}
        for name in ("imbalance", "methods")
    )
    assert len(rows) == 8 and len(methods) == 30 and "none" in rows & methods
    assert rows | methods == set(options.listed("imbalance"))


def test_an_ablation_is_narrowed_and_widened_by_words():
    narrow = compose.sweep_request(["ablation=activation", "activation=mish", "seed=0,1"])
    assert [(cell.axes, cell.seed) for cell in narrow.cells] == [
        ({"activation": "mish"}, 0),
        ({"activation": "mish"}, 1),
    ]
    wide = compose.sweep_request(["ablation=activation", "activation=mish,elu,gelu"])
    assert {cell.axes["activation"] for cell in wide.cells} == {"mish", "elu", "gelu"} and len(wide.cells) == 18
    assert narrow.folder == wide.folder == compose.sweep_request(["ablation=activation"]).folder


def test_cells_are_the_single_runs_of_their_words(plan):
    for cell in plan.cells:
        words = [f"activation={cell.axes['activation']}", f"seed={cell.experiment.seed}", "tracking=none"]
        from composing import checked

        assert naming.name(checked(*words)[0]) == cell.name


def test_cells_that_differ_in_their_seed_alone_are_composed_once(monkeypatch):
    count = []
    original = compose._cell
    monkeypatch.setattr(compose, "_cell", lambda *args: count.append(args) or original(*args))
    assert len(planned("activation=relu,mish", "seed=range(3)").cells) == 6 and len(count) == 2


def test_a_seed_that_other_values_follow_is_composed_anew():
    plan = planned("seed=range(3)", "data.seed=${seed}")
    assert [cell.experiment.data.seed for cell in plan.cells] == [0, 1, 2]


def test_every_wrong_cell_is_named_and_nothing_is_planned():
    with pytest.raises(ValueError) as caught:
        planned("activation=relu,mosh", "optimizer.lr=0.1,abc", "epochs=1,0")
    text = str(caught.value)
    assert "nothing was started; 7 cells are wrong" in text
    assert (
        "mosh" in text
        and "epochs is a whole number from 1 on; it is 0" in text
        and "optimizer.lr is a number above 0; it is abc" in text
    )


@pytest.mark.parametrize("word", ["workers=1,2", "on_error=stop,continue", "time_limit=1,2"])
def test_what_is_about_the_whole_sweep_cannot_be_swept(word):
    with pytest.raises(ValueError, match=f"{word.partition('=')[0]} is about the whole sweep"):
        planned(word)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("workers=0", "workers is a whole number from 1 on; it is 0"),
        ("time_limit=0", "time_limit is a number above 0, or null; it is 0"),
        ("on_error=ignore", "on_error is one of continue, stop; it is ignore"),
        ("tune.lr=0.1", "tune.lr is a list"),
        ("tune.lr=[]", "tune.lr is a list"),
        ("tune.lr=[0.1] monitor=epoch patience=null", "monitor=epoch is the same for all"),
        ("tune.lr=[0.1,-1]", "tune.lr is a list"),
        ("tune.epochs=0", "tune.epochs is a whole number from 1 on, or null; it is 0"),
    ],
)
def test_settings_out_of_range_are_refused(word, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        planned(*word.split())


def test_duplicates_are_one_cell():
    assert len(planned("imbalance=none,none", "seed=0,0,1").cells) == 2
    assert len(planned("imbalance=sampler", "imbalance/sampling=inverse").cells) == 1


def test_a_sweeps_name_stays_when_it_grows_and_changes_with_what_is_shared(plan):
    assert planned("activation=relu,mish,elu", "seed=range(9)", "tracking=none").name == plan.name
    assert (
        planned("activation=relu,mish", "seed=range(3)", "outputs=elsewhere", "workers=2", "threads=1").name
        == plan.name
    )
    others = ["epochs=3", "data.size=1800", "optimizer.lr=0.1", "imbalance=sampler", "tune.lr=[0.1]", "data=folder"]
    names = {
        planned("activation=relu,mish", "seed=range(3)", word, "data.root=x" if word == "data=folder" else word).name
        for word in others
    }
    assert len(names | {plan.name}) == len(others) + 1


def test_cores_are_shared_out_unless_threads_are_given(plan, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)

    def threads(**values):
        settings = dataclasses.replace(plan.settings, **values)
        return {
            cell.machine.threads
            for cell in supervise.on_this_machine(dataclasses.replace(plan, settings=settings), Path("m/s")).cells
        }

    assert threads() == {None} and threads(workers=3) == {2} and threads(workers=16) == {1}
    given = dataclasses.replace(
        plan, cells=tuple(cell.with_machine(threads=5) for cell in plan.cells), settings=Sweep(workers=2)
    )
    assert {
        (cell.machine.threads, cell.machine.sweep) for cell in supervise.on_this_machine(given, Path("m/s")).cells
    } == {(5, "m/s")}


def write_finished(cell: Cell, **best: float | None) -> Path:
    """A finished run's folder, as far as a sweep reads it."""
    folder = Path(cell.machine.outputs) / cell.name
    folder.mkdir(parents=True)
    runs.write_status(folder, "RUNNING")
    (folder / "metrics.json").write_text(json.dumps({"best": best, "test": {"macro_f1": 0.5}}))
    (folder / "seconds.json").write_text(json.dumps({"train": 2.0, "figures": 1.0}))
    runs.write_status(folder, "FINISHED")
    return folder


def with_search(plan: Plan, outputs: Path, **settings) -> Plan:
    cells_there = tuple(cell.with_machine(outputs=str(outputs)) for cell in plan.cells)
    return dataclasses.replace(plan, cells=cells_there, settings=Sweep(tune=Tune(lr=[0.001, 0.01, 0.1], **settings)))


def test_every_arm_gets_the_same_search_with_a_seed_of_its_own(plan, tmp_path):
    found = tune.search_cells(with_search(plan, tmp_path, epochs=4))
    assert list(found) == [("relu",), ("mish",)]
    for tried in found.values():
        assert [cell.experiment.optimizer.lr for cell in tried] == [0.001, 0.01, 0.1]
        assert {(cell.experiment.seed, cell.experiment.epochs) for cell in tried} == {(1000, 4)}
        assert all(f"optimizer.lr={cell.experiment.optimizer.lr}" in cell.overrides for cell in tried)
    assert len({cell.name for tried in found.values() for cell in tried}) == 6


def test_the_best_on_validation_is_chosen_for_all_seeds_of_an_arm(plan, tmp_path):
    tuned = with_search(plan, tmp_path)
    for cell, value in zip(tune.search_cells(tuned)["relu",], (0.3, 0.5, 0.4), strict=True):
        write_finished(cell, **{"val/macro_f1": value})
    relu, mish = tune.with_best_rates(tuned, {})[:3], tune.with_best_rates(tuned, {})[3:]
    assert mish == [None] * 3  # nothing of its search is there
    assert [cell.experiment.optimizer.lr for cell in relu] == [0.01] * 3 and [c.experiment.seed for c in relu] == [
        0,
        1,
        2,
    ]
    assert all(cell.chosen == {"optimizer.lr": 0.01} and cell.arm == ("relu",) for cell in relu)
    assert tuned.cells[0].experiment.optimizer.lr == 0.003  # the tuned one is as it was


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("val/macro_f1", (0.4, 0.4, 0.1), 0.001),
        ("val/loss", (0.9, 0.8, 1.2), 0.01),
        ("val/loss", (None, None, 1.2), 0.1),
    ],
)
def test_ties_take_the_smallest_losses_are_minimised_and_nan_never_wins(plan, tmp_path, monitor, values, best):
    tuned = with_search(planned("seed=0", f"monitor={monitor}", "tracking=none"), tmp_path)
    for cell, value in zip(tune.search_cells(tuned)[()], values, strict=True):
        write_finished(cell, **{monitor: value})
    assert tune.with_best_rates(tuned, {})[0].experiment.optimizer.lr == best


def test_cells_keep_what_is_known_of_them(plan, tmp_path):
    folder, (one, two, *_) = SweepFolder(tmp_path / "s"), plan.cells
    with folder.lock():
        folder.begin(dataclasses.replace(plan, cells=(one,)), "first")
        folder.record({one.name: Outcome(DONE, "outputs/x", 3.0, 0.5, traceback="long")}, [one])
        folder.begin(dataclasses.replace(plan, cells=(one, two)), "second")
    known = json.loads((tmp_path / "s" / "cells.json").read_text())
    assert (
        known[one.name]["state"] == DONE and known[one.name]["macro_f1"] == 0.5 and "traceback" not in known[one.name]
    )
    assert known[two.name]["state"] == WAITING and known[two.name]["axes"] == {"activation": "relu"}
    assert json.loads((tmp_path / "s" / "status.json").read_text())["status"] == "RUNNING"


def test_a_locked_sweep_counts_as_alive(tmp_path):
    folder = SweepFolder(tmp_path / "s")
    with folder.lock(), folder.lock():  # two commands may work at one sweep
        assert runs.is_alive(folder.path)
    assert not runs.is_alive(folder.path)


def run_cells(plan: Plan, tmp_path: Path, train, preflights=None, **settings) -> tuple[int, dict, list]:
    """A sweep whose cells are run by a function of the test's: exit code, outcomes, and the cells that were started."""
    started = []

    def run(cells_to_run, sweep):
        for cell in cells_to_run:
            started.append(cell)
            yield cell, train(cell)

    plan = dataclasses.replace(
        plan, settings=Sweep(**settings), cells=tuple(c.with_machine(outputs=str(tmp_path)) for c in plan.cells)
    )
    with SweepFolder(tmp_path / "sweep").lock():
        run = supervise.SweepRun(plan, SweepFolder(tmp_path / "sweep"), run)
        run.folder.begin(plan, "")
        run.run_missing(preflights or [Preflight()] * len(plan.cells))
        return run.conclude(), run.outcomes, started


def test_the_exit_code_says_all_some_or_none(plan, tmp_path):
    code, outcomes, started = run_cells(plan, tmp_path / "a", lambda cell: Outcome(DONE, None, 1.0, 0.5))
    assert (code, len(outcomes), len(started)) == (supervise.EXIT_ALL, 6, 6)
    code, _, _ = run_cells(
        plan, tmp_path / "b", lambda c: Outcome(DONE if c.axes["activation"] == "relu" else FAILED, error="x")
    )
    assert code == supervise.EXIT_SOME
    code, _, _ = run_cells(plan, tmp_path / "c", lambda cell: Outcome(FAILED, error="x"))
    assert code == supervise.EXIT_NONE
    status = json.loads((tmp_path / "b" / "sweep" / "status.json").read_text())
    assert status["status"] == "FAILED" and status["error"] == "3 of 6 cells are not finished"


def test_on_error_stop_leaves_the_others(plan, tmp_path):
    code, outcomes, started = run_cells(plan, tmp_path, lambda c: Outcome(FAILED, error="x"), on_error="stop")
    assert (code, len(outcomes), len(started)) == (supervise.EXIT_NONE, 1, 1)


def test_finished_cells_are_found_and_join_the_sweep(plan, tmp_path):
    there = plan.cells[0].with_machine(outputs=str(tmp_path))
    folder = write_finished(there)
    preflights = [Preflight(None, str(folder), True), *[Preflight()] * 5]
    plan = dataclasses.replace(plan, cells=tuple(cell.with_machine(sweep="multirun/x") for cell in plan.cells))
    code, outcomes, started = run_cells(plan, tmp_path, lambda cell: Outcome(DONE, None, 1.0, 0.5), preflights)
    assert code == supervise.EXIT_ALL and outcomes[there.name].state == FINISHED_BEFORE and len(started) == 5
    assert json.loads((folder / "sweeps.json").read_text()) == ["multirun/x"]


@pytest.mark.parametrize(("state", "status"), [(DIED, "FAILED"), (OVER_TIME, "KILLED")])
def test_a_dead_cells_run_says_so(plan, tmp_path, state, status):
    cell = plan.cells[0].with_machine(outputs=str(tmp_path))
    folder = tmp_path / cell.name
    folder.mkdir()
    runs.write_status(folder, "RUNNING")
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # it lives: nothing is touched
        outcomes.close_run(cell, Outcome(state, error="why"))
        assert json.loads((folder / "status.json").read_text())["status"] == "RUNNING"
    assert outcomes.close_run(cell, Outcome(state, error="why")).folder == str(folder)
    written = json.loads((folder / "status.json").read_text())
    assert (written["status"], written["error"]) == (status, "why") and "why" in (folder / "run.log").read_text()


def test_what_a_launcher_ran_is_read_from_its_folders(plan, tmp_path):
    cell = plan.cells[0].with_machine(outputs=str(tmp_path))
    assert launchers.outcome_of(cell, "it broke") == Outcome(FAILED, error="it broke")
    write_finished(cell)
    assert (launchers.outcome_of(cell).state, launchers.outcome_of(cell).macro_f1) == (DONE, 0.5)
    other = plan.cells[1].with_machine(outputs=str(tmp_path))
    (tmp_path / other.name).mkdir()
    runs.write_status(tmp_path / other.name, "FAILED", "ValueError: why")
    assert launchers.outcome_of(other).error == "ValueError: why" and launchers.outcome_of(other).state == FAILED


def test_a_launcher_that_breaks_loses_no_finished_cell(plan, tmp_path):
    class Broken:
        class config:
            class hydra:
                class sweep:
                    dir = ""

        def launch(self, words, initial_job_idx):
            assert all(any(word.startswith("sweep=") for word in one) for one in words)
            write_finished(plan.cells[0].with_machine(outputs=str(tmp_path)))
            raise RuntimeError("the cluster is gone")

    there = [cell.with_machine(outputs=str(tmp_path)) for cell in plan.cells[:2]]
    found = [outcome for _, outcome in launchers.cell_runner(Broken(), "cluster")(there, tmp_path / "sweep")]
    assert [outcome.state for outcome in found] == [DONE, FAILED] and "the cluster is gone" in found[1].error


def test_the_folders_of_a_name(tmp_path):
    for number, name in enumerate(["a-1", "a-1.2", "a-1.10", "a-12", "a-1.x"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(json.dumps({"status": "FINISHED", "started": 10 - number}))
    assert [path.name for path in runs.folders(tmp_path, "a-1")] == ["a-1", "a-1.2", "a-1.10"]
    assert runs.latest(tmp_path, "a-1").name == "a-1" and runs.latest(tmp_path, "a-1", finished=True) is None
    assert runs.latest(tmp_path, "b") is None


def test_durations():
    assert [messages.duration(s) for s in (0.4, 89, 90, 3600, 7200, float("nan"))] == [
        "0 s",
        "89 s",
        "2 min",
        "60 min",
        "2.0 h",
        "unknown",
    ]


def test_the_dry_run_shows_what_there_is_to_do(plan):
    preflights = [
        Preflight(None, "x", True),
        Preflight(None, "x", False, 3, 15, 1000, 0.001),
        *[Preflight(None, "x", False, 0, 15, 1000, 0.001)] * 4,
    ]
    text = messages.plan_table(plan, preflights)
    assert "1 of 6 cells are done" in text and "3 of 15 epochs" in text and "with 1 worker" in text
    assert "2 min" in text  # (12 + 4 x 15) epochs of a second, and six seconds besides for each cell


@pytest.mark.parametrize("word", ["ablation=smoke", "dry_run=true", "tune.lr=[0.1]"])
def test_what_is_about_a_sweep_needs_multirun(word, tmp_path, monkeypatch, capsys):
    from emoexp import train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train", word, "tracking=none"])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 1 and "is about a sweep: add --multirun" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
