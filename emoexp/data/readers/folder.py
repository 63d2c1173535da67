"""The user's own images: one folder for each class, directly or inside folders for training, validation and test."""

import re
from collections import Counter
from pathlib import PurePosixPath

import numpy as np

from emoexp.data import archive, images
from emoexp.data import cache as pixel_cache
from emoexp.data.archive import Tree
from emoexp.data.dataset import Source
from emoexp.data.mapped import Allocator
from emoexp.data.readers import layout as layouts


def load(
    *,
    image_size: int,
    channels: int,
    cache: str | None,
    root: str,
    identity: str | None,
    on_corrupt: str,
    layout: str = "auto",
    follow_links: bool = False,
) -> Source:
    """Read root/<class>/<images> or root/{train,val,test}/<class>/<images>; a class folder may hold folders.

    Classes are the folders' names in natural order: numbers by their value, letters without regard to case.

    Args:
        root: a folder or an archive. If it holds nothing but one folder, that folder is taken as the root, and so on.
        identity: a regular expression with one group, which is searched for in the file name; the group is the
            person.
        on_corrupt: "refuse" unreadable images or "drop" them with a note.
        layout: which folders are classes and parts, as `layout.LAYOUTS` has it.
        follow_links: read also what links lead to.

    Raises:
        ValueError: for a missing root, another layout, a layout that can be read in two ways, a class folder without
            images, and unreadable images.
    """
    path = archive.existing_path(root, "folder", layouts.WHAT)
    pattern = _pattern(identity)
    request = {"image_size": image_size, "channels": channels, "identity": identity, "on_corrupt": on_corrupt}
    request |= {"layout": layout} if layout != "auto" else {}

    def build(allocate: Allocator) -> Source:
        with archive.open_tree(path, follow_links=follow_links) as tree:
            return _read(tree, image_size, channels, pattern, on_corrupt, layout, allocate)

    return pixel_cache.load_or_build(cache, "folder", request, archive.stamp(path, follow_links=follow_links), build)


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
    tree: Tree,
    image_size: int,
    channels: int,
    pattern: re.Pattern[str] | None,
    on_corrupt: str,
    layout: str,
    allocate: Allocator,
) -> Source:
    image_names = [name for name in tree.names if images.is_image(name)]
    root = str(tree.root.absolute())
    if not image_names:
        raise ValueError(f"{root} holds no image; data=folder looks for {layouts.WHAT}")
    found = layouts.find(root, image_names, layout)
    notes = [*found.notes, *_other_files(tree, image_names)]
    for folder in found.unlabelled:
        inside = [name for name in image_names if name.split("/")[found.depth] == folder]
        image_names = [name for name in image_names if name.split("/")[found.depth] != folder]
        notes.append(
            f"{len(inside)} images in {folder}/ lie in no class folder and are left out: they have no labels. A "
            f"trained model predicts them: python -m emoexp.predict run=outputs/<run> images={tree.root / folder}"
        )
    classes = _classes(tree, image_names, found)
    index_of = {name: index for index, name in enumerate(classes)}
    decoded = images.decode_all(
        image_names, tree.read_many(image_names, images.MAX_BYTES), image_size, channels, on_corrupt, allocate
    )
    names = [image_names[index] for index in decoded.index]
    folders = [name.split("/") for name in names]
    part_of = found.part_of or {}
    identity = None if pattern is None else people(names, pattern)
    if identity is not None and (identity < 0).any():
        notes.append(f"data.identity does not match {(identity < 0).sum()} file names: people unknown")
    return Source(
        name="folder",
        images=decoded.pixels,
        labels=np.array([index_of[path[found.class_level]] for path in folders], dtype=np.int64),
        class_names=tuple(classes),
        names=np.array(names),
        part=np.array(
            [-1 if found.part_level is None else part_of[path[found.part_level]] for path in folders], dtype=np.int8
        ),
        identity=identity,
        digest=decoded.digest,
        notes=(*decoded.notes, *decoded.changes, *notes),
        left_out=decoded.unusable,
    )


def _classes(tree: Tree, image_names: list[str], layout: layouts.Layout) -> list[str]:
    level = layout.class_level
    classes = {name.split("/")[level] for name in image_names}
    count = Counter(name.casefold() for name in classes)
    same_letters = sorted(name for name in classes if count[name.casefold()] > 1)
    if same_letters:
        raise ValueError(
            f"{tree.root.absolute()} holds class folders that differ in case only: {', '.join(same_letters)}"
        )
    filled_folders = {tuple(name.split("/")[: level + 1]) for name in image_names}
    root_folders = tuple(image_names[0].split("/")[: layout.depth])
    parts_on_top = layout.part_of if layout.part_level == layout.depth else None
    empty_folders = []
    for name in sorted(tree.folders):
        folders = tuple(name.split("/"))
        is_class = len(folders) == level + 1 and folders[: layout.depth] == root_folders
        if is_class and folders not in filled_folders and (not parts_on_top or folders[layout.depth] in parts_on_top):
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
