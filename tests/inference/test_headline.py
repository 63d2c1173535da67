"""The one line that says how good a model is: what it says of few images, and of classes without any."""

import numpy as np
import pytest

from emoexp.inference import results


def predictions(probability_NC: np.ndarray, target_N: np.ndarray, names: list[str]) -> results.Predictions:
    n = len(target_N)
    return results.Predictions(
        part="test",
        probability_NC=probability_NC.astype(np.float32),
        target_N=target_N,
        clean_N=np.ones(n, bool),
        image_MCHW=np.zeros((n, 1, 8, 8), np.uint8),
        index_N=np.arange(n),
        names=[str(k) for k in range(n)],
        class_names=names,
        majority=0,
    )


def line(target: list[int], predicted: list[int], classes: int = 2) -> str:
    names = ["happy", "sad", "contempt"][:classes]
    probability_NC = np.eye(classes)[predicted] * 0.8 + 0.2 / classes
    return results.headline(results.summary(predictions(probability_NC, np.array(target), names), clean=False))


def test_few_images_have_no_interval():
    assert "accuracy 0.500 (too few images for an interval)" in line([0, 0, 1, 1], [0, 1, 0, 1])


def test_what_no_resample_changes_has_no_interval():
    """One image a class, or all of them right: each resample is the same, which looks certain and is not."""
    assert "accuracy 1.000 (too few images for an interval)" in line([0] * 20 + [1] * 20, [0] * 20 + [1] * 20)


def test_more_images_have_one():
    found = line([0] * 20 + [1] * 20, [0, 1] * 10 + [1] * 20)
    assert "accuracy 0.750 [0." in found and "too few" not in found


def test_classes_without_images_are_named():
    found = line([0] * 20 + [1] * 20, [0, 1] * 10 + [1] * 20, classes=3)
    assert found.endswith("no images of contempt: macro f1 counts 0 for them, the other metrics leave them out")
    assert "no images of" not in line([0] * 20 + [1] * 20, [0, 1] * 10 + [1] * 20)


def test_clean_images_are_all_images_where_nothing_leaks(monkeypatch: pytest.MonkeyPatch):
    times = []
    original = results.bootstrap.bootstrap
    monkeypatch.setattr(results.bootstrap, "bootstrap", lambda *a, **k: times.append(1) or original(*a, **k))
    given = predictions(np.full((20, 2), 0.5), np.arange(20) % 2, ["happy", "sad"])
    whole, clean = results.summaries(given)
    assert clean == results.summary(given, clean=True) and whole == results.summary(given, clean=False)
    assert len(times) == 3, "once for both, and twice here"
