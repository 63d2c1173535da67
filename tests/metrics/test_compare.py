"""Seeds and images compared: against scipy, published examples, resampling by hand, and how often they are right."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from emoexp.metrics import bootstrap, classification, compare
from emoexp.metrics.compare import detectable, holm, intervals, paired, sign_flip, smallest_p, spread, verdict

# Student (1908), after Cushny and Peebles: hours of sleep gained by ten patients with each of two drugs
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Darwin's maize, crossed minus self-fertilised, eighths of an inch (Fisher 1935, section 21)
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
FLOATS = st.floats(-1, 1).map(lambda value: round(value, 6))
JUDGED = ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall")
WAYS = ("images", "seeds", "both")


def test_students_sleep() -> None:
    found = paired(FIRST, SECOND)
    assert found.n == 10 and found.difference == pytest.approx(-1.58)
    assert found.difference / (found.sd / 10**0.5) == pytest.approx(-4.0621, abs=5e-5)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.low, found.high) == (pytest.approx(-2.4598858, abs=1e-6), pytest.approx(-0.7001142, abs=1e-6))
    # all differences but a 0 have one sign: only flipping none or all of these nine is as extreme
    assert sign_flip(FIRST, SECOND) == pytest.approx(2 * smallest_p(10))


def test_darwins_maize() -> None:
    found = paired(MAIZE, [0] * 15)
    assert found.difference / (found.sd / 15**0.5) == pytest.approx(2.148, abs=5e-4)
    assert found.p == pytest.approx(0.0497, abs=5e-5)
    assert sign_flip(MAIZE, [0] * 15) == 2 * 863 / 2**15  # as Fisher counted


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=2, max_size=12))
def test_paired_is_scipys_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    a, b = [one for one, _ in pairs], [other for _, other in pairs]
    found, turned = paired(a, b), paired(b, a)
    assert (turned.difference, turned.p, turned.sd) == (-found.difference, found.p, pytest.approx(found.sd))
    assert (turned.low, turned.high) == (-found.high, -found.low)
    if np.std(np.subtract(a, b), ddof=1) < 1e-9:
        assert found.p in (0.0, 1.0) and found.detectable == 0.0
        return
    oracle = stats.ttest_rel(a, b)
    interval = oracle.confidence_interval(0.95)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert found.detectable == pytest.approx(detectable(found.sd, found.n), rel=1e-6)


@given(st.lists(FLOATS, min_size=2, max_size=9))
def test_spread_is_the_t_interval(values: list[float]) -> None:
    found = spread(values, 0.9)
    if np.std(values) > 1e-9:
        low, high = stats.t.interval(0.9, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.mean == pytest.approx(np.mean(values)) and found.sd == pytest.approx(np.std(values, ddof=1))


def test_the_t_interval_of_few_seeds_covers() -> None:
    """19 in 20 hold the true mean with 4 seeds, where the normal interval (x 1.96) would hold 85 %."""
    rng = np.random.default_rng(0)
    found = [spread(values) for values in rng.normal(0.6, 0.01, (2000, 4))]
    assert np.mean([one.low <= 0.6 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)


def test_one_seed_says_nothing_of_others() -> None:
    assert spread([0.5]) == compare.Spread(1, 0.5, None, None, None)
    found = paired([0.5], [0.4])
    assert found == compare.Difference(1, pytest.approx(0.1), None, None, None, None, None)
    assert verdict(found.difference, found.p) == "cannot tell"
    assert sign_flip([0.5], [0.4]) == smallest_p(1) == 1.0


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e7])
def test_arms_that_differ_by_exactly_the_same(unit: float) -> None:
    same = [0.1 * unit, unit / 3, 0.7 * unit]
    assert paired(same, same) == compare.Difference(3, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    always = paired([value + 0.1 * unit for value in same], same)  # equal but for rounding
    assert always.p == 0.0 and always.sd == 0.0 == always.detectable
    assert always.low == pytest.approx(0.1 * unit) == always.high
    assert paired([1e-9, 2e-9, 4e-9], [0.0, 0.0, 0.0]).p == pytest.approx(paired([1, 2, 4], [0, 0, 0]).p)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_values_that_are_no_pairs_are_refused(a: list, b: list) -> None:
    for compared in (paired, sign_flip):
        with pytest.raises(ValueError, match="one value of each arm for every seed"):
            compared(a, b)


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="one value for each seed is needed"):
        spread([])
    for missing in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="leave out seeds that have none"):
            spread([0.5, missing])
        with pytest.raises(ValueError, match="leave out seeds that have none"):
            paired([0.5, 0.6], [0.5, missing])
    with pytest.raises(ValueError, match=r"such as 0.95; got 95"):
        paired([0.5, 0.6], [0.5, 0.5], level=95)
    with pytest.raises(ValueError, match=r"such as 0.8; got 1"):
        paired([0.5, 0.6], [0.5, 0.5], power=1)
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
    assert paired([0.1, 0.3], [0.2, 0.1], level=0.1).detectable == 0.0


def test_holms_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.5]) == [0.5] and holm([0.9, 0.8]) == [1.0, 1.0]


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


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=9))
def test_sign_flip_is_scipys_permutation_test(delta: list[int]) -> None:
    found = sign_flip(delta, [0] * len(delta))
    oracle = stats.permutation_test(
        (delta,), lambda x, axis: np.sum(x, axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert found == pytest.approx(min(1.0, oracle.pvalue)) and found >= smallest_p(len(delta))
    assert sign_flip([0] * len(delta), delta) == found == sign_flip(delta[::-1], [0] * len(delta))
    assert sign_flip([value / 10 for value in delta], [0] * len(delta)) == found  # rounding breaks no tie


def test_sign_flip_counts_out() -> None:
    assert sign_flip([1, 2, 3], [0, 0, 0]) == 0.25 == smallest_p(3)
    assert smallest_p(6) == 0.03125 == sign_flip([0.1] * 6, [0.0] * 6) and smallest_p(0) == 1
    assert sign_flip([0.3, 0.1], [0.1, 0.3]) == 1.0  # the sum is 0 but for rounding


def test_sign_flip_draws_where_there_are_too_many_pairs_to_count() -> None:
    delta = np.random.default_rng(2).normal(0.3, 1, 17)
    exact = np.mean([abs(delta[0] + rest) >= abs(delta.sum()) - 1e-12 for rest in _sums(delta[1:])])  # by symmetry
    assert sign_flip(delta, [0.0] * 17) == pytest.approx(exact, abs=4 * (exact / 2**16) ** 0.5) and exact > 0.05
    assert sign_flip(delta, [0.0] * 17) == sign_flip([0.0] * 17, delta)  # the same draws
    assert sign_flip(np.ones(60), np.zeros(60)) == 1 / (2**16 + 1)  # never 0


def _sums(delta: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for value in delta:
        sums = np.concatenate([sums + value, sums - value])
    return sums


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


def models(accuracy: float, seeds: int, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Predictions that are the truth in this share of images, else one of four classes by chance."""
    right = rng.random((seeds, len(target))) < accuracy
    return np.where(right, target, rng.integers(0, 4, (seeds, len(target))))


def test_intervals_of_images_are_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(1)
    target = np.zeros(300, int)  # of one class, the stratified bootstrap is the plain one
    a, b = models(0.7, 1, target, rng), models(0.6, 1, target, rng)
    found = intervals(a, b, target, 4, resamples=4000)["accuracy"]

    def difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return (x == 0).mean(axis) - (y == 0).mean(axis)

    oracle = stats.bootstrap(
        (a[0], b[0]), difference, paired=True, vectorized=True, n_resamples=4000, method="percentile", rng=rng
    ).confidence_interval
    assert found["images"] == pytest.approx((oracle.low, oracle.high), abs=0.01)
    seen = (a == 0).mean() - (b == 0).mean()
    assert found["seeds"] == pytest.approx((seen, seen))  # one seed: nothing to draw among
    assert found["both"] == found["images"]


def test_intervals_of_one_seed_are_those_of_two_models() -> None:
    rng = np.random.default_rng(6)
    target = np.repeat(np.arange(4), (150, 30, 70, 50))
    a, b = models(0.7, 1, target, rng), models(0.5, 1, target, rng)
    found = intervals(a, b, target, 4, resamples=4000)
    for metric, row in bootstrap.paired_difference(a[0], b[0], target, 4, resamples=4000).items():
        width = row["high"] - row["low"]
        assert found[metric]["images"] == pytest.approx((row["low"], row["high"]), abs=0.08 * width), metric


def test_intervals_over_seeds_have_the_width_of_the_formula() -> None:
    """S draws of S seeds: variance (S - 1) / S of that of the mean, and more seeds than 5 make it about normal."""
    rng = np.random.default_rng(7)
    target = rng.integers(0, 4, 150)
    a, b = models(0.7, 12, target, rng), models(0.5, 12, target, rng)
    low, high = intervals(a, b, target, 4, resamples=6000)["accuracy"]["seeds"]
    delta = (a == target).mean(axis=1) - (b == target).mean(axis=1)
    assert high - low == pytest.approx(2 * 1.96 * (delta.var() / 12) ** 0.5, rel=0.05)
    assert (low + high) / 2 == pytest.approx(delta.mean(), abs=0.1 * (high - low))


def test_intervals_agree_with_resampling_by_hand() -> None:
    """Class 2 has no image, and class 3 has few: as `metrics` counts them."""
    rng = np.random.default_rng(2)
    target = rng.permutation(np.repeat([0, 1, 3], (60, 50, 10)))
    a, b = models(0.7, 3, target, rng), models(0.5, 3, target, rng)
    found = intervals(a, b, target, 4, resamples=4000, seed=5)
    places = [np.flatnonzero(target == c) for c in (0, 1, 3)]
    drawn = {which: {name: [] for name in JUDGED} for which in WAYS}

    def judge(which: str, images: np.ndarray, picked: np.ndarray) -> None:
        confusions = [[classification.confusion(target[images], arm[s][images], 4) for s in picked] for arm in (a, b)]
        value_of = classification.rates(np.array(confusions))
        for name in JUDGED:
            drawn[which][name].append(value_of[name][0].mean() - value_of[name][1].mean())

    for _ in range(600):
        images = np.concatenate([rng.choice(place, len(place)) for place in places])
        seeds = rng.integers(0, 3, 3)
        judge("images", images, np.arange(3))
        judge("seeds", np.arange(120), seeds)
        judge("both", images, seeds)
    for which in WAYS:
        for name in JUDGED:
            ends = np.quantile(drawn[which][name], [0.025, 0.975])
            expected = pytest.approx(ends, abs=0.15 * (ends[1] - ends[0]) + 1e-9)
            assert found[name][which] == expected, (which, name)


def test_intervals_turn_round_with_the_arms_and_vanish_for_equal_ones() -> None:
    rng = np.random.default_rng(3)
    target = rng.integers(0, 4, 200)
    a, b = models(0.7, 4, target, rng), models(0.5, 4, target, rng)
    one, other = intervals(a, b, target, 4, resamples=500), intervals(b, a, target, 4, resamples=500)
    assert set(one) == set(JUDGED) and all(set(row) == set(WAYS) for row in one.values())
    equal = intervals(a, a, target, 4, resamples=50)
    for metric in JUDGED:
        for which in WAYS:
            low, high = one[metric][which]
            assert other[metric][which] == (pytest.approx(-high), pytest.approx(-low)) and low > 0
            assert equal[metric][which] == (0.0, 0.0)
    width = {which: high - low for which, (low, high) in one["macro_f1"].items()}
    assert width["both"] > max(width["images"], width["seeds"])


def test_intervals_are_a_function_of_their_seed_and_narrow_with_less_certainty() -> None:
    rng = np.random.default_rng(8)
    target = rng.integers(0, 4, 100)
    case = models(0.7, 3, target, rng), models(0.5, 3, target, rng), target, 4
    again = intervals(*case, resamples=200, seed=1)
    assert again == intervals(*case, resamples=200, seed=1) != intervals(*case, resamples=200, seed=2)
    wide, narrow = (intervals(*case, resamples=400, level=level)["accuracy"] for level in (0.95, 0.5))
    assert all(wide[way][0] < narrow[way][0] < narrow[way][1] < wide[way][1] for way in ("images", "both"))


def test_intervals_do_not_depend_on_how_many_resamples_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    target = rng.integers(0, 4, 100)
    case = models(0.7, 3, target, rng), models(0.5, 3, target, rng), target, 4
    at_once = intervals(*case, resamples=4000)["accuracy"]
    monkeypatch.setattr(compare, "_CELLS_AT_ONCE", 30 * (100 + 6 * 16))  # 30 at a time, 10 in the last block
    in_blocks = intervals(*case, resamples=4000)["accuracy"]
    for which in WAYS:
        width = at_once[which][1] - at_once[which][0]
        assert in_blocks[which] == pytest.approx(at_once[which], abs=0.1 * width), which


def test_intervals_over_images_cover() -> None:
    """They hold the true difference of two models about 19 times in 20."""
    rng = np.random.default_rng(4)
    target = np.repeat(np.arange(4), 60)
    true = 0.75 * (0.7 - 0.6)  # a wrong guess is right by chance once in four
    found = [
        intervals(models(0.7, 1, target, rng), models(0.6, 1, target, rng), target, 4, resamples=300)["accuracy"]
        for _ in range(300)
    ]
    assert 0.91 <= np.mean([one["images"][0] <= true <= one["images"][1] for one in found]) <= 0.985


def test_only_intervals_over_both_cover_where_seeds_and_images_differ() -> None:
    """Two arms that are alike on average; a seed is skilled or not, and an image suits one arm or the other."""
    rng, target = np.random.default_rng(5), np.zeros(150, int)
    held = dict.fromkeys(WAYS, 0)
    for _ in range(300):
        suits_N = rng.normal(0, 1.0, 150)
        said = [
            (rng.normal(size=(8, 150)) > rng.normal(0, 0.45, (8, 1)) + side * suits_N).astype(int) for side in (1, -1)
        ]
        found = intervals(said[0], said[1], target, 2, resamples=300)["accuracy"]
        for which in WAYS:
            held[which] += found[which][0] <= 0 <= found[which][1]
    assert held["both"] >= 0.9 * 300
    assert held["images"] < 0.86 * 300 and held["seeds"] < 0.88 * 300


@pytest.mark.slow
def test_intervals_of_six_seeds_on_the_fer2013_test_part_take_less_than_a_second() -> None:
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(7), (491, 55, 528, 879, 594, 416, 626))
    case = [np.where(rng.random((6, 3589)) < 0.7, target, rng.integers(0, 7, (6, 3589))) for _ in range(2)]
    began = time.process_time()
    intervals(*case, target, 7)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("a", "b", "target"),
    [((2, 5), (3, 5), 5), ((2, 5), (2, 5), 4), ((0, 5), (0, 5), 5), ((2, 0), (2, 0), 0), ((5,), (5,), 5)],
)
def test_shapes_that_do_not_fit_are_refused(a: tuple[int, ...], b: tuple[int, ...], target: int) -> None:
    with pytest.raises(ValueError, match="predictions of both arms"):
        intervals(np.zeros(a, int), np.zeros(b, int), np.zeros(target, int), 4)


@pytest.mark.parametrize("wrong", [4, -1, 0.5])
def test_classes_out_of_range_are_refused(wrong: float) -> None:
    for place in range(3):
        parts = [np.zeros((1, 5), int), np.zeros((1, 5), int), np.zeros(5, int)]
        parts[place] = np.full(parts[place].shape, wrong)
        with pytest.raises(ValueError, match="classes must be from 0 to 3, whole numbers; got"):
            intervals(*parts, 4)


def test_bad_settings_of_intervals_are_named() -> None:
    nothing = np.zeros((1, 5), int), np.zeros((1, 5), int), np.zeros(5, int), 4
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        intervals(*nothing, resamples=0)
    with pytest.raises(ValueError, match=r"such as 0.95; got 95"):
        intervals(*nothing, level=95)
