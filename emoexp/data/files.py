"""Facts of image files that their heads tell: colour mode, format, size and compression, without decoding pixels."""

import functools
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from emoexp.data import archive, images

_Fact = tuple[str, str, int, int, int, float]


@dataclass(frozen=True)
class Facts:
    """What the files say of themselves, in the order of the names that were asked for.

    mode: str N, Pillow's name of the colour mode ("L", "RGB", ...), "" where the file is broken. format: str N
    ("JPEG", "PNG", ...), "" where broken. width, height: int64 N, pixels in the file, not turned by EXIF, 0 where
    broken. bytes: int64 N, size of the file. quality: float64 N, JPEG quality 1..100 as libjpeg counts it, estimated
    from the luminance quantisation table; NaN where not JPEG. For an encoder with tables of its own it is the libjpeg
    quality whose table is nearest.
    """

    mode: np.ndarray
    format: np.ndarray
    width: np.ndarray
    height: np.ndarray
    bytes: np.ndarray
    quality: np.ndarray


def facts(root: Path, names: Sequence[str]) -> Facts | None:
    """Read the heads of image files under a folder or in an archive.

    Args:
        names: files as the tree of the root names them, in any order, also more than once.

    Returns:
        The facts in the order of the names, or None where names are no files of the tree: rows of a CSV, drawn faces.

    Raises:
        ValueError: the archive is damaged.
    """
    wanted = [str(name) for name in names]
    if not root.exists():
        return None
    with archive.open_tree(root) as tree, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of large images, which are not decoded here
        if not set(wanted) <= set(tree.names):
            return None
        contents = tree.each(dict.fromkeys(wanted), images.MAX_BYTES)
        known = {name: _fact(data) for name, data in contents}
    mode, form, width, height, size, quality = (
        zip(*(known[name] for name in wanted), strict=True) if wanted else [()] * 6
    )
    return Facts(
        mode=np.array(mode, dtype=str),
        format=np.array(form, dtype=str),
        width=np.array(width, dtype=np.int64),
        height=np.array(height, dtype=np.int64),
        bytes=np.array(size, dtype=np.int64),
        quality=np.array(quality, dtype=np.float64),
    )


def _fact(data: bytes) -> _Fact:
    """Mode, format, width, height, bytes and quality of one file."""
    try:
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as image:
            tables = getattr(image, "quantization", None)
            quality = _quality(tables[0]) if tables and 0 in tables else float("nan")
            return image.mode, image.format or "", *image.size, len(data), quality
    except Exception:  # noqa: BLE001 Pillow raises what it likes on broken files
        return "", "", 0, 0, len(data), float("nan")


def _quality(table: Sequence[int]) -> float:
    """The libjpeg quality whose luminance table is nearest to this one (of equals the lowest)."""
    return 1.0 + float(np.abs(_tables() - np.asarray(table)).sum(axis=1).argmin())


@functools.cache
def _tables() -> np.ndarray:
    """The luminance tables of qualities 1 to 100 as Pillow's libjpeg writes and Pillow reads them, int64 100×64."""
    rows = []
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            rows.append(image.quantization[0])  # type: ignore[attr-defined]
    return np.array(rows, dtype=np.int64)
