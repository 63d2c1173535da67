"""A page as one HTML file, which contains its style and its figures.

The template escapes every text, so that a class may be named <script>.
"""

import base64
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from emoexp.pages.page import MISSING, Page

_TEXT_LENGTH = 32  # a cell of more letters than this is text and not a number
_MEAN_WITH_INTERVAL = re.compile(r"(\d\S* ± \S+) (\[.*\])")


def write(page: Page) -> str:
    """The page as HTML. Reads the PNG files of its figures."""
    return _environment().get_template("page.html").render(page=page, missing=MISSING)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("emoexp.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell_class": _cell_class, "cell_lines": _cell_lines, "base64": _base64}
    return environment


def _cell_class(text: str) -> str:
    """The CSS class of a cell: a verdict's own, "text" for a long text, "" for a number."""
    if text in ("better", "worse"):
        return text
    return "text" if len(text) > _TEXT_LENGTH else ""


def _cell_lines(text: str) -> tuple[str, str]:
    """The two lines of a cell: a mean and its interval, so that a table fits a page; the second may be ""."""
    match = _MEAN_WITH_INTERVAL.fullmatch(text)
    return (match[1], match[2]) if match else (text, "")


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
