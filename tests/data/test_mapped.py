"""Mapped images: gathered as by an index, pages released, packed in less memory than they take."""

import os
import signal
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emoexp.data import cache, mapped
from emoexp.data.dataset import Source, digests, pixel_statistics
from emoexp.data.images import contrast
from emoexp.data.mapped import Allocator
from emoexp.data.readers import facial_expressions, fer2013, folder

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the resident set is read from /proc")


def file_of(path: Path, array: np.ndarray) -> np.ndarray:
    path.write_bytes(b"x" * 64 + array.tobytes())
    return mapped.open_array(path, "u1", 64, array.shape)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every map is a large one, and nothing may stay."""
    monkeypatch.setattr(mapped, "LARGE", 1)
    monkeypatch.setattr(mapped, "_RESIDENT_LIMIT", 0)


@pytest.mark.parametrize("index", [[], [3], [2, 2, 0], [9, 0, 5, 5, 1], list(range(10))])
@pytest.mark.usefixtures("small")
def test_gathering_is_indexing(tmp_path: Path, index: list[int]) -> None:
    plain = np.random.default_rng(0).integers(0, 256, (10, 3, 40, 40), dtype=np.uint8)
    index_B = torch.tensor(index, dtype=torch.int64)
    expected = torch.from_numpy(plain)[index_B]
    for images in (plain, file_of(tmp_path / "a", plain)):
        found = mapped.gather(torch.from_numpy(images), index_B)
        assert found.dtype == torch.uint8
        assert found.is_contiguous()
        assert torch.equal(found, expected)
        mapped.release(images)
        assert np.array_equal(images, plain)


@pytest.mark.usefixtures("small")
def test_blocks_are_all_images_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = np.random.default_rng(0).integers(0, 256, (10, 1, 8, 8), dtype=np.uint8)
    whole = (digests(plain), contrast(plain), pixel_statistics(plain, np.array([7, 1, 1])))
    monkeypatch.setattr(mapped, "BLOCK", 200)
    images, index = file_of(tmp_path / "a", plain), np.array([7, 1, 1, 2])
    assert [len(piece) for piece in mapped.blocks(images)] == [3, 3, 3, 1]
    assert np.array_equal(np.concatenate([*mapped.blocks(images)]), plain)
    assert np.array_equal(np.concatenate([piece.copy() for piece in mapped.blocks(images, index)]), plain[index])
    assert np.array_equal(digests(images), whole[0])
    assert np.array_equal(contrast(images), whole[1])
    assert pixel_statistics(images, np.array([7, 1, 1])) == whole[2]


def of_files() -> int:
    """Bytes of files that are resident."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssFile"))) << 10


@linux
@pytest.mark.parametrize("as_tensor", [True, False])
def test_pages_are_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_tensor: bool) -> None:
    images = file_of(tmp_path / "a", np.ones((64, 1, 1024, 1024), np.uint8))
    held = torch.from_numpy(images) if as_tensor else images
    before = of_files()
    assert int(held.sum()) == 64 << 20
    assert of_files() - before > 60 << 20
    mapped.release(held)  # a small map keeps them
    assert of_files() - before > 60 << 20
    monkeypatch.setattr(mapped, "LARGE", 1)
    mapped.release(held[3:])
    assert of_files() - before < 4 << 20
    monkeypatch.setattr(mapped, "_RESIDENT_LIMIT", 8 << 20)
    for start in range(0, 64, 2):
        mapped.gather(torch.from_numpy(images), torch.arange(start, start + 2))
        assert of_files() - before < 16 << 20


def test_memory_of_no_map_is_never_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LARGE", 1)
    plain = np.ones((1 << 20, 8), np.uint8)
    mapped.release(plain)
    assert plain.all()


def picture(seed: int, side: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def archive_of(path: Path, kind: str) -> Path:
    """A dozen images, in no order, two of them broken."""
    names = {
        "folder": [f"{'ab'[i % 2]}/{i}.png" for i in range(12)],
        "fer2013": [f"train/{fer2013.CLASS_NAMES[i % 7]}/{i}.png" for i in range(12)],
        "facial_expressions": [f"images/P_{i}.png" for i in range(12)],
    }[kind]
    with zipfile.ZipFile(path, "w") as file:
        for i in reversed(range(12)):
            file.writestr(names[i], b"broken" if i in (1, 8) else picture(i, 48 + i % 3))
        if kind == "facial_expressions":
            rows = "".join(f"u,P_{i}.png,{('happy', 'anger')[i % 2]}\n" for i in range(12))
            file.writestr("data/legend.csv", f"user.id,image,emotion\n{rows}")
    return path


def read(kind: str, root: Path, cached: str | None, side: int, channels: int, on_corrupt: str) -> Source:
    about = {"image_size": side, "channels": channels, "cache": cached, "root": str(root), "on_corrupt": on_corrupt}
    if kind == "folder":
        return folder.load(**about, identity=None)  # type: ignore[arg-type]
    if kind == "fer2013":
        return fer2013.load(**about, strict=False)  # type: ignore[arg-type]
    return facial_expressions.load(**about)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["folder", "fer2013", "facial_expressions"])
@pytest.mark.parametrize(("side", "channels"), [(48, 1), (20, 3)])
@pytest.mark.usefixtures("small")
def test_packed_in_a_stream_is_what_memory_would_hold(tmp_path: Path, kind: str, side: int, channels: int) -> None:
    root = archive_of(tmp_path / "all.zip", kind)
    plain = read(kind, root, None, side, channels, "drop")
    assert len(plain.images) == 10
    for _ in range(2):  # made, then found
        found = read(kind, root, str(tmp_path / "cache"), side, channels, "drop")
        assert isinstance(found.images, np.memmap)
        for name in ("images", "labels", "names", "part", "digest"):
            assert getattr(found, name).dtype == getattr(plain, name).dtype
            assert np.array_equal(getattr(found, name), getattr(plain, name))
        assert (found.notes, found.left_out) == (plain.notes, plain.left_out)
        assert np.array_equal(found.digest, digests(plain.images))
    with pytest.raises(ValueError, match="2 of 12 images cannot be used"):
        read(kind, root, str(tmp_path / "cache"), side, channels, "refuse")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".pack"]


def made(allocate: Allocator) -> Source:
    images = allocate((40, 1, 8, 8))
    images[:] = np.arange(40, dtype=np.uint8)[:, None, None, None]
    label, names = np.zeros(40, np.int64), np.arange(40).astype(str)
    return Source("made", images, label, ("a",), names, np.zeros(40, np.int8), None, digests(images), ())


_KILLED = """
import sys, time
from emoexp.data import cache
def build(allocate):
    allocate((40, 1, 8, 8))[:20] = 1
    print("half", flush=True)
    time.sleep(60)
cache.load_or_build(sys.argv[1], "made", {}, "s", build)
"""


def test_a_killed_build_is_neither_believed_nor_kept(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _KILLED, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        (living,) = tmp_path.iterdir()
        first = cache.load_or_build(str(tmp_path), "made", {}, "s", made)
        assert living.exists()  # another's, who is at work
        process.send_signal(signal.SIGKILL)
        process.wait()
    (tmp_path / next(path.name for path in tmp_path.glob("*.pack"))).unlink()
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    again = cache.load_or_build(str(tmp_path), "made", {}, "s", made)
    assert np.array_equal(first.images, again.images)
    assert [path.suffix for path in tmp_path.iterdir()] == [".pack"]


def test_a_full_disk_falls_back_to_memory_or_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: full(descriptor, 0, 0))
    found = cache.load_or_build(str(tmp_path), "made", {}, "s", made)
    assert "No space left on device" in found.notes[-1]
    assert np.array_equal(found.images[:, 0, 0, 0], np.arange(40))
    monkeypatch.setattr(cache, "_total_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"more than this machine's memory.*No space left.*cache="):
        cache.load_or_build(str(tmp_path), "made", {}, "s", made)
    assert [*tmp_path.iterdir()] == []


_LIMITED = """
import resource, sys
from emoexp.data.readers import folder
held = int(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmData"))) << 10
resource.setrlimit(resource.RLIMIT_DATA, (held + (80 << 20), held + (80 << 20)))
for cache in (sys.argv[2], None):
    try:
        about = {"root": sys.argv[1], "identity": None, "on_corrupt": "drop"}
        found = folder.load(image_size=1024, channels=3, cache=cache, **about)
        print(found.images.nbytes >> 20)
    except MemoryError:
        print("too much")
"""


@linux
def test_more_is_packed_than_fits_into_memory(tmp_path: Path) -> None:
    file = BytesIO()
    Image.new("L", (64, 64), 77).save(file, "PNG")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
        for i in range(60):
            packed.writestr(f"{'ab'[i % 2]}/{i}.png", b"" if i == 3 else file.getvalue())
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "all.zip"), str(tmp_path / "cache")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.split("\n")[:2] == ["177", "too much"]
