"""Leaks between parts: pictures and people in validation or test that an earlier part has already shown.

A kind of leak is a way in which images are linked: equal pixels ("exact"), nearly the same picture ("near"), one
person ("person"). Links are numbers, int64 N, equal for images of one group.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from emoexp.data import splits
from emoexp.data.dataset import PARTS, Dataset, Source

POLICIES = ("warn", "drop", "refuse")


def links(data: Source, near_N: np.ndarray | None) -> dict[str, np.ndarray]:
    """The groups of each kind that is known. near_N: those of near duplicates, None where they were not searched."""
    found = {"exact": np.unique(data.digest, return_inverse=True)[1].astype(np.int64)}
    if near_N is not None:
        found["near"] = near_N
    if data.identity is not None and (data.identity >= 0).any():
        apart = data.identity.max() + 1 + np.arange(len(data.identity))
        found["person"] = np.where(data.identity >= 0, data.identity, apart)
    return found


def shown_before(group_N: np.ndarray, part_N: np.ndarray) -> np.ndarray:
    """Whether each image of val or test is in one group with an image of an earlier part: bool N."""
    first_G = _extreme(np.minimum, group_N, part_N, len(PARTS))
    return (part_N > 0) & (first_G[group_N] < part_N)


def shown_later(group_N: np.ndarray, part_N: np.ndarray) -> np.ndarray:
    """Whether each image of train or val is in one group with an image of a later part: bool N."""
    last_G = _extreme(np.maximum, group_N, part_N, -1)
    return (part_N >= 0) & (last_G[group_N] > part_N)


def _extreme(which: np.ufunc, group_N: np.ndarray, part_N: np.ndarray, start: int) -> np.ndarray:
    inside = part_N >= 0
    extreme_G = np.full(int(group_N.max(initial=-1)) + 1, start, np.int64)
    which.at(extreme_G, group_N[inside], part_N[inside])
    return extreme_G


def count(data: Dataset, near_N: np.ndarray | None) -> dict[str, dict[str, Any]]:
    """For val and test: n, and for each known kind the images that an earlier part shows, in all and by class.

    "near" counts those that are not exact.
    """
    seen = {kind: shown_before(group_N, data.part) for kind, group_N in links(data, near_N).items()}
    if "near" in seen:
        seen["near"] &= ~seen["exact"]
    table: dict[str, dict[str, Any]] = {}
    for part in PARTS[1:]:
        here = data.where(part)
        classes = {
            kind: np.bincount(data.labels[here][flag_N[here]], minlength=len(data.class_names)).tolist()
            for kind, flag_N in seen.items()
        }
        table[part] = {"n": len(here), **{kind: sum(by_class) for kind, by_class in classes.items()}}
        table[part]["per_class"] = classes
    return table


def sentence(row: Mapping[str, Any]) -> str:
    """A row of `count` in words; empty where nothing leaks."""
    words = {
        "exact": "also stand in an earlier part",
        "near": "nearly so (shifted, mirrored, re-encoded)",
        "person": "show somebody who stands there too",
    }
    return ", ".join(f"{row[kind]} {text}" for kind, text in words.items() if row.get(kind))


def summary(found: Mapping[str, Mapping[str, Any]]) -> str:
    """All rows of `count` in one line."""
    return "; ".join(f"{part}: {sentence(row)}" for part, row in found.items() if sentence(row)) or "none"


def refuse(data: Dataset, near_N: np.ndarray | None) -> Dataset:
    """The data, where nothing leaks.

    Raises:
        ValueError: something does.
    """
    found = summary(count(data, near_N))
    if found != "none":
        raise ValueError(
            f"data.leaks=refuse, and data={data.name} leaks: {found}. Take pictures out with data.leaks=drop, keep "
            "people apart with split=identity, or let it be with data.leaks=warn"
        )
    return data


def drop(data: Dataset, near_N: np.ndarray | None) -> Dataset:
    """The data without the pictures of training that val or test hold too, and of val that test holds.

    Images of the same person stay: keeping people apart is the task of the split.

    Raises:
        ValueError: a part is left without images of a class.
    """
    kinds = links(data, near_N)
    group_N = kinds.get("near", kinds["exact"])
    leaking_N = shown_later(group_N, data.part)
    if not leaking_N.any():
        return data
    part = np.where(leaking_N, -1, data.part).astype(np.int8)
    splits.check_parts(part, data)
    counts = [int((leaking_N & (data.part == p)).sum()) for p in range(2)]
    note = (
        f"data.leaks=drop: {counts[0]} images of training and {counts[1]} of validation that later parts hold are out"
    )
    return dataclasses.replace(data, part=part, notes=(*data.notes, note))
