"""A packed copy of what a reader gave, so that the next start reads one file instead of decoding thousands.

One file an answer: a magic word, the length of a JSON header, the header (key, source stamp, class names,
notes, and each array's type, shape, place and checksum), then the arrays at 64-byte boundaries. It is written
beside its place and moved there in one step, so that readers and writers of several processes never see half
of one; it is used only if key, stamp, length and checksums are right, and made anew otherwise.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL

from emoexp.data.dataset import Source

_MAGIC = b"emoexp1\n"
_ALIGN = 64
_ARRAYS = ("images", "labels", "names", "part", "identity", "digest")
_BLOCK = 1 << 20  # bytes checked at a time
_CHECKED = 1 << 30  # bytes of an array that are checked: all of a smaller one, evenly spread blocks of a larger one


def cached(
    folder: str | None, name: str, request: Mapping[str, object], stamp: str, build: Callable[[], Source]
) -> Source:
    """The source that `build` gives, from the cache where it holds it.

    Args:
        folder: where packed files lie; None builds every time.
        name: the reader, the first part of the file's name.
        request: everything that decides the pixels, labels and names, as JSON values.
        stamp: the state of what is read (sizes and times of its files); with another one, the file is made
            anew.

    A folder that cannot be written to is no reason to stop: the source comes back with a note.
    """
    if folder is None:
        return build()
    key = {"request": dict(request), "code": _code(), "pillow": PIL.__version__}
    text = json.dumps(key, sort_keys=True, default=list)
    path = Path(folder).expanduser() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.pack"
    found = _read(path, text, stamp)
    if found is not None:
        return found
    source = build()
    try:
        _write(path, source, text, stamp)
    except OSError as error:
        note = f"no packed copy could be kept in {folder} ({error.strerror or error}): it is read anew each time"
        return dataclasses.replace(source, notes=(*source.notes, note))
    return source


@lru_cache(maxsize=1)
def _code() -> str:
    """A hash of this package's source: changed readers never meet files that older ones packed."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def _write(path: Path, source: Source, key: str, stamp: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            _pack(file, source, key, stamp)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _pack(file: BinaryIO, source: Source, key: str, stamp: str) -> None:
    arrays = {name: getattr(source, name) for name in _ARRAYS if getattr(source, name) is not None}
    entries, offset = {}, 0
    for name, array in arrays.items():
        data = _bytes(array)
        entries[name] = {
            "dtype": array.dtype.str,
            "shape": array.shape,
            "offset": offset,
            "crc": _checksum(data),
        }
        offset += -(-len(data) // _ALIGN) * _ALIGN
    about = {key: getattr(source, key) for key in ("name", "class_names", "notes", "left_out")}
    header = json.dumps({"key": key, "stamp": stamp, "length": offset, "source": about, "arrays": entries}).encode()
    header += b" " * (-(len(_MAGIC) + 12 + len(header)) % _ALIGN)
    file.write(_MAGIC + len(header).to_bytes(8, "little") + zlib.crc32(header).to_bytes(4, "little") + header)
    for array in arrays.values():
        data = _bytes(array)
        file.write(data)
        file.write(b"\0" * (-len(data) % _ALIGN))


def _read(path: Path, key: str, stamp: str) -> Source | None:
    """The source in a packed file, images memory-mapped; None if missing, damaged, or of something else."""
    try:
        with path.open("rb") as file:
            header = _header(file)
            start = file.tell()
        if header is None or header["key"] != key or header["stamp"] != stamp:
            return None
        if path.stat().st_size != start + header["length"]:
            return None
        arrays: dict[str, np.ndarray] = {}
        for name, entry in header["arrays"].items():
            shape = tuple(entry["shape"])
            # Copy-on-write: torch takes no read-only memory, and nothing that is written may reach the file.
            array = np.memmap(path, np.dtype(entry["dtype"]), "c", start + entry["offset"], shape)
            if _checksum(_bytes(array)) != entry["crc"]:
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
    if file.read(len(_MAGIC)) != _MAGIC:
        return None
    length, crc = int.from_bytes(file.read(8), "little"), int.from_bytes(file.read(4), "little")
    if length > _CHECKED:
        return None
    header = file.read(length)
    return json.loads(header) if zlib.crc32(header) == crc else None


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _checksum(data: memoryview) -> int:
    step = _BLOCK * max(1, -(-len(data) // _CHECKED))
    crc = 0
    for start in range(0, len(data), step):
        crc = zlib.crc32(data[start : start + _BLOCK], crc)
    return crc
