"""People and videos: people in several parts, how well the person predicts the label, frames of videos.

Identities are int64 N, equal for pictures of one person, -1 where unknown. Two pictures of unknown people never count
as the same person.
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
_MIN_DIFFERENCE = 1e-3  # half of 1 - correlation of pairs further apart: with less, all pictures count as the same
_BLOCK = 256  # pairs in memory at a time

# Forms of file names whose group may be a person or a video, the more probable ones first.
_FORMS = (
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
    """Images of one part that show a person of an earlier part.

    images: number of images of the part. shared: number of those with a person of an earlier part. share: shared /
    images (0 in an empty part). images_by_class, shared_by_class: int64 C. share_by_class: float64 C, NaN where the
    part has no image of a class.
    """

    images: int
    shared: int
    share: float
    images_by_class: np.ndarray
    shared_by_class: np.ndarray
    share_by_class: np.ndarray


@dataclass(frozen=True)
class PeopleAcrossParts:
    """people: number of known people in any part. in_several: of those in more than one part. val, test: see
    `KnownPeople`."""

    people: int
    in_several: int
    val: KnownPeople
    test: KnownPeople


@dataclass(frozen=True)
class LabelByPerson:
    """How well the person predicts the label.

    people: number of known people. several: of those with more than one image. single_label: of those whose images,
    more than one, all have the same label. accuracy, macro_f1: of guesses of each image's label from the same person's
    other images. majority_accuracy, majority_macro_f1: of always predicting the most frequent class. All in 0..1.
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

    neighbours: number of pairs of files whose running numbers differ by one. crossing: of those in different parts.
    near, apart: median normalised cross-correlation, -1..1, of neighbours, and of pairs of the same folder that are
    further apart; NaN if there are none. verdict: FRAMES if neighbours differ (1 - correlation) at most half as much as
    pairs further apart; NUMBERED if they do not or if no pair is further apart; NO_NUMBERS without neighbours.
    """

    neighbours: int
    crossing: int
    near: float
    apart: float
    verdict: str


def across_parts(
    identity_N: np.ndarray, part_N: np.ndarray, label_N: np.ndarray, num_classes: int
) -> PeopleAcrossParts:
    """Count people who are in several parts, and images of val and test with a person of an earlier part.

    Args:
        part_N: position in PARTS; -1: in no part, not counted.
        label_N: 0..C-1.
    """
    known_M = np.flatnonzero((identity_N >= 0) & (part_N >= 0))
    person_G, person_M = np.unique(identity_N[known_M], return_inverse=True)
    present_GP = np.zeros((len(person_G), len(PARTS)), bool)
    present_GP[person_M, part_N[known_M]] = True
    earlier_N = np.zeros(len(identity_N), bool)
    earlier_N[known_M] = present_GP.argmax(axis=1)[person_M] < part_N[known_M]
    return PeopleAcrossParts(
        people=len(person_G),
        in_several=int((present_GP.sum(axis=1) > 1).sum()),
        val=_shared_people(label_N[part_N == 1], earlier_N[part_N == 1], num_classes),
        test=_shared_people(label_N[part_N == 2], earlier_N[part_N == 2], num_classes),
    )


def _shared_people(label_M: np.ndarray, earlier_M: np.ndarray, num_classes: int) -> KnownPeople:
    count_C = np.bincount(label_M, minlength=num_classes)
    shared_C = np.bincount(label_M[earlier_M], minlength=num_classes)
    share_C = np.full(num_classes, np.nan)
    np.divide(shared_C, count_C, out=share_C, where=count_C > 0)
    shared = int(earlier_M.sum())
    return KnownPeople(len(label_M), shared, shared / max(len(label_M), 1), count_C, shared_C, share_C)


def label_by_person(identity_N: np.ndarray, label_N: np.ndarray) -> LabelByPerson:
    """Guess each image's label from the same person's other images.

    The guess is the most frequent label of the person's other images. If several labels are most frequent, if there is
    no other image or if the person is unknown, the guess is the most frequent class of all images, the first of
    several. Macro-F1 is the mean over the classes that have images.

    Raises:
        ValueError: no image.
    """
    if len(label_N) == 0:
        raise ValueError("label_by_person needs at least one image, got none")
    class_K, label = np.unique(label_N, return_inverse=True)
    num_classes, known_M = len(class_K), np.flatnonzero(identity_N >= 0)
    person_M = np.unique(identity_N[known_M], return_inverse=True)[1]
    count_GK = np.zeros((int(person_M.max(initial=-1)) + 1, num_classes), np.int64)
    np.add.at(count_GK, (person_M, label[known_M]), 1)
    majority = int(np.bincount(label).argmax())
    guess_N = np.full(len(label), majority)
    others_MK = count_GK[person_M]
    others_MK[np.arange(len(known_M)), label[known_M]] -= 1
    is_clear_M = (others_MK == others_MK.max(axis=1, keepdims=True)).sum(axis=1) == 1
    guess_N[known_M[is_clear_M]] = others_MK.argmax(axis=1)[is_clear_M]
    guess_metrics = classification.from_confusion(classification.confusion(label, guess_N, num_classes))
    majority_N = np.full(len(label), majority)
    majority_metrics = classification.from_confusion(classification.confusion(label, majority_N, num_classes))
    several_G = count_GK.sum(axis=1) > 1
    return LabelByPerson(
        people=len(count_GK),
        several=int(several_G.sum()),
        single_label=int(((count_GK > 0).sum(axis=1) == 1)[several_G].sum()),
        accuracy=guess_metrics["accuracy"],
        macro_f1=guess_metrics["macro_f1"],
        majority_accuracy=majority_metrics["accuracy"],
        majority_macro_f1=majority_metrics["macro_f1"],
    )


def video_frames(names: Sequence[str], part_N: np.ndarray, image_NCHW: np.ndarray) -> VideoFrames:
    """Find files with running numbers, and decide from the pictures whether they are frames of videos.

    Neighbours are two names of one folder that are equal except for the last number of the stem, which differs by one.
    At most 2,000 pairs of neighbours, evenly chosen, are compared. Each is compared with a second pair: its first
    picture, and the picture half the folder further on, in the order of prefix and number.

    Args:
        names: with forward slashes. part_N: position in PARTS, -1: in no part. image_NCHW: uint8, read in blocks.
    """
    key = [_running_number(str(name)) for name in names]
    order = np.array(sorted(range(len(key)), key=lambda index: key[index]), np.int64)
    neighbours = [place for place in range(len(order) - 1) if _is_next(key[order[place]], key[order[place + 1]])]
    if not neighbours:
        return VideoFrames(0, 0, float("nan"), float("nan"), NO_NUMBERS)
    place_M = np.array(neighbours)
    crossing = int((part_N[order[place_M]] != part_N[order[place_M + 1]]).sum())
    chosen_M = place_M[np.unique(np.linspace(0, len(place_M) - 1, _PAIRS).round().astype(np.int64))]
    far_M = _half_folder_further(np.unique([key[index][0] for index in order], return_inverse=True)[1], chosen_M)
    is_apart_M = np.abs(far_M - chosen_M) > 1
    near = float(np.median(_correlations(image_NCHW, order[chosen_M], order[chosen_M + 1])))
    apart = float("nan")
    if is_apart_M.any():
        apart = float(np.median(_correlations(image_NCHW, order[chosen_M[is_apart_M]], order[far_M[is_apart_M]])))
    verdict = FRAMES if 1 - near <= (1 - apart) / 2 > _MIN_DIFFERENCE else NUMBERED
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


def _half_folder_further(folder_N: np.ndarray, place_M: np.ndarray) -> np.ndarray:
    """For each position in an order sorted by folder, the position half its folder further on; after the end of the
    folder it continues at the start."""
    start, size = (np.searchsorted(folder_N, folder_N[place_M], side="left"), np.bincount(folder_N)[folder_N[place_M]])
    return start + (place_M - start + size // 2) % size


def _correlations(image_NCHW: np.ndarray, first_M: np.ndarray, second_M: np.ndarray) -> np.ndarray:
    """Normalised cross-correlation of pairs of pictures, -1..1; 0 where one of them is flat."""
    correlations = []
    for start in range(0, len(first_M), _BLOCK):
        pictures = [_standardised(image_NCHW[index_M[start : start + _BLOCK]]) for index_M in (first_M, second_M)]
        correlations.append((pictures[0] * pictures[1]).sum(axis=1))
    return np.concatenate(correlations)


def _standardised(image_BCHW: np.ndarray) -> np.ndarray:
    flat_BP = image_BCHW.reshape(len(image_BCHW), -1).astype(np.float32)
    flat_BP -= flat_BP.mean(axis=1, keepdims=True)
    return flat_BP / np.maximum(np.linalg.norm(flat_BP, axis=1, keepdims=True), 1e-6)


def suggested_pattern(names: Sequence[str]) -> str | None:
    """A regular expression whose one group may be the person or the video in a file name, for `data.identity`.

    Three forms are tried: a code first (S005_001_00000010.png), everything before the last number
    (George_W_Bush_0001.jpg), a word first (KA.AN1.39.tiff). The first form is returned that matches at least half of
    the files, puts at least a fifth of them into groups of several files, and has no group with more than half of them.
    The groups must not be classes: there must be more groups than folders, or one group in several folders. Words that
    are the name of a folder, a usual prefix (Training, IMG) or an emotion are no person.

    Returns:
        None if no form has these properties.
    """
    paths = [PurePosixPath(str(name)) for name in names]
    folders = {path.parent for path in paths}
    not_people = _GENERIC | {part.casefold() for folder in folders for part in folder.parts}
    for pattern in _FORMS:
        matches = [re.search(pattern, path.name) for path in paths]
        names_and_folders = [(m[1], path.parent) for m, path in zip(matches, paths, strict=True) if m]
        names_and_folders = [
            (group, folder) for group, folder in names_and_folders if group.casefold() not in not_people
        ]
        count_of = Counter(group for group, _ in names_and_folders)
        shared = sum(count for count in count_of.values() if count > 1)
        is_useful = 2 * len(names_and_folders) >= len(paths) and 5 * shared >= len(paths) > 0
        is_class = len(count_of) <= len(folders) and len(set(names_and_folders)) == len(count_of)
        if is_useful and not is_class and 2 * max(count_of.values()) <= len(paths):
            return pattern
    return None
