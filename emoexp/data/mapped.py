"""Images in memory-mapped files: larger than memory if need be, since pages that were read are given back.

Pages of a map count in the resident set from their first touch on. Those of small maps may: they are read again each
epoch. Of maps of at least LARGE bytes they are given back; the file, or the system's cache of it, keeps them.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor

Room = Callable[[tuple[int, ...]], np.ndarray]  # uint8 zeros of a shape, on disk or in RAM, for a reader's pixels
LARGE = 1 << 30  # bytes of a map from which on its pages are given back
BLOCK = 16 << 20  # bytes of images that are looked at in one piece
_KEPT = 256 << 20  # bytes of a large map that may be resident
_AROUND = 2 << 20  # bytes that touching a row may map besides its own: a fault maps the whole folio around it


@dataclass
class _Place:
    """Where a map starts in memory, and how much of it was touched since pages were last given back, in bytes."""

    start: int
    touched: int = 0


_places: WeakKeyDictionary[mmap.mmap, _Place] = WeakKeyDictionary()  # an address that is no map's is never given back


def in_ram(shape: tuple[int, ...]) -> np.ndarray:
    """Room for pixels in memory."""
    return np.zeros(shape, np.uint8)


def on_disk(file: BinaryIO, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """Room for pixels in a file from `offset` bytes on; what is written there is in the file.

    Raises:
        OSError: the disk has no room. It is reserved here, since a write to a map cannot say so.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, offset + prod(shape))
    else:
        file.truncate(offset + prod(shape))
    return _map(file, np.dtype(np.uint8), offset, shape, mmap.MAP_SHARED)


def opened(path: Path, dtype: str, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """An array in a file. Nobody should write to it: nothing written reaches the file, and `release` takes it back."""
    with path.open("rb") as file:
        # Writable, since torch takes no read-only memory; no swap reserved, of which a large one would ask too much.
        return _map(file, np.dtype(dtype), offset, shape, mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0))


def _map(file: BinaryIO, dtype: np.dtype, offset: int, shape: tuple[int, ...], flags: int) -> np.ndarray:
    held = mmap.mmap(file.fileno(), offset + dtype.itemsize * prod(shape), flags)
    array = np.ndarray(shape, dtype, held, offset)
    _places[held] = _Place(array.ctypes.data - offset)
    return array.view(np.memmap)


def _map_of(images: np.ndarray | Tensor) -> tuple[mmap.mmap, _Place] | None:
    """The large map that holds the images; None for small ones and for what lies in memory of its own."""
    address = images.data_ptr() if isinstance(images, Tensor) else images.ctypes.data
    for held, place in list(_places.items()):
        if len(held) >= LARGE and place.start <= address < place.start + len(held):
            return held, place
    return None


def release(images: np.ndarray | Tensor) -> None:
    """Give the pages of a large map back; nothing for any other array.

    Pages of a private map to which nobody wrote hold what the file holds, and those written to a shared one are the
    file's: both come back when they are touched again.
    """
    found = _map_of(images)
    if found is not None and hasattr(mmap, "MADV_DONTNEED"):
        held, place = found
        held.madvise(mmap.MADV_DONTNEED)
        place.touched = 0


def touch(images: np.ndarray | Tensor, rows: int) -> None:
    """Say that a number of rows was read or written: pages are given back before too many are resident."""
    found = _map_of(images)
    if found is not None and len(images):
        found[1].touched += rows * (images.nbytes // len(images) + _AROUND)
        if found[1].touched > _KEPT:
            release(images)


def gather(images: Tensor, index: Tensor) -> Tensor:
    """images[index], a copy on the device of the images; a large map's pages are given back now and then."""
    chosen = images[index]
    if images.device.type == "cpu":
        touch(images, len(chosen))
    return chosen


def pieces(images: np.ndarray, index: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """All images, or those of an index, in order and at most BLOCK bytes (or one image) at a time."""
    step = max(1, BLOCK // max(1, images[:1].nbytes))
    for start in range(0, len(images) if index is None else len(index), step):
        piece = images[start : start + step] if index is None else images[index[start : start + step]]
        yield piece
        touch(images, len(piece))
