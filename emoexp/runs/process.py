"""What a training needs around it: log, progress bar, signals, tracking, and the status when it ends."""

import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from emoexp import tracking
from emoexp.config.schema import Machine
from emoexp.runs.folder import Run
from emoexp.tracking import Tracker

log = logging.getLogger("emoexp")


class _Stdout(logging.Handler):
    """Lines on standard output that do not cut through a progress bar. That nobody reads them is noted once."""

    _has_noted_loss = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        tqdm.write(prefix + self.format(record), file=sys.stdout)
        sys.stdout.flush()
        error = getattr(sys.stdout, "error", None)
        if error and not self._has_noted_loss:
            self._has_noted_loss = True
            log.warning("standard output cannot be written (%s); training goes on without it", error)


def logging_to_stdout() -> None:
    """Our own messages on standard output; called again, nothing changes."""
    if not any(isinstance(handler, _Stdout) for handler in log.handlers):
        log.addHandler(_Stdout())
    log.setLevel(logging.INFO)
    log.propagate = False


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """The same messages, with the time, at the end of a file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


@contextmanager
def record_status(run: Run) -> Iterator[None]:
    """RUNNING while the block runs; then FINISHED, KILLED (interrupted) or FAILED (with its traceback in the log)."""
    run.set_status("RUNNING")
    try:
        yield
    except KeyboardInterrupt:
        with ignore_signals():
            run.set_status("KILLED", "interrupted")
        raise
    except BaseException as error:
        for handler in log.handlers:
            if isinstance(handler, logging.FileHandler) and handler.stream:
                handler.stream.write(traceback.format_exc())
        run.set_status("FAILED", f"{type(error).__name__}: {error}")
        raise
    run.set_status("FINISHED")


@contextmanager
def track(run: Run, machine: Machine) -> Iterator[Callable[[], None]]:
    """A thread that mirrors the folder into MLflow whenever the yielded function is called, and once at the end."""
    tracker = Tracker()
    settings = tracking_settings(machine)
    outputs = [] if machine.sweep else [Path(machine.outputs)]  # in a sweep the supervisor looks after the other runs
    tracker.start(run.folder, settings, *outputs)
    try:
        yield tracker.notify
    finally:
        tracker.close(settings.timeout_s)


def mirror(run: Run, machine: Machine) -> None:
    """Send to MLflow what it lacks of a finished run."""
    with track(run, machine) as notify_tracker:
        notify_tracker()


def tracking_settings(machine: Machine) -> tracking.Settings:
    """The tracking of a configuration."""
    return machine.tracking.build()


@contextmanager
def _on_signals(handler: Any) -> Iterator[None]:
    """Handle SIGINT, SIGTERM and SIGHUP by `handler` in the block. Only in the main thread: no other gets signals.

    SIGHUP, which a process gets when its terminal is closed, stays ignored where it was: by nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    old_handlers = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old_handler in old_handlers.items():
            signal.signal(number, old_handler)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the block, so that the run can record that it was killed.

    A shell may start background processes so that they ignore SIGINT; in the block they do not.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _on_signals(stop):
        yield


@contextmanager
def ignore_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP are ignored in the block, so that a write in it is not interrupted."""
    with _on_signals(signal.SIG_IGN):
        yield


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """SIGINT, SIGTERM and SIGHUP set a flag that the yielded function reads; a second SIGINT interrupts at once."""
    received: list[int] = []

    def record_signal(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in received:
            raise KeyboardInterrupt
        received.append(number)  # SIGTERM after Ctrl-C comes from the supervisor; the run must still be saved

    with _on_signals(record_signal):
        yield lambda: bool(received)


@contextmanager
def progress_bar(
    epochs: int, epoch: Callable[[], int], on_first_step: Callable[[], None] = lambda: None
) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and remaining time on a terminal, nothing in a log. The yielded function takes (step, steps).

    epoch: returns the number of the epoch, from 0. on_first_step: called after the first step.
    """
    bar = tqdm(disable=not sys.stdout.isatty(), file=sys.stdout, leave=False, unit="step", dynamic_ncols=True)
    first_step_done = False

    def show(step: int, steps: int) -> None:
        nonlocal first_step_done
        if not first_step_done:
            first_step_done = True
            on_first_step()
        if bar.disable:
            return
        if bar.total is None:
            bar.reset(total=epochs * steps)
            bar.initial = bar.n = epoch() * steps + step - 1
        bar.set_description(f"epoch {epoch() + 1}/{epochs}", refresh=False)
        bar.update(epoch() * steps + step - bar.n)

    try:
        yield show
    finally:
        bar.close()
