"""People and sequences: who is in several parts, how well the person predicts the label, frames of videos.

Identities are int64 N, equal for pictures of one person, -1 where unknown. Unknown people are never the same.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from emoexp.data.dataset import PARTS
from emoexp.metrics import classification

FRAMES, NUMBERED, NO_NUMBERS = "frames", "numbered", "no consecutive numbers"
_LAST_NUMBER = re.compile(r"^(.*?)(\d+)(\D*)$", re.DOTALL)
_PAIRS = 2000  # pairs of pictures that are compared
_ALIKE = 1e-3  # pictures that differ by less are the same
_BLOCK = 256  # of them held at a time

# What may name a person or a sequence in a file name, the likelier first.
_PATTERNS = (
    r"^([A-Za-z]*\d+)[_\-.].*\d",  # S005_001_00000010.png
    r"^(.*[^\d\W_])[\W_]*\d+\D*$",  # George_W_Bush_0001.jpg
    r"^([A-Za-z]+)[_\-.].*\d",  # KA.AN1.39.tiff
)
_GENERIC = frozenset(
    "train training test testing val valid validation publictest privatetest private public img image images pic "
    "picture photo face faces frame frames crop cropped aligned dsc dscn scan sample file screenshot "
    "angry anger disgust disgusted fear fearful happy happiness sad sadness surprise surprised neutral contempt".split()
)


@dataclass(frozen=True)
class KnownPeople:
    """Images of one part that show a person whom an earlier part shows too.

    images: images of the part. shared, share: how many, and of all 0..1 (0 in an empty part). images_by_class,
    shared_by_class: int64 C. share_by_class: float64 C, NaN where the part has no image of a class.
    """

    images: int
    shared: int
    share: float
    images_by_class: np.ndarray
    shared_by_class: np.ndarray
    share_by_class: np.ndarray


@dataclass(frozen=True)
class PeopleAcrossParts:
    """people: known ones in any part. in_several: those in more than one part. val, test: see `KnownPeople`."""

    people: int
    in_several: int
    val: KnownPeople
    test: KnownPeople


@dataclass(frozen=True)
class LabelByPerson:
    """How well the person predicts the label.

    people: known ones. several: with more than one image. single_label: of these, with one and the same label on all.
    accuracy, macro_f1: of guessing each image's label from the same person's other images. majority_accuracy,
    majority_macro_f1: of always saying the most frequent class. All in 0..1.
    """

    people: int
    several: int
    single_label: int
    accuracy: float
    macro_f1: float
    majority_accuracy: float
    majority_macro_f1: float


@dataclass(frozen=True)
class VideoFrames:
    """Whether files with running numbers are frames of videos.

    neighbours: pairs of files that differ by one in their running number. crossing: those of them in different parts.
    near, apart: median normalised cross-correlation, -1..1, of neighbours and of pairs of the same folders further
    apart; NaN where there are none. verdict: FRAMES where neighbours differ (1 - correlation) at most half as much as
    pairs further apart, NUMBERED where not or where nothing is further apart, NO_NUMBERS without neighbours.
    """

    neighbours: int
    crossing: int
    near: float
    apart: float
    verdict: str


def across_parts(
    identity_N: np.ndarray, part_N: np.ndarray, label_N: np.ndarray, num_classes: int
) -> PeopleAcrossParts:
    """Count people who are in several parts, and the images of val and test that show them.

    Args:
        part_N: position in PARTS; -1 is left out and counts nowhere.
        label_N: 0..C-1.
    """
    known = np.flatnonzero((identity_N >= 0) & (part_N >= 0))
    person, place = np.unique(identity_N[known], return_inverse=True)
    present_GP = np.zeros((len(person), len(PARTS)), bool)
    present_GP[place, part_N[known]] = True
    earlier_N = np.zeros(len(identity_N), bool)
    earlier_N[known] = present_GP.argmax(axis=1)[place] < part_N[known]
    return PeopleAcrossParts(
        people=len(person),
        in_several=int((present_GP.sum(axis=1) > 1).sum()),
        val=_known_people(label_N[part_N == 1], earlier_N[part_N == 1], num_classes),
        test=_known_people(label_N[part_N == 2], earlier_N[part_N == 2], num_classes),
    )


def _known_people(label_M: np.ndarray, earlier_M: np.ndarray, num_classes: int) -> KnownPeople:
    count_C = np.bincount(label_M, minlength=num_classes)
    shared_C = np.bincount(label_M[earlier_M], minlength=num_classes)
    share_C = np.full(num_classes, np.nan)
    np.divide(shared_C, count_C, out=share_C, where=count_C > 0)
    shared = int(earlier_M.sum())
    return KnownPeople(len(label_M), shared, shared / max(len(label_M), 1), count_C, shared_C, share_C)


def label_by_person(identity_N: np.ndarray, label_N: np.ndarray) -> LabelByPerson:
    """Guess each image's label from the same person's other images.

    The guess is the most frequent label of the others; where several are, where there is no other and where the person
    is unknown, it is the most frequent class of all images (the first of equals). Macro-F1 is over the classes that
    have images.

    Raises:
        ValueError: no image.
    """
    if len(label_N) == 0:
        raise ValueError("label_by_person needs at least one image, got none")
    class_K, label = np.unique(label_N, return_inverse=True)
    num_classes, known = len(class_K), np.flatnonzero(identity_N >= 0)
    person = np.unique(identity_N[known], return_inverse=True)[1]
    count_GK = np.zeros((int(person.max(initial=-1)) + 1, num_classes), np.int64)
    np.add.at(count_GK, (person, label[known]), 1)
    majority = int(np.bincount(label).argmax())
    guess_N = np.full(len(label), majority)
    others_MK = count_GK[person]
    others_MK[np.arange(len(known)), label[known]] -= 1
    clear_M = (others_MK == others_MK.max(axis=1, keepdims=True)).sum(axis=1) == 1
    guess_N[known[clear_M]] = others_MK.argmax(axis=1)[clear_M]
    guessed = classification.from_confusion(classification.confusion(label, guess_N, num_classes))
    always_N = np.full(len(label), majority)
    always = classification.from_confusion(classification.confusion(label, always_N, num_classes))
    several_G = count_GK.sum(axis=1) > 1
    return LabelByPerson(
        people=len(count_GK),
        several=int(several_G.sum()),
        single_label=int(((count_GK > 0).sum(axis=1) == 1)[several_G].sum()),
        accuracy=guessed["accuracy"],
        macro_f1=guessed["macro_f1"],
        majority_accuracy=always["accuracy"],
        majority_macro_f1=always["macro_f1"],
    )


def video_frames(names: Sequence[str], part_N: np.ndarray, image_NCHW: np.ndarray) -> VideoFrames:
    """Find files with running numbers, and decide from the pictures whether they are frames of videos.

    Neighbours are names of one folder that are equal but for the last number of the stem, which differs by one. At
    most 2,000 of them are compared, evenly chosen, each with a second pair: the first of the two, and the picture
    half its folder further on by prefix and number.

    Args:
        names: with forward slashes. part_N: position in PARTS, -1 left out. image_NCHW: uint8, read blockwise.
    """
    key = [_running_number(str(name)) for name in names]
    order = np.array(sorted(range(len(key)), key=lambda index: key[index]), np.int64)
    next_to = [place for place in range(len(order) - 1) if _is_next(key[order[place]], key[order[place + 1]])]
    if not next_to:
        return VideoFrames(0, 0, float("nan"), float("nan"), NO_NUMBERS)
    place_M = np.array(next_to)
    crossing = int((part_N[order[place_M]] != part_N[order[place_M + 1]]).sum())
    chosen_M = place_M[np.unique(np.linspace(0, len(place_M) - 1, _PAIRS).round().astype(np.int64))]
    far_M = _far(np.unique([key[index][0] for index in order], return_inverse=True)[1], chosen_M)
    apart_M = np.abs(far_M - chosen_M) > 1
    near = float(np.median(_correlations(image_NCHW, order[chosen_M], order[chosen_M + 1])))
    apart = float("nan")
    if apart_M.any():
        apart = float(np.median(_correlations(image_NCHW, order[chosen_M[apart_M]], order[far_M[apart_M]])))
    verdict = FRAMES if 1 - near <= (1 - apart) / 2 > _ALIKE else NUMBERED
    return VideoFrames(len(place_M), crossing, near, apart, verdict)


def _running_number(name: str) -> tuple[str, str, str, int]:
    """Folder, name before and after the running number, and the number; -1 without one."""
    path = PurePosixPath(name)
    match = _LAST_NUMBER.match(path.stem)
    if match is None:
        return str(path.parent), path.stem, path.suffix, -1
    return str(path.parent), match[1], match[3] + path.suffix, int(match[2])


def _is_next(first: tuple[str, str, str, int], second: tuple[str, str, str, int]) -> bool:
    return first[:3] == second[:3] and first[3] >= 0 and second[3] - first[3] == 1


def _far(folder_N: np.ndarray, place_M: np.ndarray) -> np.ndarray:
    """For each place in an order that is sorted by folder, the place half its folder further on, in a ring."""
    start, size = (np.searchsorted(folder_N, folder_N[place_M], side="left"), np.bincount(folder_N)[folder_N[place_M]])
    return start + (place_M - start + size // 2) % size


def _correlations(image_NCHW: np.ndarray, first_M: np.ndarray, second_M: np.ndarray) -> np.ndarray:
    """Normalised cross-correlation of pairs of pictures, -1..1; 0 where one of them is flat."""
    found = []
    for start in range(0, len(first_M), _BLOCK):
        pair = [_standardised(image_NCHW[index_M[start : start + _BLOCK]]) for index_M in (first_M, second_M)]
        found.append((pair[0] * pair[1]).sum(axis=1))
    return np.concatenate(found)


def _standardised(image_BCHW: np.ndarray) -> np.ndarray:
    flat_BP = image_BCHW.reshape(len(image_BCHW), -1).astype(np.float32)
    flat_BP -= flat_BP.mean(axis=1, keepdims=True)
    return flat_BP / np.maximum(np.linalg.norm(flat_BP, axis=1, keepdims=True), 1e-6)


def suggested_pattern(names: Sequence[str]) -> str | None:
    """A regular expression whose one group may name the person or the sequence in a file name, for `data.identity`.

    Three forms are tried: a code first (S005_001_00000010.png), everything before the last number
    (George_W_Bush_0001.jpg), a word first (KA.AN1.39.tiff). One is taken if it fits half the files or more, puts a
    fifth of them or more into groups of several, has no group of more than half of them, and does not look like
    classes: groups as few as the folders, each in one of them. Words that are a folder's name, a usual prefix
    (Training, IMG) or an emotion name nobody.

    Returns:
        None where no form is taken: every file is its own, or all share a few prefixes.
    """
    paths = [PurePosixPath(str(name)) for name in names]
    folders = {path.parent for path in paths}
    nobody = _GENERIC | {part.casefold() for folder in folders for part in folder.parts}
    for pattern in _PATTERNS:
        matches = [re.search(pattern, path.name) for path in paths]
        found = [(m[1], path.parent) for m, path in zip(matches, paths, strict=True) if m]
        found = [(group, folder) for group, folder in found if group.casefold() not in nobody]
        files = Counter(group for group, _ in found)
        shared = sum(count for count in files.values() if count > 1)
        fits = 2 * len(found) >= len(paths) and 5 * shared >= len(paths) > 0
        like_classes = len(files) <= len(folders) and len(set(found)) == len(files)
        if fits and not like_classes and 2 * max(files.values()) <= len(paths):
            return pattern
    return None
