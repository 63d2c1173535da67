"""Classification metrics of predicted probabilities. The rows of a confusion matrix are the true classes.

Absent classes. A class may have no image in the set. The same rule holds everywhere:

* recall and average precision of such a class are not defined: they are `None`, and the class is left out of
  balanced accuracy, worst recall, G-mean and macro AP, which are means (or minima) over the classes that
  have images;
* macro-F1 is the mean over all classes, and F1 = 2 TP / (2 TP + FP + FN) counts as 0 where it
  is 0/0 or where the class has no image: scikit-learn's `f1_score(labels=range(C), average="macro",
  zero_division=0)`. An absent class therefore lowers macro-F1, and sets are comparable only where the same
  classes are absent;
* `summarise` lists these classes under "absent".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from emoexp.metrics.slugs import slugs

CALIBRATION_BINS = 15
RATES = ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall", "mcc", "g_mean")
SCALARS = ("n", *RATES, "ece", "nll", "macro_ap", "micro_ap")
PER_CLASS = ("recall", "precision", "f1", "ap")
_SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)


def confusion(target_N: np.ndarray, predicted_N: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts of (true, predicted) classes, C x C int64. Raises `ValueError` for a label outside 0..C-1."""
    target_N, predicted_N = np.asarray(target_N), np.asarray(predicted_N)
    if target_N.shape != predicted_N.shape or target_N.ndim != 1:
        raise ValueError(
            f"confusion: one true and one predicted class per image are needed, "
            f"got shapes {target_N.shape} and {predicted_N.shape}"
        )
    _check_labels(target_N, num_classes, "true")
    _check_labels(predicted_N, num_classes, "predicted")
    cell_N = target_N.astype(np.int64) * num_classes + predicted_N.astype(np.int64)
    return np.bincount(cell_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def rates(confusion_XCC: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics that a confusion matrix decides, for any number of matrices at once (leading axes X).

    accuracy; macro_f1; balanced_accuracy (mean recall); worst_recall; mcc (Gorodkin 2004, R_K; 0 where it
    is 0/0); g_mean (geometric mean of the recalls, uncorrected: 0 if the recall of one class is 0). All in 0..1, mcc in
    -1..1. Absent classes: see the docstring of this module. Every matrix must hold at least one image.
    """
    confusion_XCC = np.asarray(confusion_XCC, dtype=np.float64)
    hit_XC = np.diagonal(confusion_XCC, axis1=-2, axis2=-1)
    return rates_of_counts(hit_XC, true_XC=confusion_XCC.sum(axis=-1), predicted_XC=confusion_XCC.sum(axis=-2))


def rates_of_counts(hit_XC: np.ndarray, *, true_XC: np.ndarray, predicted_XC: np.ndarray) -> dict[str, np.ndarray]:
    """`rates` from each class's number of right predictions, of images, and of predictions: float64."""
    total_X = true_XC.sum(axis=-1)
    present_XC = true_XC > 0
    recall_XC = _ratio(hit_XC, true_XC)
    present_X = present_XC.sum(axis=-1)
    return {
        "accuracy": hit_XC.sum(axis=-1) / total_X,
        "macro_f1": _ratio(2 * hit_XC, true_XC + predicted_XC).mean(axis=-1),
        "balanced_accuracy": recall_XC.sum(axis=-1) / present_X,
        "worst_recall": np.where(present_XC, recall_XC, np.inf).min(axis=-1),
        "mcc": _mcc(hit_XC.sum(axis=-1), true_XC, predicted_XC, total_X),
        "g_mean": _geometric_mean(np.where(present_XC, recall_XC, 1.0), present_X),
    }


def from_confusion(confusion_CC: np.ndarray) -> dict[str, float]:
    """`rates` of one confusion, as plain numbers. Raises `ValueError` if it holds no image."""
    confusion_CC = np.asarray(confusion_CC)
    if confusion_CC.ndim != 2 or confusion_CC.shape[0] != confusion_CC.shape[1] or confusion_CC.sum() == 0:
        raise ValueError(
            f"metrics need a square confusion with at least one image, got shape {confusion_CC.shape} "
            f"holding {int(confusion_CC.sum())} images"
        )
    return {name: float(value) for name, value in rates(confusion_CC).items()}


def worst_class(confusion_CC: np.ndarray) -> int:
    """The class with the lowest recall among those with images; of several the rarest, then the first."""
    count_C = confusion_CC.sum(axis=1)
    recall_C = np.where(count_C > 0, _ratio(np.diagonal(confusion_CC), count_C), np.inf)
    return int(np.lexsort((count_C, recall_C))[0])


def average_precision(score_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Area under the stepwise precision-recall curve, sum of (R_k - R_k-1) P_k; 0..1, a constant score
    gives the prevalence.

    The same as scikit-learn's `average_precision_score`: images of equal score share one threshold, and nothing is
    interpolated. Raises `ValueError` if no image is positive.
    """
    recall_K, precision_K = precision_recall_steps(score_N, positive_N)
    return float(np.sum(np.diff(recall_K, prepend=0.0) * precision_K))


def precision_recall_steps(score_N: np.ndarray, positive_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The steps of a precision-recall curve: recall (rising, ends at 1) and precision, one entry for each
    threshold at which recall grows. Precision k holds for recalls in (R_k-1, R_k]; the area below these
    steps is the average precision.
    """
    score_N, positive_N = np.asarray(score_N), np.asarray(positive_N, dtype=bool)
    positives = int(positive_N.sum())
    if positives == 0:
        raise ValueError("average precision needs at least one positive image, got none")
    order_N = np.argsort(-score_N, kind="stable")
    sorted_N = score_N[order_N]
    last_K = np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))  # equal scores share one threshold
    hit_K = np.cumsum(positive_N[order_N])[last_K]
    grows_K = np.diff(hit_K, prepend=0) > 0
    return hit_K[grows_K] / positives, hit_K[grows_K] / (last_K[grows_K] + 1)


def calibration_error(probability_NC: np.ndarray, target_N: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error of the top label (Guo et al. 2017, eq. 3), 0..1.

    Sum over equal-width bins (a, b] of confidence of the share of images there times |accuracy - mean confidence|.
    """
    confidence_N = probability_NC.max(axis=1).astype(np.float64)
    right_N = probability_NC.argmax(axis=1) == target_N
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    gap_B = np.bincount(bin_N, weights=right_N - confidence_N, minlength=bins)
    return float(np.abs(gap_B).sum() / len(target_N))


def negative_log_likelihood(probability_NC: np.ndarray, target_N: np.ndarray) -> float:
    """Mean of -ln p(true class), in nats; p is at least 2.2e-16, so that one image contributes at most 36."""
    probability_N = probability_NC[np.arange(len(target_N)), target_N].astype(np.float64)
    return float(-np.log(np.clip(probability_N, _SMALLEST_PROBABILITY, 1.0)).mean())


def summarise(
    probability_NC: np.ndarray,
    target_N: np.ndarray,
    class_names: Sequence[str],
    *,
    majority: int | None = None,
) -> dict[str, Any]:
    """All metrics of one set of images, ready for JSON. Absent classes: see the docstring of this module.

    The predicted class is the most probable one (the first of several). `macro_ap` is the mean AP over
    classes with images, `micro_ap` the AP of all N x C (image, class) pairs in one list, `prevalence` a
    class's share of the images, which is the AP of random scores. "majority" is the baseline that always predicts one
    class: `majority`, the largest class of training, or if it is None the largest class of these images ("known_from"
    says which). "worst_class" is the class with the lowest recall; of several the rarest.

    Raises `ValueError` for no images, for shapes that do not match, for labels outside 0..C-1, for class
    names that are not unique and for rows that are no probabilities (finite, 0..1, sum 1 within 0.01).
    """
    probability_NC, target_N = check(probability_NC, target_N, class_names)
    num_classes = len(class_names)
    confusion_CC = confusion(target_N, probability_NC.argmax(axis=1), num_classes)
    count_C = confusion_CC.sum(axis=1)
    ap_C = [
        average_precision(score_N, target_N == c) if count_C[c] else None for c, score_N in enumerate(probability_NC.T)
    ]
    truth_NC = np.eye(num_classes, dtype=bool)[target_N]
    return {
        "n": len(target_N),
        **from_confusion(confusion_CC),
        "worst_class": class_names[worst_class(confusion_CC)],
        "ece": calibration_error(probability_NC, target_N),
        "nll": negative_log_likelihood(probability_NC, target_N),
        "macro_ap": float(np.mean([ap for ap in ap_C if ap is not None])),
        "micro_ap": average_precision(probability_NC.ravel(), truth_NC.ravel()),
        "per_class": _per_class(confusion_CC, ap_C, class_names),
        "confusion": confusion_CC.tolist(),
        "majority": _majority_baseline(majority, count_C, class_names),
        "absent": [name for name, n in zip(class_names, count_C, strict=True) if n == 0],
    }


def flatten_summary(summary: dict[str, Any], prefix: str) -> dict[str, float]:
    """The numbers of a summary by names that MLflow accepts: `test/macro_f1`, `test/recall/<slug>`,
    `test/majority/accuracy`.

    If the summary has an "interval" ({metric: (low, high)}, as from `bootstrap.bootstrap`), there are also
    `test/macro_f1_low` and `_high`. A value that is not defined (recall of an absent class) is left out, not
    written as 0.
    """
    row = {f"{prefix}/{name}": float(summary[name]) for name in SCALARS if summary.get(name) is not None}
    majority = summary.get("majority", {})
    row |= {f"{prefix}/majority/{k}": float(v) for k, v in majority.items() if isinstance(v, int | float)}
    for name, (low, high) in summary.get("interval", {}).items():
        row |= {f"{prefix}/{name}_low": float(low), f"{prefix}/{name}_high": float(high)}
    slug_of = slugs(tuple(summary["per_class"]))
    for class_name, values in summary["per_class"].items():
        present = {key: values[key] for key in PER_CLASS if values.get(key) is not None}
        row |= {f"{prefix}/{key}/{slug_of[class_name]}": float(value) for key, value in present.items()}
    return row


def check(
    probability_NC: np.ndarray, target_N: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities as float64 and labels as int64, or `ValueError` as `summarise` says."""
    probability_NC, target_N = np.asarray(probability_NC, dtype=np.float64), np.asarray(target_N)
    _check_names(class_names)
    if probability_NC.shape != (len(target_N), len(class_names)) or target_N.ndim != 1:
        raise ValueError(
            f"metrics: {len(class_names)} classes need probabilities of shape (images, {len(class_names)}) "
            f"and one label per image, got {probability_NC.shape} and {target_N.shape}"
        )
    if len(target_N) == 0:
        raise ValueError("metrics: there is no image to evaluate (0 rows); give a part that has images")
    _check_labels(target_N, len(class_names), "true")
    wrong_N = ~(np.isfinite(probability_NC).all(axis=1) & (np.abs(probability_NC.sum(axis=1) - 1.0) <= 0.01))
    wrong_N |= (probability_NC < 0).any(axis=1)
    if wrong_N.any():
        first = int(np.flatnonzero(wrong_N)[0])
        raise ValueError(
            f"metrics: {int(wrong_N.sum())} of {len(target_N)} rows are no probabilities (0..1, sum 1); "
            f"the first is row {first}: {probability_NC[first].tolist()}; apply softmax to logits before"
        )
    return probability_NC, target_N.astype(np.int64)


def _per_class(
    confusion_CC: np.ndarray, ap_C: Sequence[float | None], class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    hit_C = np.diagonal(confusion_CC)
    true_C, predicted_C = confusion_CC.sum(axis=1), confusion_CC.sum(axis=0)
    recall_C, precision_C = _ratio(hit_C, true_C), _ratio(hit_C, predicted_C)
    f1_C = _ratio(2 * hit_C, true_C + predicted_C)
    return {
        name: {
            "n": int(true_C[c]),
            "precision": float(precision_C[c]),
            "recall": float(recall_C[c]) if true_C[c] else None,
            "f1": float(f1_C[c]),
            "ap": ap_C[c],
            "prevalence": float(true_C[c] / true_C.sum()),
        }
        for c, name in enumerate(class_names)
    }


def _majority_baseline(majority: int | None, count_C: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    chosen = int(count_C.argmax()) if majority is None else int(majority)
    if not 0 <= chosen < len(class_names):
        raise ValueError(f"majority must be a class from 0 to {len(class_names) - 1}, got {majority}")
    confusion_CC = np.zeros((len(class_names), len(class_names)), dtype=np.int64)
    confusion_CC[:, chosen] = count_C
    majority_rates = from_confusion(confusion_CC)
    baseline = {name: majority_rates[name] for name in ("accuracy", "macro_f1", "balanced_accuracy")}
    return {
        "class": class_names[chosen],
        "known_from": "these images" if majority is None else "training",
        **baseline,
    }


def _mcc(hit_X: np.ndarray, true_XC: np.ndarray, predicted_XC: np.ndarray, total_X: np.ndarray) -> np.ndarray:
    covariance_X = hit_X * total_X - (true_XC * predicted_XC).sum(axis=-1)
    spread_true_X = total_X**2 - (true_XC**2).sum(axis=-1)
    spread_predicted_X = total_X**2 - (predicted_XC**2).sum(axis=-1)
    return _ratio(covariance_X, np.sqrt(spread_true_X) * np.sqrt(spread_predicted_X))


def _geometric_mean(recall_XC: np.ndarray, present_X: np.ndarray) -> np.ndarray:
    """Computed with logarithms, because the product of several hundred recalls would be rounded to 0."""
    missed_X = (recall_XC == 0).any(axis=-1)
    log_XC = np.log(np.where(recall_XC > 0, recall_XC, 1.0))
    return np.where(missed_X, 0.0, np.exp(log_XC.sum(axis=-1) / present_X))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where the whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.zeros(np.broadcast_shapes(part.shape, whole.shape)), where=whole > 0)


def _check_names(class_names: Sequence[str]) -> None:
    repeated = sorted({name for name in class_names if list(class_names).count(name) > 1})
    if repeated:
        raise ValueError(f"class names must differ, got more than one of {repeated} in {list(class_names)}")


def _check_labels(label_N: np.ndarray, num_classes: int, kind: str) -> None:
    if label_N.size and not np.issubdtype(label_N.dtype, np.integer):
        raise ValueError(f"the {kind} classes must be whole numbers, got {label_N.dtype}")
    outside = np.unique(label_N[(label_N < 0) | (label_N >= num_classes)])
    if outside.size:
        raise ValueError(
            f"the {kind} classes must be from 0 to {num_classes - 1} ({num_classes} classes), "
            f"got {outside[:5].tolist()}"
        )
