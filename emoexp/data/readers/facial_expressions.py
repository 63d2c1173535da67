"""facial_expressions: 13,682 faces of github.com/muxspace/facial_expressions (Apache-2.0), with their mess.

Most are photographs of Labeled Faces in the Wild, the rest (most of disgust and sadness) are of a few actors.
Labels came from an emotion service, not from people. Who is in a picture stands in its name:
`George_W_Bush_0001.jpg`.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from emoexp.data import archive, images, table
from emoexp.data import cache as packed
from emoexp.data.archive import Tree
from emoexp.data.dataset import Source
from emoexp.data.mapped import Room

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
    """What legend.csv says: each image's label (position in CLASS_NAMES), the different labels of images that have
    several, and notes on what was repaired."""

    label: dict[str, int]
    conflicts: dict[str, list[str]]
    notes: tuple[str, ...]


def load(*, image_size: int, channels: int, cache: str | None, root: str, on_corrupt: str) -> Source:
    """Read the images that legend.csv labels, with identities from their names.

    Labels count whatever their case; an image listed twice counts once; one with two different labels is left
    out, since nothing says which is right; images without a label are left out. All of it is counted in the
    notes. Every image of somebody whose name ends in a number has that name as its identity; the few others
    are of unknown people.

    Args:
        root: the folder that holds data/legend.csv and images/ (itself or a folder below), or an archive of
            it.
        on_corrupt: "refuse" missing and unreadable images or "drop" them with a note.

    Raises:
        ValueError: for a missing root or legend, a row or label that is not understood (with its line), and
            missing or unreadable images.
    """
    path = archive.existing(root, "facial_expressions", _WHAT)
    request = {"image_size": image_size, "channels": channels, "on_corrupt": on_corrupt}

    def build(room: Room) -> Source:
        with archive.open_tree(path) as tree:
            return _read(tree, image_size, channels, on_corrupt, room)

    return packed.cached(cache, "facial_expressions", request, archive.stamp(path), build)


def identities(names: list[str]) -> np.ndarray:
    """A number for each person, from file names like `Somebody_0001.jpg`; -1 for names of another form."""
    found = [_PERSON.match(name.rsplit("/", 1)[-1]) for name in names]
    people = {person: number for number, person in enumerate(sorted({match[1] for match in found if match}))}
    return np.array([people[match[1]] if match else -1 for match in found], dtype=np.int64)


def _read(tree: Tree, image_size: int, channels: int, on_corrupt: str, room: Room) -> Source:
    name = _legend_of(tree)
    legend = parse(tree.read(name, table.MAX_BYTES), name)
    folder = _images_of(tree, name)
    wanted = [folder + image for image in sorted(legend.label)]
    held = set(tree.names)
    decoded = images.decode_all(
        wanted,
        tree.each([image for image in wanted if image in held], images.MAX_BYTES),
        image_size,
        channels,
        on_corrupt,
        room,
    )
    names = [wanted[index] for index in decoded.kept]
    labelled = {folder + image for image in legend.conflicts}
    spare = sorted(image for image in held - set(wanted) if image.startswith(folder) and images.is_image(image))
    left_out = [
        (folder + image, f"has different labels: {', '.join(said)}") for image, said in legend.conflicts.items()
    ]
    left_out += [*decoded.bad, *((image, "has no label") for image in spare if image not in labelled)]
    notes = [*legend.notes, *decoded.notes]
    if spare:
        notes.append(f"{len(spare)} images without a usable label are left out")
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


def _legend_of(tree: Tree) -> str:
    found = [name for name in tree.names if name.rsplit("/", 1)[-1].casefold() == _LEGEND]
    if len(found) != 1:
        came = f"{len(found)} of them: {', '.join(found[:3])}" if found else "none"
        raise ValueError(
            f"data=facial_expressions looks for one {_LEGEND} in {tree.root.absolute()} and finds {came}; "
            f"expected {_WHAT}"
        )
    return found[0]


def _images_of(tree: Tree, legend: str) -> str:
    """The folder of the images, with its slash: `images` beside the legend or beside the legend's folder."""
    here = posixpath.dirname(legend)
    for parent in (posixpath.dirname(here), here):
        folder = posixpath.join(parent, "images") + "/"
        if any(name.startswith(folder) for name in tree.names):
            return folder
    raise ValueError(f"{tree.root.absolute()} holds {legend} but no folder images beside it or its folder")


def parse(data: bytes, name: str) -> Legend:
    """Labels from the bytes of a legend.csv (columns image and emotion, in any order and among others).

    Raises:
        ValueError: with the line, for what is not understood.
    """
    labels: dict[str, set[int]] = {}
    repeats = cased = 0
    for where, image, emotion in _rows(data, name):
        known = _ALIASES.get(emotion.strip().casefold(), emotion.strip().casefold())
        if known not in CLASS_NAMES:
            raise ValueError(f"{where}: label {emotion!r} is not known; known are {', '.join(CLASS_NAMES)}")
        if archive.climbs(image):
            raise ValueError(f"{where}: image {image!r} leads out of the images' folder")
        cased += emotion != known
        repeats += image in labels
        labels.setdefault(image, set()).add(CLASS_NAMES.index(known))
    if not labels:
        raise ValueError(f"{name} lists no image")
    conflicts = {
        image: [CLASS_NAMES[label] for label in sorted(given)]
        for image, given in sorted(labels.items())
        if len(given) > 1
    }
    notes = []
    if cased:
        notes.append(f"{cased} labels are written differently (upper case, blanks, synonyms) and were merged")
    if repeats:
        notes.append(f"{repeats} repeated rows of {name} were merged")
    if conflicts:
        notes.append(f"{len(conflicts)} images carry different labels and are left out: {', '.join([*conflicts][:5])}")
    usable = {image: given.pop() for image, given in labels.items() if len(given) == 1}
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
