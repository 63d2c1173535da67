"""The record of a run, read only: what reports and sweeps need of it, from its folder.

`emoexp.runs.kept` gives the same for a run whose folder is gone and whose results were kept in a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emoexp.runs import folder as runs
from emoexp.runs.files import read_arrays, read_json, read_json_lines
from emoexp.runs.manifest import upgraded


@dataclass(frozen=True)
class TestPredictions:
    """What a model predicted for N test images of C classes.

    target_N, predicted_N: class indices, int64. class_indices: the K classes whose probabilities are known, increasing.
    probability_NK: float, a column for each of them. clean_N: whether the image's pixels stand in no earlier part.
    names_N: the images' names. These two are None where they are not known. class_names: empty where not known.
    """

    __test__ = False  # pytest must not collect it as a test

    target_N: np.ndarray
    predicted_N: np.ndarray
    num_classes: int
    class_indices: tuple[int, ...]
    probability_NK: np.ndarray
    clean_N: np.ndarray | None = None
    names_N: np.ndarray | None = None
    class_names: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether the probabilities of all classes are known."""
        return len(self.class_indices) == self.num_classes

    def probability_of(self, class_index: int) -> np.ndarray | None:
        """The probability of one class for each image; None where it is not known."""
        if class_index not in self.class_indices:
            return None
        return self.probability_NK[:, self.class_indices.index(class_index)]

    def is_of_same_images(self, other: "TestPredictions") -> bool:
        """Whether both are of the same images in the same order, by the arrays that both have."""
        pairs = [
            (self.target_N, other.target_N),
            (self.clean_N, other.clean_N),
            (self.names_N, other.names_N),
        ]
        return all(np.array_equal(a, b) for a, b in pairs if a is not None and b is not None)


def complete_predictions(
    probability_NC: np.ndarray,
    target_N: np.ndarray,
    clean_N: np.ndarray | None = None,
    names_N: np.ndarray | None = None,
) -> TestPredictions:
    """Predictions of which the probabilities of all classes are known; the predicted class is the first of the
    likeliest."""
    num_classes = probability_NC.shape[1]
    return TestPredictions(
        target_N=target_N.astype(np.int64),
        predicted_N=probability_NC.argmax(1),
        num_classes=num_classes,
        class_indices=tuple(range(num_classes)),
        probability_NK=probability_NC,
        clean_N=clean_N,
        names_N=names_N,
    )


def read_predictions(path: Path) -> TestPredictions:
    """The predictions of a part, as a run writes them into predictions/.

    Raises:
        ValueError: the file holds anything else; names the array, what is expected and what is there.
    """
    arrays = read_arrays(path)
    if missing := [name for name in ("probability", "target") if name not in arrays]:
        raise ValueError(f"{path}: {missing[0]} is missing")
    probability, target = arrays["probability"], arrays["target"]
    if probability.ndim != 2 or probability.dtype.kind != "f" or probability.shape[1] < 2:
        raise ValueError(f"{path}: probability is a number for each image and class; its shape is {probability.shape}")
    size, classes = probability.shape
    kinds = {"target": "iu", "clean": "b", "names": "U", "class_names": "U"}
    for name, kind in kinds.items():
        expected = classes if name == "class_names" else size
        if name in arrays and (arrays[name].shape != (expected,) or arrays[name].dtype.kind not in kind):
            there = f"{arrays[name].dtype} of shape {arrays[name].shape}"
            raise ValueError(f"{path}: {name} has {expected} values of kind {kind}; it is {there}")
    if size and not (int(target.min()) >= 0 and int(target.max()) < classes):
        raise ValueError(f"{path}: target holds classes from 0 to {classes - 1}")
    if size and not ((probability >= 0).all() and (np.abs(probability.sum(1, dtype=float) - 1) < 1e-3).all()):
        raise ValueError(f"{path}: probability sums to 1 for each image")
    found = complete_predictions(probability, target, arrays.get("clean"), arrays.get("names"))
    return replace(found, class_names=tuple(arrays["class_names"].tolist()) if "class_names" in arrays else ())


def concatenated(parts: Sequence[TestPredictions]) -> TestPredictions:
    """Complete predictions of several models, each for images of its own, one after another."""
    assert all(part.is_complete for part in parts)
    clean = [part.clean_N for part in parts if part.clean_N is not None]
    names = [part.names_N for part in parts if part.names_N is not None]
    return complete_predictions(
        np.concatenate([part.probability_NK for part in parts]),
        np.concatenate([part.target_N for part in parts]),
        np.concatenate(clean) if len(clean) == len(parts) else None,
        np.concatenate(names) if len(names) == len(parts) else None,
    )


class RunRecord(Protocol):
    """The manifest, metrics and predictions of one run, from its folder or from a table."""

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        ...

    @property
    def location(self) -> Path:
        """The folder, or the table of kept results."""
        ...

    @property
    def label(self) -> str:
        """What names the run in messages; no other run has the same label."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether the run has finished and its results are there."""
        ...

    @property
    def status(self) -> dict[str, Any]:
        """What status.json holds."""
        ...

    @property
    def started(self) -> float:
        """When the run began, Unix time in seconds; 0 where it is not known."""
        ...

    @property
    def manifest(self) -> dict[str, Any]:
        """What manifest.json holds, in today's keys."""
        ...

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds."""
        ...

    @property
    def predictions(self) -> TestPredictions | None:
        """Predictions of the test part; None where they were not kept."""
        ...

    @property
    def seconds(self) -> float | None:
        """Seconds of training and validation; None where they were not kept."""
        ...


@dataclass(frozen=True)
class RunFolder:
    """A run's record in its own folder. Files are read when they are first asked for."""

    location: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.location.name

    @property
    def label(self) -> str:
        """The folder's path."""
        return str(self.location)

    @property
    def is_finished(self) -> bool:
        """Whether the run has finished and its results are there."""
        return runs.is_finished(self.location)

    @cached_property
    def status(self) -> dict[str, Any]:
        """status.json."""
        return read_json(self.location / "status.json")

    @property
    def started(self) -> float:
        """When the run began, Unix time in seconds; 0 where it is not known."""
        return float(self.status.get("started") or 0)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json, in today's keys."""
        return upgraded(read_json(self.location / "manifest.json"))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        return read_json(self.location / "metrics.json")

    @cached_property
    def predictions(self) -> TestPredictions | None:
        """Predictions of the test part; None where they were not kept."""
        path = self.location / "predictions" / "test.npz"
        return read_predictions(path) if path.is_file() else None

    @cached_property
    def seconds(self) -> float | None:
        """Seconds of training and validation; None where they were not kept."""
        rows = read_json_lines(self.location / "times.jsonl")
        return sum(row["train_seconds"] + row["eval_seconds"] for row in rows) if rows else None
