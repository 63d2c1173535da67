"""Which folders are classes and which are parts: read where one reading makes sense, asked where two do."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LAYOUTS = ("auto", "classes", "parts", "parts_inside")
WHAT = "images in one folder for each class, or in such folders inside train, val and test (or an archive of these)"
_PART_OF_WORD = {
    "train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "eval": 1, "test": 2, "testing": 2,
    "publictest": 1, "privatetest": 2,
}  # fmt: skip
_CHOICES = {
    "classes": "the folders {level} are classes: data.layout=classes",
    "parts": "{level} are parts, and the folders inside are classes: data.layout=parts",
    "parts_inside": "{level} are classes, and hold folders for parts: data.layout=parts_inside",
}


@dataclass(frozen=True)
class Layout:
    """Where classes and parts stand in the paths of images.

    depth: folders above. class_level, part_level: positions in a path of its class and of its part, None without parts.
    part_of: the part (0 train, 1 val, 2 test) of each part folder. unlabelled: folders whose images have no class.
    notes: what was taken for what, where that was not plain.
    """

    depth: int
    class_level: int
    part_level: int | None = None
    part_of: Mapping[str, int] | None = None
    unlabelled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find(root: str, image_names: Sequence[str], asked: str) -> Layout:
    """The layout of the images below a root. asked: one of LAYOUTS.

    Raises:
        ValueError: images that lie in no class folder, or folders that can be read in two ways, with the key for each.
    """
    folders = [tuple(name.split("/")[:-1]) for name in image_names]
    depth = _depth(folders)
    level = sorted({parts[depth] for parts in folders if len(parts) > depth})
    if not level or any(len(parts) <= depth for parts in folders):
        raise ValueError(f"{root} holds images outside of class folders; data=folder looks for {WHAT}")
    if asked == "classes":
        return Layout(depth, depth)
    if asked == "parts":
        return _parts(root, folders, depth, level)
    if asked == "parts_inside":
        return _parts_inside(root, folders, depth)
    return _guess(root, folders, depth, level)


def part_of(name: str) -> int | None:
    """The part that a folder is named after, as train, Validation or PublicTest; None for another name."""
    return _PART_OF_WORD.get(re.sub(r"[\W_]+", "", name.casefold()))


def suggested_part(name: str) -> int | None:
    """The part that a word of a folder's name stands for, as in Train_Set or my-test; None where there is none."""
    exact = part_of(name)
    if exact is not None:
        return exact
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)
    found = {_PART_OF_WORD[word.casefold()] for word in words if word.casefold() in _PART_OF_WORD}
    return found.pop() if len(found) == 1 else None


def _depth(folders: list[tuple[str, ...]]) -> int:
    """The number of folders that hold everything and say nothing."""
    depth = 0
    while True:
        level = {parts[depth] if len(parts) > depth else "" for parts in folders}
        only = next(iter(level))
        goes_on = len(level) == 1 and only and suggested_part(only) is None
        if not goes_on or any(len(parts) == depth + 1 for parts in folders):
            return depth
        depth += 1


def _guess(root: str, folders: list[tuple[str, ...]], depth: int, level: list[str]) -> Layout:
    exact = [name for name in level if part_of(name) is not None]
    suggested = [name for name in level if suggested_part(name) is not None]
    flat = {path[depth] for path in folders if len(path) == depth + 1}
    if len(exact) == len(level):
        return _parts(root, folders, depth, level)
    if exact or (suggested and len(suggested) < len(level) and len(suggested) > 1):
        raise _question(root, suggested, level, ("classes", *(() if flat else ("parts",))))
    if suggested and len(suggested) == len(level):
        if flat:
            raise _question(root, suggested, level, ("classes",))
        found = _parts(root, folders, depth, level)
        assert found.part_of is not None
        return _noted(found, f"{_some(level)} are taken for parts; where they are classes: data.layout=classes")
    below: dict[str, set[str]] = {name: set() for name in level}
    for path in folders:
        below[path[depth]].update(path[depth + 1 : depth + 2])
    inside = sorted({name for names in below.values() for name in names if suggested_part(name) is not None})
    if inside:
        every = all(names and all(suggested_part(name) is not None for name in names) for names in below.values())
        if flat or not every:
            raise _question(root, inside, level, ("classes", "parts_inside"))
        return _noted(
            _parts_inside(root, folders, depth),
            f"{_some(inside)} inside the class folders are taken for parts of each class",
        )
    kinds = list(below.values())
    if len(level) > 1 and not flat and len(kinds[0]) > 1 and all(names == kinds[0] for names in kinds):
        shared = _some(sorted(kinds[0]))
        raise ValueError(
            f"{root}: {_some(level)} hold folders of the same names, {shared}. Either {_some(level)} are the classes: "
            "data.layout=classes. Or the classes are the folders inside: then name the folders above train, val and "
            "test, or put the images of each class into one folder"
        )
    return Layout(depth, depth)


def _noted(layout: Layout, note: str) -> Layout:
    return dataclasses.replace(layout, notes=(*layout.notes, note))


def _parts(root: str, folders: list[tuple[str, ...]], depth: int, level: list[str]) -> Layout:
    """Parts on top, classes inside. A test folder without class folders, beside others with them, has no labels."""
    part_of_name = {name: suggested_part(name) for name in level}
    if unknown := [name for name, part in part_of_name.items() if part is None]:
        raise ValueError(
            f"{root}: {_some(unknown)} name no part; a part folder's name holds train, val or test. Rename them, or "
            "choose data.layout=classes"
        )
    parts = {name: part for name, part in part_of_name.items() if part is not None}
    notes: tuple[str, ...] = ()
    if set(parts.values()) == {0, 1} and any("publictest" in re.sub(r"[\W_]+", "", name.casefold()) for name in level):
        parts = {name: 2 if part == 1 else part for name, part in parts.items()}
        notes = ("PublicTest without PrivateTest is taken for the test part",)
    for number, name in enumerate(("train", "val", "test")):
        same = sorted(folder for folder, part in parts.items() if part == number)
        if len(same) > 1:
            raise ValueError(f"{root} holds several folders for {name}: {', '.join(same)}. Join or rename them")
    flat = {path[depth] for path in folders if len(path) == depth + 1}
    with_classes = {path[depth] for path in folders if len(path) > depth + 1}
    unlabelled = sorted(name for name in flat - with_classes if parts[name] == 2 and len(flat) < len(level))
    if wrong := sorted(flat - set(unlabelled)):
        raise ValueError(f"{root} holds images in {', '.join(wrong)} itself, outside of class folders")
    return Layout(depth, depth + 1, depth, parts, tuple(unlabelled), notes)


def _parts_inside(root: str, folders: list[tuple[str, ...]], depth: int) -> Layout:
    """Classes on top, parts inside."""
    names = sorted({path[depth + 1] if len(path) > depth + 1 else "" for path in folders})
    parts = {name: suggested_part(name) for name in names}
    if unknown := [name or "images in a class folder itself" for name, part in parts.items() if part is None]:
        raise ValueError(
            f"{root}: inside the class folders, {_some(unknown)} name no part; expected train, val and test. Rename "
            "them, or choose data.layout=classes"
        )
    return Layout(depth, depth, depth + 1, {name: part for name, part in parts.items() if part is not None})


def _question(root: str, part_like: Sequence[str], level: Sequence[str], choices: Sequence[str]) -> ValueError:
    readings = [_CHOICES[choice].format(level=_some(level)) for choice in choices]
    readings += [] if len(readings) > 1 else ["the images have classes elsewhere: put them into class folders first"]
    return ValueError(
        f"{root} holds {_some(part_like)}, which may be a part or a class. Either {'; or '.join(readings)}. "
        "data=fer2013 reads FER2013's own folders"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
