"""From what is wanted to the finished runs that can be compared; what cannot be is named with its reason."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emoexp.runs import folder as runs
from emoexp.runs.files import read_json, read_json_lines
from emoexp.runs.manifest import upgraded

# keys of a manifest: what made a run, besides the data
MAKING = ("results_version", "packages", "versions", "kernels", "device", "threads")


@dataclass(frozen=True)
class Made:
    """A finished run that counts: its folder, what distinguishes it, its seed, what a search chose for it."""

    folder: Path
    axes: dict[str, str]
    seed: int
    chosen: dict[str, float] = field(default_factory=dict)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        return read_json(self.folder / "metrics.json")

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json."""
        return upgraded(read_json(self.folder / "manifest.json"))

    @property
    def is_leaky(self) -> bool:
        """Whether copies were made before the split, so that test has relatives in training."""
        return bool((self.manifest.get("tags") or {}).get("protocol"))

    @cached_property
    def predictions(self) -> dict[str, np.ndarray] | None:
        """Kept predictions of the test part: probability N x C, target, clean, names; None where they were not kept."""
        path = self.folder / "predictions" / "test.npz"
        if not path.is_file():
            return None
        with np.load(path) as kept:
            target = kept["target"].astype(np.int64)
            return {"target": target} | {name: kept[name] for name in ("probability", "clean", "names") if name in kept}

    @cached_property
    def seconds(self) -> float | None:
        """Seconds of training and validation; None where they were not kept."""
        rows = read_json_lines(self.folder / "times.jsonl")
        return sum(row["train_seconds"] + row["eval_seconds"] for row in rows) if rows else None


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


def gather(wanted: Iterable[tuple[Asked, list[Path]]], *, mixed: bool) -> Gathered:
    """The finished runs, among each wanted cell's folders, that were made alike: of the same data, and unless mixed by
    the same version of the results, packages, versions, kernels, kind of device and threads.

    Where a cell exists in several makings, the one that covers most cells counts, the newest of equals; where it exists
    several times in that one, the run that was begun last. Everything else is left out, with its reason.
    """
    left_out: list[tuple[str, str]] = []
    there: list[tuple[Asked, Path, str]] = []
    for asked, folders in wanted:
        done = [folder for folder in folders if runs.is_finished(folder)]
        there += [(asked, folder, making(folder, mixed=mixed)) for folder in done]
        if not done:
            left_out.append((asked.name, _state(folders)))
    best = _prevailing(there)
    cells: dict[tuple[object, ...], Made] = {}
    for asked, folder, made in there:
        if made == best:
            key, cell = _cell(asked), Made(folder, asked.axes, asked.seed, asked.chosen)
            known = cells.get(key)
            if known is None:
                cells[key] = cell
            elif known.folder.resolve() != folder.resolve():
                first, last = sorted((known, cell), key=lambda one: _begun(one.folder))
                left_out.append((str(first.folder), f"the same cell as {last.folder}, which was begun later"))
                cells[key] = last
    counted = {asked.name for asked, _, made in there if made == best}
    for asked, folder, made in there:
        if made != best and asked.name not in counted:
            left_out.append((folder.name, f"made otherwise: {_difference(made, best)}"))
    return Gathered(list(cells.values()), left_out)


def _cell(asked: Asked) -> tuple[object, ...]:
    return (*asked.axes.items(), asked.seed)


def _begun(folder: Path) -> float:
    return float(read_json(folder / "status.json").get("started") or 0)


def varying(found: Gathered) -> Gathered:
    """The same runs, without the axes along which none of them differs from another."""
    axes = [axis for axis in (found.cells[0].axes if found.cells else ()) if _several(found.cells, axis)]
    kept = [replace(cell, axes={axis: cell.axes[axis] for axis in axes}) for cell in found.cells]
    return Gathered(kept, found.left_out)


def _several(cells: Sequence[Made], axis: str) -> bool:
    return len({cell.axes.get(axis) for cell in cells}) > 1


def making(folder: Path, *, mixed: bool) -> str:
    """Who made a run, as text that two runs made alike share."""
    manifest = upgraded(read_json(folder / "manifest.json"))
    data = manifest.get("data") or {}
    # the same pictures, however they are split: the split is one of the choices that name a run
    found = {"data": {"images": data.get("images") or data.get("content"), "classes": data.get("classes")}}
    return json.dumps(found if mixed else found | {key: manifest.get(key) for key in MAKING}, sort_keys=True)


def _prevailing(there: Sequence[tuple[Asked, Path, str]]) -> str:
    covered = Counter(made for made, _ in {(made, _cell(asked)) for asked, _, made in there})
    begun: dict[str, float] = {}
    for _, folder, made in there:
        begun[made] = max(begun.get(made, 0.0), _begun(folder))
    return max(covered, key=lambda made: (covered[made], begun[made]), default="")


def _state(folders: Sequence[Path]) -> str:
    if not folders:
        return "not run"
    status = read_json(folders[-1] / "status.json")
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


def listed(folders: Iterable[Path]) -> list[tuple[Asked, list[Path]]]:
    """Runs that were named one by one as cells: their axes are the params in which they differ, besides the seed.

    A key below a group that differs itself (activation.kernel) is no axis, nor is a seed that goes with the run's.

    Raises:
        ValueError: a folder that is no run.
    """
    params = {}
    for folder in folders:
        if not (folder / "manifest.json").is_file():
            raise ValueError(f"{folder} is no run: it holds no manifest.json")
        params[folder] = dict(read_json(folder / "manifest.json").get("params") or {})
    axes = list(_varying(list(params.values())))
    return [
        (Asked(folder.name, {axis: str(found.get(axis)) for axis in axes}, int(found.get("seed", 0))), [folder])
        for folder, found in params.items()
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
