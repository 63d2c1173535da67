"""The service that lets processes share a GPU, played by a script: its start, what workers see of it, its end."""

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from composing import planned

from emoexp import cli
from emoexp.sweep import mps, supervise
from emoexp.sweep.worker import Preflight

cli.register_sweeper()

FAKE = """#!/bin/sh
echo "$@ | $CUDA_MPS_PIPE_DIRECTORY | $(if [ $# -eq 0 ]; then cat; fi)" >> {log}
{then}
"""


@pytest.fixture
def control(tmp_path, monkeypatch):
    """Puts a control program on the path that writes down how it was called, then does something else."""

    def put(then: str = "exit 0") -> Path:
        place, log = tmp_path / "bin", tmp_path / "calls"
        place.mkdir()
        (place / mps.CONTROL).write_text(FAKE.format(log=log, then=then))
        (place / mps.CONTROL).chmod(0o755)
        monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
        return log

    monkeypatch.delenv(mps.PIPES, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # which is asked for once a process
    return put


def calls(log: Path) -> list[list[str]]:
    return (
        [[part.strip() for part in line.split("|")] for line in log.read_text().splitlines()] if log.is_file() else []
    )


def ends(reached: Callable[[], bool]) -> bool:
    """Whether something is so within ten seconds."""
    end = time.monotonic() + 10
    while not reached() and time.monotonic() < end:
        time.sleep(0.1)
    return reached()


def test_it_runs_for_the_block_and_its_processes_find_it(control):
    log = control()
    with mps.daemon(3):
        folder = os.environ[mps.PIPES]
        assert Path(folder).is_dir() and calls(log) == [["-d", folder, ""]]
        seen = subprocess.run(["sh", "-c", f"echo ${mps.PIPES}"], capture_output=True, text=True, check=True).stdout
        assert seen.strip() == folder
    assert calls(log) == [["-d", folder, ""], ["", folder, "quit"]]
    assert mps.PIPES not in os.environ and not Path(folder).exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_it_ends_whatever_happens_in_the_block(control, error):
    log = control()
    with pytest.raises(error), mps.daemon(2):
        raise error
    assert [call[2] for call in calls(log)] == ["", "quit"] and mps.PIPES not in os.environ


def test_one_run_at_a_time_needs_none(control):
    log = control()
    with mps.daemon(1):
        assert mps.PIPES not in os.environ
    assert calls(log) == []


def test_somebody_elses_is_left_alone(control, monkeypatch):
    log = control()
    monkeypatch.setenv(mps.PIPES, "/somewhere")
    with mps.daemon(2):
        assert os.environ[mps.PIPES] == "/somewhere"
    assert calls(log) == [] and os.environ[mps.PIPES] == "/somewhere"


@pytest.mark.parametrize(
    ("then", "why"),
    [("echo no GPU >&2; exit 1", "ended with 1: no GPU"), ('[ "$1" = -d ] && exec sleep 9', "timed out")],
)
def test_where_it_does_not_start_processes_take_turns(control, monkeypatch, caplog, then, why):
    control(then)
    monkeypatch.setattr(mps, "_TIMEOUT_S", 0.5)
    with caplog.at_level(logging.WARNING, "emoexp"), mps.daemon(2):
        assert mps.PIPES not in os.environ
    assert "take turns" in caplog.text and why in caplog.text


def test_a_daemon_that_keeps_its_output_open_has_started(control, monkeypatch):
    log = control('[ "$1" = -d ] && { sleep 3 & }; exit 0')
    monkeypatch.setattr(mps, "_TIMEOUT_S", 1.5)
    with mps.daemon(2):
        assert mps.PIPES in os.environ
    assert [call[2] for call in calls(log)] == ["", "quit"]


def test_a_daemon_whose_start_hung_is_ended_too(control, monkeypatch):
    log = control('[ "$1" = -d ] && exec sleep 9; exit 0')
    monkeypatch.setattr(mps, "_TIMEOUT_S", 0.5)
    with mps.daemon(2):
        folder = Path(calls(log)[0][1])
    assert [call[2] for call in calls(log)] == ["", "quit"] and not folder.exists()


def test_a_daemon_that_does_not_end_is_told_of(control, monkeypatch, caplog):
    log = control('[ "$1" = -d ] || exec sleep 9')
    monkeypatch.setattr(mps, "_TIMEOUT_S", 0.5)
    with caplog.at_level(logging.WARNING, "emoexp"), mps.daemon(2):
        pass
    folder = calls(log)[0][1]
    assert f"has not ended: {mps.PIPES}={folder}" in caplog.text and mps.PIPES not in os.environ
    Path(folder, "start.txt").unlink()
    Path(folder).rmdir()  # a daemon that lives is not cut off from whoever looks for it


def test_no_daemon_is_started_that_nobody_would_end(control, monkeypatch):
    log, run = control(), subprocess.Popen

    def broken(words, **settings):
        if words[0] == "/bin/sh":
            raise OSError("no process to be had")
        return run(words, **settings)

    monkeypatch.setattr(subprocess, "Popen", broken)
    with pytest.raises(OSError, match="no process"), mps.daemon(2):
        pass
    assert calls(log) == []


def test_where_there_is_none_processes_take_turns(monkeypatch, caplog, tmp_path):
    monkeypatch.delenv(mps.PIPES, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.WARNING, "emoexp"), mps.daemon(2):
        assert mps.PIPES not in os.environ
    assert f"there is no {mps.CONTROL}" in caplog.text


def test_it_does_not_outlive_a_killed_process(control, tmp_path):
    log = control()
    code = "from emoexp.sweep import mps; import os, signal\nwith mps.daemon(2): os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code], check=False, env=os.environ, cwd=Path(__file__).parents[2])
    folder = Path(calls(log)[0][1])
    assert ends(lambda: not folder.exists()) and [call[2] for call in calls(log)] == ["", "quit"]


class Judging:
    """Workers that find nothing wrong with any cell, on a device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def preflight(self, cells, timed):
        return [Preflight(device=self.device) for _ in cells]


def test_packing_is_refused_without_a_gpu():
    plan = planned("seed=0,1", "pack=2")
    said = "pack=2 is about a GPU, and these cells train on cpu: workers=2 trains as many"
    with pytest.raises(ValueError, match=said):
        supervise.check_cells(Judging("cpu"), plan)
    assert len(supervise.check_cells(Judging("cuda"), plan)) == 2
