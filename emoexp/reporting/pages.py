"""A report as Markdown, CSV, JSON, LaTeX and one HTML page."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emoexp.pages import html, latex, markdown
from emoexp.pages.page import Page, Picture, Section, Table
from emoexp.runs import files, tables


@dataclass(frozen=True)
class Report:
    """The content of a report. left_out: (name, reason) of what was left out. runs: a row for each run."""

    title: str
    facts: list[tuple[str, str]]
    sentences: list[str]
    tables: list[Table]
    pictures: list[Picture]
    left_out: list[tuple[str, str]]
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def page(self) -> Page:
        """The report as sections."""
        left_out = [f"{name}: {reason}" for name, reason in self.left_out]
        sections = [
            Section("In words", self.sentences),
            *[Section(table.title, tables=[table]) for table in self.tables],
            Section("Left out", left_out or ["Nothing: every cell that was asked for is in."]),
            Section("Figures", pictures=self.pictures),
        ]
        return Page(self.title, self.facts, sections)


_TABLES = (
    "arms_test",
    "arms_test_clean",
    "differences_test",
    "differences_test_clean",
    "costs",
    "runs",
    "protocols",
    "protocols_per_class",
)
_FIGURES = ("seeds", "differences", "confusions", "tradeoff", "recalls", "precision_recall", "leak_worth")


def write(folder: Path, report: Report) -> None:
    """Write report.md, report.tex, report.html, summary.json and a CSV for each table. Tables and figures of an earlier
    report that this one lacks are removed."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    rows = {table.name: table.rows for table in report.tables}
    rows["runs"] = report.runs
    for name, lines in rows.items():
        tables.write_table(folder / "tables" / f"{name}.csv", lines)
    texts = {
        "md": markdown.write(report.page),
        "tex": latex.write(report.title, report.tables),
        "html": html.write(report.page),
    }
    for name, text in texts.items():
        files.write_text(folder / f"report.{name}", text)
    summary = {
        "title": report.title,
        "facts": dict(report.facts),
        "sentences": report.sentences,
        "tables": rows,
        "left_out": [{"what": name, "why": reason} for name, reason in report.left_out],
    }
    text = json.dumps(files.json_values(summary), indent=1, ensure_ascii=False, allow_nan=False)
    files.write_text(folder / "summary.json", text + "\n")
    figures = {picture.path.name for picture in report.pictures}
    stale = [folder / "tables" / f"{name}.csv" for name in _TABLES if name not in rows]
    stale += [folder / "figures" / f"{name}.png" for name in _FIGURES if f"{name}.png" not in figures]
    for path in stale:
        path.unlink(missing_ok=True)
