"""Images of one's own: a folder a class, with or without folders for training, validation and test above."""

import re
from pathlib import PurePosixPath

import numpy as np

from emoexp.data import archive, images
from emoexp.data import cache as packed
from emoexp.data.archive import Tree
from emoexp.data.dataset import PARTS, Source
from emoexp.data.mapped import Room

_PART_FOLDERS = {
    "train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2,
}  # fmt: skip
_WHAT = "images, one folder a class, or train, val and test folders of such (or an archive of these)"


def load(
    *, image_size: int, channels: int, cache: str | None, root: str, identity: str | None, on_corrupt: str
) -> Source:
    """Read root/<class>/<images> or root/{train,val,test}/<class>/<images>, to any depth below the class.

    Classes are the folders' names in natural order: digits by their value, letters without regard to case.

    Args:
        root: a folder or an archive. Folders above that hold nothing but one folder are passed through.
        identity: a regular expression with one group, searched for in the file name; its group names the
            person.
        on_corrupt: "refuse" unreadable images or "drop" them with a note.

    Raises:
        ValueError: for a missing root, another layout, a class folder without images, and
            unreadable images.
    """
    path = archive.existing(root, "folder", _WHAT)
    pattern = _pattern(identity)
    request = {"image_size": image_size, "channels": channels, "identity": identity, "on_corrupt": on_corrupt}

    def build(room: Room) -> Source:
        with archive.open_tree(path) as tree:
            return _read(tree, image_size, channels, pattern, on_corrupt, room)

    return packed.cached(cache, "folder", request, archive.stamp(path), build)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sorting key: numbers inside a name by their value, letters without regard to case."""
    pieces = re.findall(r"\d+|\D+", name)
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece.casefold()) for piece in pieces], name


def people(names: list[str], pattern: re.Pattern[str]) -> np.ndarray:
    """A number for each person, from the pattern's group in the file names; -1 where it is not found."""
    found = [pattern.search(PurePosixPath(name).name) for name in names]
    person = [match[1] if match else None for match in found]
    number = {name: index for index, name in enumerate(sorted({name for name in person if name is not None}))}
    return np.array([-1 if name is None else number[name] for name in person], dtype=np.int64)


def _pattern(identity: str | None) -> re.Pattern[str] | None:
    pattern = None if identity is None else re.compile(identity)
    assert pattern is None or pattern.groups == 1
    return pattern


def _read(
    tree: Tree, image_size: int, channels: int, pattern: re.Pattern[str] | None, on_corrupt: str, room: Room
) -> Source:
    found = [name for name in tree.names if images.is_image(name)]
    if not found:
        raise ValueError(f"{tree.root.absolute()} holds no image; data=folder looks for {_WHAT}")
    above, part_of = _layout(tree, found)
    classes = _classes(tree, found, above, part_of)
    decoded = images.decode_all(found, tree.each(found, images.MAX_BYTES), image_size, channels, on_corrupt, room)
    names = [found[index] for index in decoded.kept]
    folders = [name.split("/")[above:] for name in names]
    notes = [*decoded.notes, *_other_files(tree, found)]
    identity = None if pattern is None else people(names, pattern)
    if identity is not None and (identity < 0).any():
        notes.append(f"data.identity matches no part of {(identity < 0).sum()} file names: people unknown")
    return Source(
        name="folder",
        images=decoded.pixels,
        labels=np.array([classes.index(parts[1 if part_of else 0]) for parts in folders], dtype=np.int64),
        class_names=tuple(classes),
        names=np.array(names),
        part=np.array([part_of.get(parts[0], -1) for parts in folders], dtype=np.int8),
        identity=identity,
        digest=decoded.digest,
        notes=tuple(notes),
        left_out=decoded.bad,
    )


def _layout(tree: Tree, found: list[str]) -> tuple[int, dict[str, int]]:
    """How many folders lie above the classes or parts, and the part that each part folder stands for."""
    parents = [name.split("/")[:-1] for name in found]
    above = 0
    while True:
        level = {folders[above] if len(folders) > above else "" for folders in parents}
        if "" in level:
            raise ValueError(
                f"{tree.root.absolute()} holds images outside of class folders; data=folder looks for {_WHAT}"
            )
        part_of = {name: _PART_FOLDERS[name.casefold()] for name in level if name.casefold() in _PART_FOLDERS}
        if part_of and len(part_of) < len(level):
            others = ", ".join(sorted(level - set(part_of))[:5])
            raise ValueError(
                f"{tree.root.absolute()} holds {others} beside {', '.join(sorted(part_of))}: "
                "are these classes or parts?"
            )
        if part_of:
            _check_part_folders(tree, parents, above, part_of)
            return above, part_of
        if len(level) > 1 or any(len(folders) == above + 1 for folders in parents):
            return above, {}
        above += 1


def _check_part_folders(tree: Tree, parents: list[list[str]], above: int, part_of: dict[str, int]) -> None:
    for part, number in ((PARTS[number], number) for number in range(len(PARTS))):
        twice = sorted(name for name, value in part_of.items() if value == number)
        if len(twice) > 1:
            raise ValueError(f"{tree.root.absolute()} holds several folders for {part}: {', '.join(twice)}")
    loose = next((folders for folders in parents if len(folders) == above + 1), None)
    if loose:
        raise ValueError(f"{tree.root.absolute()} holds images in {'/'.join(loose)} itself, outside of class folders")


def _classes(tree: Tree, found: list[str], above: int, part_of: dict[str, int]) -> list[str]:
    level = above + 1 if part_of else above
    classes = {name.split("/")[level] for name in found}
    alike = sorted(name for name in classes if sum(other.casefold() == name.casefold() for other in classes) > 1)
    if alike:
        raise ValueError(f"{tree.root.absolute()} holds class folders that differ in case only: {', '.join(alike)}")
    filled = {tuple(name.split("/")[: level + 1]) for name in found}
    prefix = found[0].split("/")[:above]
    empty = [f for f in (tuple(name.split("/")) for name in tree.folders) if len(f) == level + 1 and f not in filled]
    wanted = sorted("/".join(f) for f in empty if list(f[:above]) == prefix and (not part_of or f[above] in part_of))
    if wanted:
        raise ValueError(
            f"{tree.root.absolute()} holds class folders without any image: {', '.join(wanted[:10])}; "
            "remove or fill them"
        )
    return sorted(classes, key=natural)


def _other_files(tree: Tree, found: list[str]) -> list[str]:
    other = sorted(set(tree.names) - set(found))
    if not other:
        return []
    return [f"{len(other)} files that are no images by their suffix are left out, such as {', '.join(other[:3])}"]
