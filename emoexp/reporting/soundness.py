"""Whether a run's results agree with each other: a report leaves out a run whose files are damaged or contradict."""

import math

import numpy as np

from emoexp.metrics.classification import confusion, from_confusion
from emoexp.runs.kept_schema import faults
from emoexp.runs.records import RunRecord

_SHARES = ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall")
_TOLERANCE = 1e-6  # of metrics that were computed from the same confusion, by another version of a library


def damage(record: RunRecord) -> str | None:
    """What is damaged in a finished run, in one sentence; None where nothing is."""
    try:
        times = {"started": record.started, "ended": record.status.get("ended"), "seconds": record.seconds}
        fault = next(faults(record.name, times, record.manifest, record.metrics), None)
        return fault or _contradiction(record)
    except (ValueError, OSError) as error:
        return str(error)


def _contradiction(record: RunRecord) -> str | None:
    """In what the metrics of the test part, its confusion and its predictions contradict each other."""
    metrics = record.metrics["test"]
    if not metrics["n"]:
        return None
    confusion_CC = np.asarray(metrics["confusion"])
    computed = from_confusion(confusion_CC)
    for key in _SHARES:
        given = metrics.get(key)
        if given is not None and not math.isclose(given, computed[key], abs_tol=_TOLERANCE):
            return f"metrics.json: test.{key} is {given:.6g}, and its confusion gives {computed[key]:.6g}"
    predictions = record.predictions
    if predictions is None:
        return None
    if predictions.num_classes != len(confusion_CC) or not np.array_equal(
        confusion(predictions.target_N, predictions.predicted_N, predictions.num_classes), confusion_CC
    ):
        return "predictions/test.npz gives another confusion than metrics.json"
    return None
