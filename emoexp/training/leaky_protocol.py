"""The leaky protocol: copies of rare images are made before the split, as in published experiments.

Everywhere else the split comes first. This protocol exists to measure how much the mistake raises the metrics
(experiment=pared_down_vgg protocol=leaky). A picture and its transformed copies come into different parts, so that the
network is tested on pictures that it was trained on. All results of the protocol carry the mark `MARK`.
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
_CHUNK_SIZE = 1024  # copies transformed at a time


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
        target: the number of images that each class is to have, from the counts of the whole set (imbalance.copies).
        policy: the ranges of a copy's transformation. divide: splits a source image by image.
        seed: decides which images are copied, and how the copies are transformed.

    Returns:
        A data set marked `leaky`, in which a copy has the digest of its original: "clean" test images are those
        without a relative in an earlier part.

    Raises:
        ValueError: the split keeps people together or has the source's own parts, or nothing is copied.
    """
    count_C = np.bincount(source.labels, minlength=len(source.class_names))
    parent_P, copy_P = copies.build_pool(torch.from_numpy(source.labels), target(torch.from_numpy(count_C)), seed=seed)
    parent, copy_number = parent_P.numpy(), copy_P.numpy()
    if not copy_number.any():
        raise ValueError("protocol=leaky copies rare images before the split, and imbalance.copies makes no copies")
    images = np.concatenate([source.images, _copies(source.images, parent_P, copy_P, policy, seed)])
    data = divide(_with_copies(source, images, parent, copy_number))
    if data.split != "stratified":
        raise ValueError(f"protocol=leaky splits image by image: split=stratified, not split={data.split}")
    return dataclasses.replace(data, digest=source.digest[parent], leaky=True)


def _with_copies(source: Source, image_NCHW: np.ndarray, parent_P: np.ndarray, copy_P: np.ndarray) -> Source:
    """A source in which each original and each copy is a picture like any other."""
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
    """The copies as uint8 images, transformed in the same way as the copies that training makes."""
    chunks = []
    for chunk_K in torch.nonzero(copy_P > 0).flatten().split(_CHUNK_SIZE):
        image = torch.from_numpy(image_NCHW[parent_P[chunk_K].numpy()]).float() / 255
        transformation = augment.draw(policy, seed, "copy", parent_P[chunk_K], copy_P[chunk_K], 0)
        chunks.append((augment.apply(image, transformation, fill=0.5) * 255).round().to(torch.uint8).numpy())
    return np.concatenate(chunks)
