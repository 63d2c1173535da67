"""Rows of a CSV file, each with its place in the file."""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_BYTES = 2 << 30  # of a table, unpacked


def read(data: bytes, name: str) -> Iterator[tuple[str, list[str]]]:
    """Place ("file:line") and fields of each row that is not blank; the header, first, is casefolded.

    Takes UTF-8 with or without a byte order mark, UTF-16 with one, any line ends, and gzip; commas, semicolons or tabs
    between the fields, whichever the header has most of.

    Raises:
        ValueError: text that is not such text or not CSV, or a header that names a column twice; with file and line.
    """
    text = _text(data, name)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    header = True
    try:
        for row in rows:
            if not any(field.strip() for field in row):
                continue
            if header:
                row = _titles(row, name)
                header = False
            yield f"{name}:{rows.line_num}", row
    except csv.Error as error:
        raise ValueError(f"{name}:{rows.line_num}: {error}") from error
    if header:
        raise ValueError(f"{name} is an empty file; expected a header and rows")


def unusual(data: bytes, name: str) -> tuple[str, ...]:
    """A note where a table is not in UTF-8 with commas. Raises as `read`."""
    separated = {";": "semicolons", "\t": "tabs"}.get(_delimiter(_text(data, name)))
    facts = [f"separated by {separated}"] if separated else []
    facts += ["in UTF-16"] if _unpacked(data, name).startswith(_UTF_16) else []
    return (f"{name} is {' and '.join(facts)}",) if facts else ()


def _delimiter(text: str) -> str:
    header = text.lstrip().partition("\n")[0]
    return max(",;\t", key=header.count)


def _titles(row: list[str], name: str) -> list[str]:
    titles = [title.strip().casefold() for title in row]
    repeated = sorted({title for title in titles if title and titles.count(title) > 1})
    if repeated:
        raise ValueError(f"{name}:1: column {', '.join(repeated)} is named twice")
    return titles


def _text(data: bytes, name: str) -> str:
    data = _unpacked(data, name)
    encoding = "utf-16" if data.startswith(_UTF_16) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}:{line}: not text in {encoding[:6].upper()} ({error.reason})") from error


def _unpacked(data: bytes, name: str) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            return file.read(MAX_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name} is a damaged gzip file: {error}") from error
