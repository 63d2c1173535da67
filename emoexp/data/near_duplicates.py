"""The near duplicates of a data set: searched once, then loaded from the cache."""

import contextlib
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emoexp.data import groups, near_search
from emoexp.data.dataset import Source
from emoexp.data.near_search import Pairs
from emoexp.runs import files

_ARRAYS = ("first", "second", "similarity", "mirrored", "shift")


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of images that are nearly the same, and the groups of images that such pairs or equal pixels link.

    Of several images with equal pixels only the first one is in pairs. group_N: int64, equal within a group.
    """

    pairs: Pairs
    group_N: np.ndarray


def load(data: Source, cache: str | None) -> NearDuplicates | None:
    """The near duplicates that an earlier search has saved in the cache; None if there was no such search."""
    path = _cache_file(data, cache)
    if path is None or not path.is_file():
        return None
    with np.load(path) as arrays:
        return _near_duplicates(data, Pairs(*(arrays[name] for name in _ARRAYS)))


def find(data: Source, cache: str | None) -> NearDuplicates:
    """The near duplicates from the cache, else from a search, which takes minutes for some ten thousand images."""
    saved = load(data, cache)
    if saved is not None:
        return saved
    pairs = near_search.search(data.images[_first_of_each_picture(data)])
    path = _cache_file(data, cache)
    if path is not None:
        _save(path, pairs)
    return _near_duplicates(data, pairs)


def _first_of_each_picture(data: Source) -> np.ndarray:
    """Index of the first image with each digest, sorted by digest, so that the order of files does not matter."""
    return np.unique(data.digest, return_index=True)[1]


def _near_duplicates(data: Source, pairs: Pairs) -> NearDuplicates:
    first_U, picture_N = np.unique(data.digest, return_index=True, return_inverse=True)[1:]
    group_U = groups.connected(pairs.first, pairs.second, len(first_U))
    end_2P = np.stack([first_U[pairs.first], first_U[pairs.second]])
    image_pairs = Pairs(end_2P.min(0), end_2P.max(0), pairs.similarity, pairs.mirrored, pairs.shift)
    return NearDuplicates(image_pairs, group_U[picture_N])


def _cache_file(data: Source, cache: str | None) -> Path | None:
    if cache is None:
        return None
    version = f"{data.images.shape[1:]} {near_search.VERSION}".encode()
    pictures = hashlib.sha256(np.unique(data.digest).tobytes() + version)
    return Path(cache) / f"near-{pictures.hexdigest()[:16]}.npz"


def _save(path: Path, pairs: Pairs) -> None:
    """Write pairs to the cache in one step. If that fails, the next run searches again."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: getattr(pairs, name) for name in _ARRAYS})
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, buffer.getvalue())
