"""What a chapter of an audit returns: a section of the page, findings, and numbers; and its tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emoexp.pages.page import MISSING, Section, Table

KINDS = {  # the findings that audit.fail_on may name
    "altered": "the set is known, and this copy differs from the original",
    "leaks": "pictures of val or test whose pixels stand in an earlier part",
    "near_leaks": "pictures of val or test that an earlier part nearly has: shifted, mirrored, re-encoded, brightened",
    "people": "images of val or test whose person stands in an earlier part",
    "frames": "neighbouring frames of a video that stand in different parts",
    "duplicates": "pictures with the same pixels as another, less one each",
    "near_duplicates": "pictures nearly the same as another, less one each",
    "conflicts": "the same picture with different labels",
    "unreadable": "files that cannot be used",
    "blank": "pictures that are one flat tone",
    "nearly_blank": "pictures with hardly any contrast",
    "small": "files smaller than the images made of them",
    "shapes": "files at least twice as long as wide, or the other way round, of which the crop takes half",
    "sizes": "files of another size than nine in ten",
    "confounds": "facts without any expression in them that predict the class",
    "one_label": "people with several pictures that all have the same label",
    "labels": "labels that a trained model's predictions on unseen images contradict",
    "few": "classes with so few test images that a recall is known to within 10 points at best",
}


@dataclass(frozen=True)
class Finding:
    """One of KINDS: how many there are, and a sentence that says so."""

    kind: str
    count: int
    text: str


@dataclass(frozen=True)
class Chapter:
    """A section of the page, what it found, and its numbers for scripts."""

    section: Section
    findings: list[Finding] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)


def table_of(name: str, title: str, note: str, rows: list[dict[str, Any]]) -> Table:
    """A table of numbers as they are; shares have three digits."""
    return Table(name, title, note, rows, [{key: cell_text(value) for key, value in row.items()} for row in rows])


def cell_text(value: Any) -> str:
    """A value as a table shows it."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return MISSING
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def by_class(names: Sequence[str], columns: dict[str, Sequence[int | float | None]]) -> list[dict[str, Any]]:
    """A row for each class, and one for all where columns are counts."""
    rows = [
        {"class": name} | {key: _plain(values[place]) for key, values in columns.items()}
        for place, name in enumerate(names)
    ]
    total = {
        key: int(sum(int(value) for value in values if value is not None))
        for key, values in columns.items()
        if all(isinstance(value, int | np.integer) for value in values)
    }
    return [*rows, {"class": "all"} | total]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
