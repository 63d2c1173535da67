"""Rows of a CSV file, each with its place in the file."""

import csv
import gzip
import io
from collections.abc import Iterator

MAX_BYTES = 2 << 30  # of a table, unpacked


def read(data: bytes, name: str) -> Iterator[tuple[str, list[str]]]:
    """Place ("file:line") and fields of each row that is not blank; the header, first, is casefolded.

    Takes UTF-8 with or without a byte order mark, any line ends, and gzip.

    Raises:
        ValueError: text that is not UTF-8 or not CSV, or a header that names a column twice; with file and line.
    """
    rows = csv.reader(io.StringIO(_text(data, name), newline=""))
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


def _titles(row: list[str], name: str) -> list[str]:
    titles = [title.strip().casefold() for title in row]
    repeated = sorted({title for title in titles if title and titles.count(title) > 1})
    if repeated:
        raise ValueError(f"{name}:1: column {', '.join(repeated)} is named twice")
    return titles


def _text(data: bytes, name: str) -> str:
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(MAX_BYTES)
        return data.decode("utf-8-sig")
    except (OSError, EOFError) as error:
        raise ValueError(f"{name} is a damaged gzip file: {error}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}:{line}: not text in UTF-8 ({error.reason})") from error
