"""Headers of image files, compared with what was written and with what Pillow says of decoded files."""

import io
import time
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from emoexp.data import files

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def written(kind: str, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(file, kind, **options)
    return file.getvalue()


CONTENT = {
    "b/grey.jpg": written("JPEG", "L", quality=35),
    "a/colour.jpg": written("JPEG", quality=90),
    "a/palette.png": written("PNG", "P"),
    "a/cut.jpg": written("JPEG", quality=60)[:700],
    "a/text.png": b"no image at all",
    "a/empty.gif": b"",
    "a/w.webp": written("WEBP"),
}


@pytest.fixture(params=["folder", "zip"])
def root(request, tmp_path):
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for name, data in CONTENT.items():
                archive.writestr(name, data)
        return tmp_path / "set.zip"
    for name, data in CONTENT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_what_was_written_is_told_in_the_order_asked_for(root):
    names = np.array([*CONTENT, "b/grey.jpg"])
    found = files.file_info(root, names)
    assert found is not None
    assert found.mode.tolist() == ["L", "RGB", "P", "RGB", "", "", "RGB", "L"]
    assert found.format.tolist() == ["JPEG", "JPEG", "PNG", "JPEG", "", "", "WEBP", "JPEG"]
    assert found.width.tolist() == [30, 30, 30, 30, 0, 0, 30, 30]
    assert found.height.tolist() == [20, 20, 20, 20, 0, 0, 20, 20]
    assert found.bytes.tolist() == [len(CONTENT[name]) for name in names]
    assert np.array_equal(found.quality, [35, 90, np.nan, 60, np.nan, np.nan, np.nan, 35], equal_nan=True)
    assert {found.width.dtype, found.height.dtype, found.bytes.dtype} == {np.dtype(np.int64)}
    assert found.quality.dtype == np.float64 and found.mode.dtype.kind == found.format.dtype.kind == "U"


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 75, 95, 99, 100])
def test_every_jpeg_quality_is_estimated_exactly(tmp_path, quality):
    (tmp_path / "x.jpg").write_bytes(written("JPEG", quality=quality))
    found = files.file_info(tmp_path, ["x.jpg"])
    assert found is not None and found.quality.tolist() == [quality]


def test_a_table_of_another_encoder_has_the_quality_it_is_nearest_to(tmp_path):
    with Image.open(io.BytesIO(written("JPEG", quality=70))) as image:
        table = list(image.quantization[0])
    table[10] += 2
    (tmp_path / "x.jpg").write_bytes(written("JPEG", qtables=[table, table]))
    found = files.file_info(tmp_path, ["x.jpg"])
    assert found is not None and found.quality.tolist() == [70]


def test_names_that_are_no_files_have_no_headers(root, tmp_path):
    assert files.file_info(root, ["a/colour.jpg", "row 17"]) is None
    assert files.file_info(tmp_path / "nowhere", ["face 0"]) is None
    (tmp_path / "fer2013.csv").write_text("emotion,pixels")
    assert files.file_info(tmp_path / "fer2013.csv", ["fer2013.csv:2"]) is None


def test_no_names_are_no_files(root):
    found = files.file_info(root, [])
    assert found is not None and found.mode.shape == found.width.shape == found.quality.shape == (0,)


def test_huge_claims_are_not_decoded_and_do_not_warn(tmp_path):
    """A head that claims 20,000 x 20,000 pixels is a bomb for whoever decodes it."""
    data = bytearray(written("PNG", "L"))
    data[16:24] = (20000).to_bytes(4, "big") * 2
    (tmp_path / "x.png").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = files.file_info(tmp_path, ["x.png"])
    assert found is not None and found.bytes.tolist() == [len(data)] and found.mode.tolist() == [""]


def test_thousands_of_files_take_a_moment(tmp_path):
    names = [f"{number}.jpg" for number in range(3000)]
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in names:
            archive.writestr(name, CONTENT["a/colour.jpg"])
    start = time.perf_counter()
    found = files.file_info(tmp_path / "set.zip", names)
    assert found is not None and (found.quality == 90).all() and time.perf_counter() - start < 5
