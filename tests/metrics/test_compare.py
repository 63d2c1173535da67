"""Arms compared over seeds: against the formulas, scipy, published examples, and how often they are right."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from emoexp.metrics import compare
from emoexp.metrics.compare import detectable, holm, paired_difference, smallest_p, spread, verdict

# Student (1908), after Cushny and Peebles: hours of sleep gained by ten patients with each of two drugs
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Darwin's maize, crossed minus self-fertilised, eighths of an inch (Fisher 1935, section 21)
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
FLOATS = st.floats(-1, 1).map(lambda value: round(value, 6))


@pytest.fixture(scope="module", autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """statsmodels ends every correction by Holm with a garbage collection, which takes a tenth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)
        yield


def test_students_sleep() -> None:
    found = paired_difference(FIRST, SECOND)
    assert found.n == 10 and found.difference == pytest.approx(-1.58)
    assert found.difference / (found.sd / 10**0.5) == pytest.approx(-4.0621, abs=5e-5)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.low, found.high) == (pytest.approx(-2.4598858, abs=1e-6), pytest.approx(-0.7001142, abs=1e-6))


def test_darwins_maize() -> None:
    found = paired_difference(MAIZE, [0] * 15)
    assert found.difference / (found.sd / 15**0.5) == pytest.approx(2.148, abs=5e-4)
    assert found.p == pytest.approx(0.0497, abs=5e-5)


def t_test(a: list[float], b: list[float], level: float) -> tuple[float, float, float]:
    """The textbook's paired t test: low, high and two-sided p."""
    delta_S = np.subtract(a, b)
    n, error = len(delta_S), delta_S.std(ddof=1) / len(delta_S) ** 0.5
    half = stats.t.ppf((1 + level) / 2, n - 1) * error
    return delta_S.mean() - half, delta_S.mean() + half, 2 * stats.t.sf(abs(delta_S.mean()) / error, n - 1)


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=2, max_size=12), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_paired_is_the_paired_t_test_of_the_textbook(pairs: list[tuple[float, float]], level: float) -> None:
    a, b = [one for one, _ in pairs], [other for _, other in pairs]
    found, turned = paired_difference(a, b, level), paired_difference(b, a, level)
    assert (turned.difference, turned.sd) == (-found.difference, found.sd)
    assert (turned.p, turned.low, turned.high) == pytest.approx((found.p, -found.high, -found.low), rel=1e-12)
    if np.std(np.subtract(a, b), ddof=1) < 1e-9:
        assert found.p in (0.0, 1.0) and found.detectable == 0.0
        return
    low, high, p = t_test(a, b, level)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12, abs=1e-12 * found.sd)
    assert found.p == pytest.approx(p, rel=1e-12)
    assert (found.p < 1 - level) == (not found.low <= 0 <= found.high)
    assert found.detectable == detectable(found.sd, found.n, 1 - level)


@given(st.lists(FLOATS, min_size=2, max_size=9))
def test_spread_is_the_t_interval(values: list[float]) -> None:
    found = spread(values, 0.9)
    assert found.mean == pytest.approx(np.mean(values)) and found.sd == pytest.approx(np.std(values, ddof=1))
    half = stats.t.ppf(0.95, len(values) - 1) * found.sd / len(values) ** 0.5
    expected = (found.mean - half, found.mean + half)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12, abs=1e-12 * found.sd)


def test_the_t_interval_of_few_seeds_covers() -> None:
    """19 in 20 hold the true mean with 4 seeds, where the normal interval (x 1.96) would hold 85 %."""
    rng = np.random.default_rng(0)
    found = [spread(values) for values in rng.normal(0.6, 0.01, (2000, 4))]
    assert np.mean([one.low <= 0.6 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)


def test_one_seed_says_nothing_of_others() -> None:
    assert spread([0.5]) == compare.Spread(1, 0.5, None, None, None)
    found = paired_difference([0.5], [0.4])
    assert found == compare.Difference(1, pytest.approx(0.1), None, None, None, None, None)
    assert verdict(found.difference, found.p) == "cannot tell"


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e7])
def test_arms_that_differ_by_exactly_the_same(unit: float) -> None:
    same = [0.1 * unit, unit / 3, 0.7 * unit]
    assert paired_difference(same, same) == compare.Difference(3, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    always = paired_difference([value + 0.1 * unit for value in same], same)  # equal but for rounding
    assert always.p == 0.0 and always.sd == 0.0 == always.detectable
    assert always.low == pytest.approx(0.1 * unit) == always.high
    assert paired_difference([1e-9, 2e-9, 4e-9], [0.0, 0.0, 0.0]).p == pytest.approx(
        paired_difference([1, 2, 4], [0, 0, 0]).p
    )


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_values_that_are_no_pairs_are_refused(a: list, b: list) -> None:
    with pytest.raises(ValueError, match="one value of each arm for every seed"):
        paired_difference(a, b)


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="one value for each seed is needed"):
        spread([])
    for missing in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="leave out seeds that have none"):
            spread([0.5, missing])
        with pytest.raises(ValueError, match="leave out seeds that have none"):
            paired_difference([0.5, 0.6], [0.5, missing])
    with pytest.raises(ValueError, match=r"such as 0.95; got 95"):
        paired_difference([0.5, 0.6], [0.5, 0.5], level=95)
    with pytest.raises(ValueError, match=r"such as 0.8; got 1"):
        paired_difference([0.5, 0.6], [0.5, 0.5], power=1)
    with pytest.raises(ValueError, match="at least 2 pairs"):
        detectable(1.0, 1)
    with pytest.raises(ValueError, match="what was not tested"):
        holm([0.5, float("nan")])


def test_the_smallest_detectable_difference_is_the_published_one() -> None:
    """R's power.t.test(delta=10, sd=10*sqrt(2), power=0.85, type="paired") says n = 19.96892 (Dalgaard 2008)."""
    assert detectable(10 * 2**0.5, 19.96892, power=0.85) == pytest.approx(10, abs=1e-4)


@pytest.mark.parametrize(("n", "effect"), [(15, 0.8), (34, 0.5), (90, 0.3), (199, 0.2)])
def test_so_many_pairs_are_needed_for_cohens_effects(n: int, effect: float) -> None:
    """The sample sizes that power programs give for a paired t test, two-sided 0.05, power 0.8."""
    assert detectable(1.0, n) <= effect < detectable(1.0, n - 1)
    assert detectable(2.5, n) == pytest.approx(2.5 * detectable(1.0, n))


@pytest.mark.parametrize("n", [2, 3, 6, 40])
@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.8), (0.0016, 0.8), (0.1, 0.99), (0.05, 0.06)])
def test_the_power_at_the_detectable_difference_is_the_integral(n: int, alpha: float, power: float) -> None:
    """P(|Z + shift| > t V) with a normal Z and V^2 = chi^2 / df, integrated over V: no noncentral function."""
    critical, shift = stats.t.ppf(1 - alpha / 2, n - 1), detectable(1.0, n, alpha, power) * n**0.5

    def found_at(u: float) -> float:
        v = (stats.chi2.ppf(u, n - 1) / (n - 1)) ** 0.5
        return float(stats.norm.cdf(shift - critical * v) + stats.norm.cdf(-shift - critical * v))

    assert integrate.quad(found_at, 0, 1, limit=200)[0] == pytest.approx(power, abs=1e-4)


def test_the_smallest_detectable_difference_is_found_four_times_in_five() -> None:
    sample = np.random.default_rng(0).normal(detectable(0.7, 6), 0.7, (20000, 6))
    assert np.mean(stats.ttest_1samp(sample, 0.0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.01)


def test_what_chance_alone_finds_needs_no_difference() -> None:
    assert detectable(1.0, 5, 0.5, 0.5) == 0.0 == detectable(0.0, 5)
    assert paired_difference([0.1, 0.3], [0.2, 0.1], level=0.1).detectable == 0.0


def test_holms_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.5]) == [0.5] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.02]), max_size=30))
def test_holm_is_the_formula_to_the_last_bit(p: list[float]) -> None:
    expected, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(np.argsort(p, kind="stable")):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        expected[place] = highest
    assert holm(p) == expected


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_its_procedure_rejects(p: list[float]) -> None:
    adjusted, order = holm(p), np.argsort(p, kind="stable")
    assert all(1 >= after >= before for before, after in zip(p, adjusted, strict=True))
    for level in (0.01, 0.05, 0.2):
        rejected = 0
        while rejected < len(p) and p[order[rejected]] * (len(p) - rejected) <= level:
            rejected += 1
        assert {i for i, value in enumerate(adjusted) if value <= level} == set(order[:rejected].tolist())


def test_arms_that_are_alike_are_seldom_told_apart() -> None:
    """5 arms that are all like the baseline, 6 seeds: in 1 of 20 reports at most is any of them judged."""
    values_XAS = np.random.default_rng(1).normal(0.6, 0.01, (4000, 6, 6))
    p_XA = stats.ttest_rel(values_XAS[:, 1:], values_XAS[:, :1], axis=2).pvalue
    said = [{verdict(1.0, p) for p in holm(p_A)} - {"cannot tell"} for p_A in p_XA]
    assert 0.02 < np.mean([bool(one) for one in said]) < 0.055
    assert np.mean((p_XA < 0.05).any(axis=1)) > 0.1  # what it would be without the correction


@pytest.mark.parametrize("n", [2, 3, 6, 9])
def test_no_permutation_test_goes_below_the_smallest_p(n: int) -> None:
    most_extreme = stats.permutation_test(
        (np.arange(1, n + 1) / 10,), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    assert smallest_p(n) == pytest.approx(most_extreme.pvalue)
    assert smallest_p(0) == smallest_p(1) == 1


@pytest.mark.parametrize(
    ("difference", "p", "said"),
    [
        (0.1, 0.01, "better"),
        (-0.1, 0.01, "worse"),
        (0.1, 0.05, "cannot tell"),
        (0.1, None, "cannot tell"),
        (0, 0, "cannot tell"),
    ],
)
def test_verdicts(difference: float, p: float | None, said: str) -> None:
    assert verdict(difference, p) == said
