"""facial_expressions: 13,682 faces of github.com/muxspace/facial_expressions (Apache-2.0).

Most are photographs of Labeled Faces in the Wild. The rest, which includes most of disgust and sadness, shows a few
actors. The labels came from an emotion service, not from people. The name of a file is the person and a number:
`George_W_Bush_0001.jpg`.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from emoexp.data import archive, images, table
from emoexp.data import cache as pixel_cache
from emoexp.data.archive import Tree
from emoexp.data.dataset import Source
from emoexp.data.mapped import Allocator

CLASS_NAMES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
COUNTS = np.array([6864, 5693, 367, 268, 252, 208, 21, 9])  # distinct images of each class in the whole set
_ALIASES = {
    "happy": "happiness",
    "surprised": "surprise",
    "sad": "sadness",
    "angry": "anger",
    "disgusted": "disgust",
}
_PERSON = re.compile(r"^(.+)_\d+\.[^.]+$")
_LEGEND = "legend.csv"
_WHAT = "the facial_expressions set (data/legend.csv and images/, or an archive of these)"


@dataclass(frozen=True)
class Legend:
    """The content of legend.csv.

    label: each image's label, a position in CLASS_NAMES. conflicts: images with several labels, and these labels.
    notes: sentences on what was repaired.
    """

    label: dict[str, int]
    conflicts: dict[str, list[str]]
    notes: tuple[str, ...]


def load(*, image_size: int, channels: int, cache: str | None, root: str, on_corrupt: str) -> Source:
    """Read the images that legend.csv labels, with identities from their names.

    Upper and lower case of labels do not matter. An image that is listed twice counts once. An image with two
    different labels is left out, because nothing says which one is right, and so is an image without a label. The
    notes count all of these. The identity of an image is the name of its file without the number at its end; the few
    files without a number show unknown people.

    Args:
        root: a folder that holds data/legend.csv and images/, directly or in a folder below, or an archive of it.
        on_corrupt: "refuse" missing and unreadable images or "drop" them with a note.

    Raises:
        ValueError: a missing root or legend, a row or label that is not understood (with its line), and missing or
            unreadable images.
    """
    path = archive.existing_path(root, "facial_expressions", _WHAT)
    request = {"image_size": image_size, "channels": channels, "on_corrupt": on_corrupt}

    def build(allocate: Allocator) -> Source:
        with archive.open_tree(path) as tree:
            return _read(tree, image_size, channels, on_corrupt, allocate)

    return pixel_cache.load_or_build(cache, "facial_expressions", request, archive.stamp(path), build)


def identities(names: list[str]) -> np.ndarray:
    """A number for each person, from file names like `Somebody_0001.jpg`; -1 for names of another form."""
    matches = [_PERSON.match(name.rsplit("/", 1)[-1]) for name in names]
    people = {person: number for number, person in enumerate(sorted({match[1] for match in matches if match}))}
    return np.array([people[match[1]] if match else -1 for match in matches], dtype=np.int64)


def _read(tree: Tree, image_size: int, channels: int, on_corrupt: str, allocate: Allocator) -> Source:
    name = _find_legend(tree)
    legend = parse(tree.read(name, table.MAX_BYTES), name)
    folder = _find_image_folder(tree, name)
    image_names = [folder + image for image in sorted(legend.label)]
    tree_names = set(tree.names)
    decoded = images.decode_all(
        image_names,
        tree.read_many([image for image in image_names if image in tree_names], images.MAX_BYTES),
        image_size,
        channels,
        on_corrupt,
        allocate,
    )
    names = [image_names[index] for index in decoded.index]
    conflicting = {folder + image for image in legend.conflicts}
    unlabelled = sorted(
        image for image in tree_names - set(image_names) if image.startswith(folder) and images.is_image(image)
    )
    left_out = [
        (folder + image, f"has different labels: {', '.join(label_names)}")
        for image, label_names in legend.conflicts.items()
    ]
    left_out += [*decoded.unusable, *((image, "has no label") for image in unlabelled if image not in conflicting)]
    notes = [*legend.notes, *decoded.notes, *decoded.changes]
    if unlabelled:
        notes.append(f"{len(unlabelled)} images without a usable label are left out")
    notes.append("labels were given by an emotion service, not by people")
    return Source(
        name="facial_expressions",
        images=decoded.pixels,
        labels=np.array([legend.label[image.removeprefix(folder)] for image in names], dtype=np.int64),
        class_names=CLASS_NAMES,
        names=np.array(names),
        part=np.full(len(names), -1, dtype=np.int8),
        identity=identities(names),
        digest=decoded.digest,
        notes=tuple(notes),
        left_out=tuple(left_out),
    )


def _find_legend(tree: Tree) -> str:
    legends = [name for name in tree.names if name.rsplit("/", 1)[-1].casefold() == _LEGEND]
    if len(legends) != 1:
        number_found = f"{len(legends)} of them: {', '.join(legends[:3])}" if legends else "none"
        raise ValueError(
            f"data=facial_expressions looks for one {_LEGEND} in {tree.root.absolute()} and finds {number_found}; "
            f"expected {_WHAT}"
        )
    return legends[0]


def _find_image_folder(tree: Tree, legend: str) -> str:
    """The folder of the images, with a slash at its end: `images` beside the legend or beside the legend's folder."""
    legend_folder = posixpath.dirname(legend)
    for parent in (posixpath.dirname(legend_folder), legend_folder):
        folder = posixpath.join(parent, "images") + "/"
        if any(name.startswith(folder) for name in tree.names):
            return folder
    raise ValueError(f"{tree.root.absolute()} holds {legend} but no folder images beside it or its folder")


def parse(data: bytes, name: str) -> Legend:
    """Labels from the bytes of a legend.csv (columns image and emotion, in any order and among others).

    Raises:
        ValueError: a row or label that is not understood, with its line.
    """
    labels: dict[str, set[int]] = {}
    num_repeated = num_normalised = 0
    for where, image, emotion in _rows(data, name):
        label_name = _ALIASES.get(emotion.strip().casefold(), emotion.strip().casefold())
        if label_name not in CLASS_NAMES:
            raise ValueError(f"{where}: label {emotion!r} is not known; known are {', '.join(CLASS_NAMES)}")
        if archive.leads_outside(image):
            raise ValueError(f"{where}: image {image!r} leads out of the images' folder")
        num_normalised += emotion != label_name
        num_repeated += image in labels
        labels.setdefault(image, set()).add(CLASS_NAMES.index(label_name))
    if not labels:
        raise ValueError(f"{name} lists no image")
    conflicts = {
        image: [CLASS_NAMES[label] for label in sorted(label_set)]
        for image, label_set in sorted(labels.items())
        if len(label_set) > 1
    }
    notes = []
    if num_normalised:
        notes.append(f"{num_normalised} labels are written differently (upper case, blanks, synonyms) and were merged")
    if num_repeated:
        notes.append(f"{num_repeated} repeated rows of {name} were merged")
    if conflicts:
        notes.append(f"{len(conflicts)} images carry different labels and are left out: {', '.join([*conflicts][:5])}")
    usable = {image: label_set.pop() for image, label_set in labels.items() if len(label_set) == 1}
    return Legend(usable, conflicts, tuple(notes))


def _rows(data: bytes, name: str) -> Iterator[tuple[str, str, str]]:
    """Place (file and line), image and emotion of each row."""
    rows = table.read(data, name)
    titles = next(rows)[1]
    missing = [title for title in ("image", "emotion") if title not in titles]
    if missing:
        raise ValueError(f"{name}:1: no column {' and '.join(missing)} in the header ({', '.join(titles)[:80]})")
    image, emotion = titles.index("image"), titles.index("emotion")
    for where, row in rows:
        if len(row) <= max(image, emotion) or not row[image].strip():
            raise ValueError(f"{where}: expected {','.join(titles)}, found {','.join(row)!r}")
        yield where, row[image].strip(), row[emotion]
