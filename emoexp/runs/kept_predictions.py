"""NAME.predictions.npz of kept results: for each set of test images what each run predicted.

The arrays of set number k, of N images, which R runs were tested on:

    runs_k         R names of runs
    target_k       N class indices; num_classes_k, the number of classes
    predicted_k    R x N class indices
    classes_k      K class indices, of which the probabilities are kept
    probability_k  R x N x K in half precision
    clean_k        N truth values, names_k N names, where they are known
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from emoexp.runs import files
from emoexp.runs.kept_schema import KeptResultsError, refuse
from emoexp.runs.records import TestPredictions

MAX_BYTES = 2**30  # bytes of a file when it is unpacked
_KINDS = {
    "runs": "U",
    "num_classes": "iu",
    "target": "u",
    "predicted": "u",
    "classes": "u",
    "probability": "f",
    "clean": "b",
    "names": "U",
}
_OPTIONAL = {"clean", "names"}


def packed(predictions: Mapping[str, TestPredictions], class_indices: Mapping[str, Sequence[int]]) -> bytes:
    """Predictions of several runs, by the run's name, as the bytes of an npz file. Equal predictions give equal bytes.

    class_indices: for each run's name the classes whose probabilities are kept.
    """
    sets: dict[tuple[object, ...], list[tuple[str, TestPredictions]]] = {}
    for name, complete in predictions.items():
        reduced = _reduced(complete, class_indices[name])
        arrays_N = (reduced.target_N, reduced.clean_N, reduced.names_N)
        image_key = [None if array is None else array.tobytes() for array in arrays_N]
        key = (*image_key, reduced.num_classes, reduced.class_indices)
        sets.setdefault(key, []).append((name, reduced))
    arrays: dict[str, np.ndarray] = {}
    for number, members in enumerate(sets.values()):
        first = members[0][1]
        index = np.min_scalar_type(first.num_classes - 1)
        arrays[f"runs_{number}"] = np.array([name for name, _ in members])
        arrays[f"num_classes_{number}"] = np.array(first.num_classes)
        arrays[f"target_{number}"] = first.target_N.astype(index)
        arrays[f"predicted_{number}"] = np.stack([member.predicted_N for _, member in members]).astype(index)
        arrays[f"classes_{number}"] = np.array(first.class_indices, index)
        arrays[f"probability_{number}"] = np.stack([member.probability_NK for _, member in members])
        if first.clean_N is not None:
            arrays[f"clean_{number}"] = first.clean_N
        if first.names_N is not None:
            arrays[f"names_{number}"] = first.names_N
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _reduced(predictions: TestPredictions, class_indices: Sequence[int]) -> TestPredictions:
    """The same predictions with the probabilities of some classes, in half precision."""
    half = (
        half_precision(predictions.probability_NK)
        if predictions.is_complete
        else predictions.probability_NK.astype(np.float16)
    )
    columns = [k for k, class_index in enumerate(predictions.class_indices) if class_index in class_indices]
    return TestPredictions(
        target_N=predictions.target_N,
        predicted_N=predictions.predicted_N,
        num_classes=predictions.num_classes,
        class_indices=tuple(predictions.class_indices[k] for k in columns),
        probability_NK=half[:, columns],
        clean_N=None if predictions.clean_N is None else predictions.clean_N.astype(bool),
        names_N=predictions.names_N,
    )


def half_precision(probability_NC: np.ndarray) -> np.ndarray:
    """Probabilities as float16, in which the likeliest class stays the likeliest."""
    half_NC, best_N = probability_NC.astype(np.float16), probability_NC.argmax(1)
    changed = np.flatnonzero(half_NC.argmax(1) != best_N)  # another class is rounded to the same number
    half_NC[changed, best_N[changed]] = np.nextafter(half_NC[changed].max(1), np.float16(2))
    return half_NC


def unpacked(path: Path) -> dict[str, TestPredictions]:
    """The predictions of a file by the name of their run.

    Raises:
        KeptResultsError: the file is damaged, or holds anything but what the head of this module says.
    """
    arrays = _arrays(path)
    predictions_by_name: dict[str, TestPredictions] = {}
    for number in sorted({name.rpartition("_")[2] for name in arrays}):
        members = {name.rpartition("_")[0]: array for name, array in arrays.items() if name.endswith(f"_{number}")}
        _check_set(path, number, members)
        for name, predictions in _runs(members):
            if name in predictions_by_name:
                refuse(path, f"runs_{number}: {name[:80]} stands there twice")
            predictions_by_name[name] = predictions
    return predictions_by_name


def _arrays(path: Path) -> dict[str, np.ndarray]:
    known = re.compile(rf"({'|'.join(_KINDS)})_\d{{1,6}}")
    try:
        arrays = files.read_arrays(path, limit=MAX_BYTES)
    except ValueError as error:
        raise KeptResultsError(str(error)) from error
    if unknown := next((name for name in arrays if not known.fullmatch(name)), None):
        refuse(path, f"unknown array {unknown[:80]!r}")
    return arrays


def _check_set(path: Path, number: str, arrays: dict[str, np.ndarray]) -> None:
    """Raises KeptResultsError where the arrays of one set of images do not fit each other."""
    if missing := sorted(_KINDS.keys() - _OPTIONAL - arrays.keys()):
        refuse(path, f"{missing[0]}_{number} is missing")
    num_runs, num_images, num_kept = arrays["runs"].size, arrays["target"].size, arrays["classes"].size
    shapes: dict[str, tuple[int, ...]] = {
        "runs": (num_runs,),
        "num_classes": (),
        "target": (num_images,),
        "predicted": (num_runs, num_images),
        "classes": (num_kept,),
        "probability": (num_runs, num_images, num_kept),
        "clean": (num_images,),
        "names": (num_images,),
    }
    for name, array in arrays.items():
        if array.shape != shapes[name] or array.dtype.kind not in _KINDS[name]:
            expected = f"shape {shapes[name]} and a type of kind {_KINDS[name]}"
            refuse(path, f"{name}_{number}: {expected} are expected; it is {array.dtype} of shape {array.shape}")
    num_classes = int(arrays["num_classes"])
    if num_classes < 2:
        refuse(path, f"num_classes_{number}: at least 2 classes are expected; it is {num_classes}")
    for name in ("target", "predicted", "classes"):
        if arrays[name].size and int(arrays[name].max()) >= num_classes:
            refuse(path, f"{name}_{number}: class indices below {num_classes} are expected")
    if (np.diff(arrays["classes"].astype(int)) <= 0).any():
        refuse(path, f"classes_{number}: increasing class indices are expected")
    probability = arrays["probability"]
    if not ((probability >= 0) & (probability <= 1)).all():  # false of NaN too
        refuse(path, f"probability_{number}: numbers from 0 to 1 are expected")
    if num_kept == num_classes and not (probability.argmax(2) == arrays["predicted"]).all():
        refuse(path, f"predicted_{number}: the likeliest class of each image is expected")


def _runs(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, TestPredictions]]:
    """The predictions of each run of a set of images."""
    for row, name in enumerate(arrays["runs"]):
        predictions = TestPredictions(
            target_N=arrays["target"].astype(np.int64),
            predicted_N=arrays["predicted"][row].astype(np.int64),
            num_classes=int(arrays["num_classes"]),
            class_indices=tuple(int(index) for index in arrays["classes"]),
            probability_NK=arrays["probability"][row],
            clean_N=arrays.get("clean"),
            names_N=arrays.get("names"),
        )
        yield str(name), predictions
