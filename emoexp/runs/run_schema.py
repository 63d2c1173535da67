"""What the files of a run's or a sweep's folder may hold. Imports nothing of emoexp.

A folder may be a stranger's, or lie on a broken disk: `emoexp.runs.files` checks everything that it reads by these
schemas, so that no other code meets a value of another kind. Keys that are not listed may hold anything.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

STATUSES = ("RUNNING", "FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True)
class Kind:
    """A kind of value: what it is in words, and whether a value is of it."""

    words: str
    holds: Callable[[Any], bool]

    def or_null(self) -> "Kind":
        """The same kind, or null."""
        return Kind(f"{self.words} or null", lambda value: value is None or self.holds(value))


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: object) -> bool:
    """Whether a value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


TEXT = Kind("text", lambda value: isinstance(value, str))
NODE = Kind("a node of keys", lambda value: isinstance(value, dict))
LIST = Kind("a list", lambda value: isinstance(value, list))
TEXTS = Kind("a list of texts", _texts)
COUNT = Kind("a whole number from 0 on", is_count)
NUMBER = Kind("a finite number", is_number)
SECONDS = Kind("a number of seconds", lambda value: is_number(value) and 0 <= value < 1e11)
SHARE = Kind("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1)
STATUS = Kind(f"one of {', '.join(STATUSES)}", lambda value: value in STATUSES)

PER_CLASS = Kind("numbers of each class", lambda value: _is_node_of(value, _is_node_of_numbers))
ROW = Kind("a row of an epoch", lambda value: _is_row(value))
INTERVALS = Kind("two numbers for each metric", lambda value: _is_node_of(value, _is_interval))


def _is_node_of(value: object, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(holds, value.values()))


def _is_node_of_numbers(value: object) -> bool:
    return _is_node_of(value, lambda number: number is None or is_number(number))


def _is_entry(value: object) -> bool:
    return value is None or is_number(value) or isinstance(value, str)


def _is_row(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_entry, value.values())) and is_count(value.get("epoch", 0))


def _is_interval(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


_PART = {
    "n": COUNT.or_null(), "confusion": LIST, "per_class": PER_CLASS, "interval": INTERVALS, "majority": NODE,
    **{key: NUMBER.or_null() for key in ("mcc", "g_mean", "ece", "nll", "micro_ap")},
    **{key: SHARE.or_null() for key in ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall", "macro_ap")},
}  # fmt: skip
_CELL = {
    "state": TEXT, "axes": NODE, "seed": COUNT, "overrides": TEXTS, "chosen": NODE, "folder": TEXT.or_null(),
    "seconds": SECONDS.or_null(), "macro_f1": SHARE.or_null(), "error": TEXT.or_null(), "time": SECONDS,
}  # fmt: skip
KEYS: dict[str, dict[str, Any]] = {  # of the JSON files, by name; a dictionary of kinds stands for a node's keys
    "status.json": {
        "status": STATUS, "error": TEXT.or_null(), "started": SECONDS.or_null(), "ended": SECONDS.or_null(),
        "pid": COUNT, "host": TEXT,
    },
    "manifest.json": {
        "run": TEXT, "params": NODE, "tags": NODE, "versions": NODE, "experiment": NODE, "packages": NODE,
        "kernels": NODE, "git": NODE, "weights": NODE, "settings": NODE, "device": TEXT, "continued": LIST,
        "code": TEXT, "threads": COUNT.or_null(), "results_version": COUNT,
        "data": {"classes": TEXTS, "counts": NODE, "images": TEXT},
    },
    "metrics.json": {
        "epochs": COUNT, "best": ROW, "posthoc": NODE, "drawn": NODE, "audit": NODE,
        **dict.fromkeys(("val", "val_clean", "test", "test_clean"), _PART),
    },
    "ledger.json": {"classes": LIST, "timeline": LIST},
}  # fmt: skip
REQUIRED = {"status.json": ("status",), "times.jsonl": ("train_seconds", "eval_seconds")}
VALUES: dict[str, Any] = {"cells.json": _CELL, "seconds.json": SECONDS}  # of all keys
WITHOUT_GAPS = ("history.jsonl",)  # the times of an epoch are lost where a process was killed before it wrote them
ROWS = {  # of the files of lines; `epoch` counts them
    "history.jsonl": Kind("a finite number, text or null", _is_entry),
    "times.jsonl": Kind("a number from 0 on", lambda value: is_number(value) and value >= 0),
}


def faults(name: str, content: dict[str, Any]) -> Iterator[str]:
    """What is wrong in the content of a JSON file of this name, one sentence each."""
    yield from (f"{key} is missing" for key in REQUIRED.get(name, ()) if key not in content)
    yield from _faults("", content, KEYS.get(name, {}))
    for key, value in content.items() if name in VALUES else ():
        yield from _faults("", {key: value}, {key: VALUES[name]})


def _faults(prefix: str, content: dict[str, Any], kinds: dict[str, Any]) -> Iterator[str]:
    for key, kind in kinds.items():
        if key not in content:
            continue
        node = kind if isinstance(kind, Kind) else NODE
        if not node.holds(content[key]):
            yield f"{prefix}{shown(key)} is {node.words}; it is {shown(content[key])}"
        elif isinstance(kind, dict):
            yield from _faults(f"{prefix}{shown(key)}.", content[key], kind)


def row_faults(name: str, rows: list[Any]) -> Iterator[str]:
    """What is wrong in the rows of a file of lines of this name, one sentence each."""
    before = 0
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            yield f"line {number} is a node of keys; it is {shown(row)}"
        elif name in ROWS:
            epoch: Any = row.get("epoch")
            if not is_count(epoch) or (epoch != number if name in WITHOUT_GAPS else epoch <= before):
                expected = number if name in WITHOUT_GAPS else f"above {before}"
                yield f"line {number}: epoch is {expected}; it is {shown(epoch)}"
                return
            before = int(epoch)
            yield from (f"line {number}: {key} is missing" for key in REQUIRED.get(name, ()) if key not in row)
            for key, value in row.items():
                if not ROWS[name].holds(value):
                    yield f"line {number}: {shown(key)} is {ROWS[name].words}; it is {shown(value)}"


def shown(value: Any) -> str:
    """A value in a message: short, on one line."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", value if isinstance(value, str) else repr(value))[:60]
