"""Intervals against scipy, against a plain bootstrap with scikit-learn, and against formulas."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as oracle

from emoexp.metrics.bootstrap import (
    _Ranking,
    _stratified_weights,
    _weighted_confusions,
    bootstrap,
    paired_difference,
    wilson,
)
from emoexp.metrics.classification import confusion, summarise

NAMES = ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall", "macro_ap")


def judged(count_C: tuple[int, ...], skill: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a model of some skill, and labels, in random order."""
    rng = np.random.default_rng(seed)
    target_N = rng.permutation(np.repeat(np.arange(len(count_C)), count_C))
    score_NC = np.exp(rng.normal(size=(len(target_N), len(count_C))) + skill * np.eye(len(count_C))[target_N])
    return score_NC / score_NC.sum(axis=1, keepdims=True), target_N


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 500), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_wilson_equals_scipy(n: int, data: st.DataObject, level: float) -> None:
    successes = data.draw(st.integers(0, n))
    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


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
    found_RCC = _weighted_confusions(weight_NR, np.eye(len(count_C))[predicted_N], count_C)
    for r, weight_N in enumerate(weight_NR.T):
        labels = list(range(len(count_C)))
        expected_CC = oracle.confusion_matrix(target_N, predicted_N, labels=labels, sample_weight=weight_N)
        assert np.array_equal(found_RCC[r], expected_CC)
        assert np.array_equal(found_RCC[r].sum(axis=1), count_C)  # every class keeps its number
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


def test_paired_difference_of_a_model_with_itself_is_nothing() -> None:
    probability_NC, target_N = judged((30, 10), 1.0, seed=5)
    predicted_N = probability_NC.argmax(axis=1)
    found = paired_difference(predicted_N, predicted_N, target_N, 2)
    assert all(row == {"difference": 0.0, "low": 0.0, "high": 0.0} for row in found.values())


def test_paired_difference_equals_the_metrics_difference_and_turns_with_the_models() -> None:
    (a_NC, target_N), (b_NC, _) = judged((300, 40, 90), 1.5, seed=6), judged((300, 40, 90), 0.8, seed=7)
    a_N, b_N = a_NC.argmax(axis=1), np.where(np.arange(430) % 2, a_NC.argmax(axis=1), b_NC.argmax(axis=1))
    found, turned = paired_difference(a_N, b_N, target_N, 3), paired_difference(b_N, a_N, target_N, 3)
    expected = {
        "accuracy": oracle.accuracy_score(target_N, a_N) - oracle.accuracy_score(target_N, b_N),
        "macro_f1": oracle.f1_score(target_N, a_N, average="macro") - oracle.f1_score(target_N, b_N, average="macro"),
        "balanced_accuracy": oracle.balanced_accuracy_score(target_N, a_N)
        - oracle.balanced_accuracy_score(target_N, b_N),
    }
    for name, difference in expected.items():
        assert found[name]["difference"] == pytest.approx(difference) == pytest.approx(-turned[name]["difference"])
        assert found[name]["low"] < difference < found[name]["high"]
        assert turned[name]["low"] == pytest.approx(-found[name]["high"], abs=0.02)


def test_paired_difference_has_the_width_of_the_formula_which_knows_the_pairs() -> None:
    """Per true class the difference of hits is -1, 0 or 1; its stratified variance is exact."""
    (a_NC, target_N), (b_NC, _) = judged((600, 200), 1.5, seed=8), judged((600, 200), 1.5, seed=9)
    a_N = a_NC.argmax(axis=1)
    b_N = np.where(np.arange(800) % 4 == 0, b_NC.argmax(axis=1), a_N)  # like each other in three of four images
    step_N = (a_N == target_N).astype(float) - (b_N == target_N)
    variance = sum((target_N == c).sum() * step_N[target_N == c].var() for c in range(2)) / 800**2
    found = paired_difference(a_N, b_N, target_N, 2, resamples=4000)["accuracy"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * variance**0.5, rel=0.08)


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
    with pytest.raises(ValueError, match=r"\[\(2,\), \(3,\), \(2,\)\]"):
        paired_difference(np.zeros(3, int), np.zeros(2, int), np.zeros(2, int), 2)
    with pytest.raises(ValueError, match="from 0 to 1"):
        paired_difference(np.array([2]), np.array([0]), np.array([0]), 2)
