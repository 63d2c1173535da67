"""FER2013 as CSV: fer2013.csv (emotion,pixels,Usage) and icml_face_data.csv (emotion, Usage, pixels)."""

import numpy as np

from emoexp.data import images, table
from emoexp.data.archive import Tree

CLASS_NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
ALIASES = {
    "anger": "angry", "disgusted": "disgust", "fearful": "fear", "happiness": "happy", "sadness": "sad",
    "surprised": "surprise", **{name: name for name in CLASS_NAMES},
    **{str(number): name for number, name in enumerate(CLASS_NAMES)},
}  # fmt: skip
_SIDE = 48
_USUAL_NAMES = ("fer2013.csv", "icml_face_data.csv")
_VALUES = {str(value): value for value in range(256)}
_USAGES = {"training": 0, "publictest": 1, "privatetest": 2}
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...], tuple[tuple[str, str], ...]]


def csv_file(tree: Tree) -> str | None:
    """The name of the CSV file to read, None where there is none.

    Raises:
        ValueError: there are several, and none has a usual name.
    """
    tables = [name for name in tree.names if name.casefold().endswith((".csv", ".csv.gz"))]
    for usual_name in _USUAL_NAMES:
        for name in tables:
            if name.casefold().rsplit("/", 1)[-1].removesuffix(".gz") == usual_name:
                return name
    if len(tables) > 1 and not any(images.is_image(name) for name in tree.names):
        raise ValueError(f"{tree.root} holds {', '.join(tables)}; point data.root to the one to read")
    return tables[0] if tables else None


def read_csv(tree: Tree, name: str, on_corrupt: str) -> Columns:
    """Pixels (uint8 N×1×48×48), labels, usage (0 Training, 1 PublicTest, 2 PrivateTest), names of the rows, notes, and
    name and reason of each row that was left out.

    Without a Usage column all rows count as Training, and a note says so.

    Raises:
        ValueError: a header or label that is not understood, with file and line; or rows with wrong pixels, as a list.
    """
    data = tree.read(name, table.MAX_BYTES)
    rows = table.read(data, name)
    column = _header(next(rows)[1], name)
    named = 0
    good_rows: list[tuple[int, bytes, int, str]] = []
    unusable: list[tuple[str, str]] = []
    for where, row in rows:
        if len(row) <= max(column.values()):
            raise ValueError(f"{where}: {len(row)} fields, expected {max(column.values()) + 1}")
        label = _emotion(row[column["emotion"]], where)
        named += not row[column["emotion"]].strip().isdigit()
        usage = _usage(row[column["usage"]], where) if "usage" in column else 0
        pixels = _pixels(row[column["pixels"]])
        if isinstance(pixels, str):
            unusable.append((where, pixels))
        else:
            good_rows.append((label, pixels, usage, where))
    if not good_rows and not unusable:
        raise ValueError(f"{name} holds a header and no rows")
    notes = images.report_unusable(
        [f"{where}: {why}" for where, why in unusable], len(good_rows) + len(unusable), on_corrupt
    )
    notes += table.unusual(data, name)
    if named:
        notes += (f"{name} has names of emotions in place of numbers in {named} rows",)
    if "usage" not in column:
        notes += (f"{name} has no Usage column: all of it is taken as Training",)
    labels, packed, usages, row_names = zip(*good_rows, strict=True)
    pixels_N1HW = np.frombuffer(b"".join(packed), dtype=np.uint8).reshape(-1, 1, _SIDE, _SIDE)
    return pixels_N1HW, np.array(labels), np.array(usages), np.array(row_names), notes, tuple(unusable)


def read_pixels(data: bytes, name: str, on_corrupt: str) -> tuple[np.ndarray, list[str], tuple[str, ...]]:
    """Pixels (uint8 N×1×48×48), names of the rows, and notes, of a table that needs no labels: FER's test.csv.

    Raises:
        ValueError: no column of pixels, or rows with wrong pixels, as a list.
    """
    rows = table.read(data, name)
    titles = next(rows)[1]
    if "pixels" not in titles:
        raise ValueError(f"{name}:1: no column pixels in the header ({', '.join(titles)[:80]})")
    place = titles.index("pixels")
    names: list[str] = []
    packed: list[bytes] = []
    unusable: list[str] = []
    for where, row in rows:
        pixels = _pixels(row[place]) if len(row) > place else f"{len(row)} fields, expected {place + 1}"
        if isinstance(pixels, str):
            unusable.append(f"{where}: {pixels}")
        else:
            names.append(where)
            packed.append(pixels)
    notes = images.report_unusable(unusable, len(names) + len(unusable), on_corrupt)
    pixels_N1HW = np.frombuffer(b"".join(packed), dtype=np.uint8).reshape(-1, 1, _SIDE, _SIDE)
    return pixels_N1HW, names, (*notes, *table.unusual(data, name))


def _header(titles: list[str], name: str) -> dict[str, int]:
    """Position of each column."""
    column: dict[str, int] = {title: titles.index(title) for title in ("emotion", "pixels", "usage") if title in titles}
    if "emotion" not in column and "pixels" in column:
        raise ValueError(
            f"{name} has pixels but no emotion column: images without labels train nothing. Of a trained model, "
            f"python -m emoexp.predict run=outputs/<run> images={name} asks for their classes"
        )
    missing = [title for title in ("emotion", "pixels") if title not in column]
    if missing:
        raise ValueError(
            f"{name}:1: no column {' and '.join(missing)} in the header ({', '.join(titles)[:80]}); "
            "expected emotion, pixels and Usage in any order"
        )
    return column


def _emotion(text: str, where: str) -> int:
    name = ALIASES.get(text.strip().casefold())
    if name is None:
        raise ValueError(f"{where}: emotion {text[:40]!r}; expected 0 to 6, or one of {', '.join(CLASS_NAMES)}")
    return CLASS_NAMES.index(name)


def _usage(text: str, where: str) -> int:
    usage = _USAGES.get(text.strip().casefold())
    if usage is None:
        raise ValueError(f"{where}: Usage {text!r}; expected Training, PublicTest or PrivateTest")
    return usage


def _pixels(text: str) -> bytes | str:
    """The bytes of an image, or what is wrong with it."""
    fields = text.split()
    if len(fields) != _SIDE * _SIDE:
        return f"{len(fields)} pixel values, expected {_SIDE * _SIDE}"
    try:
        return bytes(map(_VALUES.__getitem__, fields))
    except KeyError as error:
        return f"pixel value {error.args[0][:20]!r}, expected 0 to 255"
