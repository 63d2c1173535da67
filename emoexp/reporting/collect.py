"""From the cells that are asked for to the finished runs that can be compared; every other one is named with its
reason."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from emoexp.runs.records import RunRecord, TestPredictions
from emoexp.sweep.cells import CellRequest

# keys of a manifest: what made a run, besides the data
PROVENANCE = ("results_version", "packages", "versions", "kernels", "device", "threads")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run in a report: its record, what distinguishes it, its seed, what a search chose for it."""

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
class RunSet:
    """Runs that can be compared, and what was left out: (what, why)."""

    runs: list[FinishedRun]
    left_out: list[tuple[str, str]]


def collect(requests: Iterable[tuple[CellRequest, Sequence[RunRecord]]], *, mixed: bool) -> RunSet:
    """The finished runs, among the records of each cell that is asked for, that have one provenance: the same data, and
    unless `mixed` the same version of the results, packages, libraries, kernels, kind of device and threads.

    Where cells were run with several provenances, the one that covers most cells counts, of equals the one with the
    newest run; where a cell was run several times with it, the run that was begun last. Everything else is left out,
    with its reason.
    """
    left_out: list[tuple[str, str]] = []
    candidates: list[tuple[CellRequest, RunRecord, str]] = []
    for request, records in requests:
        finished = [record for record in records if record.is_finished]
        candidates += [(request, record, provenance(record.manifest, mixed=mixed)) for record in finished]
        if not finished:
            left_out.append((request.name, _why_unfinished(records)))
    chosen = _main_provenance(candidates)
    runs: dict[tuple[object, ...], FinishedRun] = {}
    for request, record, its_provenance in candidates:
        if its_provenance == chosen:
            key, run = _key(request), FinishedRun(record, request.axes, request.seed, request.chosen)
            other = runs.get(key)
            if other is None:
                runs[key] = run
            elif not _is_same(other.record, record):
                first, last = sorted((other, run), key=lambda one: one.record.started)
                left_out.append((first.record.label, f"the same cell as {last.record.label}, which was begun later"))
                runs[key] = last
    included = {request.name for request, _, its_provenance in candidates if its_provenance == chosen}
    for request, record, its_provenance in candidates:
        if its_provenance != chosen and request.name not in included:
            left_out.append((record.name, f"not comparable: {_difference(its_provenance, chosen)}"))
    return RunSet(list(runs.values()), left_out)


def _key(request: CellRequest) -> tuple[object, ...]:
    return (*request.axes.items(), request.seed)


def _is_same(one: RunRecord, other: RunRecord) -> bool:
    return (one.location.resolve(), one.name) == (other.location.resolve(), other.name)


def without_constant_axes(found: RunSet) -> RunSet:
    """The same runs, without the axes along which none of them differs from another."""
    first_axes = found.runs[0].axes if found.runs else {}
    axes = [axis for axis in first_axes if len({run.axes.get(axis) for run in found.runs}) > 1]
    runs = [replace(run, axes={axis: run.axes[axis] for axis in axes}) for run in found.runs]
    return RunSet(runs, found.left_out)


def provenance(manifest: dict[str, Any], *, mixed: bool) -> str:
    """What made a run, and of which data, as text: equal for runs that can be compared."""
    data = manifest.get("data") or {}
    # the same pictures, however they are split: the split is one of the choices that name a run
    facts: dict[str, Any] = {
        "data": {"images": data.get("images") or data.get("content"), "classes": data.get("classes")}
    }
    if not mixed:
        facts.update({key: manifest.get(key) for key in PROVENANCE})
    return json.dumps(facts, sort_keys=True)


def _main_provenance(candidates: Sequence[tuple[CellRequest, RunRecord, str]]) -> str:
    """The provenance that covers most cells; of equals the one with the newest run."""
    covered = Counter(found for found, _ in {(found, _key(request)) for request, _, found in candidates})
    newest: dict[str, float] = {}
    for _, record, found in candidates:
        newest[found] = max(newest.get(found, 0.0), record.started)
    return max(covered, key=lambda found: (covered[found], newest[found]), default="")


def _why_unfinished(records: Sequence[RunRecord]) -> str:
    """Why a cell counts as unfinished, by the record that was begun last."""
    if not records:
        return "not run"
    status = records[-1].status
    reasons = {"RUNNING": "is running, or its process died", "KILLED": "was interrupted", "FAILED": "failed"}
    error = f": {status['error']}" if status.get("error") and status.get("status") == "FAILED" else ""
    return reasons.get(str(status.get("status")), "not finished") + error


def _difference(one: str, other: str) -> str:
    """In what two provenances differ."""
    facts, others = json.loads(one), json.loads(other)
    return ", ".join(_differing(key, facts[key], others.get(key)) for key in facts if facts[key] != others.get(key))


def _differing(key: str, one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        return ", ".join(f"{key}.{name}" for name in sorted(one | other) if one.get(name) != other.get(name))
    return f"{key} {one} instead of {other}"


def requests_of(records: Iterable[RunRecord]) -> list[tuple[CellRequest, list[RunRecord]]]:
    """Runs that were named one by one as cells: their axes are the params in which they differ, besides the seed.

    A key below a group that differs itself (activation.kernel) is no axis, nor is a seed that goes with the run's.
    """
    params = [(record, dict(record.manifest.get("params") or {})) for record in records]
    axes = list(_varying_keys([values for _, values in params]))
    requests: list[tuple[CellRequest, list[RunRecord]]] = []
    for record, values in params:
        named_axes = {axis: str(values.get(axis)) for axis in axes}
        requests.append((CellRequest(record.name, named_axes, int(values.get("seed", 0))), [record]))
    return requests


def _varying_keys(params: Sequence[dict[str, Any]]) -> Iterator[str]:
    keys = [key for key in dict.fromkeys(key for one in params for key in one) if key != "seed"]
    keys = [key for key in keys if not key.endswith(".seed") or any(one.get(key) != one.get("seed") for one in params)]
    # a key that an older run lacks stands at its default there, which is no difference
    varying = [key for key in keys if len({json.dumps(one[key], default=str) for one in params if key in one}) > 1]
    for key in varying:
        parents = [key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1)]
        if not any(parent in varying for parent in parents):
            yield key
