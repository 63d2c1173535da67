"""What the system refuses is told in one line: the file, or the place, and what helps."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emoexp import cli
from emoexp.runs import files, system_errors
from emoexp.sweep import pool


def raised(function, *arguments) -> BaseException:
    with pytest.raises((OSError, MemoryError, RuntimeError)) as caught:
        function(*arguments)
    return caught.value


def refuse(number: int, *path: str) -> None:
    raise OSError(number, os.strerror(number), *path)


@pytest.mark.parametrize("number", system_errors.REMEDIES)
def test_the_file_and_a_remedy_are_named(number):
    said = system_errors.explained(raised(refuse, number, "/disk/run/best.pt"))
    assert said == f"/disk/run/best.pt: {os.strerror(number)}: {system_errors.REMEDIES[number]}"


def test_without_a_file_the_place_is_named():
    said = system_errors.explained(raised(refuse, errno.EROFS))
    assert said.startswith("Read-only file system in refuse of test_system_errors.py: ")


def test_a_remedy_is_found_behind_our_own_message(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_force_to_disk", lambda path: refuse(errno.ENOSPC))
    said = system_errors.explained(raised(files.write_bytes, tmp_path / "best.pt", b"x"))
    assert said.startswith(f"could not save {tmp_path / 'best.pt'} (No space left") and "outputs=" in said


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_exhausted_memory_is_told(error, capsys):
    assert system_errors.explained(error).startswith("memory is exhausted: lower batch_size")
    with pytest.raises(SystemExit), cli.exit_on_error():
        raise error
    assert capsys.readouterr().err.startswith("error: memory is exhausted: lower batch_size")


def test_a_fault_of_the_program_stays_one():
    assert system_errors.explained(RuntimeError("shapes do not fit")) is None
    with pytest.raises(RuntimeError), cli.exit_on_error():
        raise RuntimeError("shapes do not fit")


def test_workers_that_cannot_start_say_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "ProcessPool", lambda *_, **__: refuse(errno.EROFS))
    with pytest.raises(ValueError, match=r"no worker process can be started: Read-only file system\. .*/dev/shm"):
        pool.Workers(2, tmp_path)


def test_a_limit_on_the_size_of_files_stops_with_the_file_named(tmp_path):
    """The packed images have no room: they are read without a copy, and the first file of the run is named."""
    small = ["epochs=1", "data.size=420", "data.test_per_class=12", "image_size=48", "tracking=none", "threads=1"]
    command = [sys.executable, "-m", "emoexp.train", *small, f"outputs={tmp_path}/outputs", f"cache={tmp_path}/cache"]
    limited = ["bash", "-c", 'ulimit -f 20; exec "$@"', "-", *command]
    done = subprocess.run(limited, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    assert f"error: could not save {tmp_path}/outputs/" in done.stderr and "(File too large)" in done.stderr
