"""A packed copy of a reader's result, so that the next start reads one file instead of decoding thousands.

There is one file for each request to a reader. It holds, in this order: a magic word; offset, length and checksum of a
JSON header; the arrays at 64-byte boundaries, the images first; the header (key, stamp of the source, class names,
notes, and type, shape, offset and checksum of each array).

Readers decode pixels directly into the file, so that images need not fit into memory. The file is written under a
temporary name and then renamed, so that no other process ever sees an unfinished one. It is used only if key, stamp,
length and checksums are right; otherwise it is written anew.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL

from emoexp.data import mapped
from emoexp.data.dataset import Source
from emoexp.data.mapped import Allocator
from emoexp.runs import files

_MAGIC = b"emoexp2\n"
_ALIGNMENT = 64
_ARRAYS = ("images", "labels", "names", "part", "identity", "digest")
_CHECK_BLOCK = 1 << 20  # bytes checked at a time
_CHECK_LIMIT = 1 << 30  # an array of at most so many bytes is checked whole, a larger one in evenly spread blocks


@dataclass
class _PackWriter:
    """Writes a packed file.

    file: the temporary file, None where none could be opened. failure: why pixels cannot be written to disk. pixels:
    the reader's pixels, where they lie in the file.
    """

    folder: str
    file: BinaryIO | None = None
    failure: OSError | None = None
    pixels: np.ndarray | None = None

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """An Allocator: zeros in the file, or in memory where the disk is full.

        Raises:
            ValueError: they fit neither on the disk nor into memory.
        """
        if self.file is not None:
            try:
                self.pixels = mapped.allocate_in_file(self.file, _ALIGNMENT, shape)
                return self.pixels
            except OSError as error:
                self.failure = error
                self.file.truncate(0)
        if prod(shape) > _total_memory():
            why = self.failure and (self.failure.strerror or self.failure)
            raise ValueError(
                f"{shape[0]} images take {prod(shape) / 1e9:.1f} GB, more than this machine's memory, and cannot be "
                f"packed in {self.folder} ({why}): free space there, give a folder on another disk with cache=, or "
                "choose a smaller image_size"
            )
        return mapped.allocate_in_memory(shape)


def load_or_build(
    folder: str | None, name: str, request: Mapping[str, object], stamp: str, build: Callable[[Allocator], Source]
) -> Source:
    """The source from its packed file; where there is none, from `build`, and then a packed file is written.

    Args:
        folder: where packed files lie; None: no file is read or written.
        name: the reader, the first part of the file's name.
        request: everything that decides the pixels, labels and names, as JSON values.
        stamp: the state of the files that are read (their sizes and times). If it has changed, the packed file is
            written anew.
        build: gets an Allocator for its pixels, which it may call once. The pixels then lie in the packed file, or in
            memory.

    If the folder cannot be written to, the source is returned with a note that says so.

    Raises:
        ValueError: what `build` raises, and where the pixels fit neither into the folder nor into memory.
    """
    if folder is None:
        return build(mapped.allocate_in_memory)
    key = {"request": dict(request), "code": _source_hash(), "pillow": PIL.__version__}
    key_text = json.dumps(key, sort_keys=True, default=list)
    path = Path(folder).expanduser() / f"{name}-{hashlib.sha256(key_text.encode()).hexdigest()[:16]}.pack"
    source = _read_pack(path, key_text, stamp)
    if source is not None:
        return source
    writer = _PackWriter(folder)
    try:
        writer.file = _open_temporary(path)
    except OSError as error:
        writer.failure = error
    try:
        return _finish(writer, path, build(writer.allocate), key_text, stamp)
    finally:
        if writer.file is not None:
            Path(writer.file.name).unlink(missing_ok=True)
            with suppress(OSError):  # what is still buffered may have no room either, and belongs to a deleted file
                writer.file.close()


def _open_temporary(path: Path) -> BinaryIO:
    """A new temporary file beside a packed file, locked as long as this process runs.

    Temporary files of processes that were killed are deleted: nobody holds their lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob("*.part"):
        with leftover.open("rb") as leftover_file:
            if files.lock_file(leftover_file):
                leftover.unlink(missing_ok=True)
    while True:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-", suffix=".part")
        os.close(descriptor)
        try:
            file = Path(temporary).open("r+b")  # noqa: SIM115 closed by `load_or_build`
        except FileNotFoundError:
            continue
        if files.lock_file(file) and os.fstat(file.fileno()).st_nlink:  # 0 links: another process has just deleted it
            return file
        file.close()


def _finish(writer: _PackWriter, path: Path, source: Source, key: str, stamp: str) -> Source:
    """The source with its images from the finished packed file; with a note where the file cannot be written."""
    failure = writer.failure
    try:
        if writer.file is not None:
            _write_pack(writer, source, key, stamp)
            writer.file.flush()
            images = mapped.open_array(Path(writer.file.name), "u1", _ALIGNMENT, source.images.shape)
            files.move_into_place(Path(writer.file.name), path)
            return dataclasses.replace(source, images=images)
    except OSError as error:
        failure = error
    assert failure is not None, "there is either a file or a reason why not"
    why = failure.strerror or failure
    note = f"no packed copy could be written to {writer.folder} ({why}): each start decodes the images anew"
    return dataclasses.replace(source, notes=(*source.notes, note))


def _total_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@lru_cache(maxsize=1)
def _source_hash() -> str:
    """A hash of this package's source code, so that a changed reader never uses files that an older one packed."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def _write_pack(writer: _PackWriter, source: Source, key: str, stamp: str) -> None:
    """Write header and arrays to the file; the images only where the reader has not decoded them into it."""
    file, entries, offset = writer.file, {}, _ALIGNMENT
    assert file is not None, "the caller checks it"
    images_in_file = writer.pixels is not None and source.images.ctypes.data == writer.pixels.ctypes.data
    assert images_in_file or writer.pixels is None, "pixels that lie in the file are those of the source"
    file.truncate(_ALIGNMENT + (source.images.nbytes if images_in_file else 0))
    for name in _ARRAYS:
        array = getattr(source, name)
        if array is None:
            continue
        if not (images_in_file and name == "images"):
            file.seek(offset)
            file.write(_byte_view(array))
        entries[name] = {
            "dtype": array.dtype.str,
            "shape": array.shape,
            "offset": offset,
            "crc": _checksum(array),
        }
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    description = {key: getattr(source, key) for key in ("name", "class_names", "notes", "left_out")}
    header = json.dumps({"key": key, "stamp": stamp, "source": description, "arrays": entries}).encode()
    file.seek(offset)
    file.write(header)
    file.seek(0)
    file.write(_MAGIC + b"".join(number.to_bytes(8, "little") for number in (offset, len(header), zlib.crc32(header))))


def _read_pack(path: Path, key: str, stamp: str) -> Source | None:
    """The source in a packed file, its images memory-mapped; None if the file is missing, damaged or out of date."""
    try:
        with path.open("rb") as file:
            header = _read_header(file)
        if header is None or header["key"] != key or header["stamp"] != stamp:
            return None
        arrays: dict[str, np.ndarray] = {}
        for name, entry in header["arrays"].items():
            array = mapped.open_array(path, entry["dtype"], entry["offset"], tuple(entry["shape"]))
            if _checksum(array) != entry["crc"]:
                return None
            arrays[name] = array if name == "images" else np.array(array)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    description = header["source"]
    return Source(
        name=description["name"],
        class_names=tuple(description["class_names"]),
        notes=tuple(description["notes"]),
        left_out=tuple((name, why) for name, why in description["left_out"]),
        images=arrays["images"],
        labels=arrays["labels"],
        names=arrays["names"],
        part=arrays["part"],
        identity=arrays.get("identity"),
        digest=arrays["digest"],
    )


def _read_header(file: BinaryIO) -> dict | None:
    front = file.read(_ALIGNMENT)
    offset, length, crc = (int.from_bytes(front[start : start + 8], "little") for start in (8, 16, 24))
    if front[: len(_MAGIC)] != _MAGIC or offset + length != os.fstat(file.fileno()).st_size:
        return None
    file.seek(offset)
    header = file.read(length)
    return json.loads(header) if zlib.crc32(header) == crc else None


def _byte_view(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _checksum(array: np.ndarray) -> int:
    data, crc = _byte_view(array), 0
    step = _CHECK_BLOCK * max(1, -(-len(data) // _CHECK_LIMIT))
    for start in range(0, len(data), step):
        crc = zlib.crc32(data[start : start + _CHECK_BLOCK], crc)
        mapped.touch(array, -(-_CHECK_BLOCK * len(array) // len(data)))
    return crc
