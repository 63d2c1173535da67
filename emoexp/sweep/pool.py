"""Workers under a supervisor. The pooling is pebble's: a worker that dies, or is over its time, fails its cell alone.

Each worker is a pool of one, so that no two share a pipe that a dying one could block.
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
from emoexp.sweep.cells import BUSY, DIED, KILLED, LATE, Cell, Outcome
from emoexp.sweep.worker import Judged

CONSTS.term_timeout = 15  # s for a run to be saved when its worker is told to stop
_LOOK_S = 0.2
_AGAIN_S = 2.0  # until a cell that another process is at is tried again


@contextmanager
def _deaf() -> Iterator[None]:
    """Threads and processes that begin in the block never hear Ctrl-C: the supervisor does, and tells them to stop."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Workers:
    """Warm processes, each with one cell at a time."""

    def __init__(self, count: int, sweep: Path) -> None:
        sweep.mkdir(parents=True, exist_ok=True)
        self._output = str((sweep / "workers.log").absolute())
        self._pools = [self._pool() for _ in range(count)]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.stop()
        for pool in self._pools:
            pool.join()

    def _pool(self) -> ProcessPool:
        context = multiprocessing.get_context("spawn")
        return ProcessPool(1, initializer=worker.begin, initargs=(os.getpid(), self._output), context=context)

    def judge(self, cells: Sequence[Cell], *, timed: bool) -> list[Judged]:
        """What there is to do for each cell, found out by the first worker.

        A worker that dies over it tells nothing: then the cells are taken for valid, and one will fail by itself.
        """
        try:
            return list(self._schedule(0, None, worker.judge, list(cells), timed).result())
        except (ProcessExpired, BrokenProcessPool):
            return [Judged() for _ in cells]

    def run(
        self, cells: Sequence[Cell], limit_s: float | None, begun: Callable[[Cell], None]
    ) -> Iterator[tuple[Cell, Outcome]]:
        """Run cells, in their order, as workers become free; yields each when it has come to an end.

        A cell that another process is at waits for it. Closing the iterator stops the workers' cells, which are saved.
        """
        queue, told = deque((0.0, cell) for cell in cells), set()
        active: dict[int, tuple[Cell, ProcessFuture]] = {}
        try:
            while queue or active:
                for slot in range(len(self._pools)):
                    if slot not in active and queue and queue[0][0] <= time.monotonic():
                        cell = queue.popleft()[1]
                        if cell.name not in told:
                            begun(cell)
                        told.add(cell.name)
                        active[slot] = (cell, self._schedule(slot, limit_s, worker.run, cell))
                wait([future for _, future in active.values()], timeout=_LOOK_S, return_when="FIRST_COMPLETED")
                for slot, (cell, future) in list(active.items()):
                    if future.done():
                        del active[slot]
                        outcome = self._outcome(future, limit_s)
                        if outcome.state == BUSY:
                            queue.append((time.monotonic() + _AGAIN_S, cell))
                        else:
                            yield cell, outcome
                if queue and not active:  # only cells that others are at are left, or one that can begin at once
                    time.sleep(min(_LOOK_S, max(0.0, queue[0][0] - time.monotonic())))
        finally:
            for _, future in active.values():
                future.cancel()

    def _schedule(self, slot: int, limit_s: float | None, function: Callable[..., Any], *arguments: Any) -> Any:
        with _deaf():
            try:
                return self._pools[slot].schedule(function, args=arguments, timeout=limit_s)
            except RuntimeError:  # it died between two cells
                self._pools[slot] = self._pool()
                return self._pools[slot].schedule(function, args=arguments, timeout=limit_s)

    @staticmethod
    def _outcome(future: ProcessFuture, limit_s: float | None) -> Outcome:
        try:
            return future.result()
        except TimeoutError:
            return Outcome(
                LATE, error=f"over its time limit of {(limit_s or 0) / 60:g} minutes; typed again, it goes on"
            )
        except ProcessExpired as error:
            if error.exitcode == worker.TERMINATED:
                return Outcome(KILLED, error="was told to stop; typed again, it goes on")
            return Outcome(DIED, error=f"its process died: {_ending(error.exitcode)}")
        except CancelledError:
            return Outcome(KILLED, error="interrupted")
        except BrokenProcessPool:
            return Outcome(DIED, error="its process died before it could begin; workers.log may say why")


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, which the system sends when memory is exhausted" if name == "SIGKILL" else name
