"""FER2013, the set of the ICML 2013 challenge: 48x48 grey faces of 7 emotions, in any of its usual forms.

Goodfellow et al., "Challenges in Representation Learning" (2013). Training has 28,709 images, PublicTest and
PrivateTest 3,589 each. Many public copies are blurred, equalised, enlarged or split in another way. So the copy that
is read is compared with the original.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from emoexp.data import archive, images
from emoexp.data import cache as pixel_cache
from emoexp.data.archive import Tree
from emoexp.data.dataset import Source, digests, pixel_statistics
from emoexp.data.mapped import Allocator
from emoexp.data.readers.fer2013_csv import ALIASES, CLASS_NAMES, csv_file, read_csv

USAGES = ("Training", "PublicTest", "PrivateTest")
SIDE = 48
COUNTS = np.array([
    [3995, 436, 4097, 7215, 4830, 3171, 4965],
    [467, 56, 496, 895, 653, 415, 607],
    [491, 55, 528, 879, 594, 416, 626],
])  # fmt: skip
TRAINING_MEAN, TRAINING_STD = 0.5077, 0.2550  # of Training's pixels, in 0..1
# Recompression at quality 95 moves both by less than 0.0005, blurring or equalising by 0.01 and more.
_TOLERANCE = 0.002
_WHAT = (
    "FER2013 (image folders train/<class>/ and test/<class>/, fer2013.csv or icml_face_data.csv, "
    "or an archive of these)"
)
_FOLDERS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2,
            "publictest": 1, "privatetest": 2}  # fmt: skip
_PREFIX = re.compile(r"(Training|PublicTest|PrivateTest)_", re.IGNORECASE)


@dataclass(frozen=True)
class Rows:
    """All images of the set. pixels: uint8 N×1×48×48. usage: positions in USAGES."""

    pixels: np.ndarray
    labels: np.ndarray
    usage: np.ndarray
    names: np.ndarray
    notes: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...] = ()


def load(*, image_size: int, channels: int, cache: str | None, root: str, strict: bool, on_corrupt: str) -> Source:
    """Read FER2013 with its official parts.

    Training, PublicTest and PrivateTest become train, val and test. Without a PrivateTest, PublicTest becomes test,
    and the split takes validation out of Training.

    Args:
        root: a folder, a .zip or .tar archive, or a CSV file (plain, .gz or zipped).
        strict: refuse a copy whose counts or pixel statistics differ from the original's, instead of adding a note.
        on_corrupt: "refuse" unreadable images or "drop" them with a note.

    Raises:
        ValueError: for a missing root, unknown classes, unreadable images, wrong rows of a CSV (with line
            numbers), and with `strict` an altered copy.
    """
    path = archive.existing_path(root, "fer2013", _WHAT)
    request = {"image_size": image_size, "channels": channels, "on_corrupt": on_corrupt}

    def build(allocate: Allocator) -> Source:
        with archive.open_tree(path) as tree:
            rows = _read(tree, on_corrupt)
        return _source(rows, image_size, channels, allocate)

    source = pixel_cache.load_or_build(cache, "fer2013", request, archive.stamp(path), build)
    altered = [note for note in source.notes if note.startswith("ALTERED")]
    if strict and altered:
        raise ValueError(f"{path}: {altered[0]}. Take another copy, or accept it with data.strict=false")
    return source


def _read(tree: Tree, on_corrupt: str) -> Rows:
    image_names = [name for name in tree.names if images.is_image(name)]
    table = csv_file(tree)
    belong = [name for name in image_names if min(_class_and_usage(name)) >= 0]
    if image_names and (belong or table is None):
        return _read_images(tree, image_names, on_corrupt)
    if table is not None:
        pixels, labels, usage, names, notes, unusable = read_csv(tree, table, on_corrupt)
        if image_names:
            shown = ", ".join(image_names[:3])
            notes += (
                f"{len(image_names)} pictures beside {table} are no part of it and are left out, such as {shown}",
            )
        return Rows(pixels, labels, usage, names, notes, unusable)
    raise ValueError(f"{tree.root.absolute()} holds neither images nor a CSV file; expected {_WHAT}")


def _read_images(tree: Tree, image_names: list[str], on_corrupt: str) -> Rows:
    class_and_usage = {name: _class_and_usage(name) for name in image_names}
    unknown = [name for name, (label, usage) in class_and_usage.items() if label < 0 or usage < 0]
    if unknown:
        raise ValueError(
            f"{len(unknown)} images of {tree.root} are in no folder of a known class and part, such as "
            f"{unknown[0]}; expected train/<class>/<image> and test/<class>/<image> with the classes "
            f"{', '.join(CLASS_NAMES)}"
        )
    decoded = images.decode_all(image_names, tree.read_many(image_names, images.MAX_BYTES), SIDE, 1, on_corrupt)
    names = [image_names[index] for index in decoded.index]
    label, usage = np.array([class_and_usage[name] for name in names], dtype=np.int64).T
    notes = [*decoded.notes, *_size_notes(decoded.size), *_folder_notes(names, usage)]
    if not (usage == 1).any() and not any(_PREFIX.match(name.rsplit("/", 1)[-1]) for name in names):
        notes.append("file names do not tell PublicTest from PrivateTest: the whole test folder is the test part")
    return Rows(decoded.pixels, label, usage, np.array(names), tuple(notes), decoded.unusable)


def _class_and_usage(name: str) -> tuple[int, int]:
    """Class and usage of an image from its path, -1 where the path does not say. The usage in the file's name counts
    more than its folder."""
    *folders, file = name.split("/")
    emotion = ALIASES.get(folders[-1].casefold() if folders else "")
    prefix = _PREFIX.match(file)
    if prefix:
        usage = [u.casefold() for u in USAGES].index(prefix[1].casefold())
    else:
        usage = next((_FOLDERS[folder.casefold()] for folder in folders[::-1] if folder.casefold() in _FOLDERS), -1)
    return (CLASS_NAMES.index(emotion) if emotion else -1), usage


def _size_notes(size_N2: np.ndarray) -> list[str]:
    counts = Counter((int(width), int(height)) for width, height in size_N2)
    other_sizes = {size: count for size, count in counts.items() if size != (SIDE, SIDE)}
    if not other_sizes:
        return []
    (width, height), _ = max(other_sizes.items(), key=lambda item: item[1])
    return [f"ALTERED copy of FER2013: {sum(other_sizes.values())} images are not 48x48, most of them {width}x{height}"]


def _folder_notes(names: list[str], usage: np.ndarray) -> list[str]:
    """A note if the usage in file names contradicts the folders, because somebody split the set in another way."""
    contradictions = sum(
        any(
            folder.casefold() in _FOLDERS and (_FOLDERS[folder.casefold()] == 0) != (part == 0)
            for folder in name.split("/")[:-1]
        )
        for name, part in zip(names, usage, strict=True)
    )
    if not contradictions:
        return []
    return [
        f"ALTERED copy of FER2013: {contradictions} images are in a folder that contradicts their file names; "
        "the file names decide"
    ]


def _source(rows: Rows, image_size: int, channels: int, allocate: Allocator) -> Source:
    notes = [note for note in rows.notes if not note.startswith("ALTERED")]
    differences = [note.split(": ", 1)[1] for note in rows.notes if note.startswith("ALTERED")] + compare(rows)
    if differences:
        notes.insert(0, f"ALTERED copy of FER2013: {'; '.join(differences)}")
    num_blank = images.blank(rows.pixels)
    if num_blank:
        notes.append(
            f"{num_blank} images are blank (one flat grey) but carry a label; they are kept, as in the original"
        )
    part = rows.usage.astype(np.int8)
    if not (part == 2).any() and (part == 1).any():
        part[part == 1] = 2
        notes.append("without PrivateTest: PublicTest is the test part; validation is taken out of Training")
    pixels = images.resize_all(rows.pixels, image_size, channels, allocate)
    return Source(
        name="fer2013",
        images=pixels,
        labels=rows.labels.astype(np.int64),
        class_names=CLASS_NAMES,
        names=rows.names,
        part=part,
        identity=None,
        digest=digests(pixels),
        notes=tuple(notes),
        left_out=rows.unusable,
    )


def compare(rows: Rows) -> list[str]:
    """Differences from the original set, in words: class counts, and mean and deviation of Training's pixels."""
    differences = []
    present = [usage for usage in range(3) if (rows.usage == usage).any()]
    for usage in present:
        count = np.bincount(rows.labels[rows.usage == usage], minlength=len(CLASS_NAMES))
        if usage == 2 and 1 not in present and np.array_equal(count, COUNTS[1] + COUNTS[2]):
            continue
        wrong = [
            f"{CLASS_NAMES[c]} {count[c]} instead of {COUNTS[usage, c]}" for c in np.flatnonzero(count != COUNTS[usage])
        ]
        if wrong:
            differences.append(f"{USAGES[usage]} has {', '.join(wrong)}")
    if 0 in present:
        mean, std = pixel_statistics(rows.pixels, np.flatnonzero(rows.usage == 0))
        if abs(mean - TRAINING_MEAN) > _TOLERANCE or abs(std - TRAINING_STD) > _TOLERANCE:
            original = f"{TRAINING_MEAN:.4f} and {TRAINING_STD:.4f}"
            differences.append(f"Training's pixels have mean {mean:.4f} and deviation {std:.4f} instead of {original}")
    return differences
