"""People in several parts, labels told by the person, frames and file names: by hand and against plain loops."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.metrics import accuracy_score, f1_score

from emoexp.auditing.checks.people import (
    FRAMES,
    NO_NUMBERS,
    NUMBERED,
    across_parts,
    label_by_person,
    suggested_pattern,
    video_frames,
)
from emoexp.data.readers.facial_expressions import identities


def test_people_in_several_parts_by_hand():
    #                    ann       bob    cat     unknown    dan     eve
    identity = np.array([0, 0, 0, 1, 1, 2, 2, -1, -1, -1, 3, 3, 4])
    part = np.array([0, 1, 2, 1, 2, 2, -1, 0, 1, 2, 0, 0, -1])
    label = np.array([0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1])
    found = across_parts(identity, part, label, 3)
    assert (found.people, found.in_several) == (4, 2)
    assert (found.val.images, found.val.shared) == (3, 1) and found.val.share == pytest.approx(1 / 3)
    assert (found.test.images, found.test.shared) == (4, 2) and found.test.share == 0.5
    assert found.test.images_by_class.tolist() == [2, 2, 0] and found.test.shared_by_class.tolist() == [0, 2, 0]
    assert np.array_equal(found.test.share_by_class, [0, 1, np.nan], equal_nan=True)
    assert np.array_equal(found.val.share_by_class, [0.5, 0, np.nan], equal_nan=True)


@given(st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 2), st.integers(0, 2)), max_size=40))
def test_people_in_several_parts_against_a_loop(rows):
    identity, part, label = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    found = across_parts(identity, part.astype(np.int8), label, 3)
    stands = {person: {p for i, p, _ in rows if i == person and p >= 0} for person, _, _ in rows if person >= 0}
    assert found.people == sum(bool(parts) for parts in stands.values())
    assert found.in_several == sum(len(parts) > 1 for parts in stands.values())
    for p, one in ((1, found.val), (2, found.test)):
        seen = [c for i, q, c in rows if q == p and i >= 0 and min(stands[i]) < p]
        assert one.shared == len(seen) and one.shared_by_class.tolist() == [seen.count(c) for c in range(3)]
        assert one.images == sum(q == p for _, q, _ in rows)


def test_the_person_tells_the_label_by_hand():
    identity = np.array([0, 0, 0, 1, 1, 2, -1, -1, 3, 3])
    label = np.array([1, 1, 1, 0, 1, 2, 0, 0, 0, 0])
    found = label_by_person(identity, label)
    assert (found.people, found.several, found.single_label) == (4, 3, 2)
    # person 0: all right; person 1: each from the other, both wrong; 2: alone, guessed 0, wrong; the rest right
    assert found.accuracy == pytest.approx(0.7) and found.majority_accuracy == pytest.approx(0.5)
    assert found.macro_f1 == pytest.approx((8 / (8 + 2 + 1) + 6 / (6 + 1 + 1) + 0) / 3)
    assert found.majority_macro_f1 == pytest.approx((2 * 5 / 15) / 3)


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 3)), min_size=1, max_size=40))
def test_the_person_tells_the_label_against_a_loop(rows):
    identity, label = np.array(rows).T
    majority = int(np.bincount(label).argmax())
    guess = []
    for index, (person, _) in enumerate(rows):
        others = Counter(c for place, (i, c) in enumerate(rows) if place != index and i == person and person >= 0)
        best = others.most_common(2)
        clear = len(best) == 1 or (len(best) == 2 and best[0][1] > best[1][1])
        guess.append(best[0][0] if clear else majority)
    found = label_by_person(identity, label)
    labels = np.unique(label)
    assert found.accuracy == pytest.approx(accuracy_score(label, guess))
    assert found.macro_f1 == pytest.approx(f1_score(label, guess, labels=labels, average="macro", zero_division=0))
    assert found.majority_accuracy == pytest.approx((label == majority).mean())


def test_without_people_it_is_the_majority():
    found = label_by_person(np.full(5, -1), np.array([2, 2, 2, 0, 0]))
    assert (found.people, found.several, found.single_label) == (0, 0, 0)
    assert found.accuracy == found.majority_accuracy == 0.6 and found.macro_f1 == found.majority_macro_f1
    with pytest.raises(ValueError, match="at least one image"):
        label_by_person(np.zeros(0, np.int64), np.zeros(0, np.int64))


def faces(number: int, seed: int) -> np.ndarray:
    """Unlike smooth pictures, float number×24×24."""
    return np.stack([gaussian_filter(one, 3) for one in np.random.default_rng(seed).normal(size=(number, 24, 24))])


def pictures(value_NHW: np.ndarray) -> np.ndarray:
    value_NHW = (value_NHW - value_NHW.min()) / np.ptp(value_NHW)
    return (255 * value_NHW).astype(np.uint8)[:, None]


def videos(number: int, length: int, drift: float = 0.1) -> tuple[list[str], np.ndarray]:
    """CK+: sequences of a person's face that slowly turns into another expression, all in one folder."""
    names, values = [], []
    for who, (face, goal) in enumerate(zip(faces(number, 1), faces(number, 2), strict=True)):
        names += [f"happy/S{who:03d}_001_{frame + 10:08d}.png" for frame in range(length)]
        values += [face + drift * frame * goal for frame in range(length)]
    return names, pictures(np.array(values) + np.random.default_rng(3).normal(0, 0.003, (len(values), 24, 24)))


def test_frames_of_videos_are_found():
    names, image_NCHW = videos(8, 6)
    part = np.zeros(len(names), np.int8)
    part[:3], part[6:12] = 2, 1
    found = video_frames(names, part, image_NCHW)
    assert found.neighbours == 8 * 5 and found.crossing == 1 and found.verdict == FRAMES
    assert found.near > 0.95 and found.apart < 0.4


def test_one_video_alone_is_found():
    names, image_NCHW = videos(1, 30)
    found = video_frames(names, np.zeros(30, np.int8), image_NCHW)
    assert found.verdict == FRAMES and found.neighbours == 29 and found.apart > 0.4


def test_the_order_of_names_does_not_matter():
    names, image_NCHW = videos(5, 6)
    order = np.random.default_rng(0).permutation(len(names))
    part = (np.arange(len(names)) % 3).astype(np.int8)
    moved = video_frames([names[index] for index in order], part[order], image_NCHW[order])
    assert moved == video_frames(names, part, image_NCHW)


@pytest.mark.parametrize("form", ["train/angry/Training_{:05d}.png", "lfw/George_W_Bush_{:04d}.jpg", "{}.png"])
def test_numbered_files_are_no_frames(form):
    names = [form.format(number) for number in range(1, 41)]
    found = video_frames(names, np.zeros(40, np.int8), pictures(faces(40, 0)))
    assert found.neighbours == 39 and found.verdict == NUMBERED and abs(found.near) < 0.3


def test_one_person_alike_everywhere_is_no_video():
    """Pictures of one person are alike, but neighbours not more than others; and equal pictures tell nothing."""
    face = faces(1, 9)
    names = [f"George_W_Bush_{number:04d}.jpg" for number in range(40)]
    found = video_frames(names, np.zeros(40, np.int8), pictures(face + 0.5 * faces(40, 0)))
    assert found.verdict == NUMBERED and found.near > 0.5
    equal = video_frames(names, np.zeros(40, np.int8), np.repeat(pictures(face), 40, axis=0))
    assert equal.verdict == NUMBERED and equal.near == pytest.approx(1)


def test_what_counts_as_neighbours():
    names = ["a/x_1.png", "a/x_2.png", "a/x_4.png", "b/x_3.png", "a/y_3.png", "a/x_3.jpg", "a/x.png", "a/z1_9.png"]
    names += ["a/z2_9.png", "a/q_9b.png", "a/q_10b.png", "a/q_11.png"]
    image = pictures(faces(len(names), 0))
    assert video_frames(names, np.zeros(len(names), np.int8), image).neighbours == 2  # x 1-2 and q 9b-10b
    none = video_frames(["a.png", "b.png", "c/7.png"], np.zeros(3, np.int8), image[:3])
    assert none.neighbours == 0 and none.verdict == NO_NUMBERS and math.isnan(none.near) and math.isnan(none.apart)
    assert video_frames([], np.zeros(0, np.int8), image[:0]).verdict == NO_NUMBERS
    two = video_frames(["1.png", "2.png"], np.array([0, 2], np.int8), image[:2])
    assert two.crossing == 1 and math.isnan(two.apart) and two.verdict == NUMBERED


def test_correlations_are_those_of_numpy():
    image_NCHW = pictures(faces(4, 0))
    found = video_frames([f"{number}.png" for number in (1, 2, 8, 9)], np.zeros(4, np.int8), image_NCHW)
    r_NN = np.corrcoef(image_NCHW.reshape(4, -1))
    assert found.near == pytest.approx((r_NN[0, 1] + r_NN[2, 3]) / 2, abs=1e-5)
    assert found.apart == pytest.approx((r_NN[0, 2] + r_NN[2, 0]) / 2, abs=1e-5)


def people_of(names: list[str]) -> dict[str, int]:
    pattern = suggested_pattern(names)
    assert pattern is not None and re.compile(pattern).groups == 1
    return Counter(match[1] for name in names if (match := re.search(pattern, name.rsplit("/", 1)[-1])))


def test_names_that_hold_people():
    lfw = [f"images/{who}_{n:04d}.jpg" for who in ("George_W_Bush", "AJ_Cook", "Al_Gore") for n in range(3)]
    assert people_of(lfw) == {"George_W_Bush": 3, "AJ_Cook": 3, "Al_Gore": 3}
    pattern = suggested_pattern(lfw)
    assert pattern is not None
    groups = [re.search(pattern, name.rsplit("/", 1)[-1])[1] for name in lfw]  # type: ignore[index]
    assert np.array_equal(np.unique(groups, return_inverse=True)[1], identities(lfw))
    ck = [f"{mood}/S{who:03d}_00{i}_{n:08d}.png" for i, mood in enumerate("ab") for who in range(3) for n in range(4)]
    assert people_of(ck) == {"S000": 8, "S001": 8, "S002": 8}
    jaffe = [f"{who}.{mood}{n}.{40 + n}.tiff" for who in ("KA", "KL", "YM") for mood in ("AN", "HA") for n in (1, 2, 3)]
    assert people_of(jaffe) == {"KA": 6, "KL": 6, "YM": 6}
    assert people_of([f"{who} ({n}).jpg" for who in ("ann", "bob", "cat") for n in (1, 2)]) == {
        "ann": 2,
        "bob": 2,
        "cat": 2,
    }


@pytest.mark.parametrize(
    "names",
    [
        [f"train/{mood}/Training_{n:05d}.png" for mood in ("angry", "sad") for n in range(20)]
        + [f"test/{mood}/PublicTest_{n:05d}.png" for mood in ("angry", "sad") for n in range(9)],
        [f"img_{n}.jpg" for n in range(20)],
        [f"IMG{n:04d}.JPG" for n in range(20)],
        [f"xyz_{n}.jpg" for n in range(20)],
        [f"{mood}/{mood}_{n}.jpg" for mood in ("joy", "rage", "calm") for n in range(9)],
        [f"{mood}_{n}.jpg" for mood in ("happy", "sad", "fear") for n in range(9)],
        [f"{mood}/{n}.png" for mood in ("joy", "rage", "calm") for n in range(9)],
        [f"{mood}/{short}_{n}.png" for mood, short in (("joy", "j"), ("rage", "r"), ("calm", "c")) for n in range(9)],
        [f"train_{n:05d}_aligned.jpg" for n in range(9)] + [f"test_{n:04d}_aligned.jpg" for n in range(9)],
        [f"{name}.jpg" for name in ("ann", "bob", "cat", "dan")],
        [f"person{n}_1.jpg" for n in range(30)],
        [f"data.csv:{n}" for n in range(20)],
        [],
    ],
)
def test_names_that_hold_nobody(names):
    assert suggested_pattern(names) is None
