"""Standard output and error that may be gone: a command whose output nobody reads works on, and says so once."""

import io
import os
import sys
from pathlib import Path
from typing import Any, TextIO


class TolerantStream:
    """A text stream whose errors are kept in `error` in place of being raised; from the first on, text is dropped.

    Characters that the stream's encoding lacks are written as their escapes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: str | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write a text."""
        if self.error is None:
            try:
                return self._stream.write(text)
            except (OSError, ValueError) as error:
                self._drop_from_now_on(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        if self.error is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._drop_from_now_on(error)

    def _drop_from_now_on(self, error: OSError | ValueError) -> None:
        self.error = (error.strerror if isinstance(error, OSError) else None) or str(error)
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, self._stream.fileno())  # or the interpreter fails when it flushes the stream at its end
        except (OSError, ValueError):
            pass  # it is closed, and the interpreter leaves it alone
        finally:
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        """All else is the stream's."""
        return getattr(self._stream, name)


def tolerate_lost_output() -> None:
    """Make standard output and error tolerant; where one was closed when the process began, its text is dropped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - to the end of the process
        elif not isinstance(stream, TolerantStream):
            setattr(sys, name, TolerantStream(stream))
