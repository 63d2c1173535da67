"""A page as one HTML file that needs nothing else: its style and its figures are inside.

The template escapes every text, so that a class may be called <script>.
"""

import base64
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from emoexp.pages.page import MISSING, Page

_TEXT_LENGTH = 32  # a cell of more letters than this is text and not a number
_MEAN_WITH_INTERVAL = re.compile(r"(\d\S* ± \S+) (\[.*\])")


def write(page: Page) -> str:
    """The page as HTML. Reads the files of its figures, which are PNG."""
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
    """What a cell looks like: a verdict in its colour, long text on the left, and "" for a number."""
    if text in ("better", "worse"):
        return text
    return "text" if len(text) > _TEXT_LENGTH else ""


def _cell_lines(text: str) -> tuple[str, str]:
    """A mean, and its interval for a line of its own, so that a table is not wider than a page; "" without one."""
    match = _MEAN_WITH_INTERVAL.fullmatch(text)
    return (match[1], match[2]) if match else (text, "")


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
