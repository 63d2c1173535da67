"""The service that lets processes share a GPU, played by a script: its start, what workers see of it, its end."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from composing import TINY

from emoexp.sweep import mps

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
    return put


def calls(log: Path) -> list[list[str]]:
    return (
        [[part.strip() for part in line.split("|")] for line in log.read_text().splitlines()] if log.is_file() else []
    )


def test_it_runs_for_the_block_and_its_processes_find_it(control):
    log = control()
    with mps.served(3):
        folder = os.environ[mps.PIPES]
        assert Path(folder).is_dir() and calls(log) == [["-d", folder, ""]]
        seen = subprocess.run(["sh", "-c", f"echo ${mps.PIPES}"], capture_output=True, text=True, check=True).stdout
        assert seen.strip() == folder
    assert calls(log) == [["-d", folder, ""], ["", folder, "quit"]]
    assert mps.PIPES not in os.environ and not Path(folder).exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_it_ends_whatever_happens_in_the_block(control, error):
    log = control()
    with pytest.raises(error), mps.served(2):
        raise error
    assert [call[2] for call in calls(log)] == ["", "quit"] and mps.PIPES not in os.environ


def test_one_run_at_a_time_needs_none(control):
    log = control()
    with mps.served(1):
        assert mps.PIPES not in os.environ
    assert calls(log) == []


def test_somebody_elses_is_left_alone(control, monkeypatch):
    log = control()
    monkeypatch.setenv(mps.PIPES, "/somewhere")
    with mps.served(2):
        assert os.environ[mps.PIPES] == "/somewhere"
    assert calls(log) == [] and os.environ[mps.PIPES] == "/somewhere"


@pytest.mark.parametrize(
    ("then", "why"), [("echo no GPU >&2; exit 1", "ended with 1: no GPU"), ("sleep 9", "timed out")]
)
def test_where_it_does_not_start_processes_take_turns(control, monkeypatch, caplog, then, why):
    control(then)
    monkeypatch.setattr(mps, "_TIMEOUT_S", 0.5)
    with caplog.at_level(logging.WARNING, "emoexp"), mps.served(2):
        assert mps.PIPES not in os.environ
    assert "take turns" in caplog.text and why in caplog.text


def test_where_there_is_none_processes_take_turns(monkeypatch, caplog, tmp_path):
    monkeypatch.delenv(mps.PIPES, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.WARNING, "emoexp"), mps.served(2):
        assert mps.PIPES not in os.environ
    assert f"there is no {mps.CONTROL}" in caplog.text


def test_it_does_not_outlive_a_killed_process(control, tmp_path):
    log = control()
    code = "from emoexp.sweep import mps; import os, signal\nwith mps.served(2): os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code], check=False, env=os.environ, cwd=Path(__file__).parents[1])
    end = time.monotonic() + 10
    while len(calls(log)) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    assert [call[2] for call in calls(log)] == ["", "quit"]


def test_packing_is_refused_without_a_gpu(tmp_path):
    words = [*TINY, "seed=0,1", "pack=2", "device=cpu", f"cache={tmp_path / 'cache'}"]
    asked = [sys.executable, "-m", "emoexp.train", "--multirun", *words]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not (tmp_path / "outputs").exists()
    assert "error: pack=2 is about a GPU, and these cells train on cpu: workers=2 trains as many" in done.stderr
