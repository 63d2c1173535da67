"""Decoding: every mode and shape gives square uint8 pixels; what is broken is listed, never replaced."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from emoexp.data import images

RAMP = np.tile(np.arange(48, dtype=np.uint8) * 5, (48, 1))


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of 70 bytes whose header claims side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def grey(data: bytes, side: int = 48) -> np.ndarray:
    pixels, _ = images.decode(data, side, 1)
    assert pixels.shape == (1, side, side)
    assert pixels.dtype == np.uint8
    return pixels[0]


def test_grey_png_comes_back_unchanged() -> None:
    assert np.array_equal(grey(encoded(Image.fromarray(RAMP))), RAMP)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_shows_the_same_grey(mode: str, channels: int) -> None:
    ramp = Image.fromarray(RAMP)
    picture = ramp.quantize(256) if mode == "P" else ramp.convert(mode if mode == "LA" else "RGB").convert(mode)
    kind = {"CMYK": "TIFF", "YCbCr": "TIFF"}.get(mode, "PNG")
    pixels, size = images.decode(encoded(picture, kind), 48, channels)
    assert size == (48, 48)
    assert pixels.shape == (channels, 48, 48)
    assert np.abs(pixels.astype(int) - RAMP).max() <= (4 if mode in ("P", "YCbCr") else 1)


def test_one_bit_becomes_black_and_white() -> None:
    picture = Image.fromarray(RAMP > 100)
    assert np.array_equal(grey(encoded(picture)), np.where(RAMP > 100, 255, 0))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    wide = RAMP.astype(np.uint16) * 257
    assert np.array_equal(grey(encoded(Image.fromarray(wide))), RAMP)
    assert np.array_equal(grey(encoded(Image.fromarray(wide), "TIFF")), RAMP)


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half = Image.new("LA", (8, 8), (0, 128))
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 10, 10])
    assert (grey(encoded(clear), 8) == 255).all()
    assert (np.abs(grey(encoded(half), 8).astype(int) - 127) <= 1).all()
    assert (grey(encoded(palette, transparency=0), 8) == 255).all()


@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (6, 3), (3, 2), (8, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, quarters: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} | ({"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {})
    found = grey(encoded(Image.fromarray(RAMP), kind, **options))
    assert np.abs(found.astype(int) - np.rot90(RAMP, quarters)).max() <= 3


@pytest.mark.parametrize(("width", "height"), [(100, 48), (48, 100), (1, 1), (1, 5000), (640, 480)])
def test_the_longer_side_is_cut_at_both_ends(width: int, height: int) -> None:
    picture = np.full((height, width), 200, dtype=np.uint8)
    keep = min(width, height)
    top, left = (height - keep) // 2, (width - keep) // 2
    picture[top : top + keep, left : left + keep] = 50
    assert np.abs(grey(encoded(Image.fromarray(picture))).astype(int)[2:-2, 2:-2] - 50).max() == 0


def test_shrinking_averages() -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (96, 48))
    assert np.abs(grey(encoded(Image.fromarray(stripes)), 24).astype(int)[4:-4, 4:-4] - 128).max() <= 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\0" * 500, "nothing but zero bytes"),
        (b"a note, not a picture\n", "text"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
        (encoded(Image.fromarray(RAMP))[:60], "is damaged"),
        (encoded(Image.fromarray(np.tile(RAMP, (4, 4))), "JPEG")[:700], "is damaged"),
        (bomb(10_000), "bomb|pixels, more than"),
        (bomb(14_000), "bomb|pixels, more than"),
        (bomb(60_000), "bomb|pixels, more than"),
        (
            encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
            "holds floating-point pixels from 0 to 235",
        ),
        (encoded(Image.fromarray(np.full((4, 4), -5, dtype=np.int32)), "TIFF"), "pixel values from -5"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    files = {"good.png": encoded(Image.fromarray(RAMP)), "bad.png": data}
    with pytest.raises(ValueError, match=rf"1 of 2 images cannot be used:\n  bad.png .*({reason})"):
        images.decode_all(list(files), files.items(), 48, 1, "refuse")
    found = images.decode_all(list(files), files.items(), 48, 1, "drop")
    assert found.index.tolist() == [0]
    assert np.array_equal(found.pixels[0, 0], RAMP)
    assert "bad.png" in found.notes[0]


def test_all_bad_files_are_listed_up_to_twenty_and_counted() -> None:
    files = {f"{i:02d}.png": b"" for i in range(25)} | {"good.png": encoded(Image.fromarray(RAMP))}
    with pytest.raises(ValueError, match="25 of 26 images") as caught:
        images.decode_all(list(files), files.items(), 48, 1, "refuse")
    text = str(caught.value)
    assert all(f"{i:02d}.png" in text for i in range(20))
    assert "20.png" not in text
    assert "and 5 more" in text
    assert "data.on_corrupt=drop" in text


def test_files_that_never_came_are_missing_and_nothing_left_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"a.png is missing"):
        images.decode_all(["a.png"], [], 48, 1, "refuse")
    with pytest.raises(ValueError, match="Nothing is left"):
        images.decode_all(["a.png"], [], 48, 1, "drop")
    with pytest.raises(ValueError, match="refuse or drop"):
        images.decode_all(["a.png"], [], 48, 1, "ignore")


def test_contents_may_come_in_any_order() -> None:
    flat = {f"{value}.png": encoded(Image.new("L", (48, 48), value)) for value in (9, 5, 7)}
    found = images.decode_all(list(flat), reversed(flat.items()), 48, 1, "refuse")
    assert found.pixels[:, 0, 0, 0].tolist() == [9, 5, 7]


@pytest.mark.parametrize(("side", "channels"), [(24, 1), (48, 3), (64, 3)])
def test_resizing_afterwards_is_decoding_at_that_size(side: int, channels: int) -> None:
    data = encoded(Image.fromarray(RAMP))
    direct, _ = images.decode(data, side, channels)
    later = images.resize_all(grey(data)[None, None], side, channels)[0]
    assert np.array_equal(direct, later)


def test_blank_images_are_counted() -> None:
    stack = np.stack([np.zeros((1, 48, 48)), np.full((1, 48, 48), 90), RAMP[None]]).astype(np.uint8)
    assert images.blank(stack) == 2
