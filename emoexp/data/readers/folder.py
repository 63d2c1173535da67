"""The user's own images: one folder for each class, directly or inside folders for training, validation and test."""

import re
from collections import Counter
from pathlib import PurePosixPath

import numpy as np

from emoexp.data import archive, images
from emoexp.data import cache as pixel_cache
from emoexp.data.archive import Tree
from emoexp.data.dataset import PARTS, Source
from emoexp.data.mapped import Allocator

_PART_FOLDERS = {
    "train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2,
}  # fmt: skip
_WHAT = "images in one folder for each class, or in such folders inside train, val and test (or an archive of these)"


def load(
    *, image_size: int, channels: int, cache: str | None, root: str, identity: str | None, on_corrupt: str
) -> Source:
    """Read root/<class>/<images> or root/{train,val,test}/<class>/<images>; a class folder may hold folders.

    Classes are the folders' names in natural order: numbers by their value, letters without regard to case.

    Args:
        root: a folder or an archive. If it holds nothing but one folder, that folder is taken as the root, and so on.
        identity: a regular expression with one group, which is searched for in the file name; the group is the
            person.
        on_corrupt: "refuse" unreadable images or "drop" them with a note.

    Raises:
        ValueError: for a missing root, another layout, a class folder without images, and
            unreadable images.
    """
    path = archive.existing_path(root, "folder", _WHAT)
    pattern = _pattern(identity)
    request = {"image_size": image_size, "channels": channels, "identity": identity, "on_corrupt": on_corrupt}

    def build(allocate: Allocator) -> Source:
        with archive.open_tree(path) as tree:
            return _read(tree, image_size, channels, pattern, on_corrupt, allocate)

    return pixel_cache.load_or_build(cache, "folder", request, archive.stamp(path), build)


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sorting key that compares numbers inside a name by their value, letters without regard to case."""
    pieces = re.findall(r"\d+|\D+", name)
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece.casefold()) for piece in pieces], name


def people(names: list[str], pattern: re.Pattern[str]) -> np.ndarray:
    """A number for each person, from the pattern's group in the file names; -1 where the pattern does not match."""
    matches = [pattern.search(PurePosixPath(name).name) for name in names]
    person = [match[1] if match else None for match in matches]
    number = {name: index for index, name in enumerate(sorted({name for name in person if name is not None}))}
    return np.array([-1 if name is None else number[name] for name in person], dtype=np.int64)


def _pattern(identity: str | None) -> re.Pattern[str] | None:
    pattern = None if identity is None else re.compile(identity)
    assert pattern is None or pattern.groups == 1
    return pattern


def _read(
    tree: Tree, image_size: int, channels: int, pattern: re.Pattern[str] | None, on_corrupt: str, allocate: Allocator
) -> Source:
    image_names = [name for name in tree.names if images.is_image(name)]
    if not image_names:
        raise ValueError(f"{tree.root.absolute()} holds no image; data=folder looks for {_WHAT}")
    depth, part_of = _layout(tree, image_names)
    classes = _classes(tree, image_names, depth, part_of)
    index_of = {name: index for index, name in enumerate(classes)}
    decoded = images.decode_all(
        image_names, tree.read_many(image_names, images.MAX_BYTES), image_size, channels, on_corrupt, allocate
    )
    names = [image_names[index] for index in decoded.index]
    folders = [name.split("/")[depth:] for name in names]
    notes = [*decoded.notes, *_other_files(tree, image_names)]
    identity = None if pattern is None else people(names, pattern)
    if identity is not None and (identity < 0).any():
        notes.append(f"data.identity does not match {(identity < 0).sum()} file names: people unknown")
    return Source(
        name="folder",
        images=decoded.pixels,
        labels=np.array([index_of[parts[1 if part_of else 0]] for parts in folders], dtype=np.int64),
        class_names=tuple(classes),
        names=np.array(names),
        part=np.array([part_of.get(parts[0], -1) for parts in folders], dtype=np.int8),
        identity=identity,
        digest=decoded.digest,
        notes=tuple(notes),
        left_out=decoded.unusable,
    )


def _layout(tree: Tree, image_names: list[str]) -> tuple[int, dict[str, int]]:
    """The number of folders above the classes or parts, and the part of each part folder."""
    parents = [name.split("/")[:-1] for name in image_names]
    depth = 0
    while True:
        level = {folders[depth] if len(folders) > depth else "" for folders in parents}
        if "" in level:
            raise ValueError(
                f"{tree.root.absolute()} holds images outside of class folders; data=folder looks for {_WHAT}"
            )
        part_of = {name: _PART_FOLDERS[name.casefold()] for name in level if name.casefold() in _PART_FOLDERS}
        if part_of and len(part_of) < len(level):
            other_folders = ", ".join(sorted(level - set(part_of))[:5])
            raise ValueError(
                f"{tree.root.absolute()} holds {other_folders} beside {', '.join(sorted(part_of))}: "
                "are these classes or parts?"
            )
        if part_of:
            _check_part_folders(tree, parents, depth, part_of)
            return depth, part_of
        if len(level) > 1 or any(len(folders) == depth + 1 for folders in parents):
            return depth, {}
        depth += 1


def _check_part_folders(tree: Tree, parents: list[list[str]], depth: int, part_of: dict[str, int]) -> None:
    for part, number in ((PARTS[number], number) for number in range(len(PARTS))):
        same_part = sorted(name for name, value in part_of.items() if value == number)
        if len(same_part) > 1:
            raise ValueError(f"{tree.root.absolute()} holds several folders for {part}: {', '.join(same_part)}")
    part_folder = next((folders for folders in parents if len(folders) == depth + 1), None)
    if part_folder:
        raise ValueError(
            f"{tree.root.absolute()} holds images in {'/'.join(part_folder)} itself, outside of class folders"
        )


def _classes(tree: Tree, image_names: list[str], depth: int, part_of: dict[str, int]) -> list[str]:
    level = depth + 1 if part_of else depth
    classes = {name.split("/")[level] for name in image_names}
    count = Counter(name.casefold() for name in classes)
    same_letters = sorted(name for name in classes if count[name.casefold()] > 1)
    if same_letters:
        raise ValueError(
            f"{tree.root.absolute()} holds class folders that differ in case only: {', '.join(same_letters)}"
        )
    filled_folders = {tuple(name.split("/")[: level + 1]) for name in image_names}
    root_folders = tuple(image_names[0].split("/")[:depth])
    empty_folders = []
    for name in sorted(tree.folders):
        folders = tuple(name.split("/"))
        is_class = len(folders) == level + 1 and folders[:depth] == root_folders
        if is_class and folders not in filled_folders and (not part_of or folders[depth] in part_of):
            empty_folders.append(name)
    if empty_folders:
        raise ValueError(
            f"{tree.root.absolute()} holds class folders without any image: {', '.join(empty_folders[:10])}; "
            "remove or fill them"
        )
    return sorted(classes, key=natural_key)


def _other_files(tree: Tree, image_names: list[str]) -> list[str]:
    other = sorted(set(tree.names) - set(image_names))
    if not other:
        return []
    return [f"{len(other)} files without an image's suffix are left out, such as {', '.join(other[:3])}"]
