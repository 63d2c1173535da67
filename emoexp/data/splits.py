"""Splitting images into training, validation and test: stratified, reproducible, and without leaks.

Images with the same pixels go to one part, and so do the pictures of one person if the mode respects identities. The
result depends on pixels, labels, identities and the seed, never on the order or the names of files.
"""

import hashlib
from dataclasses import fields

import numpy as np

from emoexp.data import groups
from emoexp.data.dataset import PARTS, Dataset, Source

MODES = ("official", "stratified", "identity")
VAL_FROM = ("train", "test")


def split(source: Source, *, mode: str, val: float, test: float, seed: int, val_from: str = "train") -> Dataset:
    """Assign every image to a part.

    Args:
        mode: "official" keeps the parts of the source and takes missing ones out of training, with each person in one
            part where identities are known. "stratified" and "identity" ignore the parts of the source and split all
            images, stratified by class; "identity" keeps each person in one part.
        val, test: shares, in 0..1, of the images that are split.
        seed: decides the split; not used if the source has all three parts.
        val_from: the part, train or test, from which "official" takes a missing validation part.

    Raises:
        ValueError: the source lacks the identities or the test part that the mode needs, there are fewer than two
            classes, or a class has no image in the data or in one of the parts.
    """
    assert mode in MODES and val_from in VAL_FROM and val > 0 and test > 0 and val + test < 1
    _check_source(source, mode, val_from)
    _check_classes(source)
    part = source.part.astype(np.int8).copy()
    if mode == "official":
        source_part = 2 if val_from == "test" and not (part == 1).any() else 0
        pool = np.flatnonzero(part == 2 if source_part == 2 else part <= 0)
        missing_parts = [p for p in (1, 2) if not (part == p).any()]
    else:
        source_part, pool, missing_parts = 0, np.arange(len(part)), [1, 2]
    if missing_parts and len(pool):
        shares = [{1: val, 2: test}[p] for p in missing_parts]
        identity = None if mode == "stratified" or source.identity is None else source.identity[pool]
        chosen = _assign(source.digest[pool], identity, source.labels[pool], np.array([1 - sum(shares), *shares]), seed)
        part[pool] = np.array([source_part, *missing_parts], dtype=np.int8)[chosen]
    part[part < 0] = 0
    check_parts(part, source)
    return _dataset(source, part, mode)


def kfold(source: Source, *, folds: int, fold: int, seed: int) -> Dataset:
    """k-fold split of all images: fold `fold` is test, the next one validation, the others training.

    Pictures with the same pixels, and of one person where identities are known, stay in one fold.

    Args:
        folds: at least 3. fold: 0..folds-1.
        seed: decides the folds, together with their number.

    Raises:
        ValueError: there are fewer than two classes, or a class has no image in one of the parts.
    """
    assert folds >= 3 and 0 <= fold < folds
    _check_classes(source)
    chosen = _assign(source.digest, source.identity, source.labels, np.full(folds, 1 / folds), seed)
    part = np.zeros(len(chosen), np.int8)
    part[chosen == fold] = 2
    part[chosen == (fold + 1) % folds] = 1
    check_parts(part, source)
    return _dataset(source, part, "kfold")


def _dataset(source: Source, part: np.ndarray, mode: str) -> Dataset:
    values = {field.name: getattr(source, field.name) for field in fields(Source)}
    return Dataset(**(values | {"part": part}), split=mode)


def _assign(
    digest: np.ndarray, identity: np.ndarray | None, label: np.ndarray, shares: np.ndarray, seed: int
) -> np.ndarray:
    """Each image's part (0 is training): no group is divided, and class counts come near their targets."""
    group = groups.same_pixels_or_person(digest, identity)
    num_groups, num_classes = group.max() + 1, label.max() + 1
    count_GC = np.zeros((num_groups, num_classes), dtype=np.int64)
    np.add.at(count_GC, (group, label), 1)
    order = np.argsort(_random_numbers(digest, group, seed), kind="stable")
    target_PC = _targets(count_GC, shares)
    part_G = np.full(num_groups, -1, dtype=np.int64)
    current_PC = np.zeros_like(target_PC)
    _assign_groups(part_G, current_PC, count_GC, target_PC, order)
    _assign_single_images(part_G, current_PC, count_GC, target_PC, order)
    _fill_missing_classes(part_G, current_PC, count_GC, order)
    return part_G[group]


def _random_numbers(digest: np.ndarray, group: np.ndarray, seed: int) -> np.ndarray:
    """A random 64-bit number for each group, from the seed and the smallest digest of its images."""
    order = np.lexsort((digest, group))
    first = order[np.r_[True, np.diff(group[order]) > 0]]
    salt = int(seed).to_bytes(16, "little", signed=True)
    hashes = [hashlib.blake2b(digest[index], digest_size=8, salt=salt).digest() for index in first]
    return np.frombuffer(b"".join(hashes), dtype="<u8")


def _targets(count_GC: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Target number of images of each part and class: shares by largest remainders, at least 1 where possible."""
    total_C, groups_C = count_GC.sum(0), (count_GC > 0).sum(0)
    exact_PC = shares[:, None] * total_C[None, :]
    target_PC = np.floor(exact_PC + 1e-9).astype(np.int64)
    rest_PC = exact_PC - target_PC
    for c in range(len(total_C)):
        for p in np.argsort(-rest_PC[:, c], kind="stable")[: total_C[c] - target_PC[:, c].sum()]:
            target_PC[p, c] += 1
        for p in np.flatnonzero(target_PC[:, c] == 0)[: max(groups_C[c] - 1, 0)]:
            if target_PC[:, c].max() > 1:
                target_PC[target_PC[:, c].argmax(), c] -= 1
                target_PC[p, c] += 1
    return target_PC


def _assign_groups(
    part_G: np.ndarray, current_PC: np.ndarray, count_GC: np.ndarray, target_PC: np.ndarray, order: np.ndarray
) -> None:
    """Assign each group of images to the part where it least increases the chi-square distance from the targets.

    Groups that hold the largest share of any class come first, while all parts can still take them. For groups of
    equal size this is Webster's (Sainte-Laguë's) apportionment: all parts fill at the same rate, and a person with
    very many pictures goes to training.
    """
    size_G = count_GC.sum(1)
    large = order[size_G[order] > 1]
    share = (count_GC[large] / np.maximum(count_GC.sum(0), 1)).max(1)
    weight_PC = 1 / np.maximum(target_PC, 0.5)
    for g in large[np.argsort(-share, kind="stable")]:
        count_C = count_GC[g]
        after_PC = 2 * (current_PC - target_PC) + count_C
        part_G[g] = (after_PC * count_C * weight_PC).sum(1).argmin()
        current_PC[part_G[g]] += count_C


def _assign_single_images(
    part_G: np.ndarray, current_PC: np.ndarray, count_GC: np.ndarray, target_PC: np.ndarray, order: np.ndarray
) -> None:
    """Fill each class up to its targets with the images that are in no group with another image."""
    single = order[count_GC[order].sum(1) == 1]
    label = count_GC[single].argmax(1)
    for c in range(count_GC.shape[1]):
        member_M = single[label == c]
        quota_P = np.maximum(target_PC[:, c] - current_PC[:, c], 0)
        while quota_P.sum() > len(member_M):
            quota_P[quota_P.argmax()] -= 1
        quota_P[0] += len(member_M) - quota_P.sum()
        part_G[member_M] = np.repeat(np.arange(len(quota_P)), quota_P)
        current_PC[:, c] += quota_P


def _fill_missing_classes(part_G: np.ndarray, current_PC: np.ndarray, count_GC: np.ndarray, order: np.ndarray) -> None:
    """If a part lacks a class, move to it the smallest group with that class whose old part keeps all its classes."""
    size_G = count_GC.sum(1)
    by_size = order[np.argsort(size_G[order], kind="stable")]
    for p, c in np.argwhere(current_PC == 0):
        if current_PC[p, c] > 0:
            continue
        for g in by_size[(count_GC[by_size, c] > 0) & (part_G[by_size] != p)]:
            remaining_C = current_PC[part_G[g]] - count_GC[g]
            if (remaining_C[count_GC[g] > 0] > 0).all():
                current_PC[part_G[g]] -= count_GC[g]
                current_PC[p] += count_GC[g]
                part_G[g] = p
                break


def _check_source(source: Source, mode: str, val_from: str) -> None:
    """Refuse a split that needs what the source does not have."""
    if mode == "identity" and (source.identity is None or not (source.identity >= 0).any()):
        raise ValueError(
            f"split=identity needs the person in each picture, and data={source.name} does not know them; "
            "use split=stratified, or for data=folder give data.identity, a pattern on the file name"
        )
    if val_from == "test" and not (source.part == 2).any():
        raise ValueError(
            f"split.val_from=test takes validation out of the test part, and data={source.name} has none; "
            "leave split.val_from=train"
        )


def _check_classes(source: Source) -> None:
    count_C = np.bincount(source.labels, minlength=len(source.class_names))
    if (count_C > 0).sum() < 2:
        present = [name for name, count in zip(source.class_names, count_C, strict=True) if count]
        raise ValueError(
            f"data={source.name} holds only one class ({', '.join(present) or 'no image'}); two are needed"
        )
    if (count_C == 0).any():
        empty = [name for name, count in zip(source.class_names, count_C, strict=True) if not count]
        raise ValueError(f"data={source.name} holds no image of class {', '.join(empty)}")


def check_parts(part: np.ndarray, source: Source) -> None:
    """Raises ValueError unless every part has images of every class."""
    messages = []
    for p, part_name in enumerate(PARTS):
        count_C = np.bincount(source.labels[part == p], minlength=len(source.class_names))
        missing = [name for name, count in zip(source.class_names, count_C, strict=True) if not count]
        if missing:
            what = "no image at all" if len(missing) == len(count_C) else f"no image of {', '.join(missing)}"
            messages.append(f"{part_name} holds {what}")
    if messages:
        raise ValueError(f"data={source.name}: {'; '.join(messages)}. {_ways_out(part, source)}")


def _ways_out(part: np.ndarray, source: Source) -> str:
    """What helps where a part lacks a class. With three images of each class there are splits, with fewer none."""
    rule = "Every part needs images of every class, of different people if each person has to stay in one part"
    count_C = np.bincount(source.labels[part >= 0], minlength=len(source.class_names))
    few = [f"{name} ({count})" for name, count in zip(source.class_names, count_C, strict=True) if count < len(PARTS)]
    if not few:
        return (
            f"{rule}: add images, take split=kfold split.folds=3 (no more, or fewer split.folds), or larger parts with "
            "split=stratified split.val=0.3 split.test=0.3"
        )
    return (
        f"{rule}, and no split gives that with fewer than {len(PARTS)} images of {', '.join(few)}: add images, after "
        "which split=kfold split.folds=3 works, or leave the class out: move its folder out of the data"
    )
