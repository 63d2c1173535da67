import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from emoexp import comparison, metrics
from emoexp.comparison import detectable, holm, intervals, paired, sign_flip, smallest_p, spread, verdict

# Student (1908), after Cushny and Peebles: hours of sleep gained by ten patients with each of two drugs
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
FLOATS = st.floats(-1, 1).map(lambda value: round(value, 6))


def test_students_sleep():
    found = paired(FIRST, SECOND)
    assert found.n == 10 and found.difference == pytest.approx(-1.58)
    assert found.p == pytest.approx(0.002833, abs=5e-7)  # t = -4.0621, 9 degrees of freedom
    assert (found.low, found.high) == (pytest.approx(-2.4598858, abs=1e-6), pytest.approx(-0.7001142, abs=1e-6))
    # no better than the smallest p would be reached if all ten had the same sign; nine have, one is 0
    assert sign_flip(FIRST, SECOND) == pytest.approx(2 * smallest_p(10))


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=2, max_size=12))
def test_paired_is_scipys_paired_t_test(pairs):
    a, b = [one for one, _ in pairs], [other for _, other in pairs]
    found = paired(a, b)
    if np.std(np.subtract(a, b), ddof=1) < 1e-9:
        assert found.p in (0.0, 1.0) and found.detectable == 0.0
        return
    oracle = stats.ttest_rel(a, b)
    interval = oracle.confidence_interval(0.95)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


@given(st.lists(FLOATS, min_size=2, max_size=9))
def test_spread_is_the_t_interval(values):
    found = spread(values, 0.9)
    if np.std(values) > 1e-9:
        low, high = stats.t.interval(0.9, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.mean == pytest.approx(np.mean(values)) and found.sd == pytest.approx(np.std(values, ddof=1))


def test_one_seed_says_nothing_of_others():
    assert spread([0.5]) == comparison.Spread(1, 0.5, None, None, None)
    found = paired([0.5], [0.4])
    assert found.difference == pytest.approx(0.1) and found.p is found.low is found.detectable is None
    assert verdict(found.difference, found.p) == "cannot tell"


def test_arms_that_are_exactly_alike():
    assert paired([0.1, 0.2], [0.1, 0.2]).p == 1.0
    always = paired([0.2, 0.3, 0.4], [0.1, 0.2, 0.3])
    assert always.p == 0.0 and always.low == pytest.approx(0.1) == always.high


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0])])
def test_values_that_are_no_pairs_are_refused(a, b):
    with pytest.raises(ValueError, match="one value of each arm for every seed"):
        paired(a, b)


# Cohen (1988), table 2.3.5 and G*Power: paired t test, two-sided alpha 0.05, power 0.8
@pytest.mark.parametrize(("n", "effect"), [(34, 0.4949), (15, 0.7796), (10, 0.996), (6, 1.4349)])
def test_the_smallest_detectable_difference_is_the_published_one(n, effect):
    assert detectable(1.0, n) == pytest.approx(effect, abs=2e-3)
    assert detectable(2.5, n) == pytest.approx(2.5 * detectable(1.0, n))


def test_the_smallest_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(0)
    true = detectable(0.7, 6)
    sample = rng.normal(true, 0.7, (20000, 6))
    p = stats.ttest_1samp(sample, 0.0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 20, 60])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.99])
def test_detectable_is_finite_for_few_and_many(n, power):
    assert 0 < detectable(1.0, n, 0.05, power) < 500


def test_holms_worked_example():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.5]) == [0.5] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_properties(p):
    adjusted = holm(p)
    assert all(1 >= after >= before for before, after in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert all(np.diff([adjusted[i] for i in order]) >= 0)
    for level in (0.01, 0.05, 0.2):  # rejects what Holm's step-down procedure rejects
        rejected = 0
        while rejected < len(p) and p[order[rejected]] <= level / (len(p) - rejected):
            rejected += 1
        assert {i for i, value in enumerate(adjusted) if value <= level * (1 + 1e-12)} >= set(order[:rejected].tolist())


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=9))
def test_sign_flip_is_scipys_permutation_test(pairs):
    a, b = np.array([one for one, _ in pairs]), np.array([other for _, other in pairs])
    found = sign_flip(a.tolist(), b.tolist())
    assert smallest_p(len(a)) - 1e-12 <= found <= 1 and sign_flip(b.tolist(), a.tolist()) == found
    delta = a - b
    if len(a) > 1 and abs(delta.sum()) > 1e-6:
        oracle = stats.permutation_test((delta,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert found == pytest.approx(oracle.pvalue, abs=2 / 2 ** len(a) + 1e-9)


def test_sign_flip_counts_out():
    assert sign_flip([1, 2, 3], [0, 0, 0]) == 0.25 == smallest_p(3) and smallest_p(6) == 0.03125 and smallest_p(0) == 1
    with pytest.raises(ValueError, match="at most 16 pairs"):
        sign_flip([0.0] * 17, [1.0] * 17)


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
def test_verdicts(difference, p, said):
    assert verdict(difference, p) == said


def models(accuracy: float, seeds: int, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    right = rng.random((seeds, len(target))) < accuracy
    return np.where(right, target, rng.integers(0, 4, (seeds, len(target))))


def test_intervals_of_images_are_scipys_paired_bootstrap():
    rng = np.random.default_rng(1)
    target = np.zeros(300, int)  # of one class, the stratified bootstrap is the plain one
    a, b = models(0.7, 1, target, rng), models(0.6, 1, target, rng)
    found = intervals(a, b, target, 4, resamples=4000)["accuracy"]

    def difference(x, y, axis):
        return (x == 0).mean(axis) - (y == 0).mean(axis)

    oracle = stats.bootstrap(
        (a[0], b[0]), difference, paired=True, vectorized=True, n_resamples=4000, method="percentile", rng=rng
    ).confidence_interval
    assert found["images"] == pytest.approx((oracle.low, oracle.high), abs=0.01)
    assert found["seeds"][0] == found["seeds"][1]  # one seed: nothing to draw among
    assert found["both"] == found["images"]


def test_intervals_agree_with_resampling_by_hand():
    rng = np.random.default_rng(2)
    target = rng.integers(0, 4, 120)
    a, b = models(0.7, 6, target, rng), models(0.5, 6, target, rng)
    found = intervals(a, b, target, 4, resamples=3000, seed=5)
    by_class = [np.flatnonzero(target == c) for c in range(4)]
    drawn = {"images": [], "seeds": [], "both": []}
    for _ in range(1000):
        index = np.concatenate([rng.choice(place, len(place)) for place in by_class])
        seeds = rng.integers(0, 6, 6)

        def delta(images, picked):
            def value(said):
                return np.mean(
                    [
                        metrics.from_confusion(metrics.confusion(target[images], said[s][images], 4))["macro_f1"]
                        for s in picked
                    ]
                )

            return value(a) - value(b)

        whole = np.arange(120)
        drawn["images"].append(delta(index, range(6)))
        drawn["seeds"].append(delta(whole, seeds))
        drawn["both"].append(delta(index, seeds))
    for which, values in drawn.items():
        assert found["macro_f1"][which] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.015), which


def test_intervals_turn_round_with_the_arms_and_vanish_for_equal_ones():
    rng = np.random.default_rng(3)
    target = rng.integers(0, 4, 200)
    a, b = models(0.7, 4, target, rng), models(0.5, 4, target, rng)
    one, other = intervals(a, b, target, 4, resamples=500), intervals(b, a, target, 4, resamples=500)
    for metric in ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall"):
        for which in ("images", "seeds", "both"):
            low, high = one[metric][which]
            assert other[metric][which] == (pytest.approx(-high), pytest.approx(-low)) and low > 0
            assert intervals(a, a, target, 4, resamples=50)[metric][which] == (0.0, 0.0)
    width = {which: high - low for which, (low, high) in one["macro_f1"].items()}
    assert width["both"] > max(width["images"], width["seeds"])


@pytest.mark.slow
def test_intervals_over_images_cover():
    """The interval over images holds the true difference about 19 times in 20."""
    rng = np.random.default_rng(4)
    target = np.repeat(np.arange(4), 60)
    true = 0.75 * (0.7 - 0.6)  # a wrong guess is right by chance once in four
    hits = 0
    for _ in range(200):
        low, high = intervals(models(0.7, 1, target, rng), models(0.6, 1, target, rng), target, 4, resamples=300)[
            "accuracy"
        ]["images"]
        hits += low <= true <= high
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize(
    ("a", "b", "target"),
    [((2, 5), (3, 5), 5), ((2, 5), (2, 5), 4), ((0, 5), (0, 5), 5)],
)
def test_shapes_that_do_not_fit_are_refused(a, b, target):
    with pytest.raises(ValueError, match="predictions of both arms"):
        intervals(np.zeros(a, int), np.zeros(b, int), np.zeros(target, int), 4)


def test_classes_out_of_range_are_refused():
    with pytest.raises(ValueError, match="classes must be from 0 to 3"):
        intervals(np.full((1, 5), 4), np.zeros((1, 5), int), np.zeros(5, int), 4)
