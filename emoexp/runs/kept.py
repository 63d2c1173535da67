"""Kept results: many finished runs in two files, small enough for a repository. benchmarks/keep.py writes them.

NAME.runs.csv.gz        one row a run: its name, when it began and ended, its seconds of training, and every value of
                        its manifest.json and metrics.json in a column of its own ("metrics:test:macro_f1")
NAME.predictions.npz    for each set of test images what each run predicted (`kept_predictions`)

The table is compressed CSV and not Parquet, because pandas, a spreadsheet and zcat open it and it needs no package.
Weights, figures, logs and the epochs of a training are not kept.

Such files may come from strangers, so they are read as data: only known columns, finite values and shapes that agree;
no pickled objects, no links. Anything else is an error of one line with the file, the place and what was expected.
"""

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from emoexp.runs import files, kept_predictions, kept_schema
from emoexp.runs import folder as run_folders
from emoexp.runs.kept_schema import refuse
from emoexp.runs.manifest import upgraded
from emoexp.runs.records import RunFolder, RunRecord, TestPredictions

TABLE_SUFFIX, PREDICTIONS_SUFFIX = ".runs.csv.gz", ".predictions.npz"
_TIMES = ("started", "ended", "seconds")
_PLAIN_COLUMNS = ("name", *_TIMES)
_NESTED = {  # the nested dictionaries that are spread over columns, and their known keys
    "manifest": {
        "run",
        "experiment",
        "params",
        "code",
        "results_version",
        "packages",
        "data",
        "weights",
        "kernels",
        "git",
        "device",
        "threads",
        "versions",
        "tags",
        "continued",
    },
    "metrics": {"best", "posthoc", "epochs", "drawn", "val", "val_clean", "test", "test_clean"},
}
_MAX_BYTES = 2**30  # of a table when it is unpacked
_MAX_CELL = 2**20  # characters


@dataclass(frozen=True)
class KeptRun:
    """The record of a finished run in a table of kept results: a `RunRecord` as `RunFolder` is one.

    location: the table. started, ended: Unix times in seconds.
    """

    name: str
    location: Path
    started: float
    ended: float | None
    seconds: float | None
    manifest: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def label(self) -> str:
        """The table's path, a colon, and the run's name in it; `record_of` finds the run by it."""
        return f"{self.location}:{self.name}"

    @property
    def is_finished(self) -> bool:
        """Only finished runs are kept."""
        return True

    @property
    def status(self) -> dict[str, Any]:
        """As status.json has it."""
        return {"status": "FINISHED", "error": None, "started": self.started, "ended": self.ended}

    @property
    def predictions(self) -> TestPredictions | None:
        """Predictions of the test part; None where they were not kept."""
        return _predictions(self.location).get(self.name)


# ---- finding runs, in folders and in kept results


def find(outputs: Path, name: str) -> list[RunRecord]:
    """All records of a run's name: its folders in `outputs`, then its rows in tables of kept results that lie there.

    Raises:
        KeptResultsError: a table that is damaged, or no table of kept results.
    """
    return [*map(RunFolder, run_folders.folders(outputs, name)), *find_kept(outputs, name)]


def find_kept(outputs: Path, name: str) -> list[KeptRun]:
    """The rows of a run's name, and of its later runs (endings .2, .3), in the tables of a folder.

    Raises:
        KeptResultsError: as `find`.
    """
    pattern = re.compile(re.escape(name) + r"(\.\d+)?")
    tables = sorted(outputs.glob(f"*{TABLE_SUFFIX}"))
    return [run for table in tables for run in read(table) if pattern.fullmatch(run.name)]


def latest_finished(outputs: Path, name: str) -> RunRecord | None:
    """The finished run of a name that was started last. Raises as `find`."""
    finished = [record for record in find(outputs, name) if record.is_finished]
    return max(finished, key=lambda record: record.started, default=None)


def record_of(label: str) -> RunRecord:
    """The record that has a label: a folder's path, or that of a table with the run's name behind it.

    Raises:
        KeptResultsError: the table has no such run, or as `find`.
    """
    path, separator, name = label.rpartition(f"{TABLE_SUFFIX}:")
    if not separator:
        return RunFolder(Path(label))
    table = Path(path + TABLE_SUFFIX)
    for run in read(table):
        if run.name == name:
            return run
    refuse(table, f"it has no run {name}")


def records_at(paths: Iterable[Path]) -> list[RunRecord]:
    """The records of run folders, and all records of tables of kept results.

    Raises:
        ValueError: a path that is neither, or as `find`.
    """
    records: list[RunRecord] = []
    for path in paths:
        if is_table(path):
            records += read(path)
        elif (path / "manifest.json").is_file():
            records.append(RunFolder(path))
        else:
            raise ValueError(f"{path} is no run: it holds no manifest.json, and is no table *{TABLE_SUFFIX}")
    return records


def is_table(path: Path) -> bool:
    """Whether a path names a table of kept results."""
    return path.name.endswith(TABLE_SUFFIX)


# ---- writing


def write(folder: Path, name: str, records: Sequence[RunRecord], class_indices: Mapping[str, Sequence[int]]) -> Path:
    """Keep finished runs in a folder as NAME.runs.csv.gz, with NAME.predictions.npz beside it.

    Args:
        class_indices: for each run's name the classes whose probabilities are kept, in half precision. The class that a
            run predicted for an image is kept in every case. Equal records give equal bytes.

    Returns:
        The table.

    Raises:
        ValueError: a run that is not finished, a name that stands there twice, or a value that cannot be kept.
    """
    table = folder / f"{name}{TABLE_SUFFIX}"
    rows = [_row(record) for record in records]
    _kept_runs(table, rows)
    columns = [*_PLAIN_COLUMNS, *sorted({column for row in rows for column in row} - set(_PLAIN_COLUMNS))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_encoded(row[column]) if column in row else "" for column in columns] for row in rows)
    maybe_predictions = {record.name: record.predictions for record in records}
    predictions = {name: value for name, value in maybe_predictions.items() if value is not None}
    packed = kept_predictions.packed(predictions, class_indices)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_bytes(_predictions_path(table), packed)
    files.write_bytes(table, gzip.compress(text.getvalue().encode(), 9, mtime=0))
    return table


def _row(record: RunRecord) -> dict[str, Any]:
    """A run's values by their column."""
    if not record.is_finished:
        raise ValueError(f"{record.label} is not finished; only finished runs are kept")
    times = {"started": record.started, "ended": record.status.get("ended"), "seconds": record.seconds}
    row: dict[str, Any] = {"name": record.name, **times}
    for root, content in (("manifest", record.manifest), ("metrics", record.metrics)):
        if unknown := sorted(content.keys() - _NESTED[root]):
            raise ValueError(f"{record.label}: {root}.json has keys that are not kept: {', '.join(unknown)}")
        row.update(_flat(content, root))
    return row


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values of nested dictionaries by their path, in which `:` separates keys; a key's own `:` is escaped."""
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{path}:{key.replace('%', '%25').replace(':', '%3A')}")


def _encoded(value: Any) -> str:
    """A value as a cell: JSON. A text that cannot be read as JSON or as a spreadsheet's formula is written as it is."""
    if isinstance(value, str) and value and not re.match(r"[=+\-@\t\r\"]", value) and not _is_json(value):
        return value
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):  # a number of too many digits, too many brackets
        return True
    return True


# ---- reading


def read(table: Path) -> list[KeptRun]:
    """The runs of a table of kept results. It is read again only when the file has changed.

    Raises:
        KeptResultsError: it is damaged, or no table of kept results.
    """
    return _read(table, _version(table))


def _version(path: Path) -> tuple[int, int]:
    """A file's modification time and size, which change with its content. Raises KeptResultsError where it is none."""
    if path.is_symlink() or not path.is_file():
        refuse(path, "a regular file is expected, not a link or a folder")
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=32)
def _read(table: Path, version: tuple[int, int]) -> list[KeptRun]:
    try:
        with gzip.open(table) as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            refuse(table, f"more than {_MAX_BYTES} bytes when it is unpacked")
        text = content.decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        refuse(table, f"compressed text is expected: {error}", error)
    return _kept_runs(table, _rows(table, text))


def _rows(table: Path, text: str) -> list[dict[str, Any]]:
    """The values of each run by their column; empty cells are left out."""
    old_limit = csv.field_size_limit(_MAX_CELL)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        refuse(table, f"CSV is expected: {error}", error)
    finally:
        csv.field_size_limit(old_limit)
    columns = lines[0] if lines else []
    for column in columns:
        root, _, rest = column.partition(":")
        if column not in _PLAIN_COLUMNS and rest.partition(":")[0] not in _NESTED.get(root, ()):
            refuse(table, f"column {column[:80]!r} is unknown")
    if len(set(columns)) < len(columns) or not set(_PLAIN_COLUMNS) <= set(columns):
        refuse(table, f"the columns {', '.join(_PLAIN_COLUMNS)} are expected, and each column once")
    rows = []
    for number, cells in enumerate(lines[1:], start=1):
        if len(cells) != len(columns):
            refuse(table, f"row {number}: {len(columns)} cells are expected; it has {len(cells)}")
        pairs = [(column, cell) for column, cell in zip(columns, cells, strict=True) if cell]
        rows.append({column: _decoded(table, number, column, cell) for column, cell in pairs})
    return rows


def _decoded(table: Path, number: int, column: str, cell: str) -> Any:
    """The value of a cell: the opposite of `_encoded`."""
    try:
        value = json.loads(cell)
    except json.JSONDecodeError:
        return cell
    except (ValueError, RecursionError):  # a number of too many digits, too many brackets
        value = math.nan
    if not _is_json_value(value):
        refuse(table, f"row {number}, {column}: a finite number, a text or a list is expected; it is {cell[:40]}")
    return value


def _is_json_value(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_json_value(inner) for inner in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | bool | int) or value == {}


def _kept_runs(table: Path, rows: list[dict[str, Any]]) -> list[KeptRun]:
    """The runs of rows, with every value that reports and sweeps need.

    Raises:
        KeptResultsError: a value is missing or out of its range, or a name stands there twice.
    """
    runs = []
    for number, row in enumerate(rows, start=1):
        nested = _nested(table, row)
        manifest, metrics = nested["manifest"], nested["metrics"]
        times = {key: row.get(key) for key in _TIMES}
        if fault := next(kept_schema.faults(row.get("name"), times, manifest, metrics), None):
            refuse(table, f"row {number}, {fault}")
        runs.append(
            KeptRun(row["name"], table, row["started"], times["ended"], times["seconds"], upgraded(manifest), metrics)
        )
    if repeated := [name for name, times in Counter(run.name for run in runs).items() if times > 1]:
        refuse(table, f"run {repeated[0]} stands there twice")
    return runs


def _nested(table: Path, row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The dictionaries that a row spreads over columns: the opposite of `_flat`."""
    nested: dict[str, dict[str, Any]] = {root: {} for root in _NESTED}
    for column, value in row.items():
        if column in _PLAIN_COLUMNS:
            continue
        *path, last = (key.replace("%3A", ":").replace("%25", "%") for key in column.split(":"))
        inner: Any = nested
        for key in path:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                refuse(table, f"column {column[:80]!r} lies below a column with a value")
        if last in inner:
            refuse(table, f"column {column[:80]!r} lies above a column with a value")
        inner[last] = value
    return nested


def _predictions_path(table: Path) -> Path:
    """The file of predictions of a table."""
    return table.with_name(table.name.removesuffix(TABLE_SUFFIX) + PREDICTIONS_SUFFIX)


def _predictions(table: Path) -> dict[str, TestPredictions]:
    """The kept predictions by the name of their run; none where there is no such file.

    Raises:
        KeptResultsError: the file is damaged, or does not fit the table.
    """
    path = _predictions_path(table)
    if not path.exists() and not path.is_symlink():
        return {}
    return _read_predictions(path, _version(path), table, _version(table))


@lru_cache(maxsize=8)
def _read_predictions(
    path: Path, version: tuple[int, int], table: Path, table_version: tuple[int, int]
) -> dict[str, TestPredictions]:
    predictions_by_name = kept_predictions.unpacked(path)
    runs = {run.name: run for run in read(table)}
    for name, predictions in predictions_by_name.items():
        if name not in runs:
            refuse(path, f"{name[:80]} is no run of {table.name}")
        classes, images = len(runs[name].manifest["data"]["classes"]), runs[name].metrics["test"]["n"]
        if (classes, images) != (predictions.num_classes, len(predictions.target_N)):
            refuse(path, f"{name}: {images} images of {classes} classes are expected, as {table.name} has them")
    return predictions_by_name
