"""Which of several trainings is better, by how much, and how sure are we? Statistics over seeds and over test images.

Three uncertainties, which answer three questions. Over seeds: would another seed say the same of these images? Over
images: would other test images say the same of these trained models? Both: would another training say the same of
other images? Differences are paired, by seed and by image, so that what is hard or lucky for both cancels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from emoexp.metrics.classification import rates

METRICS = ("macro_f1", "balanced_accuracy", "accuracy", "worst_recall", "macro_ap")
_BOOTSTRAPPED = ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall")  # those that a confusion decides
_CELLS_AT_ONCE = 2**20  # resamples x (images + cells of all confusions) held at a time
_EXACT = 16  # pairs up to which all 2^n sign changes are counted
_ROUNDING = 1e-12  # differences that vary by less than this share of the values are equal


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
    """Arm a minus arm b over the seeds that both have: mean, standard deviation (n - 1), t interval, p of the paired t
    test (two-sided), and the smallest true difference that this many seeds would have shown. None where one seed
    cannot say."""

    n: int
    difference: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    detectable: float | None


def spread(values: Sequence[float], level: float = 0.95) -> Spread:
    """Mean, standard deviation and Student's t interval of the mean over seeds, in the unit of the values.

    The interval is where the mean over very many seeds is expected, not where another seed is. Raises `ValueError`
    for no values, for values that are not finite and for a `level` outside (0, 1).
    """
    value_S = np.asarray(values, dtype=np.float64)
    _check_level(level)
    if value_S.ndim != 1 or not value_S.size:
        raise ValueError(f"spread: one value for each seed is needed, got shape {value_S.shape}")
    _check_finite(value_S)
    n, mean = value_S.size, float(value_S.mean())
    if n == 1:
        return Spread(1, mean, None, None, None)
    sd = float(value_S.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return Spread(n, mean, sd, mean - half, mean + half)


def paired(a: Sequence[float], b: Sequence[float], level: float = 0.95, power: float = 0.8) -> Difference:
    """Arm a minus arm b, value by value of the same seeds: Student's paired t test, and what it could have shown.

    `detectable` is as the function of that name says for the seen deviation and alpha = 1 - level. Where all seeds
    differ by exactly the same there is nothing to test against: p is 0 (1 if they do not differ), `detectable` 0.
    Raises `ValueError` unless b has one finite value for each of a, and for `level` and `power` outside (0, 1).
    """
    value_a_S, value_b_S = _pairs(a, b, "paired")
    delta_S = value_a_S - value_b_S
    one = spread(delta_S.tolist(), level)
    _check_power(power)
    if one.sd is None:
        return Difference(1, one.mean, None, None, None, None, None)
    scale = max(np.abs(value_a_S).max(), np.abs(value_b_S).max())
    if one.sd <= _ROUNDING * scale:
        p = 1.0 if abs(one.mean) <= _ROUNDING * scale else 0.0
        return Difference(one.n, one.mean, 0.0, one.mean, one.mean, p, 0.0)
    p = float(2 * stats.t.sf(abs(one.mean) / (one.sd / math.sqrt(one.n)), one.n - 1))
    return Difference(one.n, one.mean, one.sd, one.low, one.high, p, detectable(one.sd, one.n, 1 - level, power))


def detectable(sd: float, n: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided paired t test of n pairs finds with this power, where differences
    have the standard deviation sd; in its unit.

    Solves P(F > F(1 - alpha; 1, n - 1)) = power for the noncentrality n (difference / sd)^2 of the noncentral F with 1
    and n - 1 degrees of freedom, which is the square of Student's noncentral T, both tails (Cohen 1988, chapter 2). 0
    where power <= alpha, which chance alone reaches. Under Holm's correction of m tests a difference needs up to what
    alpha / m gives here. Raises `ValueError` for n < 2, a negative sd, and for alpha and power outside (0, 1).
    """
    _check_level(1 - alpha)
    _check_power(power)
    if not (n >= 2 and 0 <= sd < math.inf):
        raise ValueError(f"detectable: at least 2 pairs and their standard deviation are needed, got {n} and {sd}")
    if power <= alpha:
        return 0.0
    critical = float(stats.f.isf(alpha, 1, n - 1))

    def short(noncentrality_root: float) -> float:
        return float(stats.ncf.sf(critical, 1, n - 1, noncentrality_root**2)) - power

    upper = math.sqrt(critical)
    while short(upper) < 0:
        upper *= 2
    return float(optimize.brentq(short, 0.0, upper)) * sd / math.sqrt(n)


def sign_flip(a: Sequence[float], b: Sequence[float], seed: int = 0) -> float:
    """Two-sided p of the paired permutation test: the share of sign changes of the differences whose sum is at least as
    far from 0 as the seen one (Fisher 1935, section 21).

    It assumes that a seed's two values could as well have been exchanged if the arms were alike, and no distribution.
    Exact up to 16 pairs, where it cannot be below `smallest_p`; for more, 2^16 drawn sign changes and the seen one,
    which is counted among them (Phipson and Smyth 2010). Raises `ValueError` as `paired`.
    """
    value_a_S, value_b_S = _pairs(a, b, "sign_flip")
    delta_S = value_a_S - value_b_S
    n, draws = delta_S.size, 2**_EXACT
    if n <= _EXACT:
        flip_RS = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        drawn_RS = np.random.default_rng(seed).integers(0, 2, size=(draws, n), dtype=np.int8)
        flip_RS = np.concatenate([np.zeros((1, n), dtype=np.int8), drawn_RS])
    distance_R = np.abs((1.0 - 2.0 * flip_RS) @ delta_S)
    rounding = _ROUNDING * float(np.abs(value_a_S).sum() + np.abs(value_b_S).sum())
    return float(np.mean(distance_R >= abs(float(delta_S.sum())) - rounding))


def smallest_p(n: int) -> float:
    """The smallest p that `sign_flip` can reach with n pairs: 2^(1 - n), at most 1."""
    return float(min(1.0, 2.0 ** (1 - n)))


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for being several (Holm 1979), in the given order: with m of them, the k-th smallest times
    m - k + 1, never below a smaller one's, at most 1.

    Rejecting those below alpha keeps the chance of any false rejection below alpha, however the tests depend on each
    other. Raises `ValueError` for a p outside 0..1.
    """
    outside = [value for value in p if not 0 <= value <= 1]
    if outside:
        raise ValueError(f"holm: a p lies between 0 and 1, got {outside[:5]}; leave out what was not tested")
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
    """Percentile intervals (Efron 1979) of arm a minus arm b, each the mean over its S seeds: {metric: {"images" |
    "seeds" | "both": (low, high)}} for accuracy, macro_f1, balanced_accuracy and worst_recall.

    predicted_*_SN: the class that each seed's model says of each of the N test images, int, seeds and images in the
    same order for a and b. images: test images are drawn anew, stratified as `statistics.bootstrap` explains, the same
    for all models. seeds: pairs of seeds are drawn anew. both: pairs of seeds and, independently, images, which all
    seeds share (the two are crossed: Owen 2007, "The pigeonhole bootstrap", whose variance errs to the high side).

    Read with care: S seeds drawn from S vary too little, by a factor of about sqrt((S - 1) / S), and one seed not at
    all, so that "both" is then "images"; over seeds alone, the t interval of `paired` is the one to trust. Raises
    `ValueError` for shapes that do not fit, labels outside 0..C-1, `resamples` < 1 and a `level` outside (0, 1).
    """
    _check_level(level)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    parts = [np.asarray(part) for part in (predicted_a_SN, predicted_b_SN, target_N)]
    _check_predictions(parts[0], parts[1], parts[2], num_classes)
    seeds, rng = len(parts[0]), np.random.default_rng(seed)
    models = _Models(np.concatenate(parts[:2]), parts[2], num_classes)
    seen_of = models.differences(models.once())
    drawn: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in _BOOTSTRAPPED}
    for start in range(0, resamples, models.step):
        size = min(models.step, resamples - start)
        pick_RS = rng.integers(0, seeds, size=(size, seeds))
        for name, delta_RS in models.differences(models.redrawn(size, rng)).items():
            found = drawn[name]
            found.setdefault("images", []).append(delta_RS.mean(axis=1))
            found.setdefault("seeds", []).append(seen_of[name][0][pick_RS].mean(axis=1))
            found.setdefault("both", []).append(np.take_along_axis(delta_RS, pick_RS, axis=1).mean(axis=1))
    return {name: {which: _percentiles(found[which], level) for which in found} for name, found in drawn.items()}


class _Models:
    """What 2S models say of the same images, class by class: the S models of arm a, then those of b, seed by seed."""

    def __init__(self, predicted_MN: np.ndarray, target_N: np.ndarray, num_classes: int) -> None:
        count_C = np.bincount(target_N.astype(np.int64), minlength=num_classes)
        self.present_C, self.num_classes, self.models = np.flatnonzero(count_C), num_classes, len(predicted_MN)
        self.counts = [int(count_C[c]) for c in self.present_C]
        one_hot_CC = np.eye(num_classes, dtype=np.float32)  # sums of whole numbers: exact below 2^24 images
        self.said = [
            one_hot_CC[predicted_MN[:, target_N == c].T].reshape(n, -1)
            for c, n in zip(self.present_C, self.counts, strict=True)
        ]
        self.step = max(1, _CELLS_AT_ONCE // (len(target_N) + self.models * num_classes**2))

    def once(self) -> list[np.ndarray]:
        """Weights of the images as they are, 1 x N_c for each class c that has any."""
        return [np.ones((1, n), dtype=np.float32) for n in self.counts]

    def redrawn(self, resamples: int, rng: np.random.Generator) -> list[np.ndarray]:
        """How often each image is drawn, R x N_c for each class: as many draws with replacement as it has images."""
        row_R1 = np.arange(resamples)[:, None]
        weights = []
        for n in self.counts:
            cell_RN = rng.integers(0, n, size=(resamples, n)) + row_R1 * n
            weights.append(np.bincount(cell_RN.ravel(), minlength=n * resamples).reshape(resamples, n))
        return [weight_RN.astype(np.float32) for weight_RN in weights]

    def differences(self, weights: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Metrics of arm a minus those of b under image weights: R x S for each metric."""
        confusion_RMCC = np.zeros((len(weights[0]), self.models, self.num_classes, self.num_classes))
        for c, weight_RN, said_NK in zip(self.present_C, weights, self.said, strict=True):
            confusion_RMCC[:, :, c] = (weight_RN @ said_NK).reshape(-1, self.models, self.num_classes)
        value_of, seeds = rates(confusion_RMCC), self.models // 2
        return {name: value_of[name][:, :seeds] - value_of[name][:, seeds:] for name in _BOOTSTRAPPED}


def _percentiles(parts: list[np.ndarray], level: float) -> tuple[float, float]:
    low, high = np.quantile(np.concatenate(parts), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _pairs(a: Sequence[float], b: Sequence[float], where: str) -> tuple[np.ndarray, np.ndarray]:
    value_a_S, value_b_S = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if value_a_S.shape != value_b_S.shape or value_a_S.ndim != 1 or not value_a_S.size:
        raise ValueError(
            f"{where}: one value of each arm for every seed is needed, got shapes {value_a_S.shape} and "
            f"{value_b_S.shape}; leave out seeds that only one arm has"
        )
    _check_finite(np.concatenate([value_a_S, value_b_S]))
    return value_a_S, value_b_S


def _check_finite(value_S: np.ndarray) -> None:
    if not np.isfinite(value_S).all():
        raise ValueError(f"values must be finite numbers, got {value_S.tolist()}; leave out seeds that have none")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is the share of certainty and must lie between 0 and 1, such as 0.95; got {level}")


def _check_power(power: float) -> None:
    if not 0 < power < 1:
        raise ValueError(f"power is the share of finds and must lie between 0 and 1, such as 0.8; got {power}")


def _check_predictions(a_SN: np.ndarray, b_SN: np.ndarray, target_N: np.ndarray, num_classes: int) -> None:
    if a_SN.shape != b_SN.shape or a_SN.ndim != 2 or a_SN.shape[1:] != target_N.shape or not a_SN.size:
        raise ValueError(
            "intervals: predictions of both arms S x N and labels N are needed, got "
            f"{a_SN.shape}, {b_SN.shape} and {target_N.shape}"
        )
    for labels in (a_SN, b_SN, target_N):
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"intervals: classes must be from 0 to {num_classes - 1}, whole numbers; got {labels.dtype} from "
                f"{labels.min()} to {labels.max()}"
            )
