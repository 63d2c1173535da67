"""Rows as tables: CSV files that no spreadsheet takes for formulas, and aligned columns for the log."""

import csv
import io
import re
from pathlib import Path
from typing import Any

from emoexp.runs import files


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as CSV. Text that a spreadsheet would take for a formula gets an apostrophe in front."""
    text = io.StringIO()
    writer = csv.writer(text)
    if rows:
        writer.writerow([without_formula(name) for name in rows[0]])
        writer.writerows([without_formula(value) for value in row.values()] for row in rows)
    files.write_text(path, text.getvalue())


def without_formula(value: Any) -> Any:
    """A cell of a CSV that no spreadsheet runs."""
    return f"'{value}" if isinstance(value, str) and re.match(r"[=+\-@\t\r]", value) else value


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as text in aligned columns, for the log."""
    if not rows:
        return ""
    cells = [list(rows[0]), *[[_short(value) for value in row.values()] for row in rows]]
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def _short(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
