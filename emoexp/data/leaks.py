"""Leaks between parts: pictures and people in validation or test that an earlier part has too.

There are three kinds of leaks, by what links two images: equal pixels ("exact"), near duplicates ("near"), the same
person ("person"). Each kind divides the images into groups, given as int64 N, equal for the images of one group.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from emoexp.data import splits
from emoexp.data.dataset import PARTS, Dataset, Source

POLICIES = ("warn", "drop", "refuse")


def links(data: Source, near_N: np.ndarray | None) -> dict[str, np.ndarray]:
    """The groups of images by kind of leak; a kind that is not known is left out.

    near_N: groups of near duplicates, None where they were not searched.
    """
    group_of = {"exact": np.unique(data.digest, return_inverse=True)[1].astype(np.int64)}
    if near_N is not None:
        group_of["near"] = near_N
    if data.identity is not None and (data.identity >= 0).any():
        own_number_N = data.identity.max() + 1 + np.arange(len(data.identity))
        group_of["person"] = np.where(data.identity >= 0, data.identity, own_number_N)
    return group_of


def linked_to_earlier_part(group_N: np.ndarray, part_N: np.ndarray) -> np.ndarray:
    """Whether each image of val or test is in one group with an image of an earlier part: bool N."""
    first_G = _reduce_by_group(np.minimum, group_N, part_N, len(PARTS))
    return (part_N > 0) & (first_G[group_N] < part_N)


def linked_to_later_part(group_N: np.ndarray, part_N: np.ndarray) -> np.ndarray:
    """Whether each image of train or val is in one group with an image of a later part: bool N."""
    last_G = _reduce_by_group(np.maximum, group_N, part_N, -1)
    return (part_N >= 0) & (last_G[group_N] > part_N)


def _reduce_by_group(reduce: np.ufunc, group_N: np.ndarray, part_N: np.ndarray, initial: int) -> np.ndarray:
    in_part_N = part_N >= 0
    part_G = np.full(int(group_N.max(initial=-1)) + 1, initial, np.int64)
    reduce.at(part_G, group_N[in_part_N], part_N[in_part_N])
    return part_G


def count(data: Dataset, near_N: np.ndarray | None) -> dict[str, dict[str, Any]]:
    """The leaks into val and into test: n, and for each known kind the number of leaking images, in all and by class.

    "near" does not count images that "exact" counts.
    """
    leak_of = {kind: linked_to_earlier_part(group_N, data.part) for kind, group_N in links(data, near_N).items()}
    if "near" in leak_of:
        leak_of["near"] &= ~leak_of["exact"]
    table: dict[str, dict[str, Any]] = {}
    for part in PARTS[1:]:
        index = data.where(part)
        per_class = {
            kind: np.bincount(data.labels[index][flag_N[index]], minlength=len(data.class_names)).tolist()
            for kind, flag_N in leak_of.items()
        }
        table[part] = {"n": len(index), **{kind: sum(by_class) for kind, by_class in per_class.items()}}
        table[part]["per_class"] = per_class
    return table


def sentence(row: Mapping[str, Any]) -> str:
    """One part's row of `count` in words; empty where nothing leaks."""
    phrases = {
        "exact": "have the pixels of an image in an earlier part",
        "near": "are near duplicates of an image in an earlier part",
        "person": "show a person who is in an earlier part",
    }
    return ", ".join(f"{row[kind]} {text}" for kind, text in phrases.items() if row.get(kind))


def summary(table: Mapping[str, Mapping[str, Any]]) -> str:
    """All rows of `count` in one line."""
    return "; ".join(f"{part}: {sentence(row)}" for part, row in table.items() if sentence(row)) or "none"


def refuse(data: Dataset, near_N: np.ndarray | None) -> Dataset:
    """The data unchanged, if nothing leaks.

    Raises:
        ValueError: something leaks.
    """
    leaks_text = summary(count(data, near_N))
    if leaks_text != "none":
        raise ValueError(
            f"data.leaks=refuse, and data={data.name} leaks: {leaks_text}. Remove the pictures from the earlier parts "
            "with data.leaks=drop, keep each person in one part with split=identity, or only warn with data.leaks=warn"
        )
    return data


def drop(data: Dataset, near_N: np.ndarray | None) -> Dataset:
    """The data without the training images that leak into val or test, and without those of val that leak into test.

    Only exact and near leaks are dropped: to keep a person in one part is the task of the split.

    Raises:
        ValueError: a part is left without images of a class.
    """
    group_of = links(data, near_N)
    group_N = group_of.get("near", group_of["exact"])
    leak_N = linked_to_later_part(group_N, data.part)
    if not leak_N.any():
        return data
    part = np.where(leak_N, -1, data.part).astype(np.int8)
    splits.check_parts(part, data)
    counts = [int((leak_N & (data.part == p)).sum()) for p in range(2)]
    note = (
        f"data.leaks=drop: {counts[0]} images of training and {counts[1]} of validation are removed, because a later "
        "part has them too"
    )
    return dataclasses.replace(data, part=part, notes=(*data.notes, note))
