"""Images in memory-mapped files. They may be larger than memory, because pages that were read are released again.

A page of a map counts as resident memory of the process from its first read or write on. Pages of small maps stay
resident, because each epoch reads them again. Pages of maps of at least LARGE bytes are released from time to time;
their content stays in the file and in the system's cache of it.
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

Allocator = Callable[[tuple[int, ...]], np.ndarray]  # a shape to uint8 zeros of it, in a file or in RAM, for pixels
LARGE = 1 << 30  # bytes: pages of maps of at least this size are released
BLOCK = 16 << 20  # bytes of images that are processed at a time
_RESIDENT_LIMIT = 256 << 20  # bytes of a large map that may be resident
_FAULT_AROUND = 2 << 20  # bytes that one page fault may map besides the row itself: it maps a whole folio


@dataclass
class _MapState:
    """Address of a map in memory, and bytes of it that were read or written since its pages were last released."""

    address: int
    touched: int = 0


# All open maps. Weak: a map that is closed leaves the table, so that memory at its old address is never released.
_map_states: WeakKeyDictionary[mmap.mmap, _MapState] = WeakKeyDictionary()


def allocate_in_memory(shape: tuple[int, ...]) -> np.ndarray:
    """An Allocator: zeros in memory."""
    return np.zeros(shape, np.uint8)


def allocate_in_file(file: BinaryIO, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros in a file, from `offset` bytes on. What is written to the array is written to the file.

    Raises:
        OSError: the disk is full. The space is reserved here, because a write to a map cannot report a full disk.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, offset + prod(shape))
    else:
        file.truncate(offset + prod(shape))
    return _map(file, np.dtype(np.uint8), offset, shape, mmap.MAP_SHARED)


def open_array(path: Path, dtype: str, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """An array in a file, to be read only: what is written to it never reaches the file, and `release` discards it."""
    with path.open("rb") as file:
        # Writable, because torch takes no read-only memory. MAP_NORESERVE: a large map would reserve too much swap.
        return _map(file, np.dtype(dtype), offset, shape, mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0))


def _map(file: BinaryIO, dtype: np.dtype, offset: int, shape: tuple[int, ...], flags: int) -> np.ndarray:
    memory_map = mmap.mmap(file.fileno(), offset + dtype.itemsize * prod(shape), flags)
    array = np.ndarray(shape, dtype, memory_map, offset)
    _map_states[memory_map] = _MapState(array.ctypes.data - offset)
    return array.view(np.memmap)


def _map_of(images: np.ndarray | Tensor) -> tuple[mmap.mmap, _MapState] | None:
    """The large map that holds the images, and its state; None for small maps and for arrays in ordinary memory."""
    address = images.data_ptr() if isinstance(images, Tensor) else images.ctypes.data
    for memory_map, state in list(_map_states.items()):
        if len(memory_map) >= LARGE and state.address <= address < state.address + len(memory_map):
            return memory_map, state
    return None


def release(images: np.ndarray | Tensor) -> None:
    """Release the resident pages of the large map that holds the images; any other array is left alone.

    No content is lost: an unwritten page of a private map, and any page of a shared map, is read from the file again
    at its next use.
    """
    map_and_state = _map_of(images)
    if map_and_state is not None and hasattr(mmap, "MADV_DONTNEED"):
        memory_map, state = map_and_state
        memory_map.madvise(mmap.MADV_DONTNEED)
        state.touched = 0


def touch(images: np.ndarray | Tensor, rows: int) -> None:
    """Count this many rows as read or written. Releases the map's pages before too many are resident."""
    map_and_state = _map_of(images)
    if map_and_state is not None and len(images):
        map_and_state[1].touched += rows * (images.nbytes // len(images) + _FAULT_AROUND)
        if map_and_state[1].touched > _RESIDENT_LIMIT:
            release(images)


def gather(images: Tensor, index: Tensor) -> Tensor:
    """images[index], a copy on the device of the images; the pages of a large map are released from time to time."""
    rows = images[index]
    if images.device.type == "cpu":
        touch(images, len(rows))
    return rows


def blocks(images: np.ndarray, index: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """All images, or those of an index, in order and at most BLOCK bytes (or one image) at a time."""
    step = max(1, BLOCK // max(1, images[:1].nbytes))
    for start in range(0, len(images) if index is None else len(index), step):
        block = images[start : start + step] if index is None else images[index[start : start + step]]
        yield block
        touch(images, len(block))
