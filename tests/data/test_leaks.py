"""Leaks: counted by hand on small sets, dropped, refused; near duplicates in the cache; duplicates; class balance."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_splits import made

from emoexp.auditing.checks import duplicate_groups, image_quality
from emoexp.config import build_data
from emoexp.data import leaks, near_duplicates, near_search, splits
from emoexp.data.dataset import Dataset
from emoexp.metrics import bootstrap, class_balance

#            train          val      test
PART = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
LABEL = np.array([0, 1, 0, 1, 0, 1, 0, 0, 1, 0, 1])


def dataset(pixels: list[int], identity: list[int] | None = None, part: np.ndarray = PART) -> Dataset:
    known = None if identity is None else np.array(identity)
    source = made(LABEL, np.array(pixels), known, part)
    return splits.split(source, mode="official", val=0.1, test=0.2, seed=0)


# image 5 (val) has the pixels of 1 (train), 8 (test) those of 1 too, 9 (test) those of 4 (val)
LEAKY = dataset([0, 1, 2, 3, 4, 1, 6, 7, 1, 4, 10])


def test_the_same_pixels_are_counted_by_part_and_class():
    found = leaks.count(LEAKY, None)
    assert found["val"] == {"n": 3, "exact": 1, "per_class": {"exact": [0, 1]}}
    assert found["test"] == {"n": 4, "exact": 2, "per_class": {"exact": [1, 1]}}
    assert (~LEAKY.clean("test")).sum() == 2
    phrase = "have the pixels of an image in an earlier part"
    assert leaks.summary(found) == f"val: 1 {phrase}; test: 2 {phrase}"
    clean = leaks.count(dataset(list(range(11))), np.arange(11))
    assert clean["test"] == {"n": 4, "exact": 0, "near": 0, "per_class": {"exact": [0, 0], "near": [0, 0]}}
    assert leaks.summary(clean) == "none"


def test_near_duplicates_and_people_are_counted_beside_the_exact_ones():
    data = dataset([0, 1, 2, 3, 4, 1, 6, 7, 1, 4, 10], identity=[-1, 9, 7, -1, 4, 9, 5, 7, 9, 4, -1])
    group = np.array([0, 1, 2, 3, 4, 1, 6, 3, 1, 4, 10])  # 7 (test) is nearly 3 (train)
    found = leaks.count(data, group)
    assert found["test"]["exact"] == 2 and found["test"]["near"] == 1 and found["test"]["person"] == 3
    assert found["val"]["person"] == 1 and found["test"]["per_class"]["near"] == [1, 0]


def test_dropping_takes_out_of_earlier_parts_only():
    part = np.r_[PART, 1, 0]
    label = np.r_[LABEL, 1, 1]
    source = made(label, np.array([0, 1, 2, 3, 4, 1, 6, 7, 1, 4, 10, 11, 12]), None, part)
    data = splits.split(source, mode="official", val=0.1, test=0.2, seed=0)
    out = leaks.drop(data, np.unique(data.digest, return_inverse=True)[1])
    assert np.flatnonzero(out.part < 0).tolist() == [1, 4, 5]
    assert leaks.summary(leaks.count(out, None)) == "none" and out.clean("test").all() and out.clean("val").all()
    assert "1 images of training and 2 of validation" in out.notes[-1]
    assert out.counts("train").sum() == 4 and out.fingerprint["images"] == data.fingerprint["images"]
    assert leaks.drop(out, None) is out


def test_a_class_that_dropping_would_empty_is_named():
    data = dataset([0, 1, 2, 1, 4, 5, 6, 7, 1, 9, 10])
    with pytest.raises(ValueError, match="train holds no image of b"):
        leaks.drop(data, None)


def test_refusing_names_what_leaks_and_the_ways_out():
    with pytest.raises(ValueError, match=r"val: 1 have the pixels.*data\.leaks=drop.*split=identity.*data\.leaks=warn"):
        leaks.refuse(LEAKY, None)
    fine = dataset(list(range(11)))
    assert leaks.refuse(fine, np.arange(11)) is fine
    with pytest.raises(ValueError, match="show a person who is in an earlier part"):
        leaks.refuse(dataset(list(range(11)), identity=[1, *range(2, 11), 1]), None)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 2)), min_size=1, max_size=30))
def test_links_to_earlier_and_later_parts_are_as_a_naive_count_says(rows):
    group, part = np.array(rows, dtype=np.int64).T
    part = part.astype(np.int8)
    pairs = list(zip(group.tolist(), part.tolist(), strict=True))
    assert leaks.linked_to_earlier_part(group, part).tolist() == [
        p > 0 and any(h == g and 0 <= q < p for h, q in pairs) for g, p in pairs
    ]
    assert leaks.linked_to_later_part(group, part).tolist() == [
        p >= 0 and any(h == g and q > p for h, q in pairs) for g, p in pairs
    ]


def pictures(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    from PIL import Image

    coarse = rng.integers(0, 256, (6, 6)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC))


def with_near_duplicate() -> Dataset:
    """Twelve pictures, the last of them (test) the first (train) mirrored and a little brighter."""
    from emoexp.data.dataset import digests

    images = np.stack([pictures(i) for i in range(12)])[:, None]
    images[11, 0] = np.clip(images[0, 0, :, ::-1].astype(int) + 12, 0, 255)
    source = made(np.r_[LABEL, 1], np.arange(12), None, np.r_[PART, 2])
    source = dataclasses.replace(source, images=images, digest=digests(images))
    return splits.split(source, mode="official", val=0.1, test=0.2, seed=0)


def test_near_duplicates_are_searched_once_and_kept(tmp_path, monkeypatch):
    data, cache = with_near_duplicate(), str(tmp_path / "cache")
    assert near_duplicates.load(data, cache) is None and near_duplicates.load(data, None) is None
    found = near_duplicates.find(data, cache)
    assert (found.pairs.first.tolist(), found.pairs.second.tolist()) == ([0], [11]) and found.pairs.mirrored.all()
    assert found.group_N[0] == found.group_N[11] and len(np.unique(found.group_N)) == 11
    monkeypatch.setattr(near_search, "search", None)
    again = near_duplicates.load(data, cache)
    assert again is not None and again.group_N.tolist() == found.group_N.tolist()
    other = dataclasses.replace(data, digest=data.digest[::-1].copy())
    assert near_duplicates.load(other, cache) is not None  # the same pictures
    assert leaks.count(data, found.group_N)["test"]["near"] == 1


def test_policies_search_where_they_must(tmp_path):
    data, cache = with_near_duplicate(), str(tmp_path / "cache")
    assert build_data.without_leaks(data, "warn", cache) is data and near_duplicates.load(data, cache) is None
    dropped = build_data.without_leaks(data, "drop", cache)
    assert dropped.part[0] == -1 and near_duplicates.load(data, cache) is not None
    with pytest.raises(ValueError, match="near duplicates of an image"):
        build_data.without_leaks(data, "refuse", cache)


def test_an_unwritable_cache_costs_a_search_and_no_more(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert len(near_duplicates.find(with_near_duplicate(), str(blocked / "cache")).pairs.first) == 1


def test_duplicate_groups_by_hand():
    group = np.array([0, 0, 0, 1, 1, 2, 3])
    label = np.array([0, 0, 1, 1, 1, 0, 1])
    found = duplicate_groups.count_duplicates(group, label, np.array([0, 2, 0, 0, 1, 0, 2]), 2)
    assert (found.groups, found.images, found.surplus) == (2, 5, 3)
    assert found.surplus_C.tolist() == [1, 1] and found.across[("train", "test")] == 1
    assert found.across[("train", "val")] == 1 and found.across[("val", "test")] == 0
    assert [one.tolist() for one in found.conflicts] == [[0, 1, 2]]
    none = duplicate_groups.count_duplicates(np.arange(3), np.zeros(3, int), np.zeros(3, int), 2)
    assert (none.groups, none.surplus, none.conflicts) == (0, 0, ())


def test_balance_by_hand():
    assert class_balance.ratio(np.array([90, 0, 9])) == 10
    assert (
        class_balance.evenness(np.array([5, 5, 5])) == pytest.approx(1)
        and class_balance.evenness(np.array([5, 0, 0])) == 0
    )
    assert class_balance.evenness(np.array([3, 1])) == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))
    row = class_balance.expected_interval(2)
    assert (row["low"], row["high"]) == bootstrap.wilson(2, 2) and row["half_low"] == bootstrap.wilson(1, 2)[0]


@pytest.mark.parametrize("half", [0.02, 0.05, 0.1, 0.3])
def test_images_for_is_the_smallest_number_that_does(half):
    need = class_balance.images_for(half)

    def width(n: int) -> float:  # Wilson's half-width at one half, for any n
        z = 1.959963984540054
        return z / (2 * math.sqrt(n + z * z))

    assert width(need) <= half < width(need - 1)


def test_image_quality_by_hand():
    images = np.zeros((4, 1, 8, 8), np.uint8)
    images[1] = np.arange(64).reshape(8, 8) // 4
    images[2] = np.arange(64).reshape(8, 8) * 4
    images[3, :, ::2] = 255
    flat, nearly = image_quality.blank(images)
    assert flat.tolist() == [0] and nearly.tolist() == [1]
    width, height = np.array([48, 48, 30, 0, 100]), np.array([48, 20, 30, 0, 48])
    assert image_quality.enlarged(width, height, 40).tolist() == [1, 2]
    assert image_quality.elongated(width, height).tolist() == [1, 4]
    assert image_quality.other_sizes(width, height)[1].tolist() == []  # mixed sizes: none is wrong
    usual, other = image_quality.other_sizes(np.r_[np.full(30, 48), 47], np.full(31, 48))
    assert usual == (48, 48) and other.tolist() == [30]
