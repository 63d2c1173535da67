"""Comparison of arms over seeds: differences, their intervals and p-values.

The question is whether other seeds would give the same result on these test images. For other test images see
`bootstrap.difference_intervals`. Differences are paired by seed, so that effects that both arms have in common cancel.

The tests are those of scipy and statsmodels. This module adds the cases that they refuse (one seed, differences that
do not vary) and checks of the input.
"""

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

METRICS = ("macro_f1", "balanced_accuracy", "accuracy", "worst_recall", "macro_ap")
_ROUNDING = 1e-12  # differences that vary by less than this share of the values are equal


@dataclass(frozen=True)
class Spread:
    """One arm over its seeds: mean, standard deviation (n - 1), t interval. None if there is only one seed."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """Arm a minus arm b over the seeds that both have: mean, standard deviation (n - 1), t interval, p of the paired t
    test (two-sided), and the smallest difference that the test detects with this number of seeds. None if there is
    only one seed."""

    n: int
    difference: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    detectable: float | None


def spread(values: Sequence[float], level: float = 0.95) -> Spread:
    """Mean, standard deviation and Student's t interval of the mean over seeds, in the unit of the values.

    The interval is one for the mean over very many seeds, not for the value of another seed. Raises `ValueError` for
    no values, for values that are not finite and for a `level` outside (0, 1).
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
    if sd == 0:
        return Spread(n, mean, sd, mean, mean)
    low, high = stats.t.interval(level, n - 1, loc=mean, scale=stats.sem(value_S))
    return Spread(n, mean, sd, float(low), float(high))


def paired_difference(a: Sequence[float], b: Sequence[float], level: float = 0.95, power: float = 0.8) -> Difference:
    """Arm a minus arm b, where a and b have the same seeds in the same order: Student's paired t test.

    `detectable` is the result of that function for the observed deviation and alpha = 1 - level. If the difference is
    the same for all seeds, there is no deviation to test it against: then p is 0 (1 if the difference is 0), and
    `detectable` is 0. Raises `ValueError` unless b has one finite value for each of a, and for `level` and `power`
    outside (0, 1).
    """
    value_a_S, value_b_S = _value_pairs(a, b)
    _check_level(level)
    _check_power(power)
    difference_S = value_a_S - value_b_S
    n, mean = difference_S.size, float(difference_S.mean())
    if n == 1:
        return Difference(1, mean, None, None, None, None, None)
    sd = float(difference_S.std(ddof=1))
    rounding = _ROUNDING * max(np.abs(value_a_S).max(), np.abs(value_b_S).max())
    if sd <= rounding:
        return Difference(n, mean, 0.0, mean, mean, 1.0 if abs(mean) <= rounding else 0.0, 0.0)
    test = stats.ttest_rel(value_a_S, value_b_S)
    low, high = test.confidence_interval(level)
    return Difference(n, mean, sd, float(low), float(high), float(test.pvalue), detectable(sd, n, 1 - level, power))


def detectable(sd: float, n: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided paired t test of n pairs finds with this power, where differences
    have the standard deviation sd; in its unit.

    Solves P(F > F(1 - alpha; 1, n - 1)) = power for the noncentrality n (difference / sd)^2 of the noncentral F with 1
    and n - 1 degrees of freedom, which is the square of Student's noncentral T, both tails (Cohen 1988, chapter 2).
    scipy's distributions are used, because statsmodels' `TTestPower.solve_power` returns wrong differences, without an
    error, for few pairs and a small alpha (0.15.0: 8 % too small for n = 6, alpha = 0.05 / 29, power = 0.8). The result
    is 0 if power <= alpha, because a difference of 0 has that power. With Holm's correction for m tests, pass
    alpha / m: the largest value that may be needed. Raises `ValueError` for n < 2, a negative sd, and for alpha and
    power outside (0, 1).
    """
    _check_level(1 - alpha)
    _check_power(power)
    if not (n >= 2 and 0 <= sd < math.inf):
        raise ValueError(f"detectable: at least 2 pairs and their standard deviation are needed, got {n} and {sd}")
    if power <= alpha:
        return 0.0
    critical = float(stats.f.isf(alpha, 1, n - 1))

    def surplus_power(noncentrality_root: float) -> float:
        return float(stats.ncf.sf(critical, 1, n - 1, noncentrality_root**2)) - power

    upper = math.sqrt(critical)
    while surplus_power(upper) < 0:
        upper *= 2
    return float(optimize.brentq(surplus_power, 0.0, upper)) * sd / math.sqrt(n)


def smallest_p(n: int) -> float:
    """The smallest two-sided p that the paired permutation test (Fisher 1935, section 21; scipy's `permutation_test` of
    samples) can reach with n pairs: 2^(1 - n), at most 1.
    """
    return float(min(1.0, 2.0 ** (1 - n)))


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple tests (Holm 1979), in the order of p: of m tests, the k-th smallest p times
    m - k + 1, at least the adjusted value of the one before, at most 1.

    If hypotheses with an adjusted p below alpha are rejected, the probability of any false rejection is below alpha,
    also for dependent tests. Raises `ValueError` for a p outside 0..1.
    """
    from statsmodels.stats.multitest import multipletests  # imported here: it takes half a second, for reports alone

    invalid = [value for value in p if not 0 <= value <= 1]
    if invalid:
        raise ValueError(f"holm: a p lies between 0 and 1, got {invalid[:5]}; leave out what was not tested")
    if len(p) == 0:
        return []
    gc.freeze()  # multipletests collects garbage at each call, a tenth of a second where torch is loaded
    try:
        return [float(value) for value in multipletests(p, method="holm")[1]]
    finally:
        gc.unfreeze()


def verdict(difference: float, p_adjusted: float | None, alpha: float = 0.05) -> str:
    """ "better" or "worse"; "cannot tell" if p is not below alpha or if there is only one seed (p is None)."""
    if p_adjusted is None or not p_adjusted < alpha or difference == 0:
        return "cannot tell"
    return "better" if difference > 0 else "worse"


def _value_pairs(a: Sequence[float], b: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    value_a_S, value_b_S = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if value_a_S.shape != value_b_S.shape or value_a_S.ndim != 1 or not value_a_S.size:
        raise ValueError(
            f"paired: one value of each arm for every seed is needed, got shapes {value_a_S.shape} and "
            f"{value_b_S.shape}; leave out seeds that only one arm has"
        )
    _check_finite(np.concatenate([value_a_S, value_b_S]))
    return value_a_S, value_b_S


def _check_finite(value_S: np.ndarray) -> None:
    if not np.isfinite(value_S).all():
        raise ValueError(f"values must be finite numbers, got {value_S.tolist()}; leave out seeds that have none")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is a confidence level and must lie between 0 and 1, such as 0.95; got {level}")


def _check_power(power: float) -> None:
    if not 0 < power < 1:
        raise ValueError(f"power is that of the test and must lie between 0 and 1, such as 0.8; got {power}")
