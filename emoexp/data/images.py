"""Decoding of image files to square uint8 pixels, with a given side and number of channels."""

import io
import math
import posixpath
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from emoexp.data import mapped
from emoexp.data.dataset import digest
from emoexp.data.mapped import Allocator

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 50_000_000  # of one image; more is taken for a decompression bomb
MAX_BYTES = 256 << 20  # of one image file
POLICIES = ("refuse", "drop")
_MAX_LISTED = 20  # unusable images that a message lists
_CHECK_EVERY = 32  # images that are decoded between two checks of the resident memory
_EXIF_ORIENTATION = 0x0112
COLOUR, FRACTIONS = "in colour", "fractions"  # what `decode` counts
_COLOURLESS = 16  # of 255: channels that differ by no more are the noise of compression
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")


@dataclass(frozen=True)
class DecodedImages:
    """Images that could be read.

    pixels: uint8 N×C×S×S. index: int64 N, position of each image among the names passed to `decode_all`. size: int64
    N×2, width and height in the files. digest: bytes N, of the pixels. notes: a sentence on dropped images, if any.
    changes: sentences on what decoding changes of the others, with the key that spares it. unusable: name and reason of
    each dropped image.
    """

    pixels: np.ndarray
    index: np.ndarray
    size: np.ndarray
    digest: np.ndarray
    notes: tuple[str, ...]
    changes: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...]


def is_image(name: str) -> bool:
    """Whether a file's suffix is that of a kind of image that is read."""
    return posixpath.splitext(name)[1].casefold() in SUFFIXES


def decode_all(
    names: list[str],
    contents: Iterable[tuple[str, bytes]],
    image_size: int,
    channels: int,
    on_corrupt: str,
    allocate: Allocator = mapped.allocate_in_memory,
) -> DecodedImages:
    """Decode files. An error lists all files that cannot be read, not only the first.

    Args:
        names: the files to decode. contents: name and bytes of each, in any order; a name that does not come counts
            as a missing file.
        on_corrupt: "refuse" unreadable files or "drop" them with a note.
        allocate: makes the array into which each image is decoded.

    Raises:
        ValueError: lists the files that cannot be read, with reasons, if they are refused or if no image is left.
    """
    check_on_corrupt(on_corrupt)
    row_of = {name: index for index, name in enumerate(names)}
    pixels = allocate((len(names), channels, image_size, image_size))
    size, digest_N = np.zeros((len(names), 2), dtype=np.int64), np.zeros(len(names), "S32")
    reason_of = dict.fromkeys(names, "is missing")
    remarks: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of unusual metadata, which changes no pixel
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for number, (name, data) in enumerate(contents, start=1):
            try:
                row = row_of[name]
                image, size[row] = decode(data, image_size, channels, remarks)
                pixels[row], digest_N[row] = image, digest(image)
                del reason_of[name]
            except ValueError as error:
                reason_of[name] = str(error)
            if number % _CHECK_EVERY == 0:
                mapped.touch(pixels, _CHECK_EVERY)
    notes = report_unusable([f"{name} {reason}" for name, reason in reason_of.items()], len(names), on_corrupt)
    index_N = np.array([row_of[name] for name in names if name not in reason_of], dtype=np.int64)
    return DecodedImages(
        pixels=_compact_rows(pixels, index_N),
        index=index_N,
        size=size[index_N],
        digest=digest_N[index_N],
        notes=notes,
        changes=_changes(size[index_N], remarks, image_size),
        unusable=tuple(reason_of.items()),
    )


def _changes(size_N2: np.ndarray, remarks: Counter[str], image_size: int) -> tuple[str, ...]:
    """A sentence for each way in which images lose something, with their number and the key that changes it."""
    short_N, long_N = size_N2.min(axis=1, initial=2**31), size_N2.max(axis=1, initial=0)
    found = [
        (remarks[COLOUR], "are in colour and are read in grey; channels=3 keeps the colours"),
        (
            int((short_N > image_size).sum()),
            f"are larger than image_size={image_size} and are made smaller; a larger image_size=... keeps more of them",
        ),
        (
            int((short_N < image_size).sum()),
            f"are smaller than image_size={image_size} and are enlarged; a smaller image_size=... spares that",
        ),
        (int((long_N > short_N).sum()), "are not square: the square in their middle is taken, the rest is cut off"),
        (remarks[FRACTIONS], "hold pixels as fractions of 1, which are taken times 255"),
    ]
    return tuple(f"{count:,} of {len(size_N2):,} images {what}" for count, what in found if count)


def _compact_rows(pixels: np.ndarray, index_N: np.ndarray) -> np.ndarray:
    """The rows of an increasing index, moved together at the start of the same memory."""
    for row in np.flatnonzero(index_N != np.arange(len(index_N))).tolist():
        pixels[row] = pixels[index_N[row]]
        mapped.touch(pixels, 2)
    return pixels[: len(index_N)]


def check_on_corrupt(on_corrupt: str) -> None:
    """Raises ValueError unless `on_corrupt` is one of POLICIES."""
    if on_corrupt not in POLICIES:
        raise ValueError(f"data.on_corrupt={on_corrupt!r}; it may be refuse or drop")


def report_unusable(unusable: list[str], total: int, on_corrupt: str) -> tuple[str, ...]:
    """A note that lists the unusable images, one line each; no note if there are none.

    Raises:
        ValueError: unusable images are refused, or all images are unusable. The message is the same list.
    """
    if not unusable:
        return ()
    more = f"\n  and {len(unusable) - _MAX_LISTED} more" if len(unusable) > _MAX_LISTED else ""
    text = f"{len(unusable)} of {total} images cannot be used:\n  " + "\n  ".join(unusable[:_MAX_LISTED]) + more
    if on_corrupt == "refuse":
        raise ValueError(
            text + "\nRepair or remove them, or leave them out with data.on_corrupt=drop (predict: on_corrupt=drop)"
        )
    if len(unusable) == total:
        raise ValueError(text + "\nNothing is left")
    return (text.replace("cannot be used", "cannot be used and are left out"),)


def decode(
    data: bytes, image_size: int, channels: int, remarks: Counter[str] | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """One image as uint8 C×S×S, and its width and height in the file.

    The picture is rotated as its EXIF orientation says. Transparent pixels are put on white. 16-bit values are
    divided by 257, floating-point values of 0..1 multiplied by 255. An animation gives its first frame. The middle
    square is cut out and resized to S = `image_size`.

    remarks: counts COLOUR and FRACTIONS.

    Raises:
        ValueError: the bytes are no usable image; the message is the reason, to follow the file's name.
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
            picture = _apply_orientation(image)
            if remarks is not None:
                remarks[COLOUR] += channels == 1 and _is_coloured(picture)
                remarks[FRACTIONS] += picture.mode == "F"
            square = _crop_and_resize(_convert_mode(picture, "L" if channels == 1 else "RGB"), image_size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError("claims so many pixels that it is taken for a decompression bomb") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"is no image ({_describe_content(data)})") from error
    except ValueError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # Pillow's decoders raise errors of any kind on broken files
        raise ValueError(f"is damaged ({error})") from error
    array = np.asarray(square)
    return (array[None] if channels == 1 else array.transpose(2, 0, 1)), (width, height)


def resize_all(
    image_N1HW: np.ndarray, image_size: int, channels: int, allocate: Allocator = mapped.allocate_in_memory
) -> np.ndarray:
    """Grey uint8 images with another side and number of channels, as `decode` gives them, in an array of `allocate`."""
    pixels = allocate((len(image_N1HW), channels, image_size, image_size))
    for row, image in enumerate(image_N1HW[:, 0]):
        pixels[row] = image if len(image) == image_size else _crop_and_resize(Image.fromarray(image), image_size)
        mapped.touch(pixels, 1)
    return pixels


def _apply_orientation(image: Image.Image) -> Image.Image:
    has_metadata = "exif" in image.info or image.format == "TIFF"
    if has_metadata and image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        return ImageOps.exif_transpose(image)
    image.load()
    return image


def _convert_mode(image: Image.Image, mode: str) -> Image.Image:
    """The picture in mode L or RGB, from any mode."""
    if image.mode == mode:
        return image
    if image.mode in _SIXTEEN_BIT:
        image = _sixteen_to_eight_bits(image)
    elif image.mode == "F":
        image = _fractions_to_bytes(image)
    elif "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    elif image.mode in ("LAB", "HSV"):
        image = image.convert("RGB")
    return image.convert(mode)


def _is_coloured(image: Image.Image) -> bool:
    """Whether a picture shows colours: many grey photographs are stored as RGB."""
    if image.mode in ("1", "L", "LA", "F") or image.mode in _SIXTEEN_BIT:
        return False
    small = np.asarray(image.resize((8, 8), Image.Resampling.NEAREST).convert("RGB")).astype(np.int16)
    return bool((small.max(axis=2) - small.min(axis=2)).max() > _COLOURLESS)


def _fractions_to_bytes(image: Image.Image) -> Image.Image:
    value = np.asarray(image)
    if not np.isfinite(value).all() or value.min() < 0 or value.max() > 1:
        raise ValueError(
            f"holds floating-point pixels from {value.min():g} to {value.max():g}; 0 to 1 is understood. Save it "
            "with 8 or 16 bits"
        )
    return Image.fromarray((value * 255 + 0.5).astype(np.uint8))


def _sixteen_to_eight_bits(image: Image.Image) -> Image.Image:
    wide = np.asarray(image).astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise ValueError(f"holds pixel values from {wide.min()} to {wide.max()}; 0 to 65535 is understood")
    return Image.fromarray(((wide + 128) // 257).astype(np.uint8))


def _crop_and_resize(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    if width == height == side:
        return image
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.BICUBIC)


def _describe_content(data: bytes) -> str:
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
    deviations = [block.reshape(len(block), math.prod(block.shape[1:])).std(1) for block in mapped.blocks(image_NCHW)]
    return np.concatenate(deviations) if deviations else np.empty(0)


def blank(image_NCHW: np.ndarray) -> int:
    """How many images are one flat tone, or nearly: the standard deviation of their grey levels (0..255) is below 1."""
    return int((contrast(image_NCHW) < 1).sum())
