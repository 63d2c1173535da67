"""What the headers of image files say: colour mode, format, size and compression. No pixels are decoded."""

import functools
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from emoexp.data import archive, images

_Header = tuple[str, str, int, int, int, float]


@dataclass(frozen=True)
class FileInfo:
    """What the headers of image files say, in the order of the names passed to `file_info`.

    mode: str N, Pillow's name of the colour mode ("L", "RGB", ...), "" where the file is broken. format: str N
    ("JPEG", "PNG", ...), "" where broken. width, height: int64 N, pixels in the file, not turned by EXIF, 0 where
    broken. bytes: int64 N, size of the file. quality: float64 N, JPEG quality on libjpeg's scale 1..100: the one
    whose standard luminance quantisation table is nearest to the file's table; NaN where the file is no JPEG.
    """

    mode: np.ndarray
    format: np.ndarray
    width: np.ndarray
    height: np.ndarray
    bytes: np.ndarray
    quality: np.ndarray


def file_info(root: Path, names: Sequence[str]) -> FileInfo | None:
    """Read the headers of image files in a folder or an archive.

    Args:
        names: names of files relative to the root, in any order; a name may be there more than once.

    Returns:
        None where a name is no file under the root: rows of a CSV, drawn faces.

    Raises:
        ValueError: the archive is damaged.
    """
    name_list = [str(name) for name in names]
    if not root.exists():
        return None
    with archive.open_tree(root) as tree, warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow warns of unusual metadata and of large images, which are not decoded here
        if not set(name_list) <= set(tree.names):
            return None
        contents = tree.read_many(dict.fromkeys(name_list), images.MAX_BYTES)
        header_of = {name: _read_header(data) for name, data in contents}
    mode, image_format, width, height, size, quality = (
        zip(*(header_of[name] for name in name_list), strict=True) if name_list else [()] * 6
    )
    return FileInfo(
        mode=np.array(mode, dtype=str),
        format=np.array(image_format, dtype=str),
        width=np.array(width, dtype=np.int64),
        height=np.array(height, dtype=np.int64),
        bytes=np.array(size, dtype=np.int64),
        quality=np.array(quality, dtype=np.float64),
    )


def _read_header(data: bytes) -> _Header:
    """Mode, format, width, height, bytes and quality of one file."""
    try:
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as image:
            tables = getattr(image, "quantization", None)
            quality = _quality(tables[0]) if tables and 0 in tables else float("nan")
            return image.mode, image.format or "", *image.size, len(data), quality
    except Exception:  # noqa: BLE001 Pillow raises errors of any kind on broken files
        return "", "", 0, 0, len(data), float("nan")


def _quality(table: Sequence[int]) -> float:
    """The libjpeg quality whose luminance table is nearest to this one; the lowest of several."""
    return 1.0 + float(np.abs(_standard_tables() - np.asarray(table)).sum(axis=1).argmin())


@functools.cache
def _standard_tables() -> np.ndarray:
    """The luminance tables of qualities 1 to 100, as Pillow writes and reads them, int64 100×64."""
    rows = []
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            rows.append(image.quantization[0])  # type: ignore[attr-defined]  # a JPEG has it, an image of Pillow's not
    return np.array(rows, dtype=np.int64)
