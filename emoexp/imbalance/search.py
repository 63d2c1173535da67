"""The searches behind the fits of `posthoc`, in plain arrays: the best of a grid, coordinate ascent, a temperature."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

from emoexp.metrics import classification

SAME = 1e-12  # values of a metric this close differ by rounding
SHARPEST = 1e3  # an inverse temperature lies from 1/SHARPEST to SHARPEST


def rates(said_GV: np.ndarray, target_V: np.ndarray, classes: int, metric: str) -> np.ndarray:
    """The metric of each of G sets of decisions on V images."""
    return classification.rates(np.stack([classification.confusion(target_V, said_V, classes) for said_V in said_GV]))[
        metric
    ]


def best(grid_G: np.ndarray, rate_G: np.ndarray, *, now: float) -> float:
    """The candidate of the highest rate; of equals the one nearest to `now`, then to 0, then the lower."""
    equal = grid_G[rate_G >= rate_G.max() - SAME].tolist()
    return float(min(equal, key=lambda value: (abs(value - now), abs(value), value)))


def ascent(
    logits_VC: np.ndarray, target_V: np.ndarray, metric: str, grid_G: np.ndarray, order: Sequence[int], rounds: int
) -> np.ndarray:
    """Offsets C on the logits, from 0 on: in rounds, each class of `order` in turn takes its best value of the grid
    given the others, until a round changes nothing. The grid holds 0, so that the metric never falls.
    """
    classes = logits_VC.shape[1]
    offset_C = np.zeros(classes)
    for _ in range(rounds):
        before_C = offset_C.copy()
        for c in order:
            others_C = np.where(np.arange(classes) == c, 0.0, offset_C)
            said_GV = decisions(logits_VC + others_C, c, grid_G)
            offset_C[c] = best(grid_G, rates(said_GV, target_V, classes, metric), now=offset_C[c])
        if (before_C == offset_C).all():
            break
    return offset_C


def decisions(logits_VC: np.ndarray, c: int, grid_G: np.ndarray) -> np.ndarray:
    """Decisions G×V with each candidate added to the logits of class c; of equals the first, as argmax has it."""
    others_VC = logits_VC.copy()
    others_VC[:, c] = -np.inf
    rival_V = others_VC.argmax(1)
    own_GV, rivals_V = logits_VC[:, c] + grid_G[:, None], others_VC.max(1)
    return np.where((own_GV > rivals_V) | ((own_GV == rivals_V) & (c < rival_V)), c, rival_V)


def sharpness(gap_VC: np.ndarray) -> float:
    """The inverse temperature of the least negative log-likelihood, which is convex in it.

    gap_VC: logits less the logit of the true class. 1 where no temperature makes a difference.
    """

    def slope(sharp: float) -> float:
        return float((softmax(sharp * gap_VC, axis=1) * gap_VC).sum(axis=1).mean())

    if not gap_VC.any():
        return 1.0
    if slope(SHARPEST) <= 0:
        return SHARPEST
    if slope(1 / SHARPEST) >= 0:
        return 1 / SHARPEST
    return float(brentq(slope, 1 / SHARPEST, SHARPEST, xtol=1e-12, rtol=1e-12))


def nll(gap_VC: np.ndarray) -> float:
    """Mean negative log-likelihood in nats of logits less the logit of the true class."""
    return float(logsumexp(gap_VC, axis=1).mean())
