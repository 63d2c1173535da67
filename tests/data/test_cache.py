"""The packed copy: equal to what was packed, quick, and never used when source, request or file changed."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from emoexp.data import cache
from emoexp.data.dataset import Source, digests
from emoexp.data.mapped import Allocator


def made(value: int = 0, size: int = 50, identity: bool = True) -> Source:
    images = np.random.default_rng(value).integers(0, 256, (size, 1, 8, 8), dtype=np.uint8)
    return Source(
        name="made",
        images=images,
        labels=np.arange(size, dtype=np.int64) % 3,
        class_names=("a", "b", "ç"),
        names=np.array([f"Bild {i} ä.png" for i in range(size)]),
        part=np.full(size, -1, dtype=np.int8),
        identity=np.arange(size, dtype=np.int64) if identity else None,
        digest=digests(images),
        notes=("eine Notiz",),
    )


class CountingReader:
    """A reader that counts how often it reads."""

    def __init__(self, source: Source) -> None:
        self.source, self.times = source, 0

    def __call__(self, allocate: Allocator) -> Source:
        self.times += 1
        return self.source


def ask(folder: Path, build: CountingReader, stamp: str = "s", **request: object) -> Source:
    return cache.load_or_build(str(folder), "made", request, stamp, build)


@pytest.mark.parametrize("identity", [True, False])
def test_what_was_packed_comes_back_equal_writable_and_mapped(tmp_path: Path, identity: bool) -> None:
    build = CountingReader(made(identity=identity))
    ask(tmp_path, build)
    found = ask(tmp_path, build)
    assert build.times == 1
    assert isinstance(found.images, np.memmap)
    for name in ("images", "labels", "names", "part", "identity", "digest"):
        packed, original = getattr(found, name), getattr(build.source, name)
        assert (packed is None) == (original is None)
        if original is not None:
            assert packed.dtype == original.dtype
            assert np.array_equal(packed, original)
    assert (found.class_names, found.notes, found.name) == (("a", "b", "ç"), ("eine Notiz",), "made")
    found.images[0] = 7
    assert np.array_equal(ask(tmp_path, build).images, build.source.images)


def test_another_source_or_request_is_read_anew(tmp_path: Path) -> None:
    build = CountingReader(made())
    for stamp, side in (("s", 48), ("t", 48), ("t", 48), ("t", 24), ("t", 48), ("s", 48)):
        ask(tmp_path, build, stamp, image_size=side)
    assert build.times == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_changed_readers_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = CountingReader(made())
    ask(tmp_path, build)
    monkeypatch.setattr(cache, "_source_hash", lambda: "another version")
    ask(tmp_path, build)
    assert build.times == 2


def test_damage_anywhere_is_noticed(tmp_path: Path) -> None:
    build = CountingReader(made())
    ask(tmp_path, build)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    last = len(good) - 64  # what follows the last array only fills it up to 64 bytes
    places = [*range(0, last, 97)]
    for place in places:
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        before = build.times
        assert np.array_equal(ask(tmp_path, build).images, build.source.images)
        padding = build.times == before
        assert not padding or good[place] in (0, 0x20)
    assert build.times > 0.9 * len(places)
    for length in (0, 5, 20, 500, len(good) - 1):
        path.write_bytes(good[:length])
        before = build.times
        ask(tmp_path, build)
        assert build.times == before + 1
    path.write_bytes(good + b"\0")
    before = build.times
    ask(tmp_path, build)
    assert build.times == before + 1


def test_no_folder_no_cache() -> None:
    build = CountingReader(made())
    for _ in range(2):
        cache.load_or_build(None, "made", {}, "s", build)
    assert build.times == 2


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = ask(tmp_path / "file", CountingReader(made()))
    assert "no packed copy could be written" in found.notes[-1]
    assert np.array_equal(found.images, made().images)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = ask(tmp_path, CountingReader(made()))
    assert "No space left on device" in found.notes[-1]
    assert list(tmp_path.iterdir()) == []


def _writer(folder: str, value: int) -> None:
    for _ in range(20):
        found = cache.load_or_build(folder, "made", {}, f"stamp {value}", CountingReader(made(value)))
        assert np.array_equal(found.images, made(value).images)


@pytest.mark.slow
def test_two_processes_never_see_half_a_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_writer, args=(str(tmp_path), value)) for value in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_is_replaced_stays_readable_for_who_has_it(tmp_path: Path) -> None:
    ask(tmp_path, CountingReader(made(1)), "first")
    mapped = ask(tmp_path, CountingReader(made(1)), "first").images
    ask(tmp_path, CountingReader(made(2)), "second")
    assert np.array_equal(mapped, made(1).images)
