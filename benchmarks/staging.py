"""Images for the benchmark: one set of files that the plain script and emoexp both read."""

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from emoexp.data import images
from emoexp.data.dataset import PARTS
from emoexp.data.readers import faces

TEST_PER_CLASS = 10
VAL = 0.1


def draw(folder: Path, training_images: int) -> None:
    """Write emoexp's drawn faces, seven imbalanced classes, as folder/{train,val,test}/<class>/<number>.png."""
    source = faces.load(
        image_size=48,
        channels=1,
        cache=None,
        size=round(training_images / (1 - VAL)) + 7 * TEST_PER_CLASS,
        test_per_class=TEST_PER_CLASS,
        val=VAL,
        imbalance_ratio=None,
        label_noise=0.0,
        intensity=[0.35, 1.0],
        images_per_person=8.0,
        nuisance=0.7,
        seed=0,
    )
    for index, (image, label, part) in enumerate(zip(source.images, source.labels, source.part, strict=True)):
        path = folder / PARTS[part] / source.class_names[label] / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image[0])).save(path)


def borrow(source: Path, folder: Path) -> None:
    """Put files of source/<class>/ under folder/{train,val,test}/<class>/, in turn 8, 1 and 1 of 10.

    Raises:
        ValueError: there are no two class folders of ten images each.
    """
    classes = {path.name: _images(path) for path in sorted(source.iterdir()) if path.is_dir()}
    if len(classes) < 2 or min(map(len, classes.values())) < 10:
        raise ValueError(f"--data is a folder of at least two class folders of ten images or more; {source} is not")
    for name, paths in classes.items():
        for index, path in enumerate(paths):
            place = folder / {8: "val", 9: "test"}.get(index % 10, "train") / name / f"{index:06d}{path.suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            _put(path, place)


def side(folder: Path) -> int:
    """Pixels of a side of the images.

    Raises:
        ValueError: the first image is not square.
    """
    first = next(path for path in sorted((folder / "train").rglob("*")) if path.is_file())
    with Image.open(first) as image:
        if image.width != image.height:
            raise ValueError(f"the images have to be square and of one size; {first} is {image.size}")
        return image.width


def number(folder: Path) -> int:
    """Images of the training part."""
    return sum(path.is_file() for path in (folder / "train").rglob("*"))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and images.is_image(path.name))


def _put(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except OSError:  # another file system
        shutil.copyfile(path, place)
