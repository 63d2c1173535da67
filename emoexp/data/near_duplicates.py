"""The near duplicates of a data set, searched once and kept in the cache, where every run finds them."""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emoexp.data import groups, near_search
from emoexp.data.dataset import Source
from emoexp.data.near_search import Pairs

_ARRAYS = ("first", "second", "similarity", "mirrored", "shift")


@dataclass(frozen=True)
class Twins:
    """Nearly the same pictures: pairs of images of the data set, and groups that pairs and equal pixels link.

    Of images with equal pixels the first one stands in pairs. group_N: int64, equal within a group.
    """

    pairs: Pairs
    group_N: np.ndarray


def known(data: Source, cache: str | None) -> Twins | None:
    """What an earlier search has kept in the cache; None where there was none."""
    path = _place(data, cache)
    if path is None or not path.is_file():
        return None
    with np.load(path) as kept:
        return _twins(data, Pairs(*(kept[name] for name in _ARRAYS)))


def searched(data: Source, cache: str | None) -> Twins:
    """What an earlier search has kept, else a search: minutes for some ten thousand images."""
    found = known(data, cache)
    if found is not None:
        return found
    pairs = near_search.search(data.images[_first(data)])
    path = _place(data, cache)
    if path is not None:
        _keep(path, pairs)
    return _twins(data, pairs)


def _first(data: Source) -> np.ndarray:
    """The first image of each different picture, in the order of the digests, which no file order changes."""
    return np.unique(data.digest, return_index=True)[1]


def _twins(data: Source, pairs: Pairs) -> Twins:
    first_U, place_N = np.unique(data.digest, return_index=True, return_inverse=True)[1:]
    group_U = groups.connected(pairs.first, pairs.second, len(first_U))
    ends = np.stack([first_U[pairs.first], first_U[pairs.second]])
    here = Pairs(ends.min(0), ends.max(0), pairs.similarity, pairs.mirrored, pairs.shift)
    return Twins(here, group_U[place_N])


def _place(data: Source, cache: str | None) -> Path | None:
    if cache is None:
        return None
    code = Path(near_search.__file__).read_bytes()
    pictures = hashlib.sha256(np.unique(data.digest).tobytes() + repr(data.images.shape[1:]).encode() + code)
    return Path(cache) / f"near-{pictures.hexdigest()[:16]}.npz"


def _keep(path: Path, pairs: Pairs) -> None:
    """Write pairs to the cache, whole or not at all; where that cannot be, the next one searches again."""
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, **{name: getattr(pairs, name) for name in _ARRAYS})
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
