"""Labels that look wrong: small cases by hand and by cleanlab 2.9.0, planted noise, and what must not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from emoexp.auditing.checks.label_errors import confident_joint, estimated_joint, suspicious_labels

TEN = np.array([
    [0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1],
    [0.1, 0.8, 0.1], [0.1, 0.9, 0.0], [0.2, 0.6, 0.2], [0.7, 0.2, 0.1],
    [0.1, 0.2, 0.7], [0.3, 0.3, 0.4],
])  # fmt: skip
TEN_LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])


def made_up(n: int, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels by formula, so that cleanlab could be given the same."""
    i = np.arange(n)
    label_N = (i * i * 7 + i * seed) % 13 % num_classes
    label_N[i % 13 == 0] = 0
    score_NC = np.sin(i[:, None] * (1.3 + np.arange(num_classes)) * (seed + 1)) * 1.5
    score_NC[i, np.where(i % 9 == 4, (label_N + 1) % num_classes, label_N)] += 1.7
    probability_NC = np.exp(score_NC)
    return probability_NC / probability_NC.sum(axis=1, keepdims=True), label_N


def drawn(seed: int, num_classes: int = 4, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label_N = np.concatenate([np.arange(num_classes), rng.choice(num_classes, n - num_classes)])
    score_NC = rng.normal(size=(n, num_classes)) + 2 * np.eye(num_classes)[rng.permutation(label_N)]
    score_NC += 1.5 * np.eye(num_classes)[label_N]
    probability_NC = np.exp(score_NC)
    return probability_NC / probability_NC.sum(axis=1, keepdims=True), label_N


def test_ten_images_by_hand():
    """Thresholds are 0.65, 0.625 and 0.55: images 6 and 9 are sure of nothing; 3 and 7 are sure to be of the other."""
    assert confident_joint(TEN, TEN_LABELS).tolist() == [[3, 1, 0], [1, 2, 0], [0, 0, 1]]
    assert estimated_joint(TEN, TEN_LABELS).tolist() == [[3, 1, 0], [1, 3, 0], [0, 0, 2]]  # row 1 is 4/3 and 8/3
    found = suspicious_labels(TEN, TEN_LABELS)
    assert found.index.tolist() == [3, 7] and found.label.tolist() == [0, 1] and found.suggestion.tolist() == [1, 0]
    assert found.score == pytest.approx([0.25, 0.25])
    assert found.noise == pytest.approx([0.25, 0.25, 0]) and found.overall == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("case", "joint", "estimated", "index"),
    [
        (
            (60, 4, 3),
            [[15, 1, 2, 0], [0, 6, 1, 0], [1, 0, 7, 2], [2, 0, 1, 6]],
            [[23, 2, 3, 0], [0, 7, 1, 0], [1, 0, 10, 3], [2, 0, 1, 7]],
            [2, 4, 13, 16, 22, 27, 31, 40, 43, 49, 58],
        ),
        (  # no image of the last class
            (80, 5, 6),
            [[14, 4, 0, 0, 0], [0, 11, 2, 0, 0], [0, 0, 7, 0, 0], [1, 3, 0, 7, 0], [0, 0, 0, 0, 0]],
            [[20, 6, 0, 0, 0], [0, 20, 4, 0, 0], [0, 0, 12, 0, 0], [2, 5, 0, 11, 0], [0, 0, 0, 0, 0]],
            [11, 13, 16, 20, 22, 29, 31, 40, 49, 59, 63, 66, 67, 68],
        ),
    ],
)
def test_equals_cleanlab(case, joint, estimated, index):
    """As cleanlab 2.9.0 said: compute_confident_joint, and find_label_issues(filter_by="both").

    Its count of 1 on the diagonal for a class without images is not followed.
    """
    probability_NC, label_N = made_up(*case)
    assert confident_joint(probability_NC, label_N).tolist() == joint
    assert estimated_joint(probability_NC, label_N).tolist() == estimated
    found = suspicious_labels(probability_NC, label_N)
    assert sorted(found.index.tolist()) == index
    assert (np.diff(found.score) >= 0).all() and found.score.max() <= 0.5 and (found.label != found.suggestion).all()
    assert found.label.tolist() == label_N[found.index].tolist()
    assert found.suggestion.tolist() == probability_NC[found.index].argmax(axis=1).tolist()
    counts = np.bincount(label_N, minlength=case[1])
    assert np.isnan(found.noise).tolist() == (counts == 0).tolist()


def planted(count_C: list[int], share: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Out-of-fold probabilities of a linear classifier, noisy labels, and which of them are wrong."""
    rng = np.random.default_rng(seed)
    num_classes = len(count_C)
    true_N = np.repeat(np.arange(num_classes), count_C)
    centre_CF = rng.normal(size=(num_classes, 10))
    centre_CF *= 3 / np.linalg.norm(centre_CF, axis=1, keepdims=True)
    value_NF = centre_CF[true_N] + rng.normal(size=(len(true_N), 10))
    moved_N = rng.random(len(true_N)) < share
    label_N = np.where(moved_N, (true_N + rng.integers(1, num_classes, len(true_N))) % num_classes, true_N)
    model = LogisticRegression(max_iter=300)
    return cross_val_predict(model, value_NF, label_N, cv=5, method="predict_proba"), label_N, label_N != true_N


@pytest.mark.parametrize("share", [0.05, 0.15])
def test_planted_noise_is_found_in_rare_classes_too(share):
    probability_NC, label_N, wrong_N = planted([1000, 400, 150, 50], share, seed=0)
    found = suspicious_labels(probability_NC, label_N)
    assert wrong_N[found.index].mean() > 0.8, "precision"
    assert wrong_N[found.index].sum() > 0.8 * wrong_N.sum(), "recall"
    assert wrong_N[found.index[: len(found.index) // 4]].mean() > 0.95, "the worst come first"
    assert len(found.index) / len(label_N) == pytest.approx(wrong_N.mean(), abs=0.02)
    assert wrong_N.mean() < found.overall < wrong_N.mean() + 0.1, "the joint estimates too much"
    for c in range(4):
        assert found.noise[c] == pytest.approx(wrong_N[label_N == c].mean(), abs=0.2)


def test_clean_labels_raise_little_alarm():
    probability_NC, label_N, _ = planted([1000, 400, 150, 50], 0, seed=0)
    found = suspicious_labels(probability_NC, label_N)
    assert len(found.index) < 0.03 * len(label_N) and found.overall < 0.03


def test_sure_and_right_probabilities_raise_none():
    label_N = np.array([0, 1, 2, 1])
    found = suspicious_labels(np.eye(3)[label_N] * 0.9 + 1 / 30, label_N)
    assert len(found.index) == 0 and found.overall == 0 and (found.noise == 0).all()


@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_the_order_of_classes_does_not_matter(seed, order):
    probability_NC, label_N = drawn(seed)
    new_of = np.argsort(order)  # class c becomes new_of[c]
    first, second = confident_joint(probability_NC, label_N), confident_joint(probability_NC[:, order], new_of[label_N])
    assert np.array_equal(first[np.ix_(order, order)], second)
    assert estimated_joint(probability_NC, label_N).sum(axis=1).tolist() == np.bincount(label_N).tolist()


@given(st.integers(0, 10_000))
def test_the_order_of_images_does_not_matter(seed):
    probability_NC, label_N = drawn(seed)
    order = np.random.default_rng(seed).permutation(len(label_N))
    found, moved = suspicious_labels(probability_NC, label_N), suspicious_labels(probability_NC[order], label_N[order])
    assert order[moved.index].tolist() == found.index.tolist() and np.array_equal(moved.joint, found.joint)


def test_images_without_a_probability_are_left_out():
    gap = np.insert(TEN, [0, 5], np.nan, axis=0)
    found = suspicious_labels(gap, np.insert(TEN_LABELS, [0, 5], 2))
    assert found.index.tolist() == [4, 9] and np.array_equal(found.joint, suspicious_labels(TEN, TEN_LABELS).joint)


def test_nobody_knows_is_no_suspicion():
    """Equal probabilities of all classes: every class counts as probable as the label."""
    found = suspicious_labels(np.full((6, 3), 1 / 3), np.array([0, 1, 2, 0, 1, 2]))
    assert len(found.index) == 0


def test_one_image_of_each_class_is_never_suspected():
    found = suspicious_labels(np.array([[0.1, 0.9], [0.1, 0.9], [0.2, 0.8]]), np.array([0, 1, 1]))
    assert len(found.index) == 0
    assert confident_joint(np.array([[0.1, 0.9], [0.1, 0.9]]), np.array([0, 1])).tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("probability_NC", "label_N", "message"),
    [
        (TEN * 2, TEN_LABELS, "no probabilities"),
        (TEN, TEN_LABELS + 1, "from 0 to 2"),
        (TEN, TEN_LABELS[:4], "one label per image"),
        (TEN * np.nan, TEN_LABELS, "no image"),
    ],
)
def test_nonsense_is_refused(probability_NC, label_N, message):
    with pytest.raises(ValueError, match=message):
        suspicious_labels(probability_NC, label_N)
