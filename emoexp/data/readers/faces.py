"""Drawn faces: synthetic images that replace photographs, need no download and whose true emotion is known.

A face is drawn from a person (shape, spacing, tones, hair), a pose, a light, and the facial actions of an emotion at
weak to full intensity. Then it is partly hidden, blurred, and noise is added. Some labels of training and validation
are swapped. The faces are there to try and test the package at once; results on them say little about photographs.
"""

import numpy as np

from emoexp.data import cache as pixel_cache
from emoexp.data.dataset import PARTS, Source, digests
from emoexp.data.mapped import Allocator
from emoexp.data.readers import drawing, facial_actions, traits

TRAINING_COUNTS = (
    3995,
    436,
    4097,
    7215,
    4830,
    3171,
    4965,
)  # FER2013's, in the order of facial_actions.CLASS_NAMES
_CHUNK = 32  # images that are drawn at a time, so that their arrays fit into a core's cache
_TINTS = np.array([[1.0, 0.86, 0.76], [1.0, 0.92, 0.86], [0.95, 0.97, 1.0], [1.0, 1.0, 1.0]], dtype=np.float32)


def load(
    *,
    image_size: int,
    channels: int,
    cache: str | None,
    size: int,
    test_per_class: int,
    val: float,
    imbalance_ratio: float | None,
    label_noise: float,
    intensity: list[float],
    images_per_person: float,
    nuisance: float,
    seed: int,
) -> Source:
    """Draw a set of faces, or take it from the cache.

    Args:
        image_size: side in pixels, at least 16. channels: 1 for grey, 3 for tinted.
        size: images in all. test_per_class: of these, the balanced test part's images of each class.
        val: share of the rest, in 0..1, that is validation.
        imbalance_ratio: largest over smallest class in training and validation, exponential in between with
            the order of FER2013's class sizes (Cui et al., CVPR 2019); None for FER2013's own proportions.
        label_noise: share of training and validation images, in 0..1, with a wrong label.
        intensity: weakest and strongest expression, in 0..1.
        images_per_person: on average; nobody stands in two parts.
        nuisance: extent of pose, light, occlusion, blur and noise: 0 for passport photographs, 1 for snapshots.

    Raises:
        ValueError: a size that leaves a class of a part without an image.
    """
    request = {name: value for name, value in locals().items() if name != "cache"}
    assert image_size >= 16 and len(intensity) == 2
    per_part = class_counts(size, test_per_class, val, imbalance_ratio)

    def build(allocate: Allocator) -> Source:
        random = np.random.Generator(np.random.Philox(seed))
        return _draw(per_part, image_size, channels, label_noise, intensity, images_per_person, nuisance, random)

    return pixel_cache.load_or_build(cache, "faces", request, "drawn", build)


def _draw(
    count_PC: np.ndarray,
    image_size: int,
    channels: int,
    label_noise: float,
    intensity: list[float],
    images_per_person: float,
    nuisance: float,
    random: np.random.Generator,
) -> Source:
    """The set that `load` describes, with `count_PC` images of each part and class."""
    emotion = np.repeat(np.tile(np.arange(7), 3), count_PC.ravel())
    part = np.repeat(np.arange(3), count_PC.sum(1)).astype(np.int8)
    person = _people_of(part, images_per_person, random)
    numbers = _parameters(emotion, person, intensity, nuisance, random)
    labels = emotion.copy()
    for p in range(2):
        labels[part == p] = _swap_labels(emotion[part == p], label_noise, random)
    images = _render(numbers, image_size, channels, random)
    return _source(images, labels, emotion, part, person)


def class_counts(size: int, test_per_class: int, val: float, imbalance_ratio: float | None) -> np.ndarray:
    """Images of each part and class, int64 3×7: long-tailed training and validation, a balanced test part."""
    weight = np.array(TRAINING_COUNTS, dtype=np.float64)
    if imbalance_ratio is not None:
        rank = np.argsort(np.argsort(-weight))
        weight = float(imbalance_ratio) ** (-rank / (len(weight) - 1))
    rest = size - test_per_class * len(weight)
    exact = weight / weight.sum() * max(rest, 0)
    train_val_C = np.floor(exact).astype(np.int64)
    train_val_C[np.argsort(train_val_C - exact, kind="stable")[: max(rest, 0) - train_val_C.sum()]] += 1
    val_C = np.maximum(np.round(train_val_C * val).astype(np.int64), 1)
    counts = np.stack([train_val_C - val_C, val_C, np.full(len(train_val_C), test_per_class)])
    if counts.min() < 1:
        part, emotion = np.argwhere(counts < 1)[0]
        raise ValueError(
            f"data.size={size} with data.test_per_class={test_per_class}, data.val={val} and "
            f"data.imbalance_ratio={imbalance_ratio} leaves no image of "
            f"{facial_actions.CLASS_NAMES[emotion]} for {PARTS[part]}; use a larger data.size"
        )
    return counts


def _people_of(part: np.ndarray, images_per_person: float, random: np.random.Generator) -> np.ndarray:
    """A person for each image, int64 N, different people in different parts."""
    person = np.zeros(len(part), dtype=np.int64)
    first = 0
    for p in range(len(PARTS)):
        image_index = np.flatnonzero(part == p)
        number = max(1, round(len(image_index) / images_per_person))
        person[image_index] = first + random.integers(number, size=len(image_index))
        first += number
    return np.unique(person, return_inverse=True)[1].astype(np.int64)


def _parameters(
    emotion: np.ndarray,
    person: np.ndarray,
    intensity: list[float],
    nuisance: float,
    random: np.random.Generator,
) -> dict[str, np.ndarray]:
    """All numbers that the drawing needs, float32 N×1×1 each."""
    person_traits = {name: trait[person] for name, trait in traits.people(int(person.max()) + 1, random).items()}
    intensity_of = facial_actions.draw(emotion, float(intensity[0]), float(intensity[1]), random)
    parameters = (
        person_traits | traits.pictures(len(emotion), nuisance, random) | traits.damage(len(emotion), nuisance, random)
    )
    parameters |= {f"au{unit}": value for unit, value in intensity_of.items()}
    parameters["jaw"] = np.minimum(0.45 * parameters["au26"] + 0.8 * parameters["au27"], 1)
    return {name: value.astype(np.float32)[:, None, None] for name, value in parameters.items()}


def _render(numbers: dict[str, np.ndarray], image_size: int, channels: int, random: np.random.Generator) -> np.ndarray:
    size = len(numbers["skin"])
    images = np.empty((size, channels, image_size, image_size), dtype=np.uint8)
    tint = _TINTS[np.floor(numbers["iris"][:, 0, 0] * 997).astype(np.int64) % len(_TINTS)]
    for start in range(0, size, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        part = {name: value[chunk] for name, value in numbers.items()}
        grey = _damage(drawing.faces(part, image_size), part, random)
        colour = grey[:, None] * 255 if channels == 1 else grey[:, None] * 255 * tint[chunk, :, None, None]
        images[chunk] = (colour + np.float32(0.5)).astype(np.uint8)
    return images


def _damage(grey: np.ndarray, p: dict[str, np.ndarray], random: np.random.Generator) -> np.ndarray:
    """Something in front of the face, a blur of up to two 1-2-1 filters at side 48, and noise."""
    side = grey.shape[1]
    for index in np.flatnonzero(p["hide"]):
        top, left, high, wide = (int(p[name][index, 0, 0] * side) for name in traits.HIDING)
        grey[index, top : top + high, left : left + wide] = p["hide_tone"][index]
    for _ in range(max(1, round(side / 24))):
        grey = _soften(_soften(grey, p["blur"], 1), p["blur"], 2)
    noise = random.integers(0, 1 << 16, size=grey.shape, dtype=np.uint16).astype(np.float32) * np.float32(2**-15) - 1
    return np.clip(grey + noise * p["noise"], 0, 1)


def _soften(grey: np.ndarray, amount: np.ndarray, axis: int) -> np.ndarray:
    """A three-tap blur along an axis, from none (amount 0) to 1-2-1 (amount 1); the edge is repeated."""
    length = grey.shape[axis]
    before = np.take(grey, np.r_[0, : length - 1], axis=axis)
    after = np.take(grey, np.r_[1:length, length - 1], axis=axis)
    return grey + (before + after - 2 * grey) * (amount * np.float32(0.25))


def _swap_labels(emotion: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Swap the labels of a share of the images with each other: they become wrong, and class sizes stay the same.

    If more than half of these images are of one class, some of them keep their right label: there are not enough
    labels of other classes.
    """
    chosen = random.permutation(len(emotion))[: round(share * len(emotion))]
    label = emotion[random.permutation(chosen)]
    for _ in range(100):
        for k in np.flatnonzero(label == emotion[chosen]):
            other = random.integers(len(chosen))
            if label[other] != emotion[chosen[k]] and label[k] != emotion[chosen[other]]:
                label[k], label[other] = label[other], label[k]
    noisy = emotion.copy()
    noisy[chosen] = label
    return noisy


def _source(
    images: np.ndarray, labels: np.ndarray, emotion: np.ndarray, part: np.ndarray, person: np.ndarray
) -> Source:
    order = np.lexsort((np.arange(len(labels)), labels, part))
    names = [f"{PARTS[part[i]]}/{i:05d} drawn as {facial_actions.CLASS_NAMES[emotion[i]]}" for i in order]
    num_wrong = int((labels != emotion).sum())
    notes = (
        "drawn faces, not photographs",
        f"{num_wrong} labels of training and validation are wrong on purpose",
    )
    return Source(
        name="faces",
        images=images[order],
        labels=labels[order].astype(np.int64),
        class_names=facial_actions.CLASS_NAMES,
        names=np.array(names),
        part=part[order],
        identity=person[order],
        digest=digests(images[order]),
        notes=notes,
    )
