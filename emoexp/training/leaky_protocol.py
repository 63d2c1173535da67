"""The one deliberate breach of split-first: copies made before the split, as published experiments do it.

It exists to show what that is worth (experiment=pared_down_vgg protocol=leaky). A picture and its transformed copies
end up in different parts, so that a network is tested on what it has seen. Everything made of it is marked.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from emoexp.data.dataset import Dataset, Source, digests
from emoexp.imbalance import copies
from emoexp.training import augment
from emoexp.training.augment import Policy

MARK = "LEAKY PROTOCOL: copies were made before the split"
_CHUNK = 1024  # copies transformed at a time


def split(
    source: Source,
    *,
    target: Callable[[Tensor], Tensor],
    policy: Policy,
    divide: Callable[[Source], Dataset],
    seed: int,
) -> Dataset:
    """Copy rare images first, then split originals and copies alike.

    Args:
        target: images wanted of each class, from the counts of the whole set (the column imbalance.copies).
        policy: the transformation of a copy. divide: the split, image by image.
        seed: of the copies.

    Returns:
        A data set marked `leaky`, in which a copy has the digest of its original: "clean" test images are those
        without a relative in an earlier part.

    Raises:
        ValueError: the split keeps people together or has the source's own parts, or nothing is copied.
    """
    count_C = np.bincount(source.labels, minlength=len(source.class_names))
    parent_P, copy_P = copies.build_pool(torch.from_numpy(source.labels), target(torch.from_numpy(count_C)), seed=seed)
    parent, number = parent_P.numpy(), copy_P.numpy()
    if not number.any():
        raise ValueError("protocol=leaky copies rare images before the split, and imbalance.copies makes no copies")
    images = np.concatenate([source.images, _copies(source.images, parent_P, copy_P, policy, seed)])
    data = divide(_widened(source, images, parent, number))
    if data.split != "stratified":
        raise ValueError(f"protocol=leaky splits image by image: split=stratified, not split={data.split}")
    return dataclasses.replace(data, digest=source.digest[parent], leaky=True)


def _widened(source: Source, image_NCHW: np.ndarray, parent_P: np.ndarray, copy_P: np.ndarray) -> Source:
    """A source of originals and copies as if all of them were pictures of their own."""
    suffix = [f"#copy{number}" if number else "" for number in copy_P]
    note = f"{MARK}: {int((copy_P > 0).sum())} of {len(parent_P)} images are copies"
    return dataclasses.replace(
        source,
        images=image_NCHW,
        labels=source.labels[parent_P],
        names=np.char.add(source.names[parent_P], suffix),
        part=np.full(len(parent_P), -1, np.int8),
        identity=None if source.identity is None else source.identity[parent_P],
        digest=np.concatenate([source.digest, digests(image_NCHW[len(source.labels) :])]),
        notes=(note, *source.notes),
    )


def _copies(image_NCHW: np.ndarray, parent_P: Tensor, copy_P: Tensor, policy: Policy, seed: int) -> np.ndarray:
    """The copies of a pool as uint8 images, transformed as copies inside training are."""
    made = []
    where = torch.nonzero(copy_P > 0).flatten()
    for piece in where.split(_CHUNK):
        image = torch.from_numpy(image_NCHW[parent_P[piece].numpy()]).float() / 255
        drawn = augment.draw(policy, seed, "copy", parent_P[piece], copy_P[piece], 0)
        made.append((augment.apply(image, drawn, fill=0.5) * 255).round().to(torch.uint8).numpy())
    return np.concatenate(made)
