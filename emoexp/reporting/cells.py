"""From what is wanted to the finished runs that can be compared; what cannot be is named with its reason."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from emoexp.runs.records import RunRecord, TestPredictions

# keys of a manifest: what made a run, besides the data
MAKING = ("results_version", "packages", "versions", "kernels", "device", "threads")


@dataclass(frozen=True)
class Made:
    """A finished run that counts: its record, what distinguishes it, its seed, what a search chose for it."""

    record: RunRecord
    axes: dict[str, str]
    seed: int
    chosen: dict[str, float] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        return self.record.metrics

    @property
    def manifest(self) -> dict[str, Any]:
        """manifest.json."""
        return self.record.manifest

    @property
    def is_leaky(self) -> bool:
        """Whether copies were made before the split, so that test has relatives in training."""
        return bool((self.manifest.get("tags") or {}).get("protocol"))

    @property
    def predictions(self) -> TestPredictions | None:
        """Kept predictions of the test part; None where they were not kept."""
        return self.record.predictions

    @property
    def seconds(self) -> float | None:
        """Seconds of training and validation; None where they were not kept."""
        return self.record.seconds


@dataclass(frozen=True)
class Gathered:
    """Runs that can be compared, and what was left out: (what, why)."""

    cells: list[Made]
    left_out: list[tuple[str, str]]


@dataclass(frozen=True)
class Asked:
    """A cell that is wanted: the name of its run's folder, its axes, its seed, what a search chose for it."""

    name: str
    axes: dict[str, str]
    seed: int
    chosen: dict[str, float] = field(default_factory=dict)


def gather(wanted: Iterable[tuple[Asked, list[RunRecord]]], *, mixed: bool) -> Gathered:
    """The finished runs, among each wanted cell's records, that were made alike: of the same data, and unless mixed by
    the same version of the results, packages, versions, kernels, kind of device and threads.

    Where a cell exists in several makings, the one that covers most cells counts, the newest of equals; where it exists
    several times in that one, the run that was begun last. Everything else is left out, with its reason.
    """
    left_out: list[tuple[str, str]] = []
    there: list[tuple[Asked, RunRecord, str]] = []
    for asked, records in wanted:
        done = [record for record in records if record.is_finished]
        there += [(asked, record, making(record.manifest, mixed=mixed)) for record in done]
        if not done:
            left_out.append((asked.name, _state(records)))
    best = _prevailing(there)
    cells: dict[tuple[object, ...], Made] = {}
    for asked, record, made in there:
        if made == best:
            key, cell = _cell(asked), Made(record, asked.axes, asked.seed, asked.chosen)
            known = cells.get(key)
            if known is None:
                cells[key] = cell
            elif not _is_same(known.record, record):
                first, last = sorted((known, cell), key=lambda one: one.record.started)
                left_out.append((first.record.label, f"the same cell as {last.record.label}, which was begun later"))
                cells[key] = last
    counted = {asked.name for asked, _, made in there if made == best}
    for asked, record, made in there:
        if made != best and asked.name not in counted:
            left_out.append((record.name, f"made otherwise: {_difference(made, best)}"))
    return Gathered(list(cells.values()), left_out)


def _cell(asked: Asked) -> tuple[object, ...]:
    return (*asked.axes.items(), asked.seed)


def _is_same(one: RunRecord, other: RunRecord) -> bool:
    return (one.location.resolve(), one.name) == (other.location.resolve(), other.name)


def varying(found: Gathered) -> Gathered:
    """The same runs, without the axes along which none of them differs from another."""
    axes = [axis for axis in (found.cells[0].axes if found.cells else ()) if _several(found.cells, axis)]
    kept = [replace(cell, axes={axis: cell.axes[axis] for axis in axes}) for cell in found.cells]
    return Gathered(kept, found.left_out)


def _several(cells: Sequence[Made], axis: str) -> bool:
    return len({cell.axes.get(axis) for cell in cells}) > 1


def making(manifest: dict[str, Any], *, mixed: bool) -> str:
    """Who made a run, as text that two runs made alike share."""
    data = manifest.get("data") or {}
    # the same pictures, however they are split: the split is one of the choices that name a run
    found = {"data": {"images": data.get("images") or data.get("content"), "classes": data.get("classes")}}
    return json.dumps(found if mixed else found | {key: manifest.get(key) for key in MAKING}, sort_keys=True)


def _prevailing(there: Sequence[tuple[Asked, RunRecord, str]]) -> str:
    covered = Counter(made for made, _ in {(made, _cell(asked)) for asked, _, made in there})
    begun: dict[str, float] = {}
    for _, record, made in there:
        begun[made] = max(begun.get(made, 0.0), record.started)
    return max(covered, key=lambda made: (covered[made], begun[made]), default="")


def _state(records: Sequence[RunRecord]) -> str:
    if not records:
        return "not run"
    status = records[-1].status
    said = {"RUNNING": "is running, or its process died", "KILLED": "was interrupted", "FAILED": "failed"}
    error = f": {status['error']}" if status.get("error") and status.get("status") == "FAILED" else ""
    return said.get(str(status.get("status")), "not finished") + error


def _difference(made: str, best: str) -> str:
    one, other = json.loads(made), json.loads(best)
    return ", ".join(_shown(key, one[key], other.get(key)) for key in one if one[key] != other.get(key))


def _shown(key: str, one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        return ", ".join(f"{key}.{name}" for name in sorted(one | other) if one.get(name) != other.get(name))
    return f"{key} {one} instead of {other}"


def listed(records: Iterable[RunRecord]) -> list[tuple[Asked, list[RunRecord]]]:
    """Runs that were named one by one as cells: their axes are the params in which they differ, besides the seed.

    A key below a group that differs itself (activation.kernel) is no axis, nor is a seed that goes with the run's.
    """
    params = [(record, dict(record.manifest.get("params") or {})) for record in records]
    axes = list(_varying([found for _, found in params]))
    return [
        (Asked(record.name, {axis: str(found.get(axis)) for axis in axes}, int(found.get("seed", 0))), [record])
        for record, found in params
    ]


def _varying(params: Sequence[dict[str, Any]]) -> Iterator[str]:
    keys = [key for key in dict.fromkeys(key for one in params for key in one) if key != "seed"]
    keys = [key for key in keys if not key.endswith(".seed") or any(one.get(key) != one.get("seed") for one in params)]
    # a key that an older run lacks stands at its default there, which is no difference
    varying = [key for key in keys if len({json.dumps(one[key], default=str) for one in params if key in one}) > 1]
    for key in varying:
        parents = [key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1)]
        if not any(parent in varying for parent in parents):
            yield key
