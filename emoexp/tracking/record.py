"""Reads from a run folder what MLflow is to show: params, tags, points of metrics, files. Imports no MLflow."""

import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from emoexp.runs.files import read_json, read_json_lines, read_list

ENDED = ("FINISHED", "FAILED", "KILLED")
KEY_LENGTH, PARAM_LENGTH, TAG_LENGTH = 250, 6000, 8000  # MLflow's limits, in characters
FINAL_STEP = 0  # step of metrics that a run has only once: a constant, so that MLflow shows the newest value

_FOLDERS = ("figures", "tables", "predictions", "report")
_FILES = ("config.yaml", "manifest.json", "ledger.json", "ledger.csv", "metrics.json", "seconds.json", "leaks.json")
_GROWING = (
    "history.jsonl",
    "times.jsonl",
    "run.log",
    "cells.json",
    "sweep.log",
)  # uploaded only when the run has ended


class Point(NamedTuple):
    """One value of a metric."""

    key: str
    value: float
    timestamp: int  # ms since 1970
    step: int


@dataclass(frozen=True)
class Record:
    """The content of a run folder at one moment, for MLflow."""

    name: str
    status: str
    started: int  # ms since 1970
    ended: int | None
    params: dict[str, str]
    tags: dict[str, str]
    data: dict[str, Any]  # the data's fingerprint
    points: list[Point]
    files: dict[str, list[int]]  # path inside the folder -> [bytes, modification time in ns]


def read(folder: Path, *, checkpoint: bool = False) -> Record:
    """Read a run folder. `checkpoint`: count best.pt among the files.

    Raises ValueError for a file that no run has written. An incomplete last line, from a kill, is no error.
    """
    status, manifest = read_json(folder / "status.json"), read_json(folder / "manifest.json")
    state = status.get("status", "RUNNING")
    started = _ms(status.get("started") or folder.stat().st_mtime)
    history, times = read_json_lines(folder / "history.jsonl"), read_json_lines(folder / "times.jsonl")
    points = epoch_points(history, times, started=started, ended=state in ENDED)
    points += final_points(folder / "metrics.json", {point.key for point in points})
    return Record(
        name=folder.name,
        status=state,
        started=started,
        ended=_ms(status["ended"]) if state in ENDED and status.get("ended") else None,
        params={name(key): clip(_text(value), PARAM_LENGTH) for key, value in flatten(manifest.get("params", {}))},
        tags=_tags(folder, status, manifest),
        data=manifest.get("data") or {},
        points=points,
        files=_files(folder, ended=state in ENDED, checkpoint=checkpoint),
    )


def epoch_points(history: list[dict], times: list[dict], *, started: int, ended: bool) -> list[Point]:
    """One point for each number of each epoch, with the time at which the epoch ended.

    The times come from the folder, so that a point that is sent twice is the same point. An epoch without a time is
    left out, since its time will be written later. Once the run has ended, the epoch's number replaces a missing time.
    """
    clock = {row["epoch"]: row for row in times}
    points = []
    for epoch, row in sorted({row["epoch"]: row for row in history}.items()):
        times_row = clock.get(epoch, {})
        if "ended" not in times_row and not ended:
            continue
        stamp = _ms(times_row["ended"]) if "ended" in times_row else started + epoch
        numbers = _numbers(row) | {f"time/{key}": value for key, value in _numbers(times_row).items()}
        points += [Point(name(key), value, stamp, int(epoch)) for key, value in numbers.items()]
    return points


def final_points(path: Path, epochwise: set[str]) -> list[Point]:
    """Points of metrics.json: the best epoch's row under `best/`, and each part's metrics under its name, at one step.

    A metric of a part that is also measured after each epoch (`val/macro_f1`) is the best epoch's. It is put under
    `best/`, where it cannot be mistaken for the last epoch's.
    """
    metrics = read_json(path)
    if not metrics:
        return []
    from emoexp.metrics.classification import flatten_summary  # here: numpy is not needed to close a dead run

    numbers = {}
    for part, summary in metrics.items():
        if isinstance(summary, dict) and "per_class" in summary:
            for key, value in flatten_summary(summary, part).items():
                safe = name(key)
                numbers[_best(key) if safe in epochwise else safe] = float(value)
    numbers |= {name(f"audit/{key}"): value for key, value in _numbers(metrics.get("audit", {})).items()}
    best_row = metrics.get("best", {})
    numbers |= {_best(key): value for key, value in _numbers(best_row).items()}
    if "epoch" in best_row:
        numbers["best/epoch"] = float(best_row["epoch"])
    stamp = path.stat().st_mtime_ns // 1_000_000
    return [Point(key, value, stamp, FINAL_STEP) for key, value in numbers.items()]


def _best(key: str) -> str:
    return name("best/" + key.removeprefix("val/"))


def _numbers(row: dict) -> dict[str, float]:
    """The row's numbers, without the epoch, which is the step, and its end, which is the time of the point."""
    return {
        key: float(value)
        for key, value in row.items()
        if isinstance(value, int | float) and key not in ("epoch", "ended")
    }


def _tags(folder: Path, status: dict, manifest: dict) -> dict[str, str]:
    described = {key: manifest[key] for key in ("device", "threads", "kernels", "versions", "git") if key in manifest}
    described["data"] = {k: v for k, v in (manifest.get("data") or {}).items() if isinstance(v, str | int | float)}
    tags = dict(flatten(described)) | dict(flatten(manifest.get("tags", {})))
    tags |= {
        "emoexp.run": folder.name,
        "emoexp.path": str(folder.absolute()),
        "emoexp.host": status.get("host"),
    }
    tags |= {"emoexp.status": status.get("status"), "emoexp.error": status.get("error")}
    tags |= {"mlflow.source.name": "emoexp", "mlflow.source.type": "LOCAL"}
    tags["mlflow.source.git.commit"] = (manifest.get("git") or {}).get("commit")
    tags |= {f"sweep.{Path(sweep).name}": "yes" for sweep in sweeps(folder)}
    return {name(key): clip(_text(value), TAG_LENGTH) for key, value in tags.items() if value is not None}


def sweeps(folder: Path) -> list[str]:
    """The folders of the sweeps that a run is a cell of, relative to the working folder of each sweep."""
    path = folder / "sweeps.json"
    folders = read_list(path)
    return [str(sweep) for sweep in folders]


def _files(folder: Path, *, ended: bool, checkpoint: bool) -> dict[str, list[int]]:
    names = [*_FILES, *(_GROWING if ended else ()), *(("best.pt",) if checkpoint else ())]
    root = folder.resolve()
    return {
        path.relative_to(folder).as_posix(): stamp
        for path, stamp in _stamps(folder, names).items()
        if path.resolve().is_relative_to(root)  # a link must not upload a file from elsewhere
    }


def signature(folder: Path) -> int:
    """A number that changes when a mirrored file changes. It is made from sizes and times, without reading files."""
    names = [*_FILES, *_GROWING, "status.json", "sweeps.json", "best.pt", "model.pt2"]
    stamps = {path.relative_to(folder).as_posix(): stamp for path, stamp in _stamps(folder, names).items()}
    return zlib.crc32(json.dumps(stamps).encode())


def _stamps(folder: Path, names: list[str]) -> dict[Path, list[int]]:
    """[bytes, modification time in ns] of the files with these names and of all files in the artifact folders."""
    artifacts = [path for part in _FOLDERS for path in sorted((folder / part).rglob("*"))]
    stamps = {}
    for path in [*(folder / name for name in names), *artifacts]:
        try:
            stat = path.stat()
        except FileNotFoundError:  # not written yet, or a temporary file that has just been renamed
            continue
        if S_ISREG(stat.st_mode) and not path.name.startswith("."):
            stamps[path] = [stat.st_size, stat.st_mtime_ns]
    return stamps


def flatten(tree: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested dictionaries as (dotted name, value)."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def name(key: str) -> str:
    """A name that MLflow accepts: the key itself if it is one, else a similar name that ends in the key's checksum.

    Without the checksum two such keys could get the same name.
    """
    safe = re.sub(r"[^\w\-. :/]", "_", key)
    safe = "/".join(part for part in safe.split("/") if part not in ("", ".", ".."))
    if safe == key and 0 < len(key) <= KEY_LENGTH:
        return key
    return f"{safe[: KEY_LENGTH - 9]}-{zlib.crc32(key.encode()):08x}"


def slug(text: str) -> str:
    """The text as the name of a folder, of letters, digits, dots, dashes and underscores."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")
    return safe if safe == text else f"{safe[:60]}-{zlib.crc32(text.encode()):08x}"


def digest(content: dict[str, Any]) -> str:
    """A short name for a dictionary's content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def clip(text: str, length: int) -> str:
    """The text, cut to a length; a cut text ends in a note of that with the checksum of the whole text."""
    if len(text) <= length:
        return text
    return f"{text[: length - 40]} ... (cut, crc32 {zlib.crc32(text.encode()):08x})"


def _text(value: Any) -> str:
    """As YAML writes it: true, null, 0.1."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
