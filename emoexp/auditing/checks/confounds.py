"""Confounds: features that have nothing to do with the class and still predict it.

If one class comes from another source than the others (colour or grey, small or large, another camera or encoder), a
network can learn the source of a picture instead of its content. It is then right on this data set alone (Torralba and
Efros, "Unbiased look at dataset bias", CVPR 2011).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.tree import DecisionTreeClassifier

from emoexp import rng
from emoexp.data.files import FileInfo
from emoexp.metrics import classification

ALL = "all of them"
PREDICTS, DOES_NOT = "predicts", "does not"
_PERMUTATIONS = 20
_MARGIN = 0.1  # share of the distance from chance to 1 by which balanced accuracy must exceed chance
_CLASS_MARGIN = 0.3  # by which the informedness of one class must exceed chance
_MIN_IMAGES = 3  # of a class that is tested
_FULL_WEIGHT = 50  # a class with fewer images has less weight: otherwise a few images would decide the result
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Confound:
    """How well one feature, or all together, predicts the class of images that the classifier has not seen.

    macro_f1, balanced_accuracy: 0..1, over the classes that are tested. chance_*: mean, and chance_*_95: 95th
    percentile, of the same with permuted labels. informedness (Youden's index, 1950): float64 C, for each class the
    share of its images for which the feature makes the class more likely, minus the same share of all other images; 0
    is chance, 1 identifies the class in all images, NaN where not tested. gives_away: the class whose informedness is
    furthest above the 95th percentile of its chance. rise: informedness of that class minus its mean chance. verdict:
    PREDICTS if balanced accuracy is above the 95th percentile of chance and one of two conditions holds: it exceeds
    mean chance by a tenth of the distance to 1; or the informedness of gives_away is above the 95th percentile of its
    chance and rise is at least 0.3. Else DOES_NOT. left_out: classes with too few images to be tested.
    """

    feature: str
    macro_f1: float
    balanced_accuracy: float
    chance_macro_f1: float
    chance_macro_f1_95: float
    chance_balanced_accuracy: float
    chance_balanced_accuracy_95: float
    informedness: np.ndarray
    gives_away: int
    rise: float
    verdict: str
    left_out: tuple[int, ...]


def predictability(
    feature: Mapping[str, np.ndarray],
    label_N: np.ndarray,
    num_classes: int,
    *,
    group_N: np.ndarray | None = None,
    folds: int = 5,
) -> list[Confound]:
    """Test how well each feature alone, and all features together (the last row), predict the class.

    A shallow decision tree is cross-validated. All classes have the same weight, those with fewer than 50 images less.
    Chance is the result for 20 permutations of the labels. Seeds are fixed, so that the same data give the same rows.
    Classes with fewer than 3 images, or with images of a single group, are left out. There are no more folds than the
    smallest class has images.

    Args:
        feature: numbers (NaN where unknown) or text, each N.
        label_N: 0..C-1.
        group_N: int64 N, equal for images that belong together, such as those of one person; -1: an image in no group.
            No group is in two folds, and permutations keep groups together where possible.
        folds: at least 2.

    Returns:
        An empty list if there is no feature, or if fewer than two classes can be tested.

    Raises:
        ValueError: a feature that has not one value per image, a label outside 0..C-1, too few folds.
    """
    column_of = {name: _numbers(name, value_N, label_N) for name, value_N in feature.items()}
    if folds < 2:
        raise ValueError(f"predictability needs at least 2 folds, got {folds}")
    group_N = _groups(group_N, len(label_N))
    testable_C = _testable_classes(label_N, num_classes, group_N)
    if not column_of or testable_C.sum() < 2:
        return []
    matrix_of = {**column_of, ALL: np.stack([*column_of.values()], axis=1)}
    labels, tests, tested_index = _permuted_labels(label_N, group_N, testable_C, folds)
    return [
        _row(
            name,
            np.array([_scores(value_N[tested_index], *args) for args in zip(labels, tests, strict=True)]),
            testable_C,
        )
        for name, value_N in matrix_of.items()
    ]


def features(image_NCHW: np.ndarray, file_info: FileInfo | None) -> dict[str, np.ndarray]:
    """Features of pictures besides their content, for `predictability`, each N; constant features are left out.

    Of the pixels: "brightness" and "contrast" (mean and standard deviation of the luminance, 0..255), and "grey" (1 for
    a grey picture in three channels). Of the files, if they are known: "colour mode", "format", "width", "height",
    "aspect" (width / height), "file bytes", "bits per pixel" if sizes differ, "jpeg quality".
    """
    features_of = _of_pixels(image_NCHW)
    if file_info is not None:
        pixels = np.where(file_info.width * file_info.height > 0, file_info.width * file_info.height, np.nan)
        features_of |= {
            "colour mode": file_info.mode,
            "format": file_info.format,
            "width": file_info.width,
            "height": file_info.height,
        }
        features_of |= {"aspect": file_info.width * file_info.width / pixels, "file bytes": file_info.bytes}
        if len(np.unique(pixels)) > 1:
            features_of["bits per pixel"] = 8 * file_info.bytes / pixels
        features_of["jpeg quality"] = file_info.quality
    return {name: value_N for name, value_N in features_of.items() if len(np.unique(value_N)) > 1}


def _of_pixels(image_NCHW: np.ndarray) -> dict[str, np.ndarray]:
    num_images, channels = image_NCHW.shape[:2]
    brightness_N, contrast_N, colour_N = np.zeros((3, num_images))
    step = max(1, _BLOCK_BYTES // max(image_NCHW[:1].nbytes, 1))
    for start in range(0, num_images, step):
        block_BCP = image_NCHW[start : start + step].reshape(-1, channels, image_NCHW[0, 0].size)
        luminance_BP = block_BCP.mean(axis=1, dtype=np.float32)
        brightness_N[start : start + step] = luminance_BP.mean(axis=1)
        contrast_N[start : start + step] = luminance_BP.std(axis=1)
        colour_N[start : start + step] = np.ptp(block_BCP, axis=1).mean(axis=1)
    grey = {"grey": (colour_N < 1).astype(np.float64)} if channels == 3 else {}  # compression may add less colour
    return {"brightness": brightness_N, "contrast": contrast_N, **grey}


def _numbers(name: str, value_N: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """A feature as float64 N; texts become their ranks in alphabetical order."""
    value_N = np.asarray(value_N)
    if value_N.shape != label_N.shape:
        raise ValueError(
            f"predictability: feature {name!r} needs one value per image, shape {label_N.shape}, got {value_N.shape}"
        )
    if value_N.dtype.kind in "OSU":
        value_N = np.unique(value_N.astype(str), return_inverse=True)[1]
    value_N = value_N.astype(np.float64)
    return np.where(np.isfinite(value_N), value_N, np.nan)


def _groups(group_N: np.ndarray | None, size: int) -> np.ndarray:
    """Groups as numbers from 0. Each image without a group gets a group of its own."""
    if group_N is None:
        return np.arange(size)
    own_number_N = group_N.max(initial=0) + 1 + np.arange(size)
    return np.unique(np.where(group_N >= 0, group_N, own_number_N), return_inverse=True)[1]


def _testable_classes(label_N: np.ndarray, num_classes: int, group_N: np.ndarray) -> np.ndarray:
    """Whether each class has enough images, and in more than one group: bool C."""
    images_C = classification.confusion(label_N, label_N, num_classes).sum(axis=1)
    pairs = np.unique(np.stack([label_N, group_N]), axis=1)
    return (images_C >= _MIN_IMAGES) & (np.bincount(pairs[0], minlength=num_classes) > 1)


def _permuted_labels(
    label_N: np.ndarray, group_N: np.ndarray, testable_C: np.ndarray, folds: int
) -> tuple[list[np.ndarray], list[list[np.ndarray]], np.ndarray]:
    """The labels 0..K-1 of the tested classes and their permutations, the folds of each, and the indices of the images
    of these classes."""
    inside = np.flatnonzero(testable_C[label_N])
    label, group = (np.cumsum(testable_C) - 1)[label_N[inside]], group_N[inside]
    labels = [label, *(_permuted(label, group, number) for number in range(_PERMUTATIONS))]
    return labels, [[*_folds(label_M, group, folds)] for label_M in labels], inside


def _permuted(label_N: np.ndarray, group_N: np.ndarray, number: int) -> np.ndarray:
    """Permuted labels, in which labels of the same group stay together."""
    order_G = rng.permutation(number, "checks.sources", size=int(group_N.max()) + 1).numpy()
    permuted_N = np.empty_like(label_N)
    permuted_N[np.argsort(group_N, kind="stable")] = label_N[np.argsort(order_G[group_N], kind="stable")]
    return permuted_N


def _folds(label_N: np.ndarray, group_N: np.ndarray, num_folds: int) -> Iterator[np.ndarray]:
    """Indices of the test images of each fold: stratified by class, no group divided."""
    num_folds = min(num_folds, int(np.bincount(label_N).min()), len(np.unique(group_N)))
    grouped = len(np.unique(group_N)) < len(group_N)
    splitter = StratifiedGroupKFold if grouped else StratifiedKFold
    for _, test in splitter(num_folds, shuffle=True, random_state=0).split(
        label_N, label_N, group_N if grouped else None
    ):
        yield test


def _scores(value_NF: np.ndarray, label_N: np.ndarray, tests: list[np.ndarray]) -> np.ndarray:
    """Macro-F1, balanced accuracy and the informedness of each class of out-of-fold predictions: 2 + K numbers."""
    value_NF, num_classes = value_NF.reshape(len(label_N), -1), int(label_N.max()) + 1
    predicted_N, more_likely_NK = np.zeros_like(label_N), np.zeros((len(label_N), num_classes), bool)
    for test in (test for test in tests if len(test)):
        train = np.delete(np.arange(len(label_N)), test)
        count_K = np.bincount(label_N[train], minlength=num_classes)
        weight_K = 1 / np.maximum(count_K, min(_FULL_WEIGHT, count_K.mean()))
        tree = DecisionTreeClassifier(max_depth=6, min_samples_leaf=10, random_state=0)
        tree.fit(value_NF[train], label_N[train], weight_K[label_N[train]])
        probability_NK = np.zeros((len(test), num_classes))
        probability_NK[:, tree.classes_] = tree.predict_proba(value_NF[test])
        prior_K = count_K * weight_K / (count_K * weight_K).sum()
        predicted_N[test] = probability_NK.argmax(axis=1)
        more_likely_NK[test] = probability_NK > prior_K + 1e-9
    result = classification.from_confusion(classification.confusion(label_N, predicted_N, num_classes))
    true_NK = np.eye(num_classes, dtype=bool)[label_N]
    hit_K = (more_likely_NK & true_NK).sum(axis=0) / true_NK.sum(axis=0)
    alarm_K = (more_likely_NK & ~true_NK).sum(axis=0) / (~true_NK).sum(axis=0)
    return np.concatenate([[result["macro_f1"], result["balanced_accuracy"]], hit_K - alarm_K])


def _row(name: str, score_RJ: np.ndarray, testable_C: np.ndarray) -> Confound:
    """A row from the results of `_scores` for the labels (first) and for their permutations."""
    observed_J, mean_J, high_J = score_RJ[0], score_RJ[1:].mean(axis=0), np.quantile(score_RJ[1:], 0.95, axis=0)
    best = 2 + int((observed_J - high_J)[2:].argmax())
    is_above_chance = observed_J[1] > high_J[1]
    by_margin = observed_J[1] - mean_J[1] >= _MARGIN * (1 - mean_J[1])
    one_class = observed_J[best] > high_J[best] and observed_J[best] - mean_J[best] >= _CLASS_MARGIN
    informedness_C = np.full(len(testable_C), np.nan)
    informedness_C[testable_C] = observed_J[2:]
    return Confound(
        feature=name,
        macro_f1=float(observed_J[0]),
        balanced_accuracy=float(observed_J[1]),
        chance_macro_f1=float(mean_J[0]),
        chance_macro_f1_95=float(high_J[0]),
        chance_balanced_accuracy=float(mean_J[1]),
        chance_balanced_accuracy_95=float(high_J[1]),
        informedness=informedness_C,
        gives_away=int(np.flatnonzero(testable_C)[best - 2]),
        rise=float(observed_J[best] - mean_J[best]),
        verdict=PREDICTS if is_above_chance and (by_margin or one_class) else DOES_NOT,
        left_out=tuple(int(c) for c in np.flatnonzero(~testable_C)),
    )
