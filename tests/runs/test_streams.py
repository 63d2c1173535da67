"""Output that nobody reads, and signals of a lost connection."""

import io
import logging
import os
import signal
import subprocess
import sys

import pytest

from emoexp.runs import process
from emoexp.runs.streams import TolerantStream


def unread() -> io.TextIOWrapper:
    """A stream whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="utf-8")


def test_text_that_nobody_reads_is_dropped():
    with unread() as raw:
        stream = TolerantStream(raw)
        print("first", file=stream, flush=True)
        assert stream.error == "Broken pipe"
        print("second", file=stream, flush=True)


def test_a_closed_stream_drops_text():
    raw = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    raw.close()
    stream = TolerantStream(io.StringIO())
    stream._stream = raw
    print("text", file=stream, flush=True)
    assert stream.error is not None


def test_what_an_encoding_lacks_is_escaped():
    buffer = io.BytesIO()
    stream = TolerantStream(io.TextIOWrapper(buffer, encoding="ascii"))
    print("colère", file=stream, flush=True)
    assert buffer.getvalue() == b"col\\xe8re\n" and stream.error is None


def test_the_loss_is_noted_once_and_the_message_is_in_the_file(tmp_path, monkeypatch):
    with unread() as raw, process.logging_to(tmp_path / "run.log"):
        monkeypatch.setattr(sys, "stdout", TolerantStream(raw))
        process.logging_to_stdout()
        for text in ("one", "two", "three"):
            process.log.info(text)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.partition("  ")[2].strip() or line for line in lines if "WARNING" not in line] == [
        "one",
        "two",
        "three",
    ]
    assert len([line for line in lines if "standard output cannot be written (Broken pipe)" in line]) == 1
    assert len(lines) == 4
    logging.getLogger("emoexp").handlers.clear()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_to_stop(number):
    before = signal.getsignal(number)
    with process.stop_on_signal() as stop_requested:
        assert not stop_requested()
        os.kill(os.getpid(), number)
        assert stop_requested()
    assert signal.getsignal(number) == before
    with pytest.raises(KeyboardInterrupt), process.sigterm_interrupts():
        os.kill(os.getpid(), number)


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with process.stop_on_signal() as stop_requested, process.sigterm_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop_requested()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("redirection", ["| head -1", ">&- 2>&-"])
def test_help_whose_reader_leaves_ends_in_silence(redirection):
    line = f"{sys.executable} -m emoexp.train --help {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
