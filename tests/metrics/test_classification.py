"""Metrics against scikit-learn, against values worked out by hand, and what must hold for any input."""

import hashlib
import json
import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from emoexp.metrics.classification import (
    average_precision,
    calibration_error,
    confusion,
    flatten_summary,
    from_confusion,
    negative_log_likelihood,
    precision_recall_steps,
    rates,
    summarise,
    worst_class,
)
from emoexp.metrics.slugs import slugs

QUICK = settings(max_examples=60, deadline=None)


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities N x C with many equal scores, and labels that may lack some classes; N may be 1."""
    num_classes, n = draw(st.integers(2, 6)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 3, 4, 1000]))
    weight_NC = rng.integers(1, levels, size=(n, num_classes)).astype(np.float64)
    present = rng.permutation(num_classes)[: rng.integers(1, num_classes + 1)]
    target_N = rng.choice(present, size=n)
    return weight_NC / weight_NC.sum(axis=1, keepdims=True), target_N


def names(num_classes: int) -> list[str]:
    return [f"class {c}" for c in range(num_classes)]


@QUICK
@given(judged())
def test_confusion_and_its_metrics_equal_sklearn(case: tuple[np.ndarray, np.ndarray]) -> None:
    probability_NC, target_N = case
    labels, predicted_N = range(probability_NC.shape[1]), probability_NC.argmax(axis=1)
    found_CC = confusion(target_N, predicted_N, len(labels))
    assert np.array_equal(found_CC, oracle.confusion_matrix(target_N, predicted_N, labels=list(labels)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted but absent, and of only one label
        balanced = oracle.balanced_accuracy_score(target_N, predicted_N)
        mcc = oracle.matthews_corrcoef(target_N, predicted_N)
    recall_C = oracle.recall_score(target_N, predicted_N, labels=np.unique(target_N), average=None)
    expected = {
        "accuracy": oracle.accuracy_score(target_N, predicted_N),
        "macro_f1": oracle.f1_score(target_N, predicted_N, labels=list(labels), average="macro", zero_division=0),
        "balanced_accuracy": balanced,
        "worst_recall": recall_C.min(),
        "mcc": mcc,
        "g_mean": recall_C.prod() ** (1 / len(recall_C)),
    }
    assert from_confusion(found_CC) == pytest.approx(expected, abs=1e-12)


@QUICK
@given(judged())
def test_ranking_and_per_class_metrics_equal_sklearn(case: tuple[np.ndarray, np.ndarray]) -> None:
    probability_NC, target_N = case
    num_classes = probability_NC.shape[1]
    summary, labels = summarise(probability_NC, target_N, names(num_classes)), list(range(num_classes))
    predicted_N, present = probability_NC.argmax(axis=1), np.unique(target_N)
    truth_NC = np.eye(num_classes, dtype=int)[target_N]
    ap = {c: oracle.average_precision_score(truth_NC[:, c], probability_NC[:, c]) for c in present}
    assert summary["macro_ap"] == pytest.approx(np.mean(list(ap.values())))
    assert summary["micro_ap"] == pytest.approx(
        oracle.average_precision_score(truth_NC.ravel(), probability_NC.ravel())
    )
    assert summary["nll"] == pytest.approx(oracle.log_loss(target_N, probability_NC, labels=labels))
    precision_C, recall_C, f1_C, count_C = oracle.precision_recall_fscore_support(
        target_N, predicted_N, labels=labels, zero_division=0
    )
    for c, name in enumerate(names(num_classes)):
        row = summary["per_class"][name]
        assert row["n"] == count_C[c] and row["prevalence"] == pytest.approx(count_C[c] / len(target_N))
        assert (row["precision"], row["f1"]) == pytest.approx((precision_C[c], f1_C[c]))
        expected = (recall_C[c], ap[c]) if c in ap else (None, None)
        assert (row["recall"], row["ap"]) == (pytest.approx(expected) if c in ap else expected)
    assert summary["absent"] == [name for c, name in enumerate(names(num_classes)) if c not in ap]


@QUICK
@given(judged(), st.integers(0, 2**32 - 1))
def test_renaming_classes_by_a_permutation_permutes_the_answer(case: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    probability_NC, target_N = case
    num_classes = probability_NC.shape[1]
    probability_NC = probability_NC + np.random.default_rng(seed).random(probability_NC.shape)  # no ties in argmax
    probability_NC /= probability_NC.sum(axis=1, keepdims=True)
    order_C = np.random.default_rng(seed).permutation(num_classes)
    before = summarise(probability_NC, target_N, names(num_classes))
    after = summarise(
        probability_NC[:, order_C], np.argsort(order_C)[target_N], [names(num_classes)[c] for c in order_C]
    )
    for key in (
        "accuracy",
        "macro_f1",
        "balanced_accuracy",
        "worst_recall",
        "mcc",
        "g_mean",
        "macro_ap",
        "ece",
        "nll",
    ):
        assert after[key] == pytest.approx(before[key], abs=1e-12), key
    assert after["per_class"] == {name: pytest.approx(row, abs=1e-12) for name, row in before["per_class"].items()}


def test_values_worked_out_by_hand() -> None:
    one_class = from_confusion(np.array([[90, 0, 0], [9, 0, 0], [1, 0, 0]]))
    assert one_class == pytest.approx(
        {
            "accuracy": 0.9,
            "macro_f1": 0.315789,
            "balanced_accuracy": 1 / 3,
            "worst_recall": 0,
            "mcc": 0,
            "g_mean": 0,
        },
        abs=1e-6,
    )
    mixed = from_confusion(np.array([[80, 8, 2], [3, 5, 1], [0, 0, 1]]))
    assert mixed == pytest.approx(
        {
            "accuracy": 0.86,
            "macro_f1": 0.593134,
            "balanced_accuracy": 0.814815,
            "worst_recall": 5 / 9,
            "mcc": 0.437479,
            "g_mean": 0.790421,
        },
        abs=1e-6,
    )


def test_macro_f1_counts_an_absent_class_as_zero_and_balanced_accuracy_leaves_it_out() -> None:
    found = from_confusion(confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]), 3))
    assert found["balanced_accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["g_mean"] == pytest.approx(0.5)


def test_confusions_in_a_stack_are_judged_one_by_one() -> None:
    stack_XCC = np.random.default_rng(0).integers(0, 5, size=(4, 3, 3, 3)) + np.eye(3, dtype=int)
    together = rates(stack_XCC)
    for place in np.ndindex(4, 3):
        assert {name: value[place] for name, value in together.items()} == pytest.approx(
            from_confusion(stack_XCC[place])
        )


def test_g_mean_of_a_thousand_classes_does_not_vanish() -> None:
    confusion_CC = np.eye(1000, dtype=int) + np.roll(9 * np.eye(1000, dtype=int), 1, axis=1)
    assert from_confusion(confusion_CC)["g_mean"] == pytest.approx(0.1)


def test_the_rarer_of_equally_bad_classes_is_the_worst() -> None:
    assert worst_class(np.array([[0, 4, 0], [1, 1, 0], [0, 2, 0]])) == 2
    assert worst_class(np.array([[3, 0, 0], [0, 0, 0], [1, 0, 1]])) == 2  # not the absent one


def test_a_constant_score_has_the_prevalence_as_its_average_precision() -> None:
    assert average_precision(np.full(100, 0.3), np.arange(100) < 7) == pytest.approx(0.07)


def steps_of_the_formula(score_N: np.ndarray, positive_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of the images from the highest score down to each score at which recall grows."""
    steps = []
    for threshold in np.unique(score_N)[::-1]:
        hits, taken = (positive_N & (score_N >= threshold)).sum(), (score_N >= threshold).sum()
        if (positive_N & (score_N == threshold)).any():
            steps.append((hits / positive_N.sum(), hits / taken))
    recall_K, precision_K = np.array(steps).T
    return recall_K, precision_K


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1, 2, 5, 1000]))
def test_curve_and_average_precision_are_the_formula(seed: int, n: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    score_N, positive_N = rng.integers(0, levels, n) / levels, rng.random(n) < rng.random()
    positive_N[rng.integers(n)] = True
    recall_K, precision_K = steps_of_the_formula(score_N, positive_N)
    found = precision_recall_steps(score_N, positive_N)
    assert found[0].tolist() == recall_K.tolist() and found[1].tolist() == precision_K.tolist()
    expected = float((np.diff(recall_K, prepend=0.0) * precision_K).sum())
    assert average_precision(score_N, positive_N) == pytest.approx(expected, rel=1e-12)


def test_equal_scores_enter_together_whatever_their_order() -> None:
    score, positive = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([True, True, False, False, True])
    assert average_precision(score, positive) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 4 + 1 / 3 * 3 / 5)
    assert average_precision(score, positive[[0, 3, 2, 1, 4]]) == average_precision(score, positive)
    recall_K, precision_K = precision_recall_steps(score, positive)
    assert (recall_K.tolist(), precision_K.tolist()) == ([1 / 3, 2 / 3, 1.0], [1.0, 0.5, 0.6])


def test_calibration_error_worked_out_by_hand() -> None:
    confidence_N, right_N = np.array([0.9, 0.9, 0.6, 0.6]), np.array([1, 0, 1, 0])
    probability_NC = np.stack([confidence_N, 1 - confidence_N], axis=1)
    assert calibration_error(probability_NC, 1 - right_N, bins=10) == pytest.approx(0.25)
    certain_NC = np.eye(3)[[0, 1, 2, 2]]
    assert calibration_error(certain_NC, np.array([0, 1, 2, 2])) == 0
    assert calibration_error(certain_NC, np.array([1, 2, 0, 0])) == 1


def test_calibration_bins_are_closed_above() -> None:
    """0.6 is the last of (0.5, 0.6], 0.61 the first of (0.6, 0.7]: apart they do not cancel."""
    probability_NC = np.array([[0.6, 0.4], [0.61, 0.39]])
    assert calibration_error(probability_NC, np.array([0, 1]), bins=5) == pytest.approx((0.4 + 0.61) / 2)


def test_one_certain_mistake_costs_36_nats_and_stays_finite() -> None:
    assert negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(36.04, abs=0.01)


def test_one_image_of_two_classes() -> None:
    summary = summarise(np.array([[0.25, 0.75]]), np.array([1]), ["a", "b"])
    assert (summary["accuracy"], summary["balanced_accuracy"], summary["macro_f1"]) == (1.0, 1.0, 0.5)
    assert (summary["macro_ap"], summary["absent"], summary["worst_class"]) == (1.0, ["a"], "b")


def test_the_majority_is_that_of_training_where_it_is_known() -> None:
    probability_NC, target_N = np.full((10, 2), 0.5), np.array([0] * 3 + [1] * 7)
    here = summarise(probability_NC, target_N, ["a", "b"])["majority"]
    assert here == {
        "class": "b",
        "known_from": "these images",
        "accuracy": pytest.approx(0.7),
        "macro_f1": pytest.approx(0.5 * 14 / 17),
        "balanced_accuracy": 0.5,
    }
    there = summarise(probability_NC, target_N, ["a", "b"], majority=0)["majority"]
    assert (there["class"], there["known_from"], there["accuracy"]) == ("a", "training", pytest.approx(0.3))


@QUICK
@given(judged())
def test_a_summary_survives_strict_json_and_gives_plain_floats(case: tuple[np.ndarray, np.ndarray]) -> None:
    probability_NC, target_N = case
    summary = summarise(probability_NC, target_N, names(probability_NC.shape[1]))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    row = flatten_summary(summary, "test")
    assert all(type(value) is float and math.isfinite(value) for value in row.values())
    assert ("test/recall/class_0" in row) == ("class 0" not in summary["absent"])
    assert row["test/macro_f1"] == summary["macro_f1"]


def test_flat_carries_intervals_and_the_baseline() -> None:
    summary = summarise(np.array([[0.25, 0.75], [0.6, 0.4]]), np.array([1, 0]), ["sad", "Happy!"])
    row = flatten_summary({**summary, "interval": {"macro_f1": (0.25, 1.0)}}, "test_clean")
    assert (row["test_clean/macro_f1_low"], row["test_clean/macro_f1_high"]) == (0.25, 1.0)
    assert row["test_clean/majority/accuracy"] == 0.5
    assert row["test_clean/ap/happy"] == 1.0
    assert {"test_clean/n", "test_clean/ece", "test_clean/recall/sad"} <= row.keys()


def collision(name: str) -> str:
    return f"{name.lower().replace(' ', '_')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@QUICK
@given(st.lists(st.text(max_size=80), unique=True, min_size=1, max_size=8))
@example(["a b", "a_b", "A b", collision("a b"), "", ".", "..", "/", "x" * 80, "x" * 81, "\ud800"])
@example(["怒り", "喜び", "<script>", "$x_1$", "=cmd()", "Ärger", "arger"])
def test_slugs_are_injective_plain_and_independent_of_order(class_names: list[str]) -> None:
    slug_of = slugs(class_names)
    assert len({slug.casefold() for slug in slug_of.values()}) == len(class_names)
    assert all(re.fullmatch("[a-z0-9_-]{1,69}", slug) for slug in slug_of.values())
    assert slugs(class_names[::-1]) == slug_of


def test_plain_names_keep_their_own_name() -> None:
    assert slugs(["angry", "leaky_relu", "Very Happy"]) == {
        "angry": "angry",
        "leaky_relu": "leaky_relu",
        "Very Happy": "very_happy",
    }


GOOD = np.array([[0.5, 0.5], [0.25, 0.75]])


@pytest.mark.parametrize(
    ("probability_NC", "target_N", "class_names", "said"),
    [
        (GOOD, np.array([0, 2]), ["a", "b"], r"from 0 to 1 \(2 classes\), got \[2\]"),
        (GOOD, np.array([0, -1]), ["a", "b"], r"got \[-1\]"),
        (GOOD, np.array([0.0, 1.0]), ["a", "b"], "whole numbers, got float64"),
        (GOOD, np.array([0, 1]), ["a", "b", "c"], r"shape \(images, 3\)"),
        (GOOD, np.array([0]), ["a", "b"], r"got \(2, 2\) and \(1,\)"),
        (GOOD, np.array([0, 1]), ["a", "a"], r"more than one of \['a'\]"),
        (np.array([[0.5, 0.5], [np.nan, 1.0]]), np.array([0, 1]), ["a", "b"], "first is row 1"),
        (np.array([[3.0, -2.0], [0.5, 0.5]]), np.array([0, 1]), ["a", "b"], "softmax"),
        (np.zeros((0, 2)), np.zeros(0, dtype=int), ["a", "b"], "no image to evaluate"),
    ],
)
def test_bad_input_is_named(
    probability_NC: np.ndarray, target_N: np.ndarray, class_names: list[str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        summarise(probability_NC, target_N, class_names)


def test_other_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="majority must be a class from 0 to 1, got 7"):
        summarise(GOOD, np.array([0, 1]), ["a", "b"], majority=7)
    with pytest.raises(ValueError, match="at least one image"):
        from_confusion(np.zeros((3, 3), dtype=int))
    with pytest.raises(ValueError, match="at least one positive"):
        average_precision(np.array([0.5]), np.array([False]))
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        confusion(np.zeros(2, dtype=int), np.zeros(3, dtype=int), 2)
