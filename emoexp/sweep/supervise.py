"""A whole sweep: check its cells, choose learning rates, run the cells that are missing, report each outcome."""

import dataclasses
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from emoexp.runs import kept
from emoexp.runs.process import ignore_signals, logging_to, logging_to_stdout, sigterm_interrupts, tracking_settings
from emoexp.sweep import messages, mps, outcomes, tune
from emoexp.sweep.cells import FAILED, FINISHED_BEFORE, FINISHED_STATES, Cell, Outcome, Plan, SweepFolder
from emoexp.sweep.launchers import CellRunner
from emoexp.sweep.pool import Workers
from emoexp.sweep.worker import Preflight
from emoexp.tracking import Tracker

log = logging.getLogger("emoexp")
EXIT_ALL, EXIT_NONE, EXIT_SOME = 0, 1, 2  # exit codes: which cells are finished


def run_sweep(plan: Plan, root: str, command: str, runner: CellRunner | None = None) -> int:
    """Run the cells of a sweep that are not finished.

    Args:
        root: folder of the sweeps. command: the command line as it was typed. runner: runs the cells, in place of our
            own workers.

    Returns:
        The exit code: 0 all cells are finished, 2 some, 1 none.

    Raises:
        ValueError: a cell that cannot be trained; nothing was started.
        KeyboardInterrupt: the sweep was interrupted; cells in progress are saved.
    """
    logging_to_stdout()
    folder = SweepFolder(Path(root) / plan.name)
    plan = on_this_machine(plan, folder.path)
    log.info("sweep  %s: %d cells, %s", folder.path, len(plan.cells), " x ".join([*plan.axes, "seed"]))
    if plan.duplicates:
        log.info("sweep  %d more combinations name the same runs as others", plan.duplicates)
    if plan.settings.dry_run:
        log.info("%s", dry_run(plan, folder))
        return EXIT_ALL
    if runner and plan.settings.pack > 1:
        raise ValueError("pack is about this machine's own workers; a launcher has settings of its own for a GPU")
    count = 1 if runner else plan.settings.processes
    with sigterm_interrupts(), folder.lock(), mps.daemon(plan.settings.pack), Workers(count, folder.path) as workers:
        preflights = check_cells(workers, plan)
        with logging_to(folder.path / "sweep.log"), parent_run(folder, plan, command):
            log.info("typed  %s", command)
            sweep = SweepRun(plan, folder, runner or run_by_workers(workers, plan.settings.time_limit))
            if plan.settings.tune.lr:
                searches = {cell.name: cell for cells in tune.search_cells(plan).values() for cell in cells}
                tries = tuple(searches.values())
                sweep.search_rates(tries, check_cells(workers, dataclasses.replace(plan, cells=tries)))
                preflights = check_cells(workers, dataclasses.replace(plan, cells=tuple(sweep.cells)))
            sweep.run_missing(preflights)
            return sweep.conclude()


def dry_run(plan: Plan, folder: SweepFolder) -> str:
    """What a sweep would do, as a table. Nothing is trained or written."""
    with TemporaryDirectory() as temporary, Workers(1, Path(temporary)) as workers:
        if plan.settings.tune.lr:
            tuned = tune.with_best_rates(plan, folder.finished_runs())
            cells = [best or cell for cell, best in zip(plan.cells, tuned, strict=True)]
            plan = dataclasses.replace(plan, cells=tuple(cells))
        return messages.plan_table(plan, check_cells(workers, plan))


def on_this_machine(plan: Plan, folder: Path) -> Plan:
    """The plan with cells that belong to the sweep's folder and share this machine's cores."""
    count = plan.settings.processes
    threads = max(1, (os.cpu_count() or 1) // count) if count > 1 else None
    cells = [cell.with_machine(sweep=str(folder), threads=cell.machine.threads or threads) for cell in plan.cells]
    return dataclasses.replace(plan, cells=tuple(cells))


def check_cells(workers: Workers, plan: Plan) -> list[Preflight]:
    """Let a worker build every cell before one is trained.

    Raises:
        ValueError: some cells cannot be trained; the message names each with its reason.
    """
    preflights = workers.preflight(plan.cells, timed=plan.settings.dry_run)
    errors: dict[str, list[str]] = {}
    for cell, preflight in zip(plan.cells, preflights, strict=True):
        if preflight.error:
            errors.setdefault(preflight.error, []).append(cell.label)
    if errors:
        lines = [
            f"  {', '.join(labels[:4])}{' ...' * (len(labels) > 4)}\n    {error}" for error, labels in errors.items()
        ]
        raise ValueError("\n".join(["nothing was started; these cells cannot be trained:", *lines]))
    pack = plan.settings.pack
    if pack > 1 and (devices := {preflight.device for preflight in preflights} - {"cuda", ""}):
        raise ValueError(
            f"pack={pack} is about a GPU, and these cells train on {', '.join(sorted(devices))}: "
            f"workers={plan.settings.processes} trains as many at a time there"
        )
    changes = Counter(preflight.changes for preflight in preflights if preflight.changes)
    for change, number in changes.items():
        log.warning("%d cells were started with different %s: they start anew, in new folders", number, change)
    return preflights


def run_by_workers(workers: Workers, limit: float | None) -> CellRunner:
    """A function that runs cells by our own workers; limit in minutes a cell."""

    def run(cells: Sequence[Cell], sweep: Path) -> Iterator[tuple[Cell, Outcome]]:
        return workers.run(cells, None if limit is None else limit * 60, lambda cell: log.info("start  %s", cell.label))

    return run


@contextmanager
def parent_run(folder: SweepFolder, plan: Plan, command: str) -> Iterator[None]:
    """Show the sweep as a parent run in MLflow: RUNNING in the block, FAILED or KILLED after an error."""
    folder.begin(plan, command)
    settings = tracking_settings(plan.cells[0].machine)
    tracker = Tracker()
    tracker.start(folder.path, settings, folder.path.parent, Path(plan.cells[0].machine.outputs))
    tracker.notify()
    try:
        yield
    except KeyboardInterrupt:
        with ignore_signals():
            folder.write_status("KILLED", "interrupted")
        raise
    except BaseException as error:
        folder.write_status("FAILED", f"{type(error).__name__}: {error}")
        raise
    finally:
        tracker.close(settings.timeout_s)


class SweepRun:
    """A running sweep: its cells, and the outcome of each."""

    def __init__(self, plan: Plan, folder: SweepFolder, runner: CellRunner) -> None:
        self.plan, self.folder, self.runner = plan, folder, runner
        self.cells, self.outcomes = list(plan.cells), dict[str, Outcome]()
        self._start, self._stopped = time.monotonic(), False

    def search_rates(self, tries: Sequence[Cell], preflights: Sequence[Preflight]) -> None:
        """Give every cell the learning rate that was best on validation among those of tune.lr."""
        log.info("search %d runs for the learning rates of %d cells", len(tries), len(self.cells))
        folders: dict[str, str | None] = {}
        for cell, preflight in zip(tries, preflights, strict=True):
            if preflight.finished:
                folders[cell.name] = preflight.folder
        for cell, outcome in self._run([cell for cell in tries if cell.name not in folders]):
            if outcome.state in FINISHED_STATES:
                folders[cell.name] = outcome.folder
        self.cells = []
        for cell, tuned in zip(self.plan.cells, tune.with_best_rates(self.plan, folders), strict=True):
            self.cells.append(tuned or cell)
            if tuned is None:
                self.outcomes[cell.name] = Outcome(FAILED, error="no run of its search for a learning rate finished")
        for arm, rate in {cell.arm: cell.chosen.get("optimizer.lr") for cell in self.cells}.items():
            log.info("chosen %s: optimizer.lr=%s", " ".join(arm) or "all", rate)
        self.folder.record({}, self.cells)

    def run_missing(self, preflights: Sequence[Preflight]) -> None:
        """Run every cell that is not finished."""
        for cell, preflight in zip(self.cells, preflights, strict=True):
            if preflight.finished and cell.name not in self.outcomes:
                self.outcomes[cell.name] = outcomes.finished_before(cell, kept.record_of(preflight.folder))
        self.folder.record(self.outcomes, self.cells)
        unfinished = [cell for cell in self.cells if cell.name not in self.outcomes and not self._stopped]
        num_finished = sum(outcome.state == FINISHED_BEFORE for outcome in self.outcomes.values())
        log.info("found  %d of %d cells finished", num_finished, len(self.cells))
        num_earlier = len(self.cells) - len(unfinished)
        for number, (cell, outcome) in enumerate(self._run(unfinished), start=1):
            self.outcomes[cell.name] = outcome
            seconds_left = (time.monotonic() - self._start) / number * (len(unfinished) - number)
            log.info("%s", messages.cell_line(cell, outcome, num_earlier + number, len(self.cells), seconds_left))

    def _run(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        """Run cells. Each outcome is written to disk before the next cell's is waited for."""
        with closing(self.runner(cells, self.folder.path)) as results:  # type: ignore[type-var]
            for cell, outcome in results:
                outcome = outcomes.close_run(cell, outcome)
                self.folder.record({cell.name: outcome}, [cell])
                if outcome.traceback:
                    log.error("%s\n%s", cell.label, outcome.traceback.rstrip())
                self._stopped = outcome.state not in FINISHED_STATES and self.plan.settings.on_error == "stop"
                yield cell, outcome
                if self._stopped:
                    log.error("stopped: %s %s (on_error=stop)", cell.label, outcome.state)
                    return

    def conclude(self) -> int:
        """Write the table of all cells and the parent's last status, and return the exit code."""
        ended = [cell for cell in self.cells if cell.name in self.outcomes]
        finished = sum(self.outcomes[cell.name].state in FINISHED_STATES for cell in ended)
        log.info("%s", messages.outcome_table(self.cells, self.outcomes))
        log.info("%s", messages.time_spent(self.cells, self.outcomes, time.monotonic() - self._start))
        log.info("%d of %d cells are finished; what became of each: %s", finished, len(self.cells), self.folder.path)
        if finished == len(self.cells):
            self.folder.write_status("FINISHED")
        else:
            error = f"{len(self.cells) - finished} of {len(self.cells)} cells are not finished"
            self.folder.write_status("FAILED", error)
        outcomes.show_in_mlflow(self.folder, ended, self.outcomes)
        return EXIT_ALL if finished == len(self.cells) else EXIT_SOME if finished else EXIT_NONE
