"""Bootstrap intervals for the metrics of one test part, and for the difference of two arms on it.

The test images are drawn with replacement (Efron 1979). The bootstrap is stratified: the images of each class are drawn
from that class alone, so that each class keeps its number of images. Without this, a class of m images would be missing
in a share e^-m of the resamples (5 % for m = 3), and its recall and average precision would be undefined there. The
disadvantage: the intervals hold for a test part with these class proportions, whose own randomness is not included.
"""

from collections.abc import Iterator

import numpy as np

from emoexp.metrics.classification import check, rates, rates_of_counts

_CELLS_PER_BLOCK = 2**19  # images x resamples in memory at a time: 4 MB, about a core's cache
_DIFFERENCE_CELLS_PER_BLOCK = 2**20  # resamples x (images + cells of all confusions) in memory at a time
_PROBABILITY_METRICS = ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall", "macro_ap")
_PREDICTION_METRICS = (
    "accuracy",
    "macro_f1",
    "balanced_accuracy",
    "worst_recall",
)  # those that a confusion matrix decides


def bootstrap(
    probability_NC: np.ndarray,
    target_N: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of accuracy, macro_f1, balanced_accuracy, worst_recall and macro_ap, each (low, high).

    The intervals show how the metrics of this one trained model vary with the test images, not with the seed of its
    training. A class with one image does not vary. `worst_recall` is a minimum, which resampling makes smaller: its
    interval is too low, and the value itself may be above it, if several classes are nearly as bad as the worst.
    Raises `ValueError` as `classification.summarise`, and for `resamples` < 1 or a `level` outside (0, 1).
    """
    num_classes = np.shape(probability_NC)[1]
    probability_NC, target_N = check(probability_NC, target_N, [str(c) for c in range(num_classes)])
    _check_settings(resamples, level)
    order_N = np.argsort(target_N, kind="stable")
    probability_NC, target_N = probability_NC[order_N], target_N[order_N]
    count_C = np.bincount(target_N, minlength=num_classes)
    rankings = [_Ranking(probability_NC[:, c], target_N == c) for c in np.flatnonzero(count_C)]
    predicted_N = probability_NC.argmax(axis=1)
    predicted_NC = np.eye(num_classes)[predicted_N]
    hit_NC = predicted_NC * (predicted_N == target_N)[:, None]
    rng = np.random.default_rng(seed)
    samples: dict[str, list[np.ndarray]] = {name: [] for name in _PROBABILITY_METRICS}
    for size in _blocks(resamples, _CELLS_PER_BLOCK // len(target_N)):
        weight_NR = _stratified_weights(count_C, size, rng)
        value_of = _weighted_rates(weight_NR, predicted_NC, hit_NC, count_C)
        value_of["macro_ap"] = np.mean([ranking.average_precision(weight_NR) for ranking in rankings], axis=0)
        for name in _PROBABILITY_METRICS:
            samples[name].append(value_of[name])
    return {name: _percentiles(value_R, level) for name, value_R in samples.items()}


def difference_intervals(
    predicted_a_SN: np.ndarray,
    predicted_b_SN: np.ndarray,
    target_N: np.ndarray,
    num_classes: int,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Percentile intervals of arm a minus arm b, each the mean over its S seeds: {metric: {"images" | "seeds" | "both":
    (low, high)}} for accuracy, macro_f1, balanced_accuracy and worst_recall.

    predicted_*_SN: the class that each seed's model predicts for each of the N test images, int, seeds and images in
    the same order for a and b. "images" resamples the test images, the same ones for all models. "seeds" resamples the
    pairs of seeds. "both" resamples pairs of seeds and, independently, images, the same ones for all seeds (a crossed
    design: Owen 2007, "The pigeonhole bootstrap", whose variance is rather too large than too small).

    The standard deviation over S resampled seeds is too small by a factor of about sqrt((S - 1) / S). With one seed it
    is 0, and "both" equals "images". For seeds alone, use the t interval of `compare.paired_difference`. Raises
    `ValueError` for shapes that do not fit, labels outside 0..C-1, `resamples` < 1 and a `level` outside (0, 1).
    """
    _check_settings(resamples, level)
    predicted_a_SN, predicted_b_SN, target_N = map(np.asarray, (predicted_a_SN, predicted_b_SN, target_N))
    _check_predictions(predicted_a_SN, predicted_b_SN, target_N, num_classes)
    seeds, rng = len(predicted_a_SN), np.random.default_rng(seed)
    models = _Models(np.concatenate([predicted_a_SN, predicted_b_SN]), target_N, num_classes)
    observed_of = models.differences(models.observed_weights())
    samples: dict[str, dict[str, list[np.ndarray]]] = {
        name: {"images": [], "seeds": [], "both": []} for name in _PREDICTION_METRICS
    }
    for size in _blocks(resamples, _DIFFERENCE_CELLS_PER_BLOCK // models.cells):
        seed_index_RS = rng.integers(0, seeds, size=(size, seeds))
        for name, difference_RS in models.differences(models.drawn_weights(size, rng)).items():
            samples[name]["images"].append(difference_RS.mean(axis=1))
            samples[name]["seeds"].append(observed_of[name][0][seed_index_RS].mean(axis=1))
            samples[name]["both"].append(np.take_along_axis(difference_RS, seed_index_RS, axis=1).mean(axis=1))
    return {
        name: {kind: _percentiles(value_R, level) for kind, value_R in samples_of_metric.items()}
        for name, samples_of_metric in samples.items()
    }


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) for a share such as a class's recall. It is also good for few images, and for 0 or
    n successes.

    (0, 1) for n = 0. Raises `ValueError` unless 0 <= successes <= n and 0 < level < 1.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"wilson: successes must be from 0 to n, got {successes} of {n}")
    _check_settings(1, level)
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # imported here: the import takes 0.3 s, and training does not need it

    interval = binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def _blocks(resamples: int, max_size: int) -> Iterator[int]:
    """Numbers of resamples that are in memory at a time; their sum is `resamples`."""
    max_size = max(1, max_size)
    for start in range(0, resamples, max_size):
        yield min(max_size, resamples - start)


class _Ranking:
    """The images sorted by the score of one class, highest first; sorted once for all resamples."""

    def __init__(self, score_N: np.ndarray, positive_N: np.ndarray) -> None:
        order_N = np.argsort(-score_N, kind="stable")
        sorted_N, positive_N = score_N[order_N], positive_N[order_N]
        group_N = np.cumsum(np.append(False, sorted_N[1:] != sorted_N[:-1]))  # images of equal score form one group
        place_P = np.flatnonzero(positive_N)
        group_P = group_N[place_P]
        last_of_group_P = np.searchsorted(group_N, group_P, side="right") - 1
        self.order_N = order_N
        self.positive_P = order_N[place_P]
        self.last_positive_P = np.searchsorted(group_P, group_P, side="right") - 1
        self.last_P = last_of_group_P

    def average_precision(self, weight_NR: np.ndarray) -> np.ndarray:
        """Average precision with image weights, one value for each resample: the mean precision at the positive
        images."""
        seen_PR = np.cumsum(weight_NR[self.order_N], axis=0)[self.last_P]
        weight_PR = weight_NR[self.positive_P]
        hit_PR = np.cumsum(weight_PR, axis=0)
        precision_PR = hit_PR[self.last_positive_P] / np.maximum(seen_PR, 1)
        return (weight_PR * precision_PR).sum(axis=0) / hit_PR[-1]


def _draw_counts(position_RM: np.ndarray, num_images: int) -> np.ndarray:
    """How often each image was drawn in each resample, R x images. drawn_RM: positions of the M images drawn."""
    resample_R1 = np.arange(len(position_RM))[:, None]
    cell_RM = position_RM + resample_R1 * num_images
    return np.bincount(cell_RM.ravel(), minlength=cell_RM.shape[0] * num_images).reshape(-1, num_images)


def _stratified_weights(count_C: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each image (sorted by class) is drawn, N x R. Each class is drawn as often as it has images."""
    blocks = [
        _draw_counts(rng.integers(0, count, size=(count, resamples)).T, count).T for count in count_C[count_C > 0]
    ]
    return np.concatenate(blocks).astype(np.float64, order="C")


def _weighted_rates(
    weight_NR: np.ndarray, predicted_NC: np.ndarray, hit_NC: np.ndarray, count_C: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics that a confusion decides, one value for each resample. predicted_NC: one-hot; hit_NC: the same, 0 in
    the rows of wrong predictions. Confusions themselves would need memory for resamples x C x C numbers."""
    true_RC = np.broadcast_to(count_C, (weight_NR.shape[1], len(count_C)))
    return rates_of_counts(weight_NR.T @ hit_NC, true_XC=true_RC, predicted_XC=weight_NR.T @ predicted_NC)


class _Models:
    """Predictions of 2S models for the same images, by true class: the S models of arm a, then those of arm b, in the
    same order of seeds."""

    def __init__(self, predicted_MN: np.ndarray, target_N: np.ndarray, num_classes: int) -> None:
        count_C = np.bincount(target_N.astype(np.int64), minlength=num_classes)
        self.present_C, self.num_classes, self.num_models = np.flatnonzero(count_C), num_classes, len(predicted_MN)
        self.counts = [int(count_C[c]) for c in self.present_C]
        one_hot_CC = np.eye(num_classes, dtype=np.float32)  # sums of whole numbers: exact below 2^24 images
        self.predicted = [
            one_hot_CC[predicted_MN[:, target_N == c].T].reshape(n, -1)
            for c, n in zip(self.present_C, self.counts, strict=True)
        ]
        self.cells = len(target_N) + self.num_models * num_classes**2  # numbers that one resample needs

    def observed_weights(self) -> list[np.ndarray]:
        """Weight 1 for each image: 1 x N_c for each class c that has images."""
        return [np.ones((1, n), dtype=np.float32) for n in self.counts]

    def drawn_weights(self, resamples: int, rng: np.random.Generator) -> list[np.ndarray]:
        """How often each image is drawn, R x N_c for each class c. Each class is drawn as often as it has images."""
        draw_counts = [_draw_counts(rng.integers(0, n, size=(resamples, n)), n) for n in self.counts]
        return [weight_RN.astype(np.float32) for weight_RN in draw_counts]

    def differences(self, weights: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Metrics of arm a minus those of arm b, with image weights: R x S for each metric."""
        confusion_RMCC = np.zeros((len(weights[0]), self.num_models, self.num_classes, self.num_classes))
        for c, weight_RN, predicted_NK in zip(self.present_C, weights, self.predicted, strict=True):
            confusion_RMCC[:, :, c] = (weight_RN @ predicted_NK).reshape(-1, self.num_models, self.num_classes)
        value_of, seeds = rates(confusion_RMCC), self.num_models // 2
        return {name: value_of[name][:, :seeds] - value_of[name][:, seeds:] for name in _PREDICTION_METRICS}


def _percentiles(blocks: list[np.ndarray], level: float) -> tuple[float, float]:
    low, high = np.quantile(np.concatenate(blocks), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_settings(resamples: int, level: float) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if not 0 < level < 1:
        raise ValueError(f"level is a confidence level and must lie between 0 and 1, such as 0.95; got {level}")


def _check_predictions(a_SN: np.ndarray, b_SN: np.ndarray, target_N: np.ndarray, num_classes: int) -> None:
    if a_SN.shape != b_SN.shape or a_SN.ndim != 2 or a_SN.shape[1:] != target_N.shape or not a_SN.size:
        raise ValueError(
            "difference_intervals: predictions of both arms S x N and labels N are needed, got "
            f"{a_SN.shape}, {b_SN.shape} and {target_N.shape}"
        )
    for labels in (a_SN, b_SN, target_N):
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"difference_intervals: classes must be from 0 to {num_classes - 1}, whole numbers; got "
                f"{labels.dtype} from {labels.min()} to {labels.max()}"
            )
