"""From the bytes of an image file to square uint8 pixels of the wanted side and number of channels."""

import io
import math
import posixpath
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from emoexp.data import mapped
from emoexp.data.dataset import digest
from emoexp.data.mapped import Room

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 50_000_000  # of one image; more is taken for a decompression bomb
MAX_BYTES = 256 << 20  # of one image file
POLICIES = ("refuse", "drop")
_SHOWN = 20
_TOGETHER = 32  # images between two looks at what is resident
_EXIF_ORIENTATION = 0x0112
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")


@dataclass(frozen=True)
class Decoded:
    """Images that could be read.

    pixels: uint8 N×C×S×S. kept: positions (int64 N) among the files that were asked for.
    size: width and height in the files, int64 N×2. digest: bytes N, of the pixels. notes: what was dropped and why.
    bad: name and reason of each."""

    pixels: np.ndarray
    kept: np.ndarray
    size: np.ndarray
    digest: np.ndarray
    notes: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]


def is_image(name: str) -> bool:
    """Whether a file's suffix is that of a kind of image that is read."""
    return posixpath.splitext(name)[1].casefold() in SUFFIXES


def decode_all(
    names: list[str],
    contents: Iterable[tuple[str, bytes]],
    image_size: int,
    channels: int,
    on_corrupt: str,
    room: Room = mapped.in_ram,
) -> Decoded:
    """Decode files, all of them before complaining.

    Args:
        names: the files wanted. contents: name and bytes of each, in any order; what does not come is missing.
        on_corrupt: "refuse" unreadable files or "drop" them with a note.
        room: where the pixels are put, each as soon as it is decoded.

    Raises:
        ValueError: lists the files that cannot be read, with reasons, where they are refused, or where none
            is left.
    """
    check_policy(on_corrupt)
    place = {name: index for index, name in enumerate(names)}
    pixels = room((len(names), channels, image_size, image_size))
    size, hashed = np.zeros((len(names), 2), dtype=np.int64), np.zeros(len(names), "S32")
    bad = dict.fromkeys(names, "is missing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which changes no pixel
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for number, (name, data) in enumerate(contents, start=1):
            try:
                row = place[name]
                image, size[row] = decode(data, image_size, channels)
                pixels[row], hashed[row] = image, digest(image)
                del bad[name]
            except ValueError as error:
                bad[name] = str(error)
            if number % _TOGETHER == 0:
                mapped.touch(pixels, _TOGETHER)
    notes = report_bad([f"{name} {reason}" for name, reason in bad.items()], len(names), on_corrupt)
    kept = np.array([place[name] for name in names if name not in bad], dtype=np.int64)
    return Decoded(_closed_up(pixels, kept), kept, size[kept], hashed[kept], notes, tuple(bad.items()))


def _closed_up(pixels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The rows that are kept, in the same memory: those behind a dropped one move up."""
    for row in np.flatnonzero(kept != np.arange(len(kept))).tolist():
        pixels[row] = pixels[kept[row]]
        mapped.touch(pixels, 2)
    return pixels[: len(kept)]


def check_policy(on_corrupt: str) -> None:
    """Raises ValueError unless `on_corrupt` is one of POLICIES."""
    if on_corrupt not in POLICIES:
        raise ValueError(f"data.on_corrupt={on_corrupt!r}; it may be refuse or drop")


def report_bad(bad: list[str], total: int, on_corrupt: str) -> tuple[str, ...]:
    """A note on images that cannot be used, one line each, or none where there are none.

    Raises:
        ValueError: the same as an error, where they are refused or nothing is left.
    """
    if not bad:
        return ()
    more = f"\n  and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    text = f"{len(bad)} of {total} images cannot be used:\n  " + "\n  ".join(bad[:_SHOWN]) + more
    if on_corrupt == "refuse":
        raise ValueError(text + "\nRepair or remove them, or leave them out with data.on_corrupt=drop")
    if len(bad) == total:
        raise ValueError(text + "\nNothing is left")
    return (text.replace("cannot be used", "cannot be used and are left out"),)


def decode(data: bytes, image_size: int, channels: int) -> tuple[np.ndarray, tuple[int, int]]:
    """One image as uint8 C×S×S, and its width and height in the file.

    The picture is turned as its EXIF orientation says, laid on white where it is transparent, 16-bit values
    are divided by 257, an animation gives its first frame. Shape is kept: the shorter side becomes
    `image_size`, the longer one is cut at both ends.

    Raises:
        ValueError: says why the bytes are no usable image.
    """
    if not data:
        raise ValueError("is empty")
    if len(data) >= MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"has {width}x{height} pixels, more than {MAX_PIXELS}")
            picture = _upright(image)
            plain = _square(_plain(picture, "L" if channels == 1 else "RGB"), image_size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError("claims so many pixels that it is taken for a decompression bomb") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"is no image ({_looks_like(data)})") from error
    except ValueError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # Pillow's decoders raise what they like on broken files
        raise ValueError(f"is damaged ({error})") from error
    array = np.asarray(plain)
    return (array[None] if channels == 1 else array.transpose(2, 0, 1)), (width, height)


def resize_all(image_N1HW: np.ndarray, image_size: int, channels: int, room: Room = mapped.in_ram) -> np.ndarray:
    """Grey uint8 images at another side and number of channels, as `decode` would give them, in `room`."""
    pixels = room((len(image_N1HW), channels, image_size, image_size))
    for row, image in enumerate(image_N1HW[:, 0]):
        pixels[row] = image if len(image) == image_size else _square(Image.fromarray(image), image_size)
        mapped.touch(pixels, 1)
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    has_metadata = "exif" in image.info or image.format == "TIFF"
    if has_metadata and image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        return ImageOps.exif_transpose(image)
    image.load()
    return image


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """The picture in mode L or RGB, whatever mode it came in."""
    if image.mode == mode:
        return image
    if image.mode in _SIXTEEN_BIT:
        image = _eight_bits(image)
    elif image.mode == "F":
        raise ValueError("holds floating-point pixels, whose range is not known")
    elif "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    elif image.mode in ("LAB", "HSV"):
        image = image.convert("RGB")
    return image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    wide = np.asarray(image).astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise ValueError(f"holds pixel values from {wide.min()} to {wide.max()}; 0 to 65535 is understood")
    return Image.fromarray(((wide + 128) // 257).astype(np.uint8))


def _square(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    if width == height == side:
        return image
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.BICUBIC)


def _looks_like(data: bytes) -> str:
    start = data[:64].lstrip().lower()
    if not any(data[:1024]):
        return "nothing but zero bytes"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "a web page or XML"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself"
    return (
        "text" if all(31 < byte < 127 or byte in b"\t\r\n" for byte in data[:64]) else "unknown or unsupported format"
    )


def contrast(image_NCHW: np.ndarray) -> np.ndarray:
    """Standard deviation of each image's values, in grey levels of 0..255: float64 N."""
    found = [piece.reshape(len(piece), math.prod(piece.shape[1:])).std(1) for piece in mapped.pieces(image_NCHW)]
    return np.concatenate(found) if found else np.empty(0)


def blank(image_NCHW: np.ndarray) -> int:
    """How many images are (nearly) one flat tone: a standard deviation below one of 255 grey levels."""
    return int((contrast(image_NCHW) < 1).sum())
