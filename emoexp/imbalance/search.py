"""The searches behind the fits of `posthoc`, in plain arrays: the best of a grid, coordinate ascent, a temperature."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

from emoexp.metrics import classification

METRIC_TOLERANCE = 1e-12  # values of a metric that differ by less are equal but for rounding
MAX_INVERSE_TEMPERATURE = 1e3  # an inverse temperature lies from 1/MAX_INVERSE_TEMPERATURE to this


def metric_values(predicted_GV: np.ndarray, target_V: np.ndarray, classes: int, metric: str) -> np.ndarray:
    """The metric of each of G sets of predicted classes of V images."""
    confusions = [classification.confusion(target_V, predicted_V, classes) for predicted_V in predicted_GV]
    return classification.rates(np.stack(confusions))[metric]


def best(grid_G: np.ndarray, value_G: np.ndarray, *, current: float) -> float:
    """The candidate of the highest metric; of equal ones the nearest to `current`, then to 0, then the lower."""
    equal = grid_G[value_G >= value_G.max() - METRIC_TOLERANCE].tolist()
    return float(min(equal, key=lambda candidate: (abs(candidate - current), abs(candidate), candidate)))


def coordinate_ascent(
    logits_VC: np.ndarray, target_V: np.ndarray, metric: str, grid_G: np.ndarray, order: Sequence[int], rounds: int
) -> np.ndarray:
    """Offsets C on the logits, from 0 on: in each round, each class of `order` takes its best value of the grid given
    the offsets of the others, until a round changes nothing. The grid holds 0, so that the metric never falls.
    """
    classes = logits_VC.shape[1]
    offset_C = np.zeros(classes)
    for _ in range(rounds):
        before_C = offset_C.copy()
        for c in order:
            others_C = np.where(np.arange(classes) == c, 0.0, offset_C)
            predicted_GV = predictions_with_offset(logits_VC + others_C, c, grid_G)
            value_G = metric_values(predicted_GV, target_V, classes, metric)
            offset_C[c] = best(grid_G, value_G, current=offset_C[c])
        if (before_C == offset_C).all():
            break
    return offset_C


def predictions_with_offset(logits_VC: np.ndarray, c: int, grid_G: np.ndarray) -> np.ndarray:
    """Predicted classes G×V with each candidate added to the logits of class c; of equal logits the first class wins,
    as in argmax."""
    others_VC = logits_VC.copy()
    others_VC[:, c] = -np.inf
    rival_V = others_VC.argmax(1)
    own_GV, rival_logit_V = logits_VC[:, c] + grid_G[:, None], others_VC.max(1)
    wins_GV = (own_GV > rival_logit_V) | ((own_GV == rival_logit_V) & (c < rival_V))
    return np.where(wins_GV, c, rival_V)


def best_inverse_temperature(gap_VC: np.ndarray) -> float:
    """The inverse temperature of the least negative log-likelihood, which is convex in it.

    gap_VC: logits less the logit of the true class. 1 where no temperature makes a difference.
    """

    def slope(inverse_temperature: float) -> float:
        return float((softmax(inverse_temperature * gap_VC, axis=1) * gap_VC).sum(axis=1).mean())

    if not gap_VC.any():
        return 1.0
    lowest, highest = 1 / MAX_INVERSE_TEMPERATURE, MAX_INVERSE_TEMPERATURE
    if slope(highest) <= 0:
        return highest
    if slope(lowest) >= 0:
        return lowest
    return float(brentq(slope, lowest, highest, xtol=1e-12, rtol=1e-12))


def nll(gap_VC: np.ndarray) -> float:
    """Mean negative log-likelihood in nats of logits less the logit of the true class."""
    return float(logsumexp(gap_VC, axis=1).mean())
