"""A packed copy of what a reader gave, so that the next start reads one file instead of decoding thousands.

One file an answer: a magic word, place, length and checksum of a JSON header, the arrays at 64-byte boundaries with the
images first, then the header (key, source stamp, class names, notes, and each array's type, shape, place and checksum).
Readers put pixels into it as they decode them, so that images need not fit into memory. It is written under a
temporary name and moved into place in one step, so that readers and writers of several processes never see half of one;
it is used only if key, stamp, length and checksums are right, and made anew otherwise.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL

from emoexp.data import mapped
from emoexp.data.dataset import Source
from emoexp.data.mapped import Room
from emoexp.runs import files

_MAGIC = b"emoexp2\n"
_ALIGN = 64
_ARRAYS = ("images", "labels", "names", "part", "identity", "digest")
_BLOCK = 1 << 20  # bytes checked at a time
_CHECKED = 1 << 30  # bytes of an array that are checked: all of a smaller one, evenly spread blocks of a larger one


@dataclass
class _Draft:
    """A packed file that is being written: its temporary file, and the reader's pixels where they are in it already."""

    folder: str
    file: BinaryIO | None = None
    trouble: OSError | None = None
    pixels: np.ndarray | None = None

    def room(self, shape: tuple[int, ...]) -> np.ndarray:
        """Room for pixels in the file, and in RAM where the disk has none.

        Raises:
            ValueError: neither has.
        """
        if self.file is not None:
            try:
                self.pixels = mapped.on_disk(self.file, _ALIGN, shape)
                return self.pixels
            except OSError as error:
                self.trouble = error
                self.file.truncate(0)
        if prod(shape) > _memory():
            why = self.trouble and (self.trouble.strerror or self.trouble)
            raise ValueError(
                f"{shape[0]} images take {prod(shape) / 1e9:.1f} GB, more than this machine's memory, and cannot be "
                f"packed in {self.folder} ({why}): make room there, give a folder on another disk with cache=, or "
                "take a smaller image_size"
            )
        return mapped.in_ram(shape)


def cached(
    folder: str | None, name: str, request: Mapping[str, object], stamp: str, build: Callable[[Room], Source]
) -> Source:
    """The source that `build` gives, from the cache where it holds it.

    Args:
        folder: where packed files lie; None builds every time.
        name: the reader, the first part of the file's name.
        request: everything that decides the pixels, labels and names, as JSON values.
        stamp: the state of what is read (sizes and times of its files); with another one, the file is made
            anew.
        build: is given room for its pixels, which it may ask for once: in the packed file, or in RAM.

    A folder that cannot be written to is no reason to stop: the source comes back with a note.

    Raises:
        ValueError: what `build` raises, and where the pixels fit neither into the folder nor into memory.
    """
    if folder is None:
        return build(mapped.in_ram)
    key = {"request": dict(request), "code": _code(), "pillow": PIL.__version__}
    text = json.dumps(key, sort_keys=True, default=list)
    path = Path(folder).expanduser() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.pack"
    source = _read(path, text, stamp)
    if source is not None:
        return source
    draft = _Draft(folder)
    try:
        draft.file = _new_file(path)
    except OSError as error:
        draft.trouble = error
    try:
        return _save(draft, path, build(draft.room), text, stamp)
    finally:
        if draft.file is not None:
            Path(draft.file.name).unlink(missing_ok=True)
            draft.file.close()


def _new_file(path: Path) -> BinaryIO:
    """A temporary file beside a pack, locked while we live; what killed builds left there is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob("*.part"):
        with leftover.open("rb") as its_file:
            if files.lock_file(its_file):
                leftover.unlink(missing_ok=True)
    while True:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-", suffix=".part")
        os.close(descriptor)
        try:
            file = Path(temporary).open("r+b")  # noqa: SIM115 closed by `cached`
        except FileNotFoundError:
            continue
        if files.lock_file(file) and os.fstat(file.fileno()).st_nlink:  # else another build took it for a leftover
            return file
        file.close()


def _save(draft: _Draft, path: Path, source: Source, key: str, stamp: str) -> Source:
    """The source, with its images in the packed file; with a note instead where it cannot be kept."""
    trouble = draft.trouble
    try:
        if draft.file is not None:
            _pack(draft, source, key, stamp)
            draft.file.flush()
            private = mapped.opened(Path(draft.file.name), "u1", _ALIGN, source.images.shape)
            files.move_into_place(Path(draft.file.name), path)
            return dataclasses.replace(source, images=private)
    except OSError as error:
        trouble = error
    assert trouble is not None, "without trouble there is a file"
    note = f"no packed copy could be kept in {draft.folder} ({trouble.strerror or trouble}): it is read anew each time"
    return dataclasses.replace(source, notes=(*source.notes, note))


def _memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@lru_cache(maxsize=1)
def _code() -> str:
    """A hash of this package's source: changed readers never meet files that older ones packed."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def _pack(draft: _Draft, source: Source, key: str, stamp: str) -> None:
    """Everything but the images, where those are in the file already."""
    file, entries, offset = draft.file, {}, _ALIGN
    assert file is not None, "asked only where there is one"
    there = draft.pixels is not None and source.images.ctypes.data == draft.pixels.ctypes.data
    assert there or draft.pixels is None, "pixels that were put into the file are the source's"
    file.truncate(_ALIGN + (source.images.nbytes if there else 0))
    for name in _ARRAYS:
        array = getattr(source, name)
        if array is None:
            continue
        if not (there and name == "images"):
            file.seek(offset)
            file.write(_bytes(array))
        entries[name] = {
            "dtype": array.dtype.str,
            "shape": array.shape,
            "offset": offset,
            "crc": _checksum(array),
        }
        offset += -(-array.nbytes // _ALIGN) * _ALIGN
    about = {key: getattr(source, key) for key in ("name", "class_names", "notes", "left_out")}
    header = json.dumps({"key": key, "stamp": stamp, "source": about, "arrays": entries}).encode()
    file.seek(offset)
    file.write(header)
    file.seek(0)
    file.write(_MAGIC + b"".join(number.to_bytes(8, "little") for number in (offset, len(header), zlib.crc32(header))))


def _read(path: Path, key: str, stamp: str) -> Source | None:
    """The source in a packed file, images memory-mapped; None if missing, damaged, or of something else."""
    try:
        with path.open("rb") as file:
            header = _header(file)
        if header is None or header["key"] != key or header["stamp"] != stamp:
            return None
        arrays: dict[str, np.ndarray] = {}
        for name, entry in header["arrays"].items():
            array = mapped.opened(path, entry["dtype"], entry["offset"], tuple(entry["shape"]))
            if _checksum(array) != entry["crc"]:
                return None
            arrays[name] = array if name == "images" else np.array(array)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    about = header["source"]
    return Source(
        name=about["name"],
        class_names=tuple(about["class_names"]),
        notes=tuple(about["notes"]),
        left_out=tuple((name, why) for name, why in about["left_out"]),
        images=arrays["images"],
        labels=arrays["labels"],
        names=arrays["names"],
        part=arrays["part"],
        identity=arrays.get("identity"),
        digest=arrays["digest"],
    )


def _header(file: BinaryIO) -> dict | None:
    front = file.read(_ALIGN)
    offset, length, crc = (int.from_bytes(front[start : start + 8], "little") for start in (8, 16, 24))
    if front[: len(_MAGIC)] != _MAGIC or offset + length != os.fstat(file.fileno()).st_size:
        return None
    file.seek(offset)
    header = file.read(length)
    return json.loads(header) if zlib.crc32(header) == crc else None


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _checksum(array: np.ndarray) -> int:
    data, crc = _bytes(array), 0
    step = _BLOCK * max(1, -(-len(data) // _CHECKED))
    for start in range(0, len(data), step):
        crc = zlib.crc32(data[start : start + _BLOCK], crc)
        mapped.touch(array, -(-_BLOCK * len(array) // len(data)))
    return crc
