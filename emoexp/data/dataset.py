"""A labelled set of images, before splitting (Source) and after it (Dataset)."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from emoexp.data import mapped

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Source:
    """A set of labelled images as its reader gives it, before splitting.

    images: uint8 N×C×H×W, memory-mapped where it comes from the cache. labels: int64 N, indices into
    class_names. names: path of each image below the root, for messages. part: int8 N, the position in PARTS, -1
    where the source does not say. identity: int64 N, equal for pictures of one person, -1 where unknown; None
    without identities. digest: bytes N (32 hexadecimal digits), equal if and only if the pixels are equal. notes:
    sentences for the log about images that were dropped or repaired, or that are unusual. left_out: name and reason
    of each file that is not among the images: it is unreadable, or has no label or several.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    names: np.ndarray
    part: np.ndarray
    identity: np.ndarray | None
    digest: np.ndarray
    notes: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    @cached_property
    def images_hash(self) -> str:
        """A hash of pixels and labels, whatever the names, the order or the parts of the files: 64 hexadecimal digits.

        It is the same before and after a split, and for copies that were made before it.
        """
        pairs = np.unique(np.char.add(self.digest, np.char.mod(b"%d", self.labels)))
        sha = hashlib.sha256(repr((self.class_names, self.images.shape[1:])).encode())
        sha.update(pairs.tobytes())
        return sha.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Dataset(Source):
    """A source after splitting: each image is in one of PARTS, or in none (-1) if a leak or a long tail was cut out.

    split: the mode of the split. leaky: copies were made before the split, and `digest` is that of their originals.
    """

    split: str
    leaky: bool = False

    def where(self, part: str) -> np.ndarray:
        """Ascending indices (int64) of a part's images."""
        return np.flatnonzero(self.part == PARTS.index(part))

    def counts(self, part: str) -> np.ndarray:
        """Images of each class in a part: int64, one number a class."""
        return np.bincount(self.labels[self.where(part)], minlength=len(self.class_names))

    def clean(self, part: str) -> np.ndarray:
        """Whether each image of a part has pixels that no image of an earlier part has: bool, in the order of `where`.

        Train and val are earlier than test, train is earlier than val: training, or the choice of the best epoch, has
        already seen the images of earlier parts.
        """
        earlier = (self.part >= 0) & (self.part < PARTS.index(part))
        return ~np.isin(self.digest[self.where(part)], self.digest[earlier])

    @cached_property
    def pixels(self) -> tuple[float, float]:
        """Mean and standard deviation of the training part's values, in 0..1; computed once."""
        return pixel_statistics(self.images, self.where("train"))

    @cached_property
    def fingerprint(self) -> dict[str, object]:
        """What identifies the data, ready for JSON.

        `content` and `images` are hashes that do not depend on names or order of files. `images` is the same for
        every split of the same pictures, `content` is not.

        `pixel_mean` and `pixel_std` are those of the training part, in 0..1, over all pixels and channels.
        `seen_before` counts the images of val and test whose pixels an earlier part has too.
        """
        mean, std = self.pixels
        known = None if self.identity is None else self.identity[self.identity >= 0]
        return {
            "source": self.name,
            "content": _content(self),
            "images": self.images_hash,
            "classes": list(self.class_names),
            "split": self.split,
            "counts": {part: [int(count) for count in self.counts(part)] for part in PARTS},
            "image_shape": [int(side) for side in self.images.shape[1:]],
            "pixel_mean": mean,
            "pixel_std": std,
            "identities": None if known is None else int(np.unique(known).size),
            "distinct_images": int(np.unique(self.digest).size),
            "seen_before": {part: int((~self.clean(part)).sum()) for part in PARTS[1:]},
        }


def digests(image_NCHW: np.ndarray) -> np.ndarray:
    """A 128-bit BLAKE2 hash of each image's pixels, as 32 hexadecimal digits (bytes)."""
    return np.array([digest(image) for block in mapped.blocks(image_NCHW) for image in block], dtype="S32")


def digest(image_CHW: np.ndarray) -> str:
    """The hash of one image's pixels."""
    return hashlib.blake2b(image_CHW.tobytes(), digest_size=16).hexdigest()


def pixel_statistics(image_NCHW: np.ndarray, index: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the chosen images' values, in 0..1, from an exact histogram."""
    count = np.zeros(256, dtype=np.int64)
    for block in mapped.blocks(image_NCHW, index):
        count += np.bincount(block.ravel(), minlength=256)
    total = max(int(count.sum()), 1)
    grey = np.arange(256)
    mean = int((count * grey).sum()) / total
    variance = int((count * grey * grey).sum()) / total - mean * mean
    return mean / 255, max(variance, 0.0) ** 0.5 / 255


def _content(data: Dataset) -> str:
    order = np.lexsort((data.part, data.labels, data.digest))
    sha = hashlib.sha256(repr((data.class_names, data.images.shape[1:])).encode())
    for column in (data.digest, data.labels.astype("<i8"), data.part.astype("<i1")):
        sha.update(np.ascontiguousarray(column[order]).tobytes())
    return sha.hexdigest()
