"""Labels that look wrong, by confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021).

The method uses the probabilities of a model for images on which it was not trained (out of fold). The model must be
trained without class weights and without balanced sampling: with these it predicts rare classes too often, and
thousands of right labels of common classes look wrong. The model must also be good: where it cannot distinguish two
classes, right labels look wrong. With a weak model, only the first images of the list are worth reading, and the
estimates of noise are useless.

An image without probabilities is a row of NaN: it is neither counted nor suspected. A class without images has no
threshold: no image is counted as this class, its rows and columns are 0, and its noise is NaN. Of equally probable
classes the first is taken, but a label is never suspected unless another class is more probable.
"""

from dataclasses import dataclass

import numpy as np

from emoexp.metrics.classification import check

_SLACK = 1e-6  # probabilities that differ by less are equal


@dataclass(frozen=True)
class SuspiciousLabels:
    """Images whose label looks wrong, the worst first.

    index: int64 M, rows of the probabilities. label: int64 M. suggestion: int64 M, the most probable class.
    score: float64 M in 0..0.5, the normalised margin (p(label) - p(suggestion) + 1) / 2; 0 is worst. joint: int64 C×C,
    as `estimated_joint`. noise: float64 C, estimated share of wrong labels among the images labelled as each class, NaN
    for a class without images. overall: the same among all images. The estimates are rather too large (measured: 0.06
    for true 0.05, 0.2 for 0.15), most for small and noisy classes; the suspected share M / N is nearer to the truth.
    """

    index: np.ndarray
    label: np.ndarray
    suggestion: np.ndarray
    score: np.ndarray
    joint: np.ndarray
    noise: np.ndarray
    overall: float


def confident_joint(probability_NC: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """Number of images by label (rows) and by confident class (columns), int64 C×C.

    A class is confident for an image if its probability reaches the mean probability of that class among the images
    with that label. If there are several, the most probable class of the image is taken; if there is none, the image is
    not counted. The diagonal of a class that has images is at least 1.

    Raises:
        ValueError: rows that are no probabilities, labels outside 0..C-1, no image with a probability.
    """
    return _count_confident(*_with_probability(probability_NC, target_N)[:2])


def estimated_joint(probability_NC: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """Estimated number of images by label (rows) and by true class (columns), int64 C×C.

    The confident joint, scaled so that the sum of each row is the number of images with that label, in whole numbers by
    largest remainders (of equal ones the diagonal first). The sum of all is the number of images with probabilities.

    Raises:
        ValueError: as `confident_joint`.
    """
    probability_NC, target_N, _ = _with_probability(probability_NC, target_N)
    return _scale_to_labels(_count_confident(probability_NC, target_N), target_N)


def suspicious_labels(probability_NC: np.ndarray, target_N: np.ndarray) -> SuspiciousLabels:
    """Find labels that look wrong.

    A label is suspected if its class is not the most probable one and if two rules select the image. "Prune by class":
    of the images with that label, it is among those with the lowest probability of it, as many as the joint estimates
    to be wrong. "Prune by noise rate": for another class, it is among those where that class leads most, as many as the
    joint estimates for this pair. This is cleanlab's filter_by="both". Of equal images the earlier one is selected.

    Args:
        probability_NC: out of fold, rows sum to 1; NaN rows for images without.
        target_N: the labels, 0..C-1.

    Raises:
        ValueError: as `confident_joint`.
    """
    probability_NC, target_N, row_N = _with_probability(probability_NC, target_N)
    joint_CC = _scale_to_labels(_count_confident(probability_NC, target_N), target_N)
    label_probability_N = probability_NC[np.arange(len(target_N)), target_N]
    suspect_N = _least_probable(probability_NC, target_N, joint_CC) & _most_exceeded(probability_NC, target_N, joint_CC)
    suspect_N &= probability_NC.max(axis=1) > label_probability_N + _SLACK
    best_N = probability_NC.argmax(axis=1)
    score_N = (label_probability_N - probability_NC.max(axis=1) + 1) / 2
    suspects = np.flatnonzero(suspect_N)
    order = suspects[np.argsort(score_N[suspects], kind="stable")]
    count_C, right_C = joint_CC.sum(axis=1), np.diagonal(joint_CC)
    noise_C = np.full(len(count_C), np.nan)
    np.divide(count_C - right_C, count_C, out=noise_C, where=count_C > 0)
    return SuspiciousLabels(
        index=row_N[order],
        label=target_N[order],
        suggestion=best_N[order],
        score=score_N[order],
        joint=joint_CC,
        noise=noise_C,
        overall=float(1 - right_C.sum() / count_C.sum()),
    )


def _with_probability(probability_NC: np.ndarray, target_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities and labels of the images that have probabilities, after a check, and their rows."""
    probability_NC, target_N = np.asarray(probability_NC, np.float64), np.asarray(target_N)
    row_N = np.arange(len(target_N))
    if probability_NC.ndim == 2 and len(probability_NC) == len(target_N):
        row_N = np.flatnonzero(~np.isnan(probability_NC).all(axis=1))
        probability_NC, target_N = probability_NC[row_N], target_N[row_N]
    names = [str(c) for c in range(probability_NC.shape[-1])]
    return *check(probability_NC, target_N, names), row_N


def _count_confident(probability_NC: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    num_classes = probability_NC.shape[1]
    count_C = np.bincount(target_N, minlength=num_classes)
    label_probability_N = probability_NC[np.arange(len(target_N)), target_N]
    threshold_C = np.bincount(target_N, label_probability_N, minlength=num_classes) / np.maximum(count_C, 1)
    threshold_C = np.where(count_C > 0, np.maximum(threshold_C, 2 * _SLACK), np.inf)
    confident_NC = probability_NC >= threshold_C - _SLACK
    confident_class_N = np.where(
        confident_NC.sum(axis=1) > 1, probability_NC.argmax(axis=1), confident_NC.argmax(axis=1)
    )
    joint_CC = np.zeros((num_classes, num_classes), np.int64)
    counted_N = confident_NC.any(axis=1)
    np.add.at(joint_CC, (target_N[counted_N], confident_class_N[counted_N]), 1)
    np.fill_diagonal(joint_CC, np.maximum(np.diagonal(joint_CC), count_C > 0))
    return joint_CC


def _scale_to_labels(joint_CC: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    count_C = np.bincount(target_N, minlength=len(joint_CC))
    exact_CC = joint_CC * (count_C / np.maximum(joint_CC.sum(axis=1), 1))[:, None]
    floor_CC = np.floor(exact_CC + 1e-9).astype(np.int64)
    remainder_CC = (exact_CC - floor_CC).round(9) + 1e-9 * np.eye(len(joint_CC))
    rank_CC = np.argsort(np.argsort(-remainder_CC, axis=1, kind="stable"), axis=1)
    return floor_CC + (rank_CC < (count_C - floor_CC.sum(axis=1))[:, None])


def _least_probable(probability_NC: np.ndarray, target_N: np.ndarray, joint_CC: np.ndarray) -> np.ndarray:
    """For each label, the images with the smallest probability of it, as many as are estimated to be wrong: bool N."""
    suspect_N = np.zeros(len(target_N), bool)
    for c in range(len(joint_CC)):
        member_M = np.flatnonzero(target_N == c)
        num_wrong = len(member_M) - max(int(joint_CC[c, c]), 1)
        suspect_N[member_M[np.argsort(probability_NC[member_M, c], kind="stable")[: max(num_wrong, 0)]]] = True
    return suspect_N


def _most_exceeded(probability_NC: np.ndarray, target_N: np.ndarray, joint_CC: np.ndarray) -> np.ndarray:
    """For each label and each other class, the images where that class leads most, as many as estimated: bool N."""
    suspect_N = np.zeros(len(target_N), bool)
    for c, other in np.argwhere(joint_CC > 0):
        member_M = np.flatnonzero(target_N == c)
        num_wrong = joint_CC[c, other] - (joint_CC[c, c] == 0)  # one image of each label is never suspected
        if c != other:
            lead = probability_NC[member_M, other] - probability_NC[member_M, c]
            suspect_N[member_M[np.argsort(-lead, kind="stable")[:num_wrong]]] = True
    return suspect_N
