"""The common style of all figures, and text in a form that every figure can show."""

import io
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from emoexp.runs import files

FONT = "DejaVu Sans"  # part of matplotlib, so that it is the same everywhere
INK, FAINT, ABSENT = "#222222", "#BBBBBB", "#E8E8E8"
# Okabe and Ito (2008), distinct in all common forms of colour blindness; without their yellow, too pale on white.
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
BROWN, GREY = "#7A5C3E", "#6E6E6E"
PALETTE = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, BROWN, GREY)
DASHED = (0, (5, 4))
STYLE: Any = {
    "font.family": FONT,
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $x_1$
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.titlesize": 10.5,
    "figure.labelsize": 9,
    "figure.dpi": 130,
    "figure.constrained_layout.w_pad": 0.08,
}
LABEL_LENGTH = 18
MAX_CLASSES = 30  # rows or panels, one for each class, that a figure has
_LINE = 0.23  # inches, of the heading


@contextmanager
def saved_figure(
    path: Path,
    width: float,
    height: float,
    title: str,
    facts: str,
    layout: Literal["constrained", "compressed"] | None = "constrained",
) -> Iterator[Figure]:
    """A figure of this size in inches below its heading; written to `path` when the block ends without an
    error.

    `layout` is "compressed" for panels of fixed shape, None where the caller places everything. The picture
    depends on no setting of the user's: no matplotlibrc and no pyplot are used, and the file holds no time.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        lines = _wrapped(title, int(10.5 * width)) + _wrapped(facts, int(12 * width))
        figure = Figure(figsize=(width, height + _LINE * len(lines)), layout=layout)
        canvas = FigureCanvasAgg(figure)
        heading = figure.suptitle("\n".join(lines), x=0.01, ha="left", linespacing=1.35)
        if layout is None:
            heading.set_y(1 - 0.05 / figure.get_figheight())
        yield figure
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)  # the layout needs two passes; drawing makes the second
        buffer = io.BytesIO()
        # print_figure would draw it twice; level 3 makes files as small as the default in two thirds of the time
        canvas.print_png(buffer, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, buffer.getvalue())


def most_and_fewest(count_C: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The classes that a figure has room for: all of them; of more than MAX_CLASSES, those with the most and those with
    the fewest images.

    Returns:
        Their ascending indices, and what the facts below the title say of the others, in a list that may be empty.
    """
    count_C = np.nan_to_num(np.asarray(count_C, float))
    if len(count_C) <= MAX_CLASSES:
        return np.arange(len(count_C)), []
    order_C, half = np.argsort(-count_C, kind="stable"), MAX_CLASSES // 2
    shown = np.sort(np.concatenate([order_C[:half], order_C[-half:]]))
    return shown, [f"{MAX_CLASSES} of {len(count_C):,} classes: those with the most and the fewest images"]


def printable(texts: Sequence[str], limit: int = LABEL_LENGTH) -> list[str]:
    """Names as a figure can show them: on one line, at most `limit` letters long. Where cut names are equal, a number
    makes them distinct.

    Characters that the font lacks are written as their escape; the middle of a long name becomes an ellipsis.
    """
    lines = [_on_one_line(text) for text in texts]
    short = [text if len(text) <= limit else f"{text[: (limit - 1) // 2]}…{text[-(limit // 2) :]}" for text in lines]
    times = Counter(short)
    return [
        text if text and times[text] == 1 else f"{text[: limit - 1 - len(str(i))]}~{i}" for i, text in enumerate(short)
    ]


def _wrapped(text: str, room: int) -> list[str]:
    return textwrap.wrap(_on_one_line(text), room, break_on_hyphens=False)


def _on_one_line(text: str) -> str:
    return "".join(_printable_character(character) for character in " ".join(text.split()))


def _printable_character(character: str) -> str:
    has_glyph = character.isprintable() and ord(character) in _glyphs()
    return character if has_glyph else character.encode("unicode_escape").decode()


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())
