"""A page of sections, whatever it is written as: `markdown`, `html` and `latex` are the writers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MISSING = "–"  # what a table shows where a row has no value


@dataclass(frozen=True)
class Table:
    """A table: its file's name, its title, what to know of it, its rows as numbers and as text."""

    name: str
    title: str
    note: str
    rows: list[dict[str, Any]]
    shown: list[dict[str, str]]

    @property
    def columns(self) -> list[str]:
        """The keys of all rows of text, each once, in the order in which they first appear."""
        return list(dict.fromkeys(key for row in self.shown for key in row))


@dataclass(frozen=True)
class Picture:
    """A figure's file and what to see in it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with sentences, tables and figures below it; a table of the same title gets no heading."""

    title: str
    sentences: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """A title, facts (name, value), and sections."""

    title: str
    facts: list[tuple[str, str]]
    sections: list[Section]
