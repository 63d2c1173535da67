"""Figures of sets with many classes: their size and their texts do not grow with the classes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from emoexp import figures
from emoexp.figures import style
from emoexp.metrics import bootstrap, class_balance, classification

LARGEST = 4700  # pixels of a side


def drawn(name: str, path: Path, classes: int) -> Path:
    """One of the figures that have an element for each class."""
    rng, names = np.random.default_rng(0), [f"class {number}" for number in range(classes)]
    target_N = np.arange(2 * classes) % classes
    probability_NC = rng.dirichlet(np.ones(classes), len(target_N))
    confusion_CC = classification.confusion(target_N, probability_NC.argmax(1), classes)
    count_C = np.arange(classes, 0, -1) * 3
    if name == "confusion":
        return figures.confusion(path, confusion_CC, names, "test")
    if name == "precision_recall":
        return figures.precision_recall(path, probability_NC, target_N, names, "test")
    if name == "ledger":
        rows = [
            {"class": label, "images": n, "copies": 0, "draws": n, "weight": 1.0, "prior": 0.1, "effective_prior": 0.1}
            for label, n in zip(names, count_C.tolist(), strict=True)
        ]
        return figures.ledger(path, rows)
    if name == "prior_course":
        prior = (count_C / count_C.sum()).tolist()
        periods = [{"epochs": [1, 2], "effective_prior": prior}, {"epochs": [3, 4], "effective_prior": prior[::-1]}]
        return figures.prior_course(path, periods, names, int(count_C.sum()))
    if name == "class_counts":
        return figures.class_counts(path, np.stack([count_C, count_C]), names, ["train", "test"], title="classes")
    if name == "expected_intervals":
        rows = [
            {"class": label} | class_balance.expected_interval(n)
            for label, n in zip(names, count_C.tolist(), strict=True)
        ]
        return figures.expected_intervals(path, rows, title="test")
    if name == "recalls":
        return figures.recalls(path, ["a", "b"], names, rng.random((2, classes)), count_C.tolist(), "recall")
    assert name == "confusion_differences", name
    difference_ACC = rng.normal(size=(2, classes, classes)) / 10
    return figures.confusion_differences(path, ["a", "b"], difference_ACC, names, "differences")


NAMES = (
    "confusion",
    "precision_recall",
    "ledger",
    "prior_course",
    "class_counts",
    "expected_intervals",
    "recalls",
    "confusion_differences",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_of_many_classes_is_bounded(name, tmp_path, monkeypatch):
    texts = []
    for method in ("text", "annotate"):
        original = getattr(Axes, method)
        monkeypatch.setattr(Axes, method, lambda *a, o=original, **k: texts.append(a) or o(*a, **k))
    path = drawn(name, tmp_path / "figure.png", 400)
    with Image.open(path) as image:
        assert max(image.size) <= LARGEST
    assert len(texts) <= 3 * style.MAX_CLASSES


@pytest.mark.parametrize("name", ["ledger", "class_counts", "recalls", "precision_recall", "expected_intervals"])
def test_it_says_which_classes_it_shows(name, tmp_path, monkeypatch):
    said = []
    original = style._wrapped
    monkeypatch.setattr(style, "_wrapped", lambda text, room: said.append(text) or original(text, room))
    drawn(name, tmp_path / "few.png", style.MAX_CLASSES)
    assert not any(" of " in text and "classes: those" in text for text in said)
    drawn(name, tmp_path / "many.png", style.MAX_CLASSES + 1)
    assert any(f"{style.MAX_CLASSES} of {style.MAX_CLASSES + 1} classes: those with the" in text for text in said)


def test_the_largest_and_the_smallest_classes_are_shown():
    shown, said = style.most_and_fewest(np.arange(100))
    assert shown.tolist() == [*range(15), *range(85, 100)] and "30 of 100" in said[0]
    assert style.most_and_fewest(np.arange(30))[0].tolist() == list(range(30))


def test_a_bootstrap_of_many_classes_needs_no_confusion_for_each_resample():
    classes, target_N = 2000, np.arange(2000)
    probability_NC = np.full((2000, classes), 1e-4, np.float32)
    probability_NC[target_N, target_N] = 1.0  # 2,000 resamples of a confusion would take 64 GB
    intervals = bootstrap.bootstrap(probability_NC / probability_NC.sum(1, keepdims=True), target_N, resamples=3)
    assert intervals["accuracy"] == (1.0, 1.0)
