"""The files of a run folder: read, replaced as a whole, locked; runs whose process died are closed."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's dictionary; empty where there is no file. Raises ValueError for anything else."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if isinstance(content, dict):
        return content
    raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file. A last line without its end is being written, and left out."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, is not JSON: {error}") from error
    return rows


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file as a whole: a reader, or a kill, finds the old one or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a file's lock (flock); yields False, without it, when it is taken and we do not wait."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold a file's lock together with others (flock): `alive` says so as long as one holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def runs(outputs: Path) -> list[Path]:
    """All run folders below a folder, by name."""
    return sorted(path.parent for path in outputs.rglob("status.json"))


def alive(folder: Path) -> bool:
    """Whether a process holds the run's lock."""
    with locked(folder / "lock", wait=False) as free:
        return not free


def close(folder: Path) -> bool:
    """End a run that says RUNNING but whose process is gone: status.json says KILLED. True if that was so."""
    if read_json(folder / "status.json").get("status") != "RUNNING":
        return False
    with locked(folder / "lock", wait=False) as free:
        status = read_json(folder / "status.json")  # again: it may have ended while we came
        if not free or status.get("status") != "RUNNING":
            return False
        signs = [folder / file for file in ("status.json", "history.jsonl", "times.jsonl", "last.pt")]
        last = max(path.stat().st_mtime for path in signs if path.exists())
        status |= {
            "status": "KILLED",
            "ended": min(last, time.time()),
            "error": "the process died without a word",
        }
        write_json(folder / "status.json", status)
        return True
