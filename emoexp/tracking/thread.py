"""The thread that mirrors a live run while it trains. Imports no MLflow itself."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from emoexp.runs import folder as runs
from emoexp.tracking.mirror import Mirror, behind, brief, close_dead, mirror
from emoexp.tracking.settings import Settings, locate

_log = logging.getLogger(__name__)


class Tracker:
    """Mirrors a live run from a thread of its own: nothing here can stop the training or make it wait."""

    def __init__(self) -> None:
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._failed = False

    def start(self, folder: Path, settings: Settings, *outputs: Path) -> None:
        """Begin with the first notice. outputs: folders of runs, of which dead ones are closed and missed ones
        replayed when idle.

        Give notice when torch is imported and the first step taken: until MLflow is imported, too, everything else that
        is Python waits. Raises ValueError, at once, for settings that cannot work; nothing is raised later.
        """
        store = locate(settings)
        if store is None:
            return
        for note in store.notes:
            _log.warning("tracking: %s", note)
        self._folder, self._settings, self._outputs = folder, settings, outputs
        self._mirror = Mirror(folder, settings, store)
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def notify(self) -> None:
        """The folder has changed. Returns at once; several calls may be served as one."""
        self._wake.set()
        if self._thread is not None and self._thread.ident is None:
            self._thread.start()

    def close(self, timeout_s: float | None = None) -> None:
        """Mirror a last time, and give up politely after `timeout_s` seconds (default: the settings')."""
        if self._thread is None:
            return
        self._closing.set()
        self.notify()
        self._thread.join(self._settings.timeout_s if timeout_s is None else timeout_s)
        if self._thread.is_alive() or self._failed:
            _log.warning(
                "tracking: MLflow does not have all of this run; %s does. `python -m emoexp.sync` (make"
                " sync), or the next run, adds what is missing",
                self._folder,
            )
        self._thread = None

    def _work(self) -> None:
        others: Iterator[Path] | None = None
        while True:
            self._wake.clear()
            last = self._closing.is_set()  # read after clear and before the work: no notice is lost
            with _polite():
                self._attempt()
                if last:
                    return
                if others is None and not self._failed:
                    others = chain.from_iterable(map(self._missed, self._outputs))
                while others is not None and not self._wake.is_set() and next(others, None) is not None:
                    pass
            self._wake.wait()

    def _attempt(self) -> None:
        try:
            self._mirror.sync()
            self._failed = False
        except Exception as error:  # noqa: BLE001
            # Broad on purpose: MLflow raises whatever its database, network, disk or plug-ins raise, and none
            # of it is worth an epoch of training. The folder has everything; the next call tries again.
            if not self._failed:
                _log.warning("tracking: MLflow cannot be reached, training goes on: %s", brief(error))
            self._failed = True
            self._mirror.failed(brief(error))

    def _missed(self, outputs: Path) -> Iterator[Path]:
        """Close and replay the other runs, one at each step."""
        close_dead(outputs, self._settings)  # what it cannot do it says, and does not raise
        for folder in runs.all_runs(outputs):
            try:
                live = folder == self._folder or runs.is_alive(folder)
                if not live and behind(folder, self._settings, ask=False):
                    mirror(folder, self._settings)
            except Exception as error:  # noqa: BLE001 - as in _attempt
                _log.warning("tracking: %s could not be replayed: %s", folder.name, brief(error))
            yield folder


@contextmanager
def _polite() -> Iterator[None]:
    """Give the interpreter's lock back sooner, ten times, to a training thread that asks for it.

    Training takes the lock at every operation, and while MLflow is imported, which is pure Python for about two
    seconds, it would wait 5 ms for it each time. Measured with two busy cores, the training lost 4 to 7 s to the
    import at the default, and 2 to 3 s like this.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
