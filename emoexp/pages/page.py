"""A page of sections. `markdown`, `html` and `latex` write it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MISSING = "–"  # what a table shows where a row has no value


@dataclass(frozen=True)
class Table:
    """A table.

    name: the name of its CSV file. note: the text below it. rows: its values. text_rows: the same rows as text.
    """

    name: str
    title: str
    note: str
    rows: list[dict[str, Any]]
    text_rows: list[dict[str, str]]

    @property
    def columns(self) -> list[str]:
        """The keys of all rows of text, each once, in the order in which they first appear."""
        return list(dict.fromkeys(key for row in self.text_rows for key in row))


@dataclass(frozen=True)
class Picture:
    """The file of a figure, and its caption."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with sentences, tables and figures. A table of the same title gets no heading of its own."""

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
