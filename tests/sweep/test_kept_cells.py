"""Cells whose results were kept count as finished, in a sweep too; and a sweep's results are kept by one command."""

import dataclasses
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from composing import TINY, planned
from run_folders import write_run

from emoexp import cli
from emoexp.config.schema import Sweep, Tune
from emoexp.runs import kept
from emoexp.runs.records import RunFolder
from emoexp.sweep import supervise, tune, worker
from emoexp.sweep.cells import DONE, FINISHED_BEFORE, Cell, Outcome, Plan, SweepFolder

cli.register_sweeper()
KEEP = Path(__file__).parents[2] / "benchmarks" / "keep.py"


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    """Two seeds of a tiny run; the first is trained, its results are kept in results/, and its folder is gone."""
    folder = tmp_path_factory.mktemp("kept")
    plan = planned(*TINY, "seed=0,1", "threads=1", f"outputs={folder / 'outputs'}", f"cache={folder / 'cache'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker.gc, "freeze", lambda: None)  # this process has other tests to run
        outcome = worker.train_cell(plan.cells[0])
    assert outcome.state == DONE, outcome.error
    record = RunFolder(Path(outcome.folder))
    kept.write(folder / "results", "tiny", [record], {record.name: range(7)})
    shutil.rmtree(folder / "outputs")
    cells = tuple(cell.with_machine(outputs=str(folder / "results")) for cell in plan.cells)
    return dataclasses.replace(plan, cells=cells)


def test_a_kept_cell_is_finished_where_its_manifest_fits(plan):
    found = worker.preflight(list(plan.cells), timed=False)
    assert [facts.error for facts in found] == [None, None]
    assert [facts.finished for facts in found] == [True, False]
    table = Path(plan.cells[0].machine.outputs) / "tiny.runs.csv.gz"
    assert found[0].folder == f"{table}:{plan.cells[0].name}"


@pytest.mark.parametrize(
    ("values", "finished", "changes"),
    [
        ({"threads": 2}, False, "threads (1, now 2)"),
        ({"threads": 2, "resume": "force"}, True, ""),
        ({"resume": "never"}, False, ""),
    ],
)
def test_a_kept_cell_of_another_manifest_counts_on_demand_alone(plan, values, finished, changes):
    (facts,) = worker.preflight([plan.cells[0].with_machine(**values)], timed=False)
    assert (facts.error, facts.finished, facts.changes) == (None, finished, changes)


class NoProcesses:
    """Workers that check cells in this process, and report each cell that they get as trained, without training it."""

    def __init__(self) -> None:
        self.trained: list[str] = []

    def __call__(self, count: int, sweep: Path) -> "NoProcesses":
        return self

    def __enter__(self) -> "NoProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def preflight(self, cells, *, timed):
        return worker.preflight(list(cells), timed)

    def run(self, cells, limit_s, on_start):
        for cell in cells:
            self.trained.append(cell.name)
            yield cell, Outcome(DONE, None, 1.0, 0.5)


def test_a_sweep_runs_only_what_is_not_kept(plan, tmp_path, monkeypatch):
    workers = NoProcesses()
    monkeypatch.setattr(supervise, "Workers", workers)
    assert supervise.run_sweep(plan, str(tmp_path), "the words") == supervise.EXIT_ALL
    assert workers.trained == [plan.cells[1].name]
    row = json.loads((tmp_path / plan.name / "cells.json").read_text())[plan.cells[0].name]
    (run,) = kept.read(Path(plan.cells[0].machine.outputs) / "tiny.runs.csv.gz")
    assert (row["state"], row["folder"], row["macro_f1"]) == (
        FINISHED_BEFORE,
        run.label,
        run.metrics["test"]["macro_f1"],
    )
    assert sorted(path.name for path in run.location.parent.iterdir()) == [
        "tiny.predictions.npz", "tiny.runs.csv.gz"
    ]  # fmt: skip


def kept_run(cell: Cell, folder: Path, best: float) -> Path:
    """A made-up finished run of a cell that was best by `best`."""
    path = write_run(folder, "relu", cell.experiment.seed, 0.5).rename(folder / cell.name)
    metrics = json.loads((path / "metrics.json").read_text())
    (path / "metrics.json").write_text(json.dumps(metrics | {"best": {"val/macro_f1": best}}))
    return path


def test_a_search_takes_kept_runs_into_account(tmp_path):
    plan = planned("seed=0", "tracking=none")
    cells = tuple(cell.with_machine(outputs=str(tmp_path / "results")) for cell in plan.cells)
    plan = dataclasses.replace(plan, cells=cells, settings=Sweep(tune=Tune(lr=[0.001, 0.01, 0.1])))
    folders = [
        kept_run(cell, tmp_path / "outputs", best)
        for cell, best in zip(tune.search_cells(plan)[()], (0.3, 0.5, 0.4), strict=True)
    ]
    table = kept.write(
        tmp_path / "results", "search", [RunFolder(path) for path in folders], {path.name: [0] for path in folders}
    )
    assert tune.with_best_rates(plan, {})[0].experiment.optimizer.lr == 0.01
    labels = {folders[2].name: f"{table}:{folders[2].name}", folders[1].name: str(tmp_path / "gone")}
    assert tune.with_best_rates(plan, labels)[0].experiment.optimizer.lr == 0.1


def run_keep(monkeypatch, *words: object) -> int:
    """The command benchmarks/keep.py: its exit code."""
    monkeypatch.setattr(sys, "argv", ["keep.py", *map(str, words)])
    try:
        runpy.run_path(str(KEEP), run_name="__main__")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_sweeps_finished_cells_are_kept_by_one_command(tmp_path, monkeypatch, capsys):
    plan = planned("activation=relu,mish", "seed=0", "tracking=none")
    sweep = SweepFolder(tmp_path / "multirun" / plan.name)
    with sweep.lock():
        sweep.begin(plan, "the words")
    one, two = plan.cells
    folder = kept_run(one, tmp_path / "outputs", 0.5)
    sweep.record({one.name: Outcome(DONE, str(folder)), two.name: Outcome("failed", error="why")}, plan.cells)
    assert run_keep(monkeypatch, "first", sweep.path, "--out", tmp_path) == 0
    table = tmp_path / "first.runs.csv.gz"
    assert capsys.readouterr().out == f"{table}: 1 runs, 0.0 MB with their predictions\n"
    assert [run.name for run in kept.read(table)] == [one.name]
    other = kept_run(two, tmp_path / "outputs", 0.5)
    assert run_keep(monkeypatch, "all", table, other, "--out", tmp_path, "--probabilities", "rarest") == 0
    runs = kept.read(tmp_path / "all.runs.csv.gz")
    assert [run.name for run in runs] == sorted([one.name, two.name])
    assert all(run.predictions.class_indices == (2,) for run in runs)
    assert run_keep(monkeypatch, "none", tmp_path / "multirun", "--out", tmp_path) == 1
    assert "is no run" in capsys.readouterr().err and not (tmp_path / "none.runs.csv.gz").exists()
