"""Sweeps with fake workers: whole commands, searches, states, messages; and what may not happen in silence."""

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from composing import planned

from emoexp import cli
from emoexp.config.schema import Sweep, Tune
from emoexp.runs import folder as runs
from emoexp.sweep import compose, launchers, messages, pool, supervise, tune, worker
from emoexp.sweep.cells import (
    BUSY,
    DIED,
    DONE,
    FAILED,
    FINISHED_BEFORE,
    FINISHED_STATES,
    KILLED,
    OVER_TIME,
    WAITING,
    Cell,
    Outcome,
    Plan,
    SweepFolder,
)
from emoexp.sweep.worker import Preflight

cli.register_sweeper()


@pytest.fixture(scope="module")
def composed() -> Plan:
    return planned("activation=relu,mish", "seed=0,1", "tracking=none")


@pytest.fixture
def plan(composed, tmp_path) -> Plan:
    """Two activations, two seeds; their runs lie in the test's folder."""
    return with_outputs(composed, tmp_path / "outputs")


def with_outputs(plan: Plan, outputs: Path, **settings) -> Plan:
    moved = tuple(cell.with_machine(outputs=str(outputs)) for cell in plan.cells)
    return dataclasses.replace(plan, cells=moved, settings=dataclasses.replace(plan.settings, **settings))


def write_run(folder: Path, status: str = "FINISHED", started: float = 1.0, value: float = 0.5, **best: float) -> Path:
    """A run's folder as far as a sweep reads it."""
    folder.mkdir(parents=True)
    error = None if status == "FINISHED" else "why"
    text = {"status": status, "error": error, "started": started, "ended": started + 3}
    (folder / "status.json").write_text(json.dumps(text))
    if status == "FINISHED":
        (folder / "metrics.json").write_text(json.dumps({"best": best, "test": {"macro_f1": value}}))
    return folder


class FakeWorkers:
    """Workers without processes: `train` gives a cell's outcome; finished runs are found by their folders."""

    def __init__(self, train: Callable[[Cell], Outcome], wrong: Callable[[Cell], str | None] = lambda cell: None):
        self.train, self.wrong = train, wrong
        self.checked: list[Cell] = []
        self.trained: list[Cell] = []

    def __call__(self, count: int, sweep: Path) -> "FakeWorkers":
        self.count = count
        return self

    def __enter__(self) -> "FakeWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def preflight(self, cells, *, timed):
        self.checked = list(cells)
        folders = [Path(cell.machine.outputs) / cell.name for cell in cells]
        pairs = zip(cells, folders, strict=True)
        return [
            Preflight(self.wrong(cell), str(path), runs.is_finished(path), epochs=2, images_per_epoch=9)
            for cell, path in pairs
        ]

    def run(self, cells, limit_s, on_start):
        self.limit_s = limit_s
        for cell in cells:
            on_start(cell)
            self.trained.append(cell)
            yield cell, self.train(cell)


def train_at_once(cell: Cell) -> Outcome:
    """Train a cell: the higher its learning rate the better."""
    folder = Path(cell.machine.outputs) / cell.name
    if folder.is_dir():
        return Outcome(FINISHED_BEFORE, str(folder))
    write_run(folder, **{"val/macro_f1": float(cell.experiment.optimizer.lr)})
    return Outcome(DONE, str(folder), 1.0, 0.5)


def run_sweep(plan: Plan, tmp_path: Path, monkeypatch, workers: FakeWorkers) -> int:
    """A whole sweep: its exit code."""
    monkeypatch.setattr(supervise, "Workers", workers)
    return supervise.run_sweep(plan, str(tmp_path / "multirun"), "the words")


def status_of(plan: Plan, tmp_path: Path) -> tuple[str, str | None]:
    text = json.loads((tmp_path / "multirun" / plan.name / "status.json").read_text())
    return text["status"], text["error"]


def table_of(plan: Plan, tmp_path: Path) -> dict[str, dict]:
    return json.loads((tmp_path / "multirun" / plan.name / "cells.json").read_text())


# whole commands


def test_a_sweep_from_its_words_to_its_end(plan, tmp_path, monkeypatch):
    workers = FakeWorkers(train_at_once)
    assert run_sweep(plan, tmp_path, monkeypatch, workers) == supervise.EXIT_ALL
    assert [cell.name for cell in workers.trained] == [cell.name for cell in plan.cells]
    sweep = tmp_path / "multirun" / plan.name
    assert {cell.machine.sweep for cell in workers.trained} == {str(sweep)}
    assert status_of(plan, tmp_path) == ("FINISHED", None)
    manifest = json.loads((sweep / "manifest.json").read_text())
    assert manifest["tags"]["command"] == "the words" and manifest["tags"]["axis.activation"] == "relu, mish"
    assert manifest["tags"]["axis.seed"] == "0, 1"
    log = (sweep / "sweep.log").read_text()
    assert log.count("start  ") == 4 and "4 of 4 cells are finished" in log
    assert (
        run_sweep(plan, tmp_path, monkeypatch, again := FakeWorkers(train_at_once)) == supervise.EXIT_ALL
        and again.trained == []
    )
    assert {row["state"] for row in table_of(plan, tmp_path).values()} == {FINISHED_BEFORE}


def test_typed_again_a_cell_keeps_the_seconds_it_took(plan, tmp_path, monkeypatch):
    for _ in range(2):
        run_sweep(plan, tmp_path, monkeypatch, FakeWorkers(train_at_once))
    assert {row["seconds"] for row in table_of(plan, tmp_path).values()} == {1.0}


def test_wrong_cells_start_nothing_and_share_their_reason(plan, tmp_path, monkeypatch):
    workers = FakeWorkers(train_at_once, lambda cell: "it does not fit" if cell.arm == ("mish",) else None)
    with pytest.raises(ValueError) as caught:
        run_sweep(plan, tmp_path, monkeypatch, workers)
    assert str(caught.value).splitlines() == [
        "nothing was started; these cells cannot be trained:",
        "  activation=mish seed=0, activation=mish seed=1",
        "    it does not fit",
    ]
    assert workers.trained == [] and not (tmp_path / "outputs").exists()
    assert not (tmp_path / "multirun" / plan.name / "status.json").exists()


def test_many_wrong_cells_are_not_all_listed(plan, tmp_path, monkeypatch):
    many = tuple(cell.with_experiment((), seed=seed) for cell in plan.cells[:1] for seed in range(6))
    with pytest.raises(ValueError, match=r"activation=relu seed=3 \.\.\.\n"):
        run_sweep(
            dataclasses.replace(plan, cells=many), tmp_path, monkeypatch, FakeWorkers(train_at_once, lambda cell: "no")
        )


@pytest.mark.parametrize(
    ("raised", "status", "error"),
    [(KeyboardInterrupt(), "KILLED", "interrupted"), (OSError("no space"), "FAILED", "OSError: no space")],
)
def test_a_sweep_that_ends_early_is_never_left_running(plan, tmp_path, monkeypatch, raised, status, error):
    def train(cell: Cell) -> Outcome:
        if cell.arm == ("mish",):
            raise raised
        return train_at_once(cell)

    with pytest.raises(type(raised)):
        run_sweep(plan, tmp_path, monkeypatch, FakeWorkers(train))
    assert status_of(plan, tmp_path) == (status, error)
    states = {name: row["state"] for name, row in table_of(plan, tmp_path).items()}
    assert [states[cell.name] for cell in plan.cells] == [DONE, DONE, WAITING, WAITING]
    assert (
        run_sweep(plan, tmp_path, monkeypatch, again := FakeWorkers(train_at_once)) == supervise.EXIT_ALL
        and len(again.trained) == 2
    )


def test_a_second_ctrl_c_does_not_keep_a_sweep_from_saying_that_it_was_killed(plan, tmp_path, monkeypatch):
    original = runs.write_status

    def impatient(folder: Path, status: str, error: str | None = None) -> None:
        if status == "KILLED":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        original(folder, status, error)

    def train(cell: Cell) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "write_status", impatient)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, tmp_path, monkeypatch, FakeWorkers(train))
    assert status_of(plan, tmp_path) == ("KILLED", "interrupted")


def test_failures_are_in_the_table_and_their_traceback_in_the_log(plan, tmp_path, monkeypatch, capsys):
    def train(cell: Cell) -> Outcome:
        error = Outcome(FAILED, None, 1.0, None, "KeyError: 'x'", "Traceback: deed\n")
        return error if cell.arm == ("mish",) else train_at_once(cell)

    assert run_sweep(plan, tmp_path, monkeypatch, FakeWorkers(train)) == supervise.EXIT_SOME
    text = capsys.readouterr().out
    assert text.count("Traceback: deed") == 2 and "2 done, 2 failed" in text and "KeyError: 'x'" in text
    assert status_of(plan, tmp_path) == ("FAILED", "2 of 4 cells are not finished")
    assert all("traceback" not in row for row in table_of(plan, tmp_path).values())


def test_a_time_limit_is_minutes(plan, tmp_path, monkeypatch):
    workers = FakeWorkers(train_at_once)
    run_sweep(with_outputs(plan, tmp_path / "outputs", time_limit=1.5), tmp_path, monkeypatch, workers)
    assert workers.limit_s == 90


def test_a_dry_run_starts_nothing(plan, tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "outputs" / plan.cells[0].name)
    dry = with_outputs(plan, tmp_path / "outputs", dry_run=True)
    assert run_sweep(dry, tmp_path, monkeypatch, workers := FakeWorkers(train_at_once)) == supervise.EXIT_ALL
    assert workers.trained == [] and "1 of 4 cells are done" in capsys.readouterr().out
    assert len(list((tmp_path / "outputs").iterdir())) == 1
    assert not (tmp_path / "multirun" / plan.name / "status.json").exists()


def test_the_time_left_is_estimated_from_the_cells_before(plan, tmp_path, monkeypatch, capsys):
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(supervise.time, "monotonic", lambda: next(clock))
    run_sweep(plan, tmp_path, monkeypatch, FakeWorkers(train_at_once))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("done   ")]
    assert [line.rpartition("; ")[2] for line in lines[:3]] == ["3 min left", "2 min left", "60 s left"]
    assert "left" not in lines[3]


# searches for a learning rate


def with_search(plan: Plan, tmp_path: Path, **settings) -> Plan:
    return with_outputs(plan, tmp_path / "outputs", tune=Tune(lr=[0.001, 0.01]), **settings)


def test_a_search_runs_first_and_its_choice_is_what_is_compared(plan, tmp_path, monkeypatch):
    tuned = with_search(plan, tmp_path)
    workers = FakeWorkers(train_at_once)
    assert run_sweep(tuned, tmp_path, monkeypatch, workers) == supervise.EXIT_ALL
    tried, compared = workers.trained[:4], workers.trained[4:]
    assert {cell.experiment.seed for cell in tried} == {1000}
    assert [(cell.experiment.seed, cell.experiment.optimizer.lr) for cell in compared] == [(0, 0.01), (1, 0.01)] * 2
    rows = table_of(tuned, tmp_path)
    assert all(rows[cell.name]["chosen"] == {"optimizer.lr": 0.01} for cell in compared)
    assert run_sweep(tuned, tmp_path, monkeypatch, again := FakeWorkers(train_at_once)) == supervise.EXIT_ALL
    assert {cell.experiment.seed for cell in again.trained} <= {1000}  # found again, not trained


def test_an_arm_whose_search_failed_fails_alone(plan, tmp_path, monkeypatch):
    def train(cell: Cell) -> Outcome:
        return Outcome(FAILED, error="why") if cell.arm[0] == "mish" else train_at_once(cell)

    tuned = with_search(plan, tmp_path)
    assert run_sweep(tuned, tmp_path, monkeypatch, FakeWorkers(train)) == supervise.EXIT_SOME
    rows = table_of(tuned, tmp_path)
    text = {rows[cell.name]["error"] for cell in tuned.cells if cell.arm == ("mish",)}
    assert text == {"no run of its search for a learning rate finished"}


def test_an_untuned_run_does_not_stand_for_an_arm_whose_search_failed(plan, tmp_path, monkeypatch):
    for cell in plan.cells:
        train_at_once(cell)  # an earlier sweep without tune.lr

    tuned = with_search(plan, tmp_path)
    failing = FakeWorkers(lambda cell: Outcome(FAILED, error="why"))
    assert run_sweep(tuned, tmp_path, monkeypatch, failing) == supervise.EXIT_NONE
    assert {table_of(tuned, tmp_path)[cell.name]["state"] for cell in tuned.cells} == {FAILED}


def test_on_error_stop_stops_in_a_search_too(plan, tmp_path, monkeypatch):
    def train(cell: Cell) -> Outcome:
        return Outcome(FAILED, error="why") if len(workers.trained) == 2 else train_at_once(cell)

    workers = FakeWorkers(train)
    tuned = dataclasses.replace(
        with_search(plan, tmp_path, on_error="stop"), cells=with_search(plan, tmp_path).cells[:2]
    )
    assert run_sweep(tuned, tmp_path, monkeypatch, workers) == supervise.EXIT_NONE
    assert len(workers.trained) == 2


def test_a_dry_run_of_a_tuned_sweep_knows_what_is_done(plan, tmp_path, monkeypatch, capsys):
    tuned = with_search(plan, tmp_path)
    run_sweep(tuned, tmp_path, monkeypatch, FakeWorkers(train_at_once))
    capsys.readouterr()
    run_sweep(with_search(plan, tmp_path, dry_run=True), tmp_path, monkeypatch, FakeWorkers(train_at_once))
    assert "4 of 4 cells are done" in capsys.readouterr().out


def test_a_search_counts_the_runs_that_this_sweep_found(plan, tmp_path, monkeypatch):
    """Other code once preferred the small rate, in folders beside these, which finished later."""
    tuned = with_search(plan, tmp_path)
    for tried in (cell for cells in tune.search_cells(tuned).values() for cell in cells):
        train_at_once(tried)
        rate = float(tried.experiment.optimizer.lr)
        write_run(Path(tried.machine.outputs) / f"{tried.name}.2", started=2.0, **{"val/macro_f1": 1 - rate})
    workers = FakeWorkers(train_at_once)  # what it finds are the first folders
    run_sweep(tuned, tmp_path, monkeypatch, workers)
    assert {cell.experiment.optimizer.lr for cell in workers.trained if cell.experiment.seed != 1000} == {0.01}


def test_a_learning_rate_is_swept_or_searched_not_both():
    with pytest.raises(ValueError, match=r"optimizer\.lr"):
        planned("optimizer.lr=0.1,0.01", "tune.lr=[0.001,0.003]", "tracking=none")


def test_optimizers_are_compared_with_a_learning_rate_searched_for_each():
    """As conf/ablation/optimizer.yaml says that it is fair."""
    assert planned("ablation=optimizer", "tune.lr=[0.001,0.01]", "tracking=none").axes == ("optimizer",)


def test_a_report_does_not_take_an_untuned_run_for_an_arm_without_a_choice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no search has run here
    words = ["activation=relu,mish", "seed=0,1", "tracking=none"]
    untuned = {cell.name for cell in compose.sweep_request(words).cells}
    assert untuned.isdisjoint(cell.name for cell in compose.sweep_request([*words, "tune.lr=[0.5]"]).cells)


@pytest.mark.parametrize("words", [("seed=0,1000",), ("seed=0,1", "tune.seed=1")])
def test_the_seed_of_a_search_is_none_of_those_compared(words):
    with pytest.raises(ValueError, match=r"tune\.seed"):
        planned(*words, "tune.lr=[0.001,0.003]", "tracking=none")


def test_the_seed_of_a_search_is_in_range():
    with pytest.raises(ValueError, match="seed"):
        planned("tune.seed=-1", "tune.lr=[0.001]", "tracking=none")


# what is composed


@pytest.mark.parametrize(
    "word",
    [
        "data.seed=${seed}",
        "data.seed=${..seed}",
        "data.seed=${ seed }",
        "data.seed=${oc.select:seed,0}",
    ],
)
def test_a_value_that_follows_the_seed_does_in_every_cell(word):
    plan = planned("seed=0,1,2", word, "tracking=none")
    assert [cell.experiment.data.seed for cell in plan.cells] == [0, 1, 2]


def test_ablations_are_swept_one_at_a_time():
    with pytest.raises(ValueError, match="ablation"):
        planned("ablation=activation,imbalance", "tracking=none")


@pytest.mark.parametrize("word", ["threads=1,2", "device=cpu,auto", "outputs=a,b", "resume=auto,never", "sweep=a,b"])
def test_what_names_no_run_cannot_be_swept(word):
    with pytest.raises(ValueError, match=word.partition("=")[0]):
        planned(word, "tracking=none")


def test_a_key_that_nothing_reads_cannot_be_swept():
    with pytest.raises(ValueError, match="foo"):
        planned("+foo=1,2", "tracking=none")


@pytest.mark.parametrize("given", [["--config-dir", "mine"], ["-cd", "mine"]])
def test_a_reports_own_options_keep_their_values(given):
    from emoexp import report

    assert report.split_words([*given, "activation=relu"]) == (given, ["activation=relu"])


def test_words_in_another_order_are_the_same_sweep(composed):
    other = planned("seed=1,0", "tracking=none", "activation=mish,relu")
    assert other.name == composed.name
    assert {cell.name for cell in other.cells} == {cell.name for cell in composed.cells}


def test_a_cell_says_what_it_is(composed):
    cell = composed.cells[3]
    assert (cell.label, cell.arm, cell.axes) == ("activation=mish seed=1", ("mish",), {"activation": "mish"})
    other = cell.with_experiment(["seed=5"], seed=5)
    assert other.overrides == (*cell.overrides, "seed=5") and other.name != cell.name and other.arm == cell.arm
    assert cell.with_machine(threads=3).name == cell.name and cell.machine.threads is None


def test_axes_have_the_values_that_cells_have():
    plan = planned("imbalance/sampling=uniform,sqrt", "architecture.widths=[4,8],[8,16]", "seed=3", "tracking=none")
    assert plan.axes == ("imbalance/sampling", "architecture.widths")
    assert plan.cells[1].label == "imbalance/sampling=uniform architecture.widths=[8, 16] seed=3"
    assert len({cell.arm for cell in plan.cells}) == len(plan.cells) == 4


def test_a_reports_words_lead_to_the_sweeps_folder(composed):
    span = compose.sweep_request(["activation=relu,mish", "seed=0,1", "tracking=none", "hydra.sweep.dir=elsewhere"])
    assert span.folder == Path("elsewhere") / composed.name and span.axes == ["activation"]
    assert [(cell.name, cell.seed, cell.chosen) for cell in span.cells] == [
        (cell.name, cell.experiment.seed, {}) for cell in composed.cells
    ]


# cells.json


def test_many_writers_lose_no_cell(composed, tmp_path):
    folder = SweepFolder(tmp_path)
    cells = [composed.cells[0].with_experiment((), seed=seed) for seed in range(24)]

    def write(some: list[Cell]) -> None:
        for cell in some:
            folder.record({cell.name: Outcome(DONE, "x", 1.0, 0.5)}, [cell])

    writers = [threading.Thread(target=write, args=(cells[start::4],)) for start in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    known = json.loads((tmp_path / "cells.json").read_text())
    assert len(known) == 24 and {row["state"] for row in known.values()} == {DONE}


def test_a_cell_that_waits_again_after_a_failure_says_so(composed, tmp_path):
    folder, cell = SweepFolder(tmp_path), composed.cells[0]
    for outcome in (Outcome(FAILED, error="why"), Outcome(WAITING)):
        folder.record({cell.name: outcome}, [cell])
    assert json.loads((tmp_path / "cells.json").read_text())[cell.name]["state"] == WAITING
    for outcome in (Outcome(DONE, "x", 1.0, 0.5), Outcome(WAITING)):
        folder.record({cell.name: outcome}, [cell])
    row = json.loads((tmp_path / "cells.json").read_text())[cell.name]
    assert (row["state"], row["error"], row["seconds"]) == (DONE, None, 1.0)


# workers


class EndedWorkers(pool.Workers):
    """Workers whose cells have come to their end as soon as they begin."""

    def __init__(self, count: int, ends: dict[str, list[Outcome | BaseException]]) -> None:
        self._pools, self.ends, self.order = [None] * count, ends, []  # type: ignore[list-item]

    def _schedule(self, slot, limit_s, function, cell):
        self.order.append((slot, cell.label))
        future: Future[Outcome] = Future()
        end = self.ends[cell.label].pop(0)
        future.set_exception(end) if isinstance(end, BaseException) else future.set_result(end)
        return future


def test_a_cell_that_another_process_trains_waits_behind_the_others(composed, monkeypatch):
    monkeypatch.setattr(pool, "_RETRY_S", 0.05)
    monkeypatch.setattr(pool, "_POLL_S", 0.01)
    one, two, *_ = composed.cells
    workers = EndedWorkers(1, {one.label: [Outcome(BUSY)] * 3 + [Outcome(FINISHED_BEFORE)], two.label: [Outcome(DONE)]})
    ended = [(cell.label, outcome.state) for cell, outcome in workers.run([one, two], None, lambda cell: None)]
    assert ended == [(two.label, DONE), (one.label, FINISHED_BEFORE)]
    assert [label for _, label in workers.order] == [one.label, two.label, *[one.label] * 3]


def test_a_busy_cell_is_announced_once(composed, monkeypatch):
    monkeypatch.setattr(pool, "_RETRY_S", 0.05)
    monkeypatch.setattr(pool, "_POLL_S", 0.01)
    announced: list[Cell] = []
    cell = composed.cells[0]
    list(
        EndedWorkers(1, {cell.label: [Outcome(BUSY)] * 3 + [Outcome(FINISHED_BEFORE)]}).run(
            [cell], None, announced.append
        )
    )
    assert len(announced) == 1


def test_a_worker_goes_from_one_cell_to_the_next_at_once(composed, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    workers = EndedWorkers(1, {cell.label: [Outcome(DONE)] for cell in composed.cells})
    assert len(list(workers.run(composed.cells, None, lambda cell: None))) == len(composed.cells) > 1
    assert sum(slept) == 0


@pytest.mark.parametrize(
    ("end", "state", "text"),
    [
        (TimeoutError(), OVER_TIME, "over its time limit of 2 minutes"),
        (pool.ProcessExpired("", code=5, pid=1), DIED, "exit code 5"),
        (pool.ProcessExpired("", code=-9, pid=1), DIED, "SIGKILL, killed, probably out of memory"),
        (pool.ProcessExpired("", code=-11, pid=1), DIED, "SIGSEGV"),
        (pool.ProcessExpired("", code=worker.TERMINATED, pid=1), KILLED, "told to stop"),
        (pool.BrokenProcessPool(), DIED, "before it could begin"),
        (pool.CancelledError(), KILLED, "interrupted"),
    ],
)
def test_every_end_of_a_process_has_its_message(composed, end, state, text):
    cell = composed.cells[0]
    ((_, outcome),) = EndedWorkers(1, {cell.label: [end]}).run([cell], 120, lambda cell: None)
    assert outcome.state == state and text in outcome.error and state not in FINISHED_STATES


def preflight_that_raises(monkeypatch, error: BaseException) -> list[Preflight]:
    def build(cell: Cell, timed: bool) -> None:
        raise error

    monkeypatch.setattr(worker, "_build", build)
    return worker.preflight([planned("tracking=none").cells[0]], timed=False)


def test_whatever_a_users_class_raises_when_built_is_the_cells_reason(monkeypatch):
    assert preflight_that_raises(monkeypatch, LookupError("mine")) == [Preflight("LookupError: mine")]


def test_a_users_class_that_exits_when_built_is_named_too(monkeypatch):
    assert preflight_that_raises(monkeypatch, SystemExit(3)) == [Preflight("SystemExit: 3")]


# launchers


def test_a_launchers_run_that_was_killed_or_died_says_so(plan, tmp_path):
    one, two, *_ = plan.cells
    write_run(Path(one.machine.outputs) / one.name, "KILLED")
    write_run(Path(two.machine.outputs) / two.name, "RUNNING")
    assert launchers.outcome_of(one).state == KILLED and launchers.outcome_of(one).error == "why"
    assert launchers.outcome_of(two).state == DIED


def test_an_older_run_is_not_what_a_launcher_has_run(plan, tmp_path):
    """The cluster took nothing; what lies there was finished by other code before."""

    class FailingLauncher:
        class config:
            class hydra:
                class sweep:
                    dir = ""

        def launch(self, words, initial_job_idx):
            raise RuntimeError("the cluster is gone")

    cell = plan.cells[0]
    write_run(Path(cell.machine.outputs) / cell.name)
    run = supervise.SweepRun(
        dataclasses.replace(plan, cells=(cell,)), SweepFolder(tmp_path), launchers.cell_runner(FailingLauncher(), "x")
    )
    run.run_missing([Preflight(None, str(Path(cell.machine.outputs) / f"{cell.name}.2"), False)])
    assert run.outcomes[cell.name].state == FAILED and "the cluster is gone" in (run.outcomes[cell.name].error or "")


# tables


def test_a_cells_line(composed):
    cell = composed.cells[0]
    assert messages.cell_line(cell, Outcome(DONE, "x", 30.4, 0.5), 1, 2, 30.0) == (
        "done   activation=relu seed=0, 1/2, test macro-F1 0.500, 30 s; 30 s left"
    )
    failed = messages.cell_line(cell, Outcome(FAILED, "x", None, None, "KeyError: 1"), 2, 2, 0.0)
    assert failed == "failed activation=relu seed=0, 2/2, KeyError: 1"


def test_the_table_of_states_counts_and_names_what_never_began(composed):
    outcomes = {
        composed.cells[0].name: Outcome(DONE, "x", 2.6, 0.25),
        composed.cells[1].name: Outcome(OVER_TIME, error="l"),
    }
    lines = messages.outcome_table(composed.cells, outcomes).splitlines()
    assert lines[-1] == "1 done, 1 over time, 2 skipped" and "0.250" in lines[1] + lines[2] and " 3 " in f"{lines} "
    assert lines[0].split() == ["activation", "seed", "state", "macro-F1", "seconds"]


def test_what_the_time_went_into(composed, tmp_path):
    outcomes = {}
    for k, cell in enumerate(composed.cells[:2]):
        (tmp_path / str(k)).mkdir()
        parts = {"train": 4.0, "predict": 1.0, "figures": 2.0, "prepare": 1.5}
        (tmp_path / str(k) / "seconds.json").write_text(json.dumps(parts))
        outcomes[cell.name] = Outcome(DONE, str(tmp_path / str(k)), 10.0, 0.5)
    outcomes[composed.cells[2].name] = Outcome(FINISHED_BEFORE, "nowhere")
    assert messages.time_spent(composed.cells, outcomes, 60) == (
        "time   60 s; a cell: train 4.00 s, predict 1.00 s, figures 2.00 s, bootstrap 0.00 s, export 0.00 s, "
        "overhead 3.00 s"
    )
    assert messages.time_spent(composed.cells, {}, 5) == "time   5 s"


# the folder of a run


def write_manifest(folder: Path, **facts: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(facts))
    return folder


def test_a_run_continues_where_its_manifest_fits(tmp_path):
    first, second = (
        write_manifest(tmp_path / "a", results_version=1, threads=1),
        write_manifest(tmp_path / "a.2", results_version=2, threads=1),
    )
    assert runs.folder_for(tmp_path, "a", {"results_version": 1, "threads": 1}, "auto") == (first, [])
    assert runs.folder_for(tmp_path, "a", {"results_version": 2, "threads": 1}, "auto") == (second, [])
    fresh, changes = runs.folder_for(tmp_path, "a", {"results_version": 2, "threads": 4}, "auto")
    assert fresh == tmp_path / "a.3" and changes == ["threads (1, now 4)"]
    assert runs.folder_for(tmp_path, "a", {"results_version": 9}, "force") == (second, [])
    assert runs.folder_for(tmp_path, "a", {"results_version": 1, "threads": 1}, "never") == (tmp_path / "a.3", [])
    assert runs.folder_for(tmp_path, "b", {}, "force") == (tmp_path / "b", [])


def test_a_run_is_a_cell_of_several_sweeps_each_named_once(tmp_path):
    for sweep in ("m/one", "m/two", "m/one", None):
        runs.add_to_sweep(tmp_path, sweep)
    assert json.loads((tmp_path / "sweeps.json").read_text()) == ["m/one", "m/two"]


def test_a_finished_run_without_results_is_not_finished(tmp_path):
    folder = write_run(tmp_path / "a")
    assert runs.is_finished(folder) and runs.latest(tmp_path, "a", finished=True) == folder
    (folder / "metrics.json").unlink()
    assert not runs.is_finished(folder) and runs.latest(tmp_path, "a", finished=True) is None
    assert Sweep().on_error == "continue"
