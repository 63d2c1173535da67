"""Which of several trainings is better, by how much, and how sure are we? Statistics over seeds and over test images.

Three uncertainties, which answer three questions. Over seeds: would another seed say the same of these images? Over
images: would other test images say the same of these trained models? Both: would another training say the same of
other images? Differences are paired, by seed and by image, so that what is hard or lucky for both cancels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import optimize, stats

from emoexp.metrics import rates

METRICS = ("macro_f1", "balanced_accuracy", "accuracy", "worst_recall", "macro_ap")
_CELLS_AT_ONCE = 2**22  # confusions x resamples held at a time
_EXACT = 16  # pairs up to which all 2^n sign changes are counted


@dataclass(frozen=True)
class Spread:
    """One arm over its seeds: mean, standard deviation (n - 1), t interval. None where one seed cannot say."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """Arm a minus arm b over the seeds that both have: mean, its t interval, p of the paired t test (two-sided), and
    the smallest true difference that this many seeds would have shown. None where one seed cannot say."""

    n: int
    difference: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    detectable: float | None


def spread(values: Sequence[float], level: float = 0.95) -> Spread:
    """Mean, standard deviation and Student's t interval of the mean over seeds.

    Raises:
        ValueError: no value.
    """
    if not len(values):
        raise ValueError("spread: at least one value is needed")
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Spread(1, mean, None, None, None)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return Spread(n, mean, sd, mean - half, mean + half)


def paired(a: Sequence[float], b: Sequence[float], level: float = 0.95, power: float = 0.8) -> Difference:
    """The difference of two arms, value by value of the same seeds: a paired t test and what it could have shown.

    Raises:
        ValueError: no values, or not one of b for each of a.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"paired: one value of each arm for every seed is needed, got {len(a)} and {len(b)}")
    delta = np.asarray(a, float) - np.asarray(b, float)
    one = spread(delta.tolist(), level)
    if one.n == 1 or one.sd is None:
        return Difference(1, one.mean, None, None, None, None, None)
    if one.sd < 1e-12:  # all seeds say exactly the same
        return Difference(one.n, one.mean, 0.0, one.mean, one.mean, 1.0 if abs(one.mean) < 1e-12 else 0.0, 0.0)
    p = float(2 * stats.t.sf(abs(one.mean) / (one.sd / math.sqrt(one.n)), one.n - 1))
    return Difference(one.n, one.mean, one.sd, one.low, one.high, p, detectable(one.sd, one.n, 1 - level, power))


def detectable(sd: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided paired t test with n pairs finds with this power, where the
    differences have this standard deviation (noncentral t; Cohen 1988, chapter 2)."""
    critical = float(stats.t.ppf(1 - alpha / 2, n - 1))

    def short(noncentrality: float) -> float:
        other_tail = stats.nct.cdf(-critical, n - 1, noncentrality)  # nan where it is too small to be computed
        return float(stats.nct.sf(critical, n - 1, noncentrality) + np.nan_to_num(other_tail)) - power

    upper = 2 * (critical + float(stats.norm.ppf(power)) + 1)
    while short(upper) < 0:
        upper *= 2
    return float(optimize.brentq(short, 0.0, upper)) * sd / math.sqrt(n)


def sign_flip(a: Sequence[float], b: Sequence[float]) -> float:
    """Exact two-sided p of the paired permutation test: the share of sign changes of the differences whose sum is at
    least as far from 0 (Fisher 1935). It assumes no distribution, and with n pairs cannot be below `smallest_p`.

    Raises:
        ValueError: more pairs than can be counted out, which is 16.
    """
    delta = np.asarray(a, float) - np.asarray(b, float)
    if len(delta) > _EXACT:
        raise ValueError(f"sign_flip: at most {_EXACT} pairs, got {len(delta)}")
    signs = np.array(list(product((1.0, -1.0), repeat=len(delta))))
    sums = np.abs(signs @ delta)
    return float(np.mean(sums >= abs(delta.sum()) - 1e-12 * max(1.0, float(np.abs(delta).sum()))))


def smallest_p(n: int) -> float:
    """The smallest p that `sign_flip` can reach with n pairs: 2^(1 - n)."""
    return float(min(1.0, 2.0 ** (1 - n)))


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for being several (Holm 1979), in the given order: with m of them, the k-th smallest times
    m - k + 1, never below a smaller one's, at most 1."""
    order = np.argsort(p, kind="stable")
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * float(p[place])))
        adjusted[int(place)] = highest
    return adjusted


def verdict(difference: float, p_adjusted: float | None, alpha: float = 0.05) -> str:
    """ "better", "worse", or "cannot tell" where p is not below alpha or one seed cannot say."""
    if p_adjusted is None or not p_adjusted < alpha or difference == 0:
        return "cannot tell"
    return "better" if difference > 0 else "worse"


def intervals(
    predicted_a_SN: np.ndarray,
    predicted_b_SN: np.ndarray,
    target_N: np.ndarray,
    num_classes: int,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Percentile intervals of arm a minus arm b, each the mean over its S seeds: {metric: {"images" | "seeds" | "both":
    (low, high)}} for accuracy, macro_f1, balanced_accuracy and worst_recall.

    predicted_*_SN: int class that each seed's model says of each of the N test images; seeds and images in the same
    order for a and b. images: test images are drawn anew, stratified by class, the same for all models (a paired
    bootstrap). seeds: pairs of seeds are drawn anew. both: first seeds, then images (a hierarchical bootstrap; Davison
    and Hinkley 1997, 3.8). Few seeds give too narrow an interval over seeds: with S of them the spread is low by a
    factor of about sqrt((S - 1) / S), and the t interval of `paired` is the one to trust.

    Raises:
        ValueError: shapes that do not fit, or labels outside 0..C-1.
    """
    _check(predicted_a_SN, predicted_b_SN, target_N, num_classes)
    models_MN = np.concatenate([predicted_a_SN, predicted_b_SN]).astype(np.int64)
    count, images = len(predicted_a_SN), len(target_N)
    by_class = [np.flatnonzero(target_N == c) for c in range(num_classes)]
    rng = np.random.default_rng(seed)
    drawn: dict[str, dict[str, list[np.ndarray]]] = {}
    whole = _values(np.ones((1, images)), models_MN, target_N, num_classes)
    step = max(1, _CELLS_AT_ONCE // (images * 4))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        weight_RN = np.zeros((size, images))
        for place in by_class:
            if len(place):
                weight_RN[:, place] = rng.multinomial(len(place), np.full(len(place), 1 / len(place)), size=size)
        pick_RS = rng.integers(0, count, size=(size, count))
        for metric, value_RM in _values(weight_RN, models_MN, target_N, num_classes).items():
            delta_RS = value_RM[:, :count] - value_RM[:, count:]
            fixed_S = whole[metric][0, :count] - whole[metric][0, count:]
            found = drawn.setdefault(metric, {"images": [], "seeds": [], "both": []})
            found["images"].append(delta_RS.mean(1))
            found["seeds"].append(fixed_S[pick_RS].mean(1))
            found["both"].append(np.take_along_axis(delta_RS, pick_RS, 1).mean(1))
    ends = [(1 - level) / 2, (1 + level) / 2]
    return {
        metric: {which: _ends(np.quantile(np.concatenate(parts), ends)) for which, parts in found.items()}
        for metric, found in drawn.items()
    }


def _ends(quantiles: np.ndarray) -> tuple[float, float]:
    return float(quantiles[0]), float(quantiles[1])


def _values(
    weight_RN: np.ndarray, models_MN: np.ndarray, target_N: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
    """Metrics R x M of M models under image weights R x N."""
    found: dict[str, list[np.ndarray]] = {}
    for said_N in models_MN:
        one_hot = np.zeros((len(target_N), num_classes * num_classes))
        one_hot[np.arange(len(target_N)), target_N * num_classes + said_N] = 1.0
        confusion_RCC = (weight_RN @ one_hot).reshape(-1, num_classes, num_classes)
        for name, value_R in rates(confusion_RCC).items():
            found.setdefault(name, []).append(value_R)
    return {name: np.stack(value_MR, 1) for name, value_MR in found.items()}


def _check(a_SN: np.ndarray, b_SN: np.ndarray, target_N: np.ndarray, num_classes: int) -> None:
    if a_SN.shape != b_SN.shape or a_SN.ndim != 2 or a_SN.shape[1:] != target_N.shape or not a_SN.size:
        raise ValueError(
            "intervals: predictions of both arms S x N and labels N are needed, got "
            f"{a_SN.shape}, {b_SN.shape} and {target_N.shape}"
        )
    for labels in (a_SN, b_SN, target_N):
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(f"intervals: classes must be from 0 to {num_classes - 1}")
