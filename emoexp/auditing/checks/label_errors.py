"""Labels that look wrong, by confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021).

Everything is judged from probabilities that a model gives to images which it has not been trained on (out of fold). It
must be trained without class weights or balanced sampling: these make it predict rare classes too often, and right
labels of common classes then look wrong by the thousand. And it must be good: labels of classes that it cannot
distinguish look wrong to it. Of a weak model only the head of the list is worth reading, and the estimates of noise
are worth nothing.

An image without a probability is a row of NaN: it is neither counted nor suspected. A class without images has no
threshold: nothing is counted into it, its rows and columns are 0, its noise is NaN. Of equally probable classes the
first counts, except that a label is never suspected where no class is more probable.
"""

from dataclasses import dataclass

import numpy as np

from emoexp.metrics.classification import check

_SLACK = 1e-6  # probabilities that differ by less are equal


@dataclass(frozen=True)
class SuspiciousLabels:
    """Images whose label looks wrong, the worst first.

    index: int64 M, rows of the probabilities. given, suggested: int64 M, the label and the most probable class.
    score: float64 M in 0..0.5, the normalised margin (p(given) - p(suggested) + 1) / 2; 0 is worst. joint: int64 C×C,
    as `estimated_joint`. noise: float64 C, estimated share of wrong labels among the images labelled as each class, NaN
    for a class without images. overall: the same among all images. The joint estimates rather too much (measured: 0.06
    where 0.05 was planted, 0.2 for 0.15), most where classes are small and noisy; the suspected share M / N is nearer.
    """

    index: np.ndarray
    given: np.ndarray
    suggested: np.ndarray
    score: np.ndarray
    joint: np.ndarray
    noise: np.ndarray
    overall: float


def confident_joint(probability_NC: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """Images counted by given label (rows) and by the class that they confidently are (columns), int64 C×C.

    An image confidently is of a class if its probability reaches the mean probability of that class among the images
    labelled so; of several such classes the most probable of all counts; an image of none is not counted. Each class
    with images counts at least one of its own.

    Raises:
        ValueError: rows that are no probabilities, labels outside 0..C-1, no image with a probability.
    """
    return _counted(*_known(probability_NC, target_N)[:2])


def estimated_joint(probability_NC: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """How many images are labelled as one class (rows) and are of another (columns), int64 C×C.

    The confident joint, stretched so that each row sums to the images labelled so, in whole numbers by largest
    remainders (of equal ones the diagonal first). Sums to the number of images with a probability.

    Raises:
        ValueError: as `confident_joint`.
    """
    probability_NC, target_N, _ = _known(probability_NC, target_N)
    return _stretched(_counted(probability_NC, target_N), target_N)


def suspicious_labels(probability_NC: np.ndarray, target_N: np.ndarray) -> SuspiciousLabels:
    """Find labels that look wrong.

    An image is suspected if it is picked twice: as one of the least probable of its label, as many as the joint
    estimates to be wrong there ("prune by class"), and as one of those that another class most exceeds, as many as the
    joint estimates for that pair ("prune by noise rate"); and if its label is not the most probable class. Both
    together are cleanlab's filter_by="both". Of equals the earlier image is picked.

    Args:
        probability_NC: out of fold, rows sum to 1; NaN rows for images without.
        target_N: the labels as given, 0..C-1.

    Raises:
        ValueError: as `confident_joint`.
    """
    probability_NC, target_N, row_N = _known(probability_NC, target_N)
    joint_CC = _stretched(_counted(probability_NC, target_N), target_N)
    own_N = probability_NC[np.arange(len(target_N)), target_N]
    found_N = _least_probable(probability_NC, target_N, joint_CC) & _most_exceeded(probability_NC, target_N, joint_CC)
    found_N &= probability_NC.max(axis=1) > own_N + _SLACK
    best_N = probability_NC.argmax(axis=1)
    score_N = (own_N - probability_NC.max(axis=1) + 1) / 2
    found = np.flatnonzero(found_N)
    order = found[np.argsort(score_N[found], kind="stable")]
    count_C, right_C = joint_CC.sum(axis=1), np.diagonal(joint_CC)
    noise_C = np.full(len(count_C), np.nan)
    np.divide(count_C - right_C, count_C, out=noise_C, where=count_C > 0)
    return SuspiciousLabels(
        index=row_N[order],
        given=target_N[order],
        suggested=best_N[order],
        score=score_N[order],
        joint=joint_CC,
        noise=noise_C,
        overall=float(1 - right_C.sum() / count_C.sum()),
    )


def _known(probability_NC: np.ndarray, target_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities and labels of the images that have a probability, checked, and their rows."""
    probability_NC, target_N = np.asarray(probability_NC, np.float64), np.asarray(target_N)
    row_N = np.arange(len(target_N))
    if probability_NC.ndim == 2 and len(probability_NC) == len(target_N):
        row_N = np.flatnonzero(~np.isnan(probability_NC).all(axis=1))
        probability_NC, target_N = probability_NC[row_N], target_N[row_N]
    names = [str(c) for c in range(probability_NC.shape[-1])]
    return *check(probability_NC, target_N, names), row_N


def _counted(probability_NC: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    num_classes = probability_NC.shape[1]
    count_C = np.bincount(target_N, minlength=num_classes)
    own_N = probability_NC[np.arange(len(target_N)), target_N]
    threshold_C = np.bincount(target_N, own_N, minlength=num_classes) / np.maximum(count_C, 1)
    threshold_C = np.where(count_C > 0, np.maximum(threshold_C, 2 * _SLACK), np.inf)
    sure_NC = probability_NC >= threshold_C - _SLACK
    is_N = np.where(sure_NC.sum(axis=1) > 1, probability_NC.argmax(axis=1), sure_NC.argmax(axis=1))
    joint_CC = np.zeros((num_classes, num_classes), np.int64)
    counted_N = sure_NC.any(axis=1)
    np.add.at(joint_CC, (target_N[counted_N], is_N[counted_N]), 1)
    np.fill_diagonal(joint_CC, np.maximum(np.diagonal(joint_CC), count_C > 0))
    return joint_CC


def _stretched(joint_CC: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    count_C = np.bincount(target_N, minlength=len(joint_CC))
    exact_CC = joint_CC * (count_C / np.maximum(joint_CC.sum(axis=1), 1))[:, None]
    whole_CC = np.floor(exact_CC + 1e-9).astype(np.int64)
    rest_CC = (exact_CC - whole_CC).round(9) + 1e-9 * np.eye(len(joint_CC))
    rank_CC = np.argsort(np.argsort(-rest_CC, axis=1, kind="stable"), axis=1)
    return whole_CC + (rank_CC < (count_C - whole_CC.sum(axis=1))[:, None])


def _least_probable(probability_NC: np.ndarray, target_N: np.ndarray, joint_CC: np.ndarray) -> np.ndarray:
    """Of each label the images with the smallest probability of it, as many as are estimated to be wrong: bool N."""
    found_N = np.zeros(len(target_N), bool)
    for c in range(len(joint_CC)):
        mine = np.flatnonzero(target_N == c)
        wrong = len(mine) - max(int(joint_CC[c, c]), 1)
        found_N[mine[np.argsort(probability_NC[mine, c], kind="stable")[: max(wrong, 0)]]] = True
    return found_N


def _most_exceeded(probability_NC: np.ndarray, target_N: np.ndarray, joint_CC: np.ndarray) -> np.ndarray:
    """Of each label, for each other class, the images with the largest lead of that class, as many as estimated."""
    found_N = np.zeros(len(target_N), bool)
    for c, other in np.argwhere(joint_CC > 0):
        mine = np.flatnonzero(target_N == c)
        wrong = joint_CC[c, other] - (joint_CC[c, c] == 0)  # one image of each label stays
        if c != other:
            lead = probability_NC[mine, other] - probability_NC[mine, c]
            found_N[mine[np.argsort(-lead, kind="stable")[:wrong]]] = True
    return found_N
