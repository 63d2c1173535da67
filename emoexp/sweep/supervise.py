"""A sweep from its cells to its table: judge them, choose learning rates, run what is missing, tell the end of each."""

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
from emoexp.sweep import mps, table, tune
from emoexp.sweep.cells import FAILED, FOUND, GOOD, Cell, Folder, Outcome, Plan
from emoexp.sweep.launchers import Engine
from emoexp.sweep.pool import Workers
from emoexp.sweep.settle import found, mirrored, settled
from emoexp.sweep.worker import Judged
from emoexp.tracking import Tracker

log = logging.getLogger("emoexp")
ALL, NONE, SOME = 0, 1, 2  # exit codes: which cells are finished


def sweep(plan: Plan, root: str, command: str, engine: Engine | None = None) -> int:
    """Run what is missing of a sweep.

    Args:
        root: folder of the sweeps. command: the words that were typed. engine: what runs cells instead of our workers.

    Returns:
        The exit code: 0 all cells are finished, 2 some, 1 none.

    Raises:
        ValueError: a cell that cannot be trained; nothing was started.
        KeyboardInterrupt: the sweep was interrupted; cells in progress are saved.
    """
    logging_to_stdout()
    folder = Folder(Path(root) / plan.name)
    plan = on_machine(plan, folder.path)
    log.info("sweep  %s: %d cells, %s", folder.path, len(plan.cells), " x ".join([*plan.axes, "seed"]))
    if plan.doubled:
        log.info("sweep  %d more combinations name the same runs as others", plan.doubled)
    if plan.settings.dry_run:
        with TemporaryDirectory() as nowhere, Workers(1, Path(nowhere)) as workers:
            chosen = tune.chosen(plan, folder.found()) if plan.settings.tune.lr else plan.cells
            cells = tuple(best or cell for cell, best in zip(plan.cells, chosen, strict=True))
            plan = dataclasses.replace(plan, cells=cells)
            log.info("%s", table.show_plan(plan, check(workers, plan)))
        return ALL
    if engine and plan.settings.pack > 1:
        raise ValueError("pack is about this machine's own workers; a launcher has settings of its own for a GPU")
    count = 1 if engine else plan.settings.processes
    with sigterm_interrupts(), folder.held(), mps.served(plan.settings.pack), Workers(count, folder.path) as workers:
        judged = check(workers, plan)
        with logging_to(folder.path / "sweep.log"), shown(folder, plan, command):
            log.info("typed  %s", command)
            run = Sweeping(plan, folder, engine or own(workers, plan.settings.time_limit))
            if plan.settings.tune.lr:
                tries = list({cell.name: cell for cells in tune.searches(plan).values() for cell in cells}.values())
                run.search(tries, check(workers, dataclasses.replace(plan, cells=tuple(tries))))
                judged = check(workers, dataclasses.replace(plan, cells=tuple(run.cells)))
            run.proceed(judged)
            return run.conclude()


def on_machine(plan: Plan, folder: Path) -> Plan:
    """The cells as they run here: members of the sweep, sharing the cores."""
    count = plan.settings.processes
    share = max(1, (os.cpu_count() or 1) // count) if count > 1 else None
    placed = [cell.on(sweep=str(folder), threads=cell.machine.threads or share) for cell in plan.cells]
    return dataclasses.replace(plan, cells=tuple(placed))


def check(workers: Workers, plan: Plan) -> list[Judged]:
    """Have every cell built before one is trained.

    Raises:
        ValueError: naming each that cannot be, with its reason.
    """
    judged = workers.judge(plan.cells, timed=plan.settings.dry_run)
    wrong: dict[str, list[str]] = {}
    for cell, facts in zip(plan.cells, judged, strict=True):
        if facts.error:
            wrong.setdefault(facts.error, []).append(cell.label)
    if wrong:
        lines = [f"  {', '.join(labels[:4])}{' ...' * (len(labels) > 4)}\n    {why}" for why, labels in wrong.items()]
        raise ValueError("\n".join(["nothing was started; these cells cannot be trained:", *lines]))
    pack = plan.settings.pack
    if pack > 1 and (other := {facts.device for facts in judged} - {"cuda", ""}):
        raise ValueError(
            f"pack={pack} is about a GPU, and these cells train on {', '.join(sorted(other))}: "
            f"workers={plan.settings.processes} trains as many at a time there"
        )
    for why, number in Counter(facts.anew for facts in judged if facts.anew).items():
        log.warning("%d cells were begun with other %s: they begin anew, beside those", number, why)
    return judged


def own(workers: Workers, limit: float | None) -> Engine:
    """Our own workers as something that runs cells; limit in minutes."""

    def run(cells: Sequence[Cell], sweep: Path) -> Iterator[tuple[Cell, Outcome]]:
        return workers.run(cells, None if limit is None else limit * 60, lambda cell: log.info("start  %s", cell.label))

    return run


@contextmanager
def shown(folder: Folder, plan: Plan, command: str) -> Iterator[None]:
    """The sweep as a parent run: RUNNING while the block runs, mirrored into MLflow, and never left RUNNING."""
    folder.begin(plan, command)
    settings = tracking_settings(plan.cells[0].machine)
    tracker = Tracker()
    tracker.start(folder.path, settings, folder.path.parent, Path(plan.cells[0].machine.outputs))
    tracker.notify()
    try:
        yield
    except KeyboardInterrupt:
        with ignore_signals():
            folder.status("KILLED", "interrupted")
        raise
    except BaseException as error:
        folder.status("FAILED", f"{type(error).__name__}: {error}")
        raise
    finally:
        tracker.close(settings.timeout_s)


class Sweeping:
    """A sweep at work: its cells, and what became of each."""

    def __init__(self, plan: Plan, folder: Folder, engine: Engine) -> None:
        self.plan, self.folder, self.engine = plan, folder, engine
        self.cells, self.outcomes = list(plan.cells), dict[str, Outcome]()
        self._began, self._stopped = time.monotonic(), False

    def search(self, tries: Sequence[Cell], judged: Sequence[Judged]) -> None:
        """Give every cell the learning rate that was best on validation among those of tune.lr."""
        log.info("search %d runs for the learning rates of %d cells", len(tries), len(self.cells))
        there = {cell.name: facts.folder for cell, facts in zip(tries, judged, strict=True) if facts.finished}
        tried = {cell.name: outcome for cell, outcome in self._each([c for c in tries if c.name not in there])}
        folders = there | {name: outcome.folder for name, outcome in tried.items() if outcome.state in GOOD}
        self.cells = []
        for cell, tuned in zip(self.plan.cells, tune.chosen(self.plan, folders), strict=True):
            self.cells.append(tuned or cell)
            if tuned is None:
                self.outcomes[cell.name] = Outcome(FAILED, error="no run of its search for a learning rate finished")
        for arm, rate in {cell.arm: cell.chosen.get("optimizer.lr") for cell in self.cells}.items():
            log.info("chosen %s: optimizer.lr=%s", " ".join(arm) or "all", rate)
        self.folder.note({}, self.cells)

    def proceed(self, judged: Sequence[Judged]) -> None:
        """Run every cell that is not finished."""
        for cell, facts in zip(self.cells, judged, strict=True):
            if facts.finished and cell.name not in self.outcomes:
                self.outcomes[cell.name] = found(cell, kept.record_of(facts.folder))
        self.folder.note(self.outcomes, self.cells)
        missing = [cell for cell in self.cells if cell.name not in self.outcomes and not self._stopped]
        log.info(
            "found  %d of %d cells finished", sum(o.state == FOUND for o in self.outcomes.values()), len(self.cells)
        )
        before = len(self.cells) - len(missing)
        for number, (cell, outcome) in enumerate(self._each(missing), start=1):
            self.outcomes[cell.name] = outcome
            left = (time.monotonic() - self._began) / number * (len(missing) - number)
            log.info("%s", table.line(cell, outcome, before + number, len(self.cells), left))

    def _each(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        """Run cells; what happens to one is written down before the next is heard of."""
        with closing(self.engine(cells, self.folder.path)) as running:  # type: ignore[type-var]
            for cell, outcome in running:
                outcome = settled(cell, outcome)
                self.folder.note({cell.name: outcome}, [cell])
                if outcome.traceback:
                    log.error("%s\n%s", cell.label, outcome.traceback.rstrip())
                self._stopped = outcome.state not in GOOD and self.plan.settings.on_error == "stop"
                yield cell, outcome
                if self._stopped:
                    log.error("stopped: %s %s (on_error=stop)", cell.label, outcome.state)
                    return

    def conclude(self) -> int:
        """The table of all cells, the parent's last status, and the exit code."""
        good = [cell for cell in self.cells if self._state(cell) in GOOD]
        log.info("%s", table.states(self.cells, self.outcomes))
        log.info("%s", table.time_spent(self.cells, self.outcomes, time.monotonic() - self._began))
        log.info("%d of %d cells are finished; what became of each: %s", len(good), len(self.cells), self.folder.path)
        if len(good) == len(self.cells):
            self.folder.status("FINISHED")
        else:
            self.folder.status("FAILED", f"{len(self.cells) - len(good)} of {len(self.cells)} cells are not finished")
        mirrored(self.folder, [cell for cell in self.cells if cell.name in self.outcomes], self.outcomes)
        return ALL if len(good) == len(self.cells) else SOME if good else NONE

    def _state(self, cell: Cell) -> str:
        return self.outcomes[cell.name].state if cell.name in self.outcomes else ""
