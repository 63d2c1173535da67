"""The result of a chapter of an audit: a section of the page, findings, and numbers; and helpers for its tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emoexp.pages.page import MISSING, Section, Table

KINDS = {  # the findings that audit.fail_on may name
    "altered": "this copy of a known set differs from the original",
    "leaks": "pictures of val or test with the pixels of a picture in an earlier part",
    "near_leaks": "pictures of val or test with a near duplicate (shifted, mirrored, brightened) in an earlier part",
    "people": "images of val or test whose person is in an earlier part",
    "frames": "neighbouring frames of a video that are in different parts",
    "duplicates": "pictures with the same pixels as another one, without one of each group",
    "near_duplicates": "pictures nearly the same as another one, without one of each group",
    "conflicts": "groups of the same picture with different labels",
    "unreadable": "files that cannot be used",
    "blank": "pictures that are one flat tone",
    "nearly_blank": "pictures with hardly any contrast",
    "small": "files with fewer pixels than the images made of them",
    "shapes": "files with one side at least twice the other, of which the crop removes half",
    "sizes": "files whose size differs from that of nine in ten files",
    "confounds": "features that have nothing to do with the expression and predict the class",
    "one_label": "people with several pictures that all have the same label",
    "labels": "labels that contradict a model's predictions on images on which it was not trained",
    "few": "classes with so few test images that the interval of a recall is wider than 10 points to each side",
}


@dataclass(frozen=True)
class Finding:
    """A finding of one of KINDS: its count, and a sentence for the page."""

    kind: str
    count: int
    text: str


@dataclass(frozen=True)
class Chapter:
    """A section of the page, its findings, and its numbers for scripts."""

    section: Section
    findings: list[Finding] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)


def table_of(name: str, title: str, note: str, rows: list[dict[str, Any]]) -> Table:
    """A table of values; floating-point numbers are shown with three digits."""
    return Table(name, title, note, rows, [{key: cell_text(value) for key, value in row.items()} for row in rows])


def cell_text(value: Any) -> str:
    """The text of a value in a table."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return MISSING
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def by_class(names: Sequence[str], columns: dict[str, Sequence[int | float | None]]) -> list[dict[str, Any]]:
    """A row for each class, and a row "all" with the sums of those columns that are counts."""
    rows = [
        {"class": name} | {key: _plain(values[c]) for key, values in columns.items()} for c, name in enumerate(names)
    ]
    total = {
        key: int(sum(int(value) for value in values if value is not None))
        for key, values in columns.items()
        if all(isinstance(value, int | np.integer) for value in values)
    }
    return [*rows, {"class": "all"} | total]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
