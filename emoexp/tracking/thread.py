"""The thread that mirrors a run into MLflow while it trains. Imports no MLflow itself."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from emoexp.runs import folder as runs
from emoexp.tracking.mirror import Mirror, behind, brief, close_dead, mirror
from emoexp.tracking.settings import Settings, is_locked, locate

LOCKED_S = 5.0  # after which a lock on the database is not waited for
_POLL_S = 0.2
_log = logging.getLogger(__name__)


class Tracker:
    """Mirrors a training run from a thread of its own. No error of MLflow can stop the training or make it wait."""

    def __init__(self) -> None:
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._failed = False

    def start(self, folder: Path, settings: Settings, *outputs: Path) -> None:
        """Prepare the thread; the first `notify` starts it.

        outputs: folders with further runs. In its idle time the thread closes the dead ones among them, and mirrors
        those of which MLflow lacks something.

        Call `notify` first when torch is imported and the first step is taken: the thread then imports MLflow, and all
        other Python code waits for that. Raises ValueError for settings that cannot work; later nothing is raised.
        """
        store = locate(settings)
        if store is None:
            return
        for note in store.notes:
            _log.warning("tracking: %s", note)
        self._folder, self._settings, self._outputs = folder, settings, outputs
        self._database = store.database
        self._mirror = Mirror(folder, settings, store)
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def notify(self) -> None:
        """Say that the folder has changed. Returns at once; several calls may lead to one update."""
        self._wake.set()
        if self._thread is not None and self._thread.ident is None:
            self._thread.start()

    def close(self, timeout_s: float | None = None) -> None:
        """Mirror a last time; give up with a warning after `timeout_s` seconds (default: the settings'), and after
        LOCKED_S where another process keeps the database locked all that time."""
        if self._thread is None:
            return
        self._closing.set()
        self.notify()
        end = free = time.monotonic()
        end += self._settings.timeout_s if timeout_s is None else timeout_s
        while self._thread.is_alive() and time.monotonic() < min(end, free + LOCKED_S):
            self._thread.join(_POLL_S)
            if not is_locked(self._database):
                free = time.monotonic()
        if self._thread.is_alive() or self._failed:
            _log.warning(
                "tracking: MLflow does not have all of this run; %s does. `python -m emoexp.sync` (make"
                " sync), or the next run, adds what is missing",
                self._folder,
            )
        self._thread = None

    def _work(self) -> None:
        other_runs: Iterator[Path] | None = None
        while True:
            self._wake.clear()
            is_last = self._closing.is_set()  # after clear and before the work, so that no notice is lost
            with _short_switch_interval():
                self._attempt()
                if is_last:
                    return
                if other_runs is None and not self._failed:
                    other_runs = chain.from_iterable(map(self._replay, self._outputs))
                while other_runs is not None and not self._wake.is_set() and next(other_runs, None) is not None:
                    pass
            self._wake.wait()

    def _attempt(self) -> None:
        try:
            self._mirror.sync()
            self._failed = False
        except Exception as error:  # noqa: BLE001
            # Every exception: MLflow passes on those of its database, network, disk and plug-ins, and none of them
            # may stop a training. The folder has everything; the next call tries again.
            if not self._failed:
                _log.warning("tracking: MLflow cannot be reached, training goes on: %s", brief(error))
            self._failed = True
            self._mirror.failed(brief(error))

    def _replay(self, outputs: Path) -> Iterator[Path]:
        """Close the dead runs of a folder, then mirror those of which MLflow lacks something, one at each step."""
        close_dead(outputs, self._settings)  # it logs errors and raises none
        for folder in runs.all_runs(outputs):
            try:
                live = folder == self._folder or runs.is_alive(folder)
                if not live and behind(folder, self._settings, ask=False):
                    mirror(folder, self._settings)
            except Exception as error:  # noqa: BLE001 - as in _attempt
                _log.warning("tracking: %s could not be replayed: %s", folder.name, brief(error))
            yield folder


@contextmanager
def _short_switch_interval() -> Iterator[None]:
    """In the block a thread gives up the interpreter's lock after 0.5 ms, in place of 5 ms, when another one waits.

    Training takes the lock at every operation. MLflow's import, two seconds of pure Python, would make it wait 5 ms
    each time. Measured with two busy cores: the import cost the training 4 to 7 s by default, and 2 to 3 s like this.
    """
    old_interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(old_interval)
