"""Splits: no leak, near their targets, independent of file order; and what a dataset says of itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emoexp.data import groups, splits
from emoexp.data.dataset import PARTS, Dataset, Source, digests


def made(
    labels: np.ndarray,
    pixels: np.ndarray | None = None,
    identity: np.ndarray | None = None,
    part: np.ndarray | None = None,
) -> Source:
    """A source of 2x2 images, of different pixels where `pixels` does not number them."""
    number = np.arange(len(labels)) if pixels is None else pixels
    images = np.stack([number & 255, number >> 8 & 255, 0 * number, 0 * number], 1).astype(np.uint8)
    images = images.reshape(-1, 1, 2, 2)
    return Source(
        name="made",
        images=images,
        labels=np.asarray(labels, dtype=np.int64),
        class_names=tuple("abcdefgh"[: max(labels) + 1]),
        names=np.array([f"{i}.png" for i in range(len(labels))]),
        part=np.full(len(labels), -1, dtype=np.int8) if part is None else part.astype(np.int8),
        identity=identity,
        digest=digests(images),
        notes=(),
    )


def shuffled(source: Source, order: np.ndarray) -> Source:
    return Source(
        name=source.name,
        images=source.images[order],
        labels=source.labels[order],
        class_names=source.class_names,
        names=source.names,
        part=source.part[order],
        identity=None if source.identity is None else source.identity[order],
        digest=source.digest[order],
        notes=(),
    )


def parts_of(source: Source, mode: str = "official", val: float = 0.1, test: float = 0.2, seed: int = 0) -> Dataset:
    return splits.split(source, mode=mode, val=val, test=test, seed=seed)


@st.composite
def crowds(draw: st.DrawFn) -> Source:
    """Two to five classes of 3 to 60 images, many by the same people and some with the same pixels."""
    sizes = draw(st.lists(st.integers(3, 60), min_size=2, max_size=5))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    size = len(labels)
    pixels = np.arange(size)
    twins = random.random(size) < draw(st.sampled_from([0.0, 0.1, 0.5]))
    pixels[twins] = random.integers(size, size=twins.sum())
    identity = random.integers(-1, max(2, size // draw(st.integers(1, 6))), size=size)
    return made(labels, pixels, identity)


@settings(deadline=None, max_examples=60)
@given(crowds(), st.integers(0, 3), st.sampled_from(["stratified", "identity", "official"]))
def test_what_belongs_together_stays_together(source: Source, seed: int, mode: str) -> None:
    try:
        data = parts_of(source, mode, seed=seed)
    except ValueError:  # too few people for three parts
        assert mode != "stratified" or np.unique(source.digest).size < len(source.digest)
        return
    assert set(np.unique(data.part)) == {0, 1, 2}
    for values in (source.digest, None if mode == "stratified" else source.identity):
        if values is not None:
            known = values[values >= 0] if values.dtype.kind == "i" else values
            for value in np.unique(known):
                assert len(set(data.part[values == value])) == 1
    assert data.clean("val").all()
    assert data.clean("test").all()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(3, 200), min_size=2, max_size=6),
    st.integers(0, 5),
    st.floats(0.05, 0.4),
    st.floats(0.05, 0.4),
)
def test_different_pictures_are_stratified_to_one_image(sizes: list[int], seed: int, val: float, test: float) -> None:
    data = parts_of(made(np.repeat(np.arange(len(sizes)), sizes)), "stratified", val, test, seed)
    for part, share in zip(PARTS, (1 - val - test, val, test), strict=True):
        for count, size in zip(data.counts(part), sizes, strict=True):
            assert count >= 1
            assert abs(count - share * size) <= 1 + 2 * (share * size < 1 or part == "train")


@settings(deadline=None, max_examples=30)
@given(crowds(), st.randoms(use_true_random=False))
def test_order_and_names_of_files_do_not_matter(source: Source, random: object) -> None:
    order = np.random.default_rng(random.randrange(2**32)).permutation(len(source.labels))  # type: ignore[attr-defined]
    try:
        data = parts_of(source, "identity")
    except ValueError:
        return
    again = parts_of(shuffled(source, order), "identity")
    assert np.array_equal(again.part, data.part[order])
    assert again.fingerprint == data.fingerprint


def test_nine_images_of_a_rare_class_reach_every_part() -> None:
    data = parts_of(made(np.repeat([0, 1], [900, 9])), "stratified")
    assert [int(data.counts(part)[1]) for part in PARTS] == [6, 1, 2]


def test_three_people_of_a_rare_class_go_to_three_parts() -> None:
    labels = np.repeat([0, 1], [300, 30])
    identity = np.r_[np.arange(300), np.repeat([300, 301, 302], 10)]
    data = parts_of(made(labels, identity=identity), "identity")
    assert [int(data.counts(part)[1]) for part in PARTS] == [10, 10, 10]


def test_whoever_has_many_pictures_goes_to_training() -> None:
    identity = np.r_[np.zeros(200, dtype=int), 1 + np.arange(800)]
    for seed in range(5):
        data = parts_of(made(np.tile([0, 1], 500), identity=identity), "identity", seed=seed)
        assert set(data.part[identity == 0]) == {0}
        assert [len(data.where(part)) for part in PARTS] == [700, 100, 200]


def test_people_with_several_pictures_reach_all_parts_at_the_same_rate() -> None:
    identity = np.repeat(np.arange(1000), np.tile([1, 3], 500))
    data = parts_of(made(np.tile([0, 1], 1000), identity=identity), "identity")
    several = np.isin(identity, np.flatnonzero(np.bincount(identity) == 3))
    share = [several[data.where(part)].mean() for part in PARTS]
    assert max(share) - min(share) < 0.05


def test_another_seed_gives_another_split_and_the_same_seed_the_same() -> None:
    source = made(np.tile([0, 1], 100))
    assert np.array_equal(parts_of(source, seed=1).part, parts_of(source, seed=1).part)
    assert not np.array_equal(parts_of(source, seed=1).part, parts_of(source, seed=2).part)


def test_official_parts_are_kept() -> None:
    part = np.arange(300) // 100
    data = parts_of(made(np.tile([0, 1], 150), part=part))
    assert np.array_equal(data.part, part)
    assert data.split == "official"


@pytest.mark.parametrize(
    ("given_part", "expected"), [([0, 2], [180, 20, 100]), ([0, 1], [160, 100, 40]), ([0], [210, 30, 60])]
)
def test_official_takes_what_is_missing_out_of_training(given_part: list[int], expected: list[int]) -> None:
    part = np.repeat(given_part, [300 - 100 * (len(given_part) - 1), *[100] * (len(given_part) - 1)])
    data = parts_of(made(np.tile([0, 1], 150), part=part))
    assert [len(data.where(name)) for name in PARTS] == expected
    assert (data.part[part == given_part[-1]] == given_part[-1]).all() or len(given_part) == 1


def from_test(source: Source, val: float = 0.1, seed: int = 0) -> Dataset:
    return splits.split(source, mode="official", val=val, test=0.2, seed=seed, val_from="test")


def test_validation_can_come_out_of_the_test_part_and_leaves_training_alone() -> None:
    part = np.repeat([0, 2], [500, 200])
    data = from_test(made(np.tile([0, 1], 350), part=part))
    assert np.array_equal(data.where("train"), np.arange(500)) and data.split == "official"
    assert [data.counts(name).tolist() for name in PARTS] == [[250, 250], [10, 10], [90, 90]]
    assert not np.array_equal(data.part, from_test(made(np.tile([0, 1], 350), part=part), seed=1).part)
    usual = parts_of(made(np.tile([0, 1], 350), part=part))
    assert [len(usual.where(name)) for name in PARTS] == [450, 50, 200]


def test_a_validation_part_that_is_there_is_kept() -> None:
    part = np.arange(300) // 100
    assert np.array_equal(from_test(made(np.tile([0, 1], 150), part=part)).part, part)


def test_images_of_no_part_go_to_training_whatever_validation_comes_from() -> None:
    part = np.repeat([-1, 0, 2], [50, 50, 100])
    data = from_test(made(np.tile([0, 1], 100), part=part), val=0.3)
    assert [len(data.where(name)) for name in PARTS] == [100, 30, 70]


def test_validation_from_test_keeps_together_what_belongs_together() -> None:
    identity = np.repeat(np.arange(100), 3)
    pixels = np.where(np.arange(300) % 50 == 7, 999, np.arange(300))  # six of one picture, two of them in training
    source = made(np.tile([0, 1], 150), pixels, identity, part=np.repeat([0, 2], [100, 200]))
    for seed in range(5):
        data = from_test(source, 0.3, seed)
        group = groups.same_pixels_or_person(source.digest[100:], source.identity[100:])  # type: ignore[index]
        assert all(len(set(data.part[100:][group == g].tolist())) == 1 for g in np.unique(group))
        assert (data.part[:100] == 0).all() and abs(len(data.where("val")) - 60) <= 6


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"val_from": "test"}, "data=made has none; leave split.val_from=train"),
    ],
)
def test_a_home_of_validation_that_cannot_be_is_named(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        splits.split(made(np.tile([0, 1], 100)), **({"mode": "official", "val": 0.1, "test": 0.2, "seed": 0} | keys))


def test_official_parts_that_are_made_keep_people_apart() -> None:
    identity = np.repeat(np.arange(100), 3)
    data = parts_of(made(np.tile([0, 1], 150), identity=identity))
    assert len({(p, i) for p, i in zip(data.part, identity, strict=True)}) == 100


def test_clean_leaves_out_what_was_seen_before() -> None:
    data = parts_of(made([0, 1] * 3, pixels=np.array([1, 2, 1, 3, 2, 4]), part=np.array([0, 0, 1, 1, 2, 2])))
    assert data.clean("train").tolist() == [True, True]
    assert data.clean("val").tolist() == [False, True]
    assert data.clean("test").tolist() == [False, True]
    assert data.fingerprint["seen_before"] == {"val": 1, "test": 1}


def test_fingerprint_follows_pixels_labels_and_parts() -> None:
    def content(**changes: np.ndarray) -> object:
        part = np.array([0, 0, 1, 1, 2, 2])
        return parts_of(made(**({"labels": np.array([0, 1] * 3), "part": part} | changes))).fingerprint["content"]

    assert content() == content()
    assert content() != content(pixels=np.array([0, 1, 2, 3, 4, 9]))
    assert content() != content(labels=np.array([1, 0, 0, 1, 0, 1]))
    assert content() != content(part=np.array([1, 1, 0, 0, 2, 2]))


def test_fingerprint_statistics_are_those_of_the_training_pixels() -> None:
    data = parts_of(made(np.tile([0, 1], 50)))
    pixels = data.images[data.where("train")] / 255
    found = data.fingerprint
    assert found["pixel_mean"] == pytest.approx(pixels.mean(), rel=1e-12)
    assert found["pixel_std"] == pytest.approx(pixels.std(), rel=1e-12)
    assert found["counts"] == {"train": [35, 35], "val": [5, 5], "test": [10, 10]}


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0] * 9, {}, "only one class"),
        ([0] * 9 + [2] * 9, {}, "no image of class b"),
        ([0] * 9 + [1] * 2, {}, "val holds no image of b"),
        ([0, 1] * 9, {"mode": "identity"}, "split=stratified"),
    ],
)
def test_what_cannot_be_split_is_refused(labels: list[int], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parts_of(made(np.array(labels)), **({"mode": "stratified"} | options))


def test_a_class_missing_from_a_given_part_is_named() -> None:
    source = made(np.array([0, 1, 0, 1, 0, 0]), part=np.array([0, 0, 1, 1, 2, 2]))
    with pytest.raises(ValueError, match="test holds no image of b"):
        parts_of(source)


@given(crowds(), st.integers(3, 5), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_every_image_is_tested_in_one_fold_and_nobody_stands_in_two(source, folds, seed):
    made_of = []
    for fold in range(folds):
        try:
            made_of.append(splits.kfold(source, folds=folds, fold=fold, seed=seed))
        except ValueError as error:
            assert "Every part needs images of every class" in str(error)
            return
    tested = np.stack([data.part == 2 for data in made_of])
    assert (tested.sum(0) == 1).all()
    assert all((made_of[fold].part == 1).tolist() == tested[(fold + 1) % folds].tolist() for fold in range(folds))
    group = groups.same_pixels_or_person(source.digest, source.identity)
    fold_of = tested.argmax(0)
    assert all(len(set(fold_of[group == g].tolist())) == 1 for g in np.unique(group))


def test_folds_are_of_equal_size_by_class_and_do_not_depend_on_order():
    source = made(np.repeat([0, 1, 2], [100, 50, 10]))
    tested = np.array([splits.kfold(source, folds=5, fold=f, seed=3).counts("test") for f in range(5)])
    assert (tested == [20, 10, 2]).all()
    order = np.random.default_rng(0).permutation(160)
    again = splits.kfold(shuffled(source, order), folds=5, fold=2, seed=3)
    assert again.part.tolist() == splits.kfold(source, folds=5, fold=2, seed=3).part[order].tolist()
    assert again.fingerprint["images"] == splits.kfold(source, folds=5, fold=0, seed=9).fingerprint["images"]
    assert again.fingerprint["content"] != splits.kfold(source, folds=5, fold=0, seed=3).fingerprint["content"]


def test_a_class_of_fewer_people_than_folds_is_refused():
    identity = np.r_[np.arange(60), 60, 60, 61]
    source = made(np.repeat([0, 1], [60, 3]), identity=identity)
    with pytest.raises(ValueError, match=r"holds no image of b.*fewer split\.folds"):
        splits.kfold(source, folds=5, fold=0, seed=0)
