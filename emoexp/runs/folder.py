"""A run's folder: found by its name, held by a lock, with a manifest of what made it and the state it is in.

A configuration names a folder. What a configuration cannot know (code, data, device, threads, versions) stands in the
manifest; where it differs, nothing is continued or returned in silence.
"""

import fcntl
import glob
import json
import logging
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

import yaml

from emoexp.runs import checkpoint

log = logging.getLogger(__name__)
DECIDING = ("experiment", "code", "data", "device", "threads", "kernels", "versions")


class Busy(ValueError):
    """Another process is at this run."""


class Run:
    """One run's folder, locked by this process."""

    def __init__(self, folder: Path, lock: IO[str]) -> None:
        self.folder, self._lock = folder, lock
        self.seconds: dict[str, float] = {}  # what the time of this process went into

    def read(self, name: str) -> Any:
        """A JSON file of the folder; None where there is none."""
        path = self.folder / name
        return json.loads(path.read_text()) if path.is_file() else None

    def write(self, name: str, content: Any) -> None:
        """A JSON file of the folder, sorted and atomic: equal content gives equal bytes."""
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
        checkpoint.write_atomically(self.folder / name, text.encode() + b"\n")

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the seconds that the block takes to `seconds`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - started

    def join(self, sweep: str | None) -> None:
        """Say in sweeps.json that the run is a cell of a sweep (its folder's name); it may be one of several."""
        join(self.folder, sweep)

    def write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Rows as JSON lines, the whole file at once: no row is doubled or missing, whenever a process dies."""
        lines = [json.dumps({key: finite(value) for key, value in row.items()}) for row in rows]
        checkpoint.write_atomically(self.folder / name, "".join(f"{line}\n" for line in lines).encode())

    def status(self, status: str, error: str | None = None) -> None:
        """RUNNING, FINISHED, FAILED or KILLED, with the process and the time."""
        write_status(self.folder, status, error)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end and its results are there."""
        return is_finished(self.folder)


def write_status(folder: Path, status: str, error: str | None = None) -> None:
    """status.json of a run or a sweep: RUNNING, FINISHED, FAILED or KILLED, with the process and the time."""
    path, now = folder / "status.json", time.time()
    before = json.loads(path.read_text()) if path.is_file() else {}
    started = now if status == "RUNNING" else before.get("started", now)
    who = {"pid": os.getpid(), "host": socket.gethostname()}
    ended = None if status == "RUNNING" else now
    row = {"status": status, "error": error, "started": started, "ended": ended, **who}
    checkpoint.write_atomically(path, json.dumps(row, indent=1, sort_keys=True).encode() + b"\n")


def join(folder: Path, sweep: str | None) -> None:
    """Say in a run's sweeps.json that it is a cell of a sweep (its folder); it may be one of several."""
    path = folder / "sweeps.json"
    known = json.loads(path.read_text()) if path.is_file() else []
    if sweep is not None and sweep not in known:
        checkpoint.write_atomically(path, json.dumps([*known, sweep]).encode() + b"\n")


def is_finished(folder: Path) -> bool:
    """Whether the run of a folder came to its end and its results are there."""
    status = folder / "status.json"
    said = json.loads(status.read_text())["status"] if status.is_file() else None
    return said == "FINISHED" and (folder / "metrics.json").is_file()


def finite(value: Any) -> Any:
    """NaN and infinities as None, which JSON can hold."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


@contextmanager
def opened(outputs: Path, name: str, manifest: dict[str, Any], config: dict[str, Any], resume: str) -> Iterator[Run]:
    """The folder of a run, locked: an unfinished or finished one that fits the manifest, else a new one beside it.

    Args:
        config: the whole resolved configuration, kept as config.yaml.
        resume: auto; force (the last folder, whatever differs) or never (always a new one).

    Raises:
        Busy: another process is at this run.
    """
    folder, told = place(outputs, name, manifest, resume)
    if told:
        log.warning("%s was begun with other %s", folders(outputs, name)[-1], "; ".join(told))
        log.warning("starting anew in %s; resume=force would go on with the other", folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                f"another process is training {folder}; wait for it, or choose another seed or outputs"
            ) from None
        checkpoint.remove_partial(folder)
        run = Run(folder, lock)
        before = run.read("manifest.json")
        if before is None:
            text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
            checkpoint.write_atomically(folder / "config.yaml", text.encode())
            run.write("manifest.json", manifest)
        elif told := differences(before, manifest):
            log.warning("resume=force: %s was begun with other %s", folder, "; ".join(told))
            if not run.finished:  # a finished run stays what it was made by
                run.write("manifest.json", manifest | {"continued": [*before.get("continued", []), told]})
        yield run


def place(outputs: Path, name: str, manifest: dict[str, Any], resume: str) -> tuple[Path, list[str]]:
    """The folder in which a run goes on or begins; and in what the last one of its name differs, where that is why it
    begins anew."""
    there = folders(outputs, name)
    if resume == "force" and there:
        return there[-1], []
    told: list[str] = []
    for folder in there if resume == "auto" else ():
        path = folder / "manifest.json"
        told = differences(json.loads(path.read_text()), manifest) if path.is_file() else []
        if not told:
            return folder, []
    fresh = f"{name}.{_number(there[-1], name) + 1}" if there else name
    return outputs / fresh, told


def folders(outputs: Path, name: str) -> list[Path]:
    """All folders of a run's name: the first, and those begun beside it, .2, .3 and on."""
    pattern = re.compile(re.escape(name) + r"(\.\d+)?")
    found = (path for path in outputs.glob(f"{name}*") if pattern.fullmatch(path.name))
    return sorted(found, key=lambda folder: _number(folder, name))


def matching(given: Any, option: str) -> list[Path]:
    """The folders of paths and patterns, each once; `option` is what gave them.

    Raises:
        ValueError: one that finds nothing.
    """
    found: list[Path] = []
    for pattern in given if isinstance(given, list) else [given]:
        hits = sorted(glob.glob(str(Path(str(pattern)).expanduser())))  # noqa: PTH207 - a pattern may be absolute
        if not hits:
            raise ValueError(f"{option}={pattern} finds no folder")
        found += [Path(hit) for hit in hits]
    return list(dict.fromkeys(found))


def _number(folder: Path, name: str) -> int:
    return int(folder.name[len(name) + 1 :] or 1)


def latest(outputs: Path, name: str, *, finished: bool = False) -> Path | None:
    """The folder of a run's name that was begun last; on demand only a finished one."""
    begun = []
    for folder in folders(outputs, name):
        path = folder / "status.json"
        status = json.loads(path.read_text()) if path.is_file() else {}
        if status and (not finished or (status["status"] == "FINISHED" and (folder / "metrics.json").is_file())):
            begun.append((status["started"], folder))
    return max(begun)[1] if begun else None


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In which of the things that decide a result two manifests differ, a sentence each."""
    told = []
    for key in DECIDING:
        old, new = _flat(before.get(key), key), _flat(now.get(key), key)
        # folders of one name share all choices: a key that the older one lacks stands at its default
        known = old.keys() if key == "experiment" and old else old.keys() | new.keys()
        names = [name for name in sorted(known) if old.get(name) != new.get(name)]
        told += [f"{name} ({old.get(name)}, now {new.get(name)})" for name in names[:3]]
        told += [f"{len(names) - 3} more of {key}"] if len(names) > 3 else []
    return told


def _flat(value: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {name: leaf for key, inner in value.items() for name, leaf in _flat(inner, f"{prefix}.{key}").items()}


@cache
def git() -> dict[str, Any]:
    """Commit and dirtiness of the checkout that the package stands in; empty outside one."""
    here = Path(__file__).parent
    answers = []
    for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603, S607 - fixed words
        except (OSError, subprocess.SubprocessError):
            return {}
        answers.append(done.stdout.strip())
    return {"commit": answers[0], "dirty": bool(answers[1])}
