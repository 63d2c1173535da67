"""Worker processes, by pebble: where one dies, or exceeds its time limit, only its cell fails.

Each worker is a pool of one process, so that no two share a pipe: a dying process could block it for the other.
"""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pebble import CONSTS, ProcessExpired, ProcessFuture, ProcessPool

from emoexp.sweep import worker
from emoexp.sweep.cells import BUSY, DIED, KILLED, OVER_TIME, Cell, Outcome
from emoexp.sweep.worker import Preflight

CONSTS.term_timeout = 15  # seconds that a worker has to save its run after it was told to stop
_POLL_S = 0.2
OUT_OF_MEMORY = "killed, probably out of memory"
_RETRY_S = 2.0  # seconds until a cell that another process trains is tried again


@contextmanager
def _without_sigint() -> Iterator[None]:
    """Threads and processes that start in the block never get Ctrl-C: the supervisor gets it, and stops them."""
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


class Workers:
    """Processes that stay alive from cell to cell, each with one cell at a time."""

    def __init__(self, count: int, sweep: Path) -> None:
        sweep.mkdir(parents=True, exist_ok=True)
        self._output = str((sweep / "workers.log").absolute())
        try:
            self._pools = [self._pool() for _ in range(count)]
        except OSError as error:
            raise ValueError(
                f"no worker process can be started: {error.strerror or error}. Workers need semaphores in /dev/shm, "
                "which must be writable, and open files (ulimit -n). Without --multirun a cell trains without workers"
            ) from error

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.stop()
        for pool in self._pools:
            pool.join()

    def _pool(self) -> ProcessPool:
        context = multiprocessing.get_context("spawn")
        return ProcessPool(1, initializer=worker.start, initargs=(os.getpid(), self._output), context=context)

    def preflight(self, cells: Sequence[Cell], *, timed: bool) -> list[Preflight]:
        """Let the first worker check each cell before anything is trained.

        Where that worker dies, the cells count as valid, and the one that kills a worker fails when it is trained.
        """
        try:
            return list(self._schedule(0, None, worker.preflight, list(cells), timed).result())
        except (ProcessExpired, BrokenProcessPool):
            return [Preflight() for _ in cells]

    def run(
        self, cells: Sequence[Cell], limit_s: float | None, on_start: Callable[[Cell], None]
    ) -> Iterator[tuple[Cell, Outcome]]:
        """Run cells, in their order, as workers become free; yields each when it has ended.

        A cell that another process trains waits until that one ends. Closing the iterator stops the running cells; they
        are saved. limit_s: seconds for one cell. on_start: called once with each cell when it starts.
        """
        queue = deque((0.0, cell) for cell in cells)  # with the earliest time at which a cell may start
        announced: set[str] = set()
        active: dict[int, tuple[Cell, ProcessFuture]] = {}
        try:
            while queue or active:
                for slot in range(len(self._pools)):
                    if slot not in active and queue and queue[0][0] <= time.monotonic():
                        cell = queue.popleft()[1]
                        if cell.name not in announced:
                            on_start(cell)
                        announced.add(cell.name)
                        active[slot] = (cell, self._schedule(slot, limit_s, worker.train_cell, cell))
                wait([future for _, future in active.values()], timeout=_POLL_S, return_when="FIRST_COMPLETED")
                for slot, (cell, future) in list(active.items()):
                    if future.done():
                        del active[slot]
                        outcome = self._outcome(future, limit_s)
                        if outcome.state == BUSY:
                            queue.append((time.monotonic() + _RETRY_S, cell))
                        else:
                            yield cell, outcome
                if queue and not active:  # other processes train the cells that are left, or one can start now
                    time.sleep(min(_POLL_S, max(0.0, queue[0][0] - time.monotonic())))
        finally:
            for _, future in active.values():
                future.cancel()

    def _schedule(self, slot: int, limit_s: float | None, function: Callable[..., Any], *arguments: Any) -> Any:
        with _without_sigint():
            try:
                return self._pools[slot].schedule(function, args=arguments, timeout=limit_s)
            except RuntimeError:  # the process died between two cells
                self._pools[slot] = self._pool()
                return self._pools[slot].schedule(function, args=arguments, timeout=limit_s)

    @staticmethod
    def _outcome(future: ProcessFuture, limit_s: float | None) -> Outcome:
        try:
            return future.result()
        except TimeoutError:
            minutes = (limit_s or 0) / 60
            return Outcome(
                OVER_TIME, error=f"over its time limit of {minutes:g} minutes; the same command continues it"
            )
        except ProcessExpired as error:
            if error.exitcode == worker.TERMINATED:
                return Outcome(KILLED, error="was told to stop; the same command continues it")
            return Outcome(DIED, error=f"its process died: {_describe(error.exitcode)}")
        except CancelledError:
            return Outcome(KILLED, error="interrupted")
        except BrokenProcessPool:
            return Outcome(DIED, error="its process died before it could begin; workers.log may say why")


def _describe(code: int) -> str:
    """An exit code, or the name of the signal that a negative one stands for."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, {OUT_OF_MEMORY}" if name == "SIGKILL" else name
