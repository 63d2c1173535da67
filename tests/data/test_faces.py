"""Drawn faces: the same pixels every time, the promised counts, people in one part, wrong labels as asked."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from emoexp.data import splits
from emoexp.data.dataset import Source
from emoexp.data.readers import faces, facial_actions

SMALL = {"size": 700, "test_per_class": 20, "images_per_person": 4.0}
COUNTS = np.array(faces.TRAINING_COUNTS)


def defaults() -> dict:
    path = Path(__file__).resolve().parents[2] / "conf" / "data" / "faces.yaml"
    keys = yaml.safe_load(path.read_text())
    return {key: value for key, value in keys.items() if key not in ("name", "leaks", "long_tail")}


def drawn(image_size: int = 32, channels: int = 1, cache: str | None = None, **changes: object) -> Source:
    return faces.load(image_size=image_size, channels=channels, cache=cache, **(defaults() | SMALL | changes))


def test_same_seed_same_pixels_and_another_seed_others() -> None:
    first, again, other = drawn(), drawn(), drawn(seed=1)
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)
    assert (first.images != other.images).mean() > 0.5


def test_pixels_are_these_on_every_machine() -> None:
    """A change here means that every result on faces changes: say so in the changelog."""
    image = drawn(16, size=300, test_per_class=2, nuisance=0.5, intensity=[0.3, 1.0], label_noise=0.1).images
    assert hashlib.sha256(image.tobytes()).hexdigest()[:16] == "919ce5bd651734c5"


def test_counts_are_those_of_fer2013_and_the_test_part_is_balanced() -> None:
    counts = faces.class_counts(9000, 200, 0.15, None)
    assert counts.sum() == 9000
    assert counts[2].tolist() == [200] * 7
    assert np.abs(counts[:2].sum(0) - 7600 * COUNTS / COUNTS.sum()).max() < 1
    data = splits.split(drawn(), mode="official", val=0.1, test=0.2, seed=0)
    expected = faces.class_counts(700, 20, 0.15, None)
    assert np.array_equal([data.counts(part) for part in ("train", "val", "test")], expected)


@pytest.mark.parametrize("ratio", [1.0, 10.0, 100.0])
def test_imbalance_ratio_is_exponential_in_the_order_of_class_sizes(ratio: float) -> None:
    both = faces.class_counts(20000, 100, 0.2, ratio)[:2].sum(0)
    assert both.max() / both.min() == pytest.approx(ratio, rel=0.05)
    if ratio > 1:
        assert np.array_equal(np.argsort(both), np.argsort(COUNTS))
        steps = np.sort(both)[1:] / np.sort(both)[:-1]
        assert steps == pytest.approx(ratio ** (1 / 6), rel=0.05)


def test_people_stand_in_one_part() -> None:
    source = drawn()
    assert source.identity is not None
    pairs = set(zip(source.identity.tolist(), source.part.tolist(), strict=True))
    assert len(pairs) == len(set(source.identity.tolist()))
    assert np.bincount(source.identity).max() > 1


def test_labels_are_wrong_as_often_as_asked_and_never_in_the_test_part() -> None:
    source = drawn(label_noise=0.2)
    truth = np.array([facial_actions.CLASS_NAMES.index(name.rsplit(" ", 1)[1]) for name in source.names])
    wrong = truth != source.labels
    assert not wrong[source.part == 2].any()
    assert wrong[source.part < 2].mean() == pytest.approx(0.2, abs=0.01)
    for part in range(2):
        assert np.array_equal(np.bincount(truth[source.part == part]), np.bincount(source.labels[source.part == part]))


@pytest.mark.parametrize(("image_size", "channels"), [(16, 1), (48, 3), (97, 1)])
def test_any_size_and_both_numbers_of_channels(image_size: int, channels: int) -> None:
    source = drawn(image_size, channels, size=200, test_per_class=2)
    assert source.images.shape == (200, channels, image_size, image_size)
    assert source.images.dtype == np.uint8
    assert 60 < source.images.mean() < 200
    if channels == 3:
        assert (source.images[:, 0] != source.images[:, 2]).any()


def test_a_larger_picture_shows_the_same_face() -> None:
    small, large = (drawn(side, nuisance=0.0, size=200, test_per_class=2).images.astype(float) for side in (24, 48))
    shrunk = large.reshape(-1, 24, 2, 24, 2).mean((2, 4))
    assert np.abs(shrunk - small[:, 0]).mean() < 6


def test_emotions_differ_and_neutral_is_the_face_at_rest() -> None:
    """Drawn with the same people and poses, each emotion changes the picture; intensity 0 changes nothing."""
    random = np.random.default_rng(0)
    for emotion in range(6):
        moved = facial_actions.draw(np.full(500, emotion), 1.0, 1.0, random)
        strongest = max(facial_actions.ACTIONS, key=lambda unit: moved[unit].mean())
        prototypes = list(facial_actions.PROTOTYPES.values())[emotion]
        assert any(strongest in variant for variant in prototypes)
        assert moved[strongest].mean() > 0.5
    rest = facial_actions.draw(np.zeros(500, dtype=np.int64), 0.0, 0.0, random)
    assert np.mean([value.mean() for value in rest.values()]) < 0.05


def test_expression_is_what_a_nearest_mean_can_read_at_full_strength() -> None:
    """Without nuisance the seven emotions are told apart by their mean pictures far better than by chance."""
    clear = {"nuisance": 0.0, "intensity": [1.0, 1.0], "label_noise": 0.0, "imbalance_ratio": 1.0}
    source = drawn(48, size=2100, test_per_class=100, **clear)
    mouth = source.images[:, 0, 14:40, 10:38].reshape(2100, -1).astype(float)
    mouth -= mouth.mean(1, keepdims=True)
    train = source.part == 0
    mean = np.stack([mouth[train & (source.labels == c)].mean(0) for c in range(7)])
    test = source.part == 2
    nearest = ((mouth[test][:, None] - mean) ** 2).sum(2).argmin(1)
    assert (nearest == source.labels[test]).mean() > 0.35


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 100, "test_per_class": 20}, "leaves no image"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drawn(**changes)


def test_cached_faces_are_the_drawn_ones(tmp_path: Path) -> None:
    first, second = drawn(cache=str(tmp_path)), drawn(cache=str(tmp_path))
    assert isinstance(second.images, np.memmap)
    assert np.array_equal(first.images, second.images)
    assert len(list(tmp_path.iterdir())) == 1
    drawn(cache=str(tmp_path), seed=5)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_the_default_set_is_drawn_in_seconds() -> None:
    start = time.process_time()
    source = faces.load(image_size=48, channels=1, cache=None, **defaults())
    assert time.process_time() - start < 10
    assert len(source.labels) == 9000
    assert np.unique(source.digest).size == 9000
