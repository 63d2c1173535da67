"""Intervals against scipy, against a plain bootstrap with scikit-learn, and against formulas."""

import time
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle

from emoexp.metrics import bootstrap as bootstrapping
from emoexp.metrics.bootstrap import (
    _Ranking,
    _stratified_weights,
    _weighted_rates,
    bootstrap,
    difference_intervals,
    wilson,
)
from emoexp.metrics.classification import confusion, rates, summarise

JUDGED = ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall")
WAYS = ("images", "seeds", "both")
NAMES = ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall", "macro_ap")


def judged(count_C: tuple[int, ...], skill: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a model of some skill, and labels, in random order."""
    rng = np.random.default_rng(seed)
    target_N = rng.permutation(np.repeat(np.arange(len(count_C)), count_C))
    score_NC = np.exp(rng.normal(size=(len(target_N), len(count_C))) + skill * np.eye(len(count_C))[target_N])
    return score_NC / score_NC.sum(axis=1, keepdims=True), target_N


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_wilson_is_the_formula(n: int, data: st.DataObject, level: float) -> None:
    successes = data.draw(st.integers(0, n))
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    middle = (successes + z2 / 2) / (n + z2)
    half = (z2 * successes * (n - successes) / n + z2**2 / 4) ** 0.5 / (n + z2)
    low, high = wilson(successes, n, level)
    assert (low, high) == pytest.approx((middle - half, middle + half), rel=1e-12, abs=1e-15)
    assert (low == 0 or successes > 0) and (high == 1 or successes < n)


def test_wilson_of_all_none_and_nothing() -> None:
    assert wilson(5, 5) == (pytest.approx(0.5655, abs=1e-4), 1.0)
    assert wilson(0, 5) == (0.0, pytest.approx(1 - 0.5655, abs=1e-4))
    assert wilson(0, 0) == (0.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=5).filter(any), st.integers(0, 2**32 - 1))
def test_a_resample_is_judged_as_sklearn_judges_weighted_images(counts: list[int], seed: int) -> None:
    """Confusion and AP under the weights of each resample, with many equal scores and with absent classes."""
    count_C, rng = np.array(counts), np.random.default_rng(seed)
    target_N = np.repeat(np.arange(len(count_C)), count_C)
    score_NC = rng.integers(0, 4, size=(len(target_N), len(count_C))) / 4
    weight_NR = _stratified_weights(count_C, 3, rng)
    predicted_N = score_NC.argmax(axis=1)
    predicted_NC = np.eye(len(count_C))[predicted_N]
    found = _weighted_rates(weight_NR, predicted_NC, predicted_NC * (predicted_N == target_N)[:, None], count_C)
    for r, weight_N in enumerate(weight_NR.T):
        labels = list(range(len(count_C)))
        expected_CC = oracle.confusion_matrix(target_N, predicted_N, labels=labels, sample_weight=weight_N)
        assert np.array_equal(expected_CC.sum(axis=1), count_C)  # every class keeps its number
        assert {name: value_R[r] for name, value_R in found.items()} == rates(expected_CC)
    for c in np.flatnonzero(count_C):
        found_R = _Ranking(score_NC[:, c], target_N == c).average_precision(weight_NR)
        expected_R = [
            oracle.average_precision_score(target_N == c, score_NC[:, c], sample_weight=weight_N)
            for weight_N in weight_NR.T
        ]
        assert found_R == pytest.approx(expected_R)


def test_every_image_is_drawn_once_on_average_with_the_variance_of_a_multinomial() -> None:
    count_C = np.array([4, 1, 0, 9])
    weight_NR = _stratified_weights(count_C, 20_000, np.random.default_rng(0))
    m_N = np.repeat(count_C, count_C)
    assert weight_NR.mean(axis=1) == pytest.approx(np.ones(14), abs=0.04)
    assert weight_NR.var(axis=1) == pytest.approx(1 - 1 / m_N, abs=0.05)


def test_bootstrap_agrees_with_a_plain_stratified_bootstrap() -> None:
    probability_NC, target_N = judged((60, 12, 30), 1.0, seed=1)
    found = bootstrap(probability_NC, target_N, resamples=4000)
    rng, value_of = np.random.default_rng(99), {name: [] for name in NAMES}
    classes = [np.flatnonzero(target_N == c) for c in range(3)]
    for _ in range(500):
        drawn = np.concatenate([rng.choice(index, len(index)) for index in classes])
        summary = summarise(probability_NC[drawn], target_N[drawn], ["a", "b", "c"])
        for name in NAMES:
            value_of[name].append(summary[name])
    for name in NAMES:
        low, high = np.quantile(value_of[name], [0.025, 0.975])
        assert found[name] == pytest.approx((low, high), abs=0.15 * (high - low)), name


def test_bootstrap_of_accuracy_has_the_width_of_the_formula() -> None:
    """Stratified: variance = sum over classes of (n_c / N)^2 r_c (1 - r_c) / n_c; mean recall likewise."""
    probability_NC, target_N = judged((500, 100, 300), 1.0, seed=2)
    confusion_CC = confusion(target_N, probability_NC.argmax(axis=1), 3)
    n_C = confusion_CC.sum(axis=1)
    variance_C = np.diagonal(confusion_CC) / n_C * (1 - np.diagonal(confusion_CC) / n_C) / n_C
    found = bootstrap(probability_NC, target_N, resamples=4000)
    for name, weight_C in (("accuracy", n_C / n_C.sum()), ("balanced_accuracy", np.full(3, 1 / 3))):
        width = 2 * 1.96 * np.sqrt((weight_C**2 * variance_C).sum())
        assert found[name][1] - found[name][0] == pytest.approx(width, rel=0.08), name


def test_intervals_stand_around_the_point_and_shrink_with_more_images_and_less_certainty() -> None:
    small, large = judged((40, 20, 20), 1.0, seed=3), judged((640, 320, 320), 1.0, seed=3)
    summary, found = summarise(*small, ["a", "b", "c"]), bootstrap(*small)
    width = {name: high - low for name, (low, high) in found.items()}
    assert set(found) == set(NAMES)
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "macro_ap"):
        assert found[name][0] < summary[name] < found[name][1], name
    for name, (low, high) in bootstrap(*large).items():
        assert high - low < 0.5 * width[name], name
    for name, (low, high) in bootstrap(*small, level=0.5).items():
        assert high - low < 0.6 * width[name], name


def test_bootstrap_is_a_function_of_its_seed() -> None:
    case = judged((40, 20, 20), 1.0, seed=4)
    assert bootstrap(*case, seed=1) == bootstrap(*case, seed=1) != bootstrap(*case, seed=2)


def test_bootstrap_of_certain_absent_and_single_images() -> None:
    target_N = np.array([0, 0, 0, 2, 2, 3])
    assert bootstrap(np.eye(4)[target_N], target_N, resamples=20) == {
        **dict.fromkeys(NAMES, (1.0, 1.0)),
        "macro_f1": (0.75, 0.75),  # class 1 is absent and counts as 0
    }
    assert bootstrap(np.array([[0.5, 0.5]]), np.array([1]), resamples=5)["accuracy"] == (0.0, 0.0)


@pytest.mark.slow
def test_bootstrap_of_the_fer2013_test_parts_takes_less_than_a_second() -> None:
    case = judged((958, 111, 1024, 1774, 1247, 831, 1233), 1.5, seed=0)
    began = time.process_time()
    bootstrap(*case, resamples=1000)
    assert time.process_time() - began < 1.0


def test_a_difference_over_images_has_the_width_of_the_formula_which_knows_the_pairs() -> None:
    """Per true class the difference of hits is -1, 0 or 1; its stratified variance is exact."""
    (a_NC, target_N), (b_NC, _) = judged((600, 200), 1.5, seed=8), judged((600, 200), 1.5, seed=9)
    a_N = a_NC.argmax(axis=1)
    b_N = np.where(np.arange(800) % 4 == 0, b_NC.argmax(axis=1), a_N)  # like each other in three of four images
    step_N = (a_N == target_N).astype(float) - (b_N == target_N)
    variance = sum((target_N == c).sum() * step_N[target_N == c].var() for c in range(2)) / 800**2
    low, high = difference_intervals(a_N[None], b_N[None], target_N, 2, resamples=4000)["accuracy"]["images"]
    assert high - low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.08)
    assert (low + high) / 2 == pytest.approx(step_N.mean(), abs=0.1 * (high - low))


def test_bad_settings_are_named() -> None:
    case = judged((4, 4), 1.0, seed=0)
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        bootstrap(*case, resamples=0)
    with pytest.raises(ValueError, match=r"between 0 and 1, such as 0.95; got 95"):
        bootstrap(*case, level=95)
    with pytest.raises(ValueError, match="got 6 of 5"):
        wilson(6, 5)
    with pytest.raises(ValueError, match="softmax"):
        bootstrap(case[0] * 9, case[1])


def models(accuracy: float, seeds: int, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Predictions that are the truth in this share of images, else one of four classes by chance."""
    right = rng.random((seeds, len(target))) < accuracy
    return np.where(right, target, rng.integers(0, 4, (seeds, len(target))))


def test_intervals_of_images_are_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(1)
    target = np.zeros(300, int)  # of one class, the stratified bootstrap is the plain one
    a, b = models(0.7, 1, target, rng), models(0.6, 1, target, rng)
    found = difference_intervals(a, b, target, 4, resamples=4000)["accuracy"]

    def difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return (x == 0).mean(axis) - (y == 0).mean(axis)

    oracle = stats.bootstrap(
        (a[0], b[0]), difference, paired=True, vectorized=True, n_resamples=4000, method="percentile", rng=rng
    ).confidence_interval
    assert found["images"] == pytest.approx((oracle.low, oracle.high), abs=0.01)
    seen = (a == 0).mean() - (b == 0).mean()
    assert found["seeds"] == pytest.approx((seen, seen))  # one seed: nothing to draw among
    assert found["both"] == found["images"]


def test_intervals_over_seeds_have_the_width_of_the_formula() -> None:
    """S draws of S seeds: variance (S - 1) / S of that of the mean, and more seeds than 5 make it about normal."""
    rng = np.random.default_rng(7)
    target = rng.integers(0, 4, 150)
    a, b = models(0.7, 12, target, rng), models(0.5, 12, target, rng)
    low, high = difference_intervals(a, b, target, 4, resamples=6000)["accuracy"]["seeds"]
    delta = (a == target).mean(axis=1) - (b == target).mean(axis=1)
    assert high - low == pytest.approx(2 * 1.96 * (delta.var() / 12) ** 0.5, rel=0.05)
    assert (low + high) / 2 == pytest.approx(delta.mean(), abs=0.1 * (high - low))


def test_intervals_agree_with_resampling_by_hand() -> None:
    """Class 2 has no image, and class 3 has few: as `metrics` counts them."""
    rng = np.random.default_rng(2)
    target = rng.permutation(np.repeat([0, 1, 3], (60, 50, 10)))
    a, b = models(0.7, 3, target, rng), models(0.5, 3, target, rng)
    found = difference_intervals(a, b, target, 4, resamples=4000, seed=5)
    places = [np.flatnonzero(target == c) for c in (0, 1, 3)]
    drawn = {which: {name: [] for name in JUDGED} for which in WAYS}

    def judge(which: str, images: np.ndarray, picked: np.ndarray) -> None:
        confusions = [[confusion(target[images], arm[s][images], 4) for s in picked] for arm in (a, b)]
        value_of = rates(np.array(confusions))
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
    one, other = (
        difference_intervals(a, b, target, 4, resamples=500),
        difference_intervals(b, a, target, 4, resamples=500),
    )
    assert set(one) == set(JUDGED) and all(set(row) == set(WAYS) for row in one.values())
    equal = difference_intervals(a, a, target, 4, resamples=50)
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
    again = difference_intervals(*case, resamples=200, seed=1)
    assert (
        again
        == difference_intervals(*case, resamples=200, seed=1)
        != difference_intervals(*case, resamples=200, seed=2)
    )
    wide, narrow = (difference_intervals(*case, resamples=400, level=level)["accuracy"] for level in (0.95, 0.5))
    assert all(wide[way][0] < narrow[way][0] < narrow[way][1] < wide[way][1] for way in ("images", "both"))


def test_intervals_do_not_depend_on_how_many_resamples_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    target = rng.integers(0, 4, 100)
    case = models(0.7, 3, target, rng), models(0.5, 3, target, rng), target, 4
    at_once = difference_intervals(*case, resamples=4000)["accuracy"]
    monkeypatch.setattr(
        bootstrapping, "_DIFFERENCE_CELLS_PER_BLOCK", 30 * (100 + 6 * 16)
    )  # 30 at a time, 10 in the last block
    in_blocks = difference_intervals(*case, resamples=4000)["accuracy"]
    for which in WAYS:
        width = at_once[which][1] - at_once[which][0]
        assert in_blocks[which] == pytest.approx(at_once[which], abs=0.1 * width), which


def test_intervals_over_images_cover() -> None:
    """They hold the true difference of two models about 19 times in 20."""
    rng = np.random.default_rng(4)
    target = np.repeat(np.arange(4), 60)
    true = 0.75 * (0.7 - 0.6)  # a wrong guess is right by chance once in four
    found = [
        difference_intervals(models(0.7, 1, target, rng), models(0.6, 1, target, rng), target, 4, resamples=300)[
            "accuracy"
        ]
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
        found = difference_intervals(said[0], said[1], target, 2, resamples=300)["accuracy"]
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
    difference_intervals(*case, target, 7)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("a", "b", "target"),
    [((2, 5), (3, 5), 5), ((2, 5), (2, 5), 4), ((0, 5), (0, 5), 5), ((2, 0), (2, 0), 0), ((5,), (5,), 5)],
)
def test_shapes_that_do_not_fit_are_refused(a: tuple[int, ...], b: tuple[int, ...], target: int) -> None:
    with pytest.raises(ValueError, match="predictions of both arms"):
        difference_intervals(np.zeros(a, int), np.zeros(b, int), np.zeros(target, int), 4)


@pytest.mark.parametrize("wrong", [4, -1, 0.5])
def test_classes_out_of_range_are_refused(wrong: float) -> None:
    for place in range(3):
        parts = [np.zeros((1, 5), int), np.zeros((1, 5), int), np.zeros(5, int)]
        parts[place] = np.full(parts[place].shape, wrong)
        with pytest.raises(ValueError, match="classes must be from 0 to 3, whole numbers; got"):
            difference_intervals(*parts, 4)


def test_bad_settings_of_intervals_are_named() -> None:
    nothing = np.zeros((1, 5), int), np.zeros((1, 5), int), np.zeros(5, int), 4
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        difference_intervals(*nothing, resamples=0)
    with pytest.raises(ValueError, match=r"such as 0.95; got 95"):
        difference_intervals(*nothing, level=95)
