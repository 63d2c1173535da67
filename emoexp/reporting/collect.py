"""Selects the finished runs that can be compared, among the cells that are asked for. Every other cell or run is listed
with the reason why it is left out."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from emoexp.reporting.soundness import damage
from emoexp.runs.records import RunRecord, TestPredictions
from emoexp.sweep.cells import CellRequest

# keys of a manifest that, with the data, decide whether runs can be compared
PROVENANCE = ("results_version", "packages", "versions", "kernels", "device", "threads")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run in a report: its record, its axes and seed, and the values that a search chose for it."""

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
        """Whether copies were made before the split, so that test images have relatives in training."""
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
    """Runs that can be compared, and what was left out, as (name, reason)."""

    runs: list[FinishedRun]
    left_out: list[tuple[str, str]]


def collect(requests: Iterable[tuple[CellRequest, Sequence[RunRecord]]], *, mixed: bool) -> RunSet:
    """One finished run for each cell that is asked for, all of one provenance: the same data and, unless `mixed`, the
    same version of the results, packages, libraries, kernels, kind of device and threads.

    Where the finished runs have several provenances, the one that covers the most cells is taken; of equal ones, the
    one with the newest run. Where a cell has several runs of it, the one that was started last is taken. All others are
    left out, with the reason.
    """
    left_out: list[tuple[str, str]] = []
    candidates: list[tuple[CellRequest, RunRecord, str]] = []
    for request, records in requests:
        finished = []
        for record in records:
            if (why := _why_damaged(record)) is not None:
                left_out.append((record.label, f"damaged: {why}"))
            elif record.is_finished:
                finished.append(record)
        candidates += [(request, record, provenance(record.manifest, mixed=mixed)) for record in finished]
        if not finished and not any(label == record.label for record in records for label, _ in left_out):
            left_out.append((request.name, _why_unfinished(records)))
    main_provenance = _main_provenance(candidates)
    runs: dict[tuple[object, ...], FinishedRun] = {}
    for request, record, run_provenance in candidates:
        if run_provenance == main_provenance:
            key, run = _key(request), FinishedRun(record, request.axes, request.seed, request.chosen)
            rival = runs.get(key)
            if rival is None:
                runs[key] = run
            elif not _is_same(rival.record, record):
                older, newer = sorted((rival, run), key=lambda candidate: candidate.record.started)
                left_out.append((older.record.label, f"the same cell as {newer.record.label}, which was started later"))
                runs[key] = newer
    included = {request.name for request, _, run_provenance in candidates if run_provenance == main_provenance}
    for request, record, run_provenance in candidates:
        if run_provenance != main_provenance and request.name not in included:
            left_out.append((record.name, f"not comparable: {_difference(run_provenance, main_provenance)}"))
    return RunSet(list(runs.values()), left_out)


def _why_damaged(record: RunRecord) -> str | None:
    """What is damaged in a run, if anything."""
    try:
        return damage(record) if record.is_finished else None
    except ValueError as error:  # its status cannot be read
        return str(error)


def _key(request: CellRequest) -> tuple[object, ...]:
    return (*request.axes.items(), request.seed)


def _is_same(a: RunRecord, b: RunRecord) -> bool:
    return (a.location.resolve(), a.name) == (b.location.resolve(), b.name)


def without_constant_axes(run_set: RunSet) -> RunSet:
    """The same runs, without the axes that have the same value for all of them."""
    first_axes = run_set.runs[0].axes if run_set.runs else {}
    axes = [axis for axis in first_axes if len({run.axes.get(axis) for run in run_set.runs}) > 1]
    runs = [replace(run, axes={axis: run.axes[axis] for axis in axes}) for run in run_set.runs]
    return RunSet(runs, run_set.left_out)


def provenance(manifest: dict[str, Any], *, mixed: bool) -> str:
    """The values of a manifest that are equal for runs that can be compared, as JSON text."""
    data = manifest.get("data") or {}
    # the digest of the images alone: the split is one of the choices that name a run, and may be an axis
    facts: dict[str, Any] = {
        "data": {"images": data.get("images") or data.get("content"), "classes": data.get("classes")}
    }
    if not mixed:
        facts.update({key: manifest.get(key) for key in PROVENANCE})
    return json.dumps(facts, sort_keys=True)


def _main_provenance(candidates: Sequence[tuple[CellRequest, RunRecord, str]]) -> str:
    """The provenance that covers the most cells; of equal ones, the one with the newest run."""
    num_cells = Counter(text for text, _ in {(text, _key(request)) for request, _, text in candidates})
    newest_start: dict[str, float] = {}
    for _, record, text in candidates:
        newest_start[text] = max(newest_start.get(text, 0.0), record.started)
    return max(num_cells, key=lambda text: (num_cells[text], newest_start[text]), default="")


def _why_unfinished(records: Sequence[RunRecord]) -> str:
    """Why a cell counts as unfinished, from its last record."""
    if not records:
        return "not run"
    status = records[-1].status
    reasons = {"RUNNING": "is running, or its process died", "KILLED": "was interrupted", "FAILED": "failed"}
    error = f": {status['error']}" if status.get("error") and status.get("status") == "FAILED" else ""
    return reasons.get(str(status.get("status")), "not finished") + error


def _difference(run_provenance: str, main_provenance: str) -> str:
    """In what a run's provenance differs from that of the report."""
    run_facts, facts = json.loads(run_provenance), json.loads(main_provenance)
    differing = [key for key in run_facts if run_facts[key] != facts.get(key)]
    return ", ".join(_difference_of(key, run_facts[key], facts.get(key)) for key in differing)


def _difference_of(key: str, run_value: Any, value: Any) -> str:
    if isinstance(run_value, dict) and isinstance(value, dict):
        names = [name for name in sorted(run_value | value) if run_value.get(name) != value.get(name)]
        return ", ".join(f"{key}.{name}" for name in names)
    return f"{key} {run_value} instead of {value}"


def requests_of(records: Iterable[RunRecord]) -> list[tuple[CellRequest, list[RunRecord]]]:
    """Runs that were named one by one, as cells: their axes are the params in which they differ, without the seed.

    No axes: a key of a group that itself differs (activation.kernel), and another seed that always equals the run's.
    """
    params = [(record, _params(record)) for record in records]
    axes = list(_varying_keys([values for _, values in params]))
    requests: list[tuple[CellRequest, list[RunRecord]]] = []
    for record, values in params:
        named_axes = {axis: str(values.get(axis)) for axis in axes}
        seed = values.get("seed", 0)
        requests.append((CellRequest(record.name, named_axes, seed if isinstance(seed, int) else 0), [record]))
    return requests


def _params(record: RunRecord) -> dict[str, Any]:
    """A run's params; none where its manifest is damaged, which `collect` then says."""
    try:
        return dict(record.manifest.get("params") or {})
    except ValueError:
        return {}


def _varying_keys(params: Sequence[dict[str, Any]]) -> Iterator[str]:
    keys = [key for key in dict.fromkeys(key for values in params for key in values) if key != "seed"]
    follows_seed = [key for key in keys if key.endswith(".seed") and all(v.get(key) == v.get("seed") for v in params)]
    keys = [key for key in keys if key not in follows_seed]
    # a key that an older run lacks has its default there, which is no difference
    varying = [key for key in keys if len({json.dumps(v[key], default=str) for v in params if key in v}) > 1]
    for key in varying:
        parents = [key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1)]
        if not any(parent in varying for parent in parents):
            yield key
