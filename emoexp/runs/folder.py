"""A run's folder: how it is found by the run's name and locked, and the status of the run in it."""

import glob
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emoexp.runs import files
from emoexp.runs.manifest import differences

log = logging.getLogger(__name__)


class RunInUse(ValueError):
    """Another process is training this run."""


class Run:
    """One run's folder, whose lock this process holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}  # seconds that this process spent, by what it did

    def read(self, name: str) -> Any:
        """The content of a JSON file of the folder; None where there is none."""
        path = self.folder / name
        return files.read_json(path) if path.is_file() else None

    def write(self, name: str, content: Any) -> None:
        """Replace a JSON file of the folder; as `files.write_json`."""
        files.write_json(self.folder / name, content)

    def write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Replace a .jsonl file of the folder by rows; as `files.write_json_lines`."""
        files.write_json_lines(self.folder / name, rows)

    @contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        """Add the seconds that the block takes to `seconds`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] = self.seconds.get(activity, 0.0) + time.perf_counter() - start

    def add_to_sweep(self, sweep: str | None) -> None:
        """Write into sweeps.json that the run is a cell of a sweep, if it is; see `add_to_sweep`."""
        add_to_sweep(self.folder, sweep)

    def set_status(self, status: str, error: str | None = None) -> None:
        """Write status.json; see `write_status`."""
        write_status(self.folder, status, error)

    @property
    def finished(self) -> bool:
        """Whether the run has finished and its results are there."""
        return is_finished(self.folder)


# ---- finding a folder


@contextmanager
def open_run(outputs: Path, name: str, manifest: dict[str, Any], config: dict[str, Any], resume: str) -> Iterator[Run]:
    """The folder of a run, locked while the block runs: an existing one with a matching manifest, else a new one.

    Args:
        config: the whole resolved configuration, kept as config.yaml.
        resume: auto: as said above. force: the last folder, even where its manifest differs. never: a new folder.

    Raises:
        RunInUse: another process is training this run.
    """
    run_folder, changes = folder_for(outputs, name, manifest, resume)
    if changes:
        log.warning("%s was started with different %s", folders(outputs, name)[-1], "; ".join(changes))
        log.warning("starting anew in %s; resume=force would go on with the other", run_folder)
    run_folder.mkdir(parents=True, exist_ok=True)
    files.refuse_links(run_folder)
    with files.lock(run_folder / "lock", wait=False) as we_hold_it:
        if not we_hold_it:
            raise RunInUse(f"another process is training {run_folder}; wait for it, or choose another seed or outputs")
        files.remove_partial(run_folder)
        run = Run(run_folder)
        old_manifest = run.read("manifest.json")
        if old_manifest is None:
            files.write_yaml(run_folder / "config.yaml", config)
            run.write("manifest.json", manifest)
        elif changes := differences(old_manifest, manifest):
            log.warning("resume=force: %s was started with different %s", run_folder, "; ".join(changes))
            if not run.finished:  # a finished run's manifest must describe its results
                run.write("manifest.json", manifest | {"continued": [*old_manifest.get("continued", []), changes]})
        yield run


def folder_for(outputs: Path, name: str, manifest: dict[str, Any], resume: str) -> tuple[Path, list[str]]:
    """The folder in which a run continues or starts, and, where a new folder is needed because the last run of that
    name differs, the differences."""
    existing = folders(outputs, name)
    if resume == "force" and existing:
        return existing[-1], []
    changes: list[str] = []
    for run_folder in existing if resume == "auto" else ():
        path = run_folder / "manifest.json"
        changes = differences(files.read_json(path), manifest) if path.is_file() else []
        if not changes:
            return run_folder, []
    new_name = f"{name}.{_number(existing[-1], name) + 1}" if existing else name
    return outputs / new_name, changes


def folders(outputs: Path, name: str) -> list[Path]:
    """All folders of a run's name: the first one, and those that were started later, with the endings .2, .3, ..."""
    pattern = re.compile(re.escape(name) + r"(\.\d+)?")
    paths = (path for path in outputs.glob(f"{name}*") if pattern.fullmatch(path.name))
    return sorted(paths, key=lambda path: _number(path, name))


def _number(run_folder: Path, name: str) -> int:
    return int(run_folder.name[len(name) + 1 :] or 1)


def latest(outputs: Path, name: str, *, finished: bool = False) -> Path | None:
    """The folder of a run's name that was started last; with `finished`, among the finished ones."""
    starts = []
    for run_folder in folders(outputs, name):
        status = files.read_json(run_folder / "status.json")
        if status and (not finished or is_finished(run_folder)):
            starts.append((status["started"], run_folder))
    return max(starts)[1] if starts else None


def match_folders(patterns: Any, option: str) -> list[Path]:
    """The folders that paths and patterns name, each once. option: the option that holds the patterns.

    Raises:
        ValueError: a pattern that matches nothing.
    """
    paths: list[Path] = []
    for pattern in patterns if isinstance(patterns, list) else [patterns]:
        hits = sorted(glob.glob(str(Path(str(pattern)).expanduser())))  # noqa: PTH207 - a pattern may be absolute
        if not hits:
            raise ValueError(f"{option}={pattern} finds no folder")
        paths += [Path(hit) for hit in hits]
    return list(dict.fromkeys(paths))


def all_runs(root: Path) -> list[Path]:
    """All folders of runs or sweeps below a folder, by name."""
    return sorted(path.parent for path in root.rglob("status.json"))


# ---- a run's status


def write_status(run_folder: Path, status: str, error: str | None = None) -> None:
    """status.json of a run or a sweep: RUNNING, FINISHED, FAILED or KILLED, with the process and the time."""
    path, now = run_folder / "status.json", time.time()
    is_running = status == "RUNNING"
    content = {
        "status": status,
        "error": error,
        "started": now if is_running else files.read_json(path).get("started", now),
        "ended": None if is_running else now,
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }
    files.write_json(path, content)


def is_finished(run_folder: Path) -> bool:
    """Whether the run of a folder has finished and its results are there."""
    status = files.read_json(run_folder / "status.json").get("status")
    return status == "FINISHED" and (run_folder / "metrics.json").is_file()


def is_alive(run_folder: Path) -> bool:
    """Whether a process holds the lock of a run or a sweep."""
    with files.lock(run_folder / "lock", wait=False) as we_hold_it:
        return not we_hold_it


def close_if_dead(run_folder: Path) -> bool:
    """Write KILLED into the status.json of a run that says RUNNING and whose process is gone; whether it was so."""
    if files.read_json(run_folder / "status.json").get("status") != "RUNNING":
        return False
    with files.lock(run_folder / "lock", wait=False) as we_hold_it:
        status = files.read_json(run_folder / "status.json")  # again: it may have ended before we held the lock
        if not we_hold_it or status.get("status") != "RUNNING":
            return False
        paths = [run_folder / name for name in ("status.json", "history.jsonl", "times.jsonl", "last.pt")]
        last_write = max(path.stat().st_mtime for path in paths if path.exists())
        status["status"] = "KILLED"
        status["ended"] = min(last_write, time.time())
        status["error"] = "the process ended without recording a status"
        files.write_json(run_folder / "status.json", status)
        return True


def add_to_sweep(run_folder: Path, sweep: str | None) -> None:
    """Write into a run's sweeps.json that it is a cell of a sweep (the sweep's folder); it may be one of several."""
    path = run_folder / "sweeps.json"
    sweeps = files.read_list(path)
    if sweep is not None and sweep not in sweeps:
        files.write_text(path, json.dumps([*sweeps, sweep]) + "\n")
