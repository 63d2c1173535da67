"""What a table of kept results may hold for a run: the values that reports and sweeps need, and their ranges."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

SHARES = ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall", "macro_ap")  # metrics from 0 to 1


class KeptResultsError(ValueError):
    """Kept results that are damaged, or a file that holds none."""


def refuse(path: Path, reason: str, cause: BaseException | None = None) -> NoReturn:
    """Raise KeptResultsError with the file and the reason, in one line."""
    raise KeptResultsError(f"{path}: {' '.join(reason.split())}") from cause


def faults(name: object, times: dict[str, Any], manifest: dict[str, Any], metrics: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a run's values, one sentence each.

    Args:
        name: of its folder. times: started, ended, seconds; the last two may be None. manifest, metrics: of plain
            values, as the run's files have them.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", name):
        yield "name: letters, digits, dots, dashes and underscores are expected"
    for key, value in times.items():
        if not (_is_number(value) and value >= 0) and (value is not None or key == "started"):
            yield f"{key}: a number of seconds is expected; it is {value!r}"
    missing = [key for key in ("params", "data", "versions", "experiment") if not isinstance(manifest.get(key), dict)]
    if missing:
        yield f"manifest:{missing[0]} is missing"
        return
    seed, classes = manifest["params"].get("seed"), manifest["data"].get("classes")
    if not _is_count(seed):
        yield f"manifest:params:seed: a whole number of at least 0 is expected; it is {seed!r}"
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or len(set(classes)) < 2:
        yield "manifest:data:classes: a list of class names is expected"
        return
    yield from _count_faults(manifest["data"].get("counts"), len(classes))
    if not isinstance(metrics.get("test"), dict) or not _is_number(metrics.get("epochs")):
        yield "metrics:test and metrics:epochs are expected"
        return
    for part in ("val", "val_clean", "test", "test_clean"):
        if part in metrics:
            yield from _part_faults(f"metrics:{part}", metrics[part], classes)


def _count_faults(counts: Any, num_classes: int) -> Iterator[str]:
    """What is wrong with the numbers of images of each class in each part of the data."""
    if not isinstance(counts, dict) or "train" not in counts:
        yield "manifest:data:counts:train is missing"
        return
    for part, values in counts.items():
        if not isinstance(values, list) or len(values) != num_classes or not all(map(_is_count, values)):
            yield f"manifest:data:counts:{part}: {num_classes} numbers of images are expected"


def _part_faults(path: str, metrics: Any, classes: Sequence[str]) -> Iterator[str]:
    """What is wrong with the metrics of one part of the data."""
    if not isinstance(metrics, dict) or not _is_count(metrics.get("n")):
        yield f"{path}:n: a number of images is expected"
        return
    if metrics["n"] == 0:
        return
    size = len(classes)
    confusion = metrics.get("confusion")
    rows = confusion if isinstance(confusion, list) else []
    is_square = len(rows) == size and all(isinstance(row, list) and len(row) == size for row in rows)
    if not is_square or not all(_is_count(value) for row in rows for value in row):
        yield f"{path}:confusion: {size} x {size} numbers of images are expected"
    elif sum(map(sum, rows)) != metrics["n"]:
        yield f"{path}:confusion: a sum of n, {metrics['n']}, is expected; it is {sum(map(sum, rows))}"
    for key in SHARES:
        if not _is_share(metrics.get(key)):
            yield f"{path}:{key}: a number from 0 to 1 is expected; it is {metrics.get(key)!r}"
    per_class = metrics.get("per_class")
    if not isinstance(per_class, dict) or not all(isinstance(row, dict) for row in per_class.values()):
        yield f"{path}:per_class: values of each class are expected"
        return
    for name, row in per_class.items():
        if name not in classes:
            yield f"{path}:per_class: {name[:80]!r} is no class of the data"
        if not _is_share(row.get("recall")):
            yield f"{path}:per_class:{name[:80]}:recall: a number from 0 to 1 is expected; it is {row['recall']!r}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_share(value: Any) -> bool:
    """Whether a metric is a share, or does not exist."""
    return value is None or (_is_number(value) and 0 <= value <= 1)
