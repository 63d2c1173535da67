"""How sure are these numbers? Intervals for metrics of one test part, and for the difference of two models
on it.

All speak of other images of the same kind for this one trained model; how a model varies with its seed is
another question.
"""

from statistics import NormalDist

import numpy as np

from emoexp.metrics.classification import check, rates

_CELLS_AT_ONCE = 2**19  # images x resamples held at a time: 4 MB, about a core's cache


def bootstrap(
    probability_NC: np.ndarray,
    target_N: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals (Efron 1979) of accuracy, macro_f1, balanced_accuracy, worst_recall and
    macro_ap, each (low, high).

    Stratified: each class's test images are drawn with replacement among themselves, so that every class
    keeps its number. The plain bootstrap loses a class of m images in a share e^-m of the resamples (5 %
    for m = 3), which makes recall and AP undefined there. The price: the intervals hold for a test part of
    these class proportions, and accuracy, micro and precision-like metrics do not include the chance in the
    proportions themselves.

    Read with care: a class of one image cannot vary; and `worst_recall` is a minimum, which resampling
    lowers, so that its interval lies low (its point may even stand above it) where several classes are
    close to the worst. Raises `ValueError` as `metrics.summarise`, and for `resamples` < 1 or a `level`
    outside (0, 1).
    """
    num_classes = np.shape(probability_NC)[1]
    probability_NC, target_N = check(probability_NC, target_N, [str(c) for c in range(num_classes)])
    _check_settings(resamples, level)
    by_class_N = np.argsort(target_N, kind="stable")
    probability_NC, target_N = probability_NC[by_class_N], target_N[by_class_N]
    count_C = np.bincount(target_N, minlength=num_classes)
    ranking = [_Ranking(probability_NC[:, c], target_N == c) for c in np.flatnonzero(count_C)]
    said_NC = np.eye(num_classes)[probability_NC.argmax(axis=1)]
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS_AT_ONCE // len(target_N))
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, resamples, step):
        weight_NR = _stratified_weights(count_C, min(step, resamples - start), rng)
        value_of = rates(_weighted_confusions(weight_NR, said_NC, count_C))
        value_of["macro_ap"] = np.mean([one.average_precision(weight_NR) for one in ranking], axis=0)
        for name in ("accuracy", "macro_f1", "balanced_accuracy", "worst_recall", "macro_ap"):
            found.setdefault(name, []).append(value_of[name])
    return {name: _percentiles(np.concatenate(value_R), level) for name, value_R in found.items()}


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) for a share such as a class's recall: sensible for few images and for
    0 or all of them.

    n = 0 tells nothing: (0, 1). Raises `ValueError` unless 0 <= successes <= n and 0 < level < 1.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"wilson: successes must be from 0 to n, got {successes} of {n}")
    _check_settings(1, level)
    if n == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    middle = (successes + z2 / 2) / (n + z2)
    half = (z2 * successes * (n - successes) / n + z2**2 / 4) ** 0.5 / (n + z2)
    low = 0.0 if successes == 0 else middle - half  # exact at the ends, where rounding would leave 1e-17
    high = 1.0 if successes == n else middle + half
    return low, high


def paired_difference(
    predicted_a_N: np.ndarray,
    predicted_b_N: np.ndarray,
    target_N: np.ndarray,
    num_classes: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, float]]:
    """Model a minus model b on the same images: {"accuracy" | "macro_f1" | "balanced_accuracy":
    {"difference", "low", "high"}}.

    One resample judges both models, so that what is hard for both cancels. Stratified like `bootstrap`,
    which for predictions alone is one multinomial draw per true class over the pairs (class said by a,
    class said by b). Raises `ValueError` for shapes that differ, labels outside 0..C-1, no images, and
    settings as in `bootstrap`.
    """
    _check_settings(resamples, level)
    parts = [np.asarray(part) for part in (target_N, predicted_a_N, predicted_b_N)]
    if len({part.shape for part in parts}) != 1 or parts[0].ndim != 1 or parts[0].size == 0:
        raise ValueError(
            "paired_difference: one label and two predictions per image are needed, got shapes "
            f"{[part.shape for part in parts]} for truth, a and b"
        )
    if any(part.min() < 0 or part.max() >= num_classes for part in parts):
        raise ValueError(f"paired_difference: classes must be from 0 to {num_classes - 1}")
    joint_CCC = np.zeros((num_classes,) * 3, dtype=np.int64)
    np.add.at(joint_CCC, tuple(part.astype(np.int64) for part in parts), 1)
    rng = np.random.default_rng(seed)
    drawn_RCCC = np.stack([_redraw(cell_CC, resamples, rng) for cell_CC in joint_CCC], axis=1)
    observed, drawn = _difference(joint_CCC), _difference(drawn_RCCC)
    answer = {}
    for name in ("accuracy", "macro_f1", "balanced_accuracy"):
        low, high = _percentiles(drawn[name], level)
        answer[name] = {"difference": float(observed[name]), "low": low, "high": high}
    return answer


class _Ranking:
    """One class's images from the most to the least likely, sorted once for all resamples."""

    def __init__(self, score_N: np.ndarray, positive_N: np.ndarray) -> None:
        order_N = np.argsort(-score_N, kind="stable")
        sorted_N, positive_N = score_N[order_N], positive_N[order_N]
        group_N = np.cumsum(np.append(False, sorted_N[1:] != sorted_N[:-1]))  # equal scores enter together
        place_P = np.flatnonzero(positive_N)
        group_P = group_N[place_P]
        last_of_group_P = np.searchsorted(group_N, group_P, side="right") - 1
        self.order_N = order_N
        self.positive_P = order_N[place_P]
        self.last_positive_P = np.searchsorted(group_P, group_P, side="right") - 1
        self.last_P = last_of_group_P

    def average_precision(self, weight_NR: np.ndarray) -> np.ndarray:
        """AP under image weights, one value per resample: the mean precision at which a positive image is
        reached.
        """
        seen_PR = np.cumsum(weight_NR[self.order_N], axis=0)[self.last_P]
        weight_PR = weight_NR[self.positive_P]
        hit_PR = np.cumsum(weight_PR, axis=0)
        precision_PR = hit_PR[self.last_positive_P] / np.maximum(seen_PR, 1)
        return (weight_PR * precision_PR).sum(axis=0) / hit_PR[-1]


def _stratified_weights(count_C: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each image (sorted by class) is drawn, N x R: per class, as many draws with replacement as
    it has images.
    """
    column_R = np.arange(resamples)
    blocks = []
    for count in count_C[count_C > 0]:
        drawn_MR = rng.integers(0, count, size=(count, resamples))
        cell_MR = drawn_MR * resamples + column_R
        blocks.append(np.bincount(cell_MR.ravel(), minlength=count * resamples).reshape(count, resamples))
    return np.concatenate(blocks).astype(np.float64)


def _weighted_confusions(weight_NR: np.ndarray, said_NC: np.ndarray, count_C: np.ndarray) -> np.ndarray:
    """One confusion per resample, R x C x C, of images sorted by class, of which `said_NC` holds the
    prediction one-hot.
    """
    end_C = np.cumsum(count_C)
    rows = [weight_NR[end - n : end].T @ said_NC[end - n : end] for end, n in zip(end_C, count_C, strict=True)]
    return np.stack(rows, axis=1)


def _redraw(cell_CC: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    n = int(cell_CC.sum())
    share = cell_CC.ravel() / max(n, 1)
    drawn = np.zeros((resamples, share.size), dtype=np.int64)
    used = np.flatnonzero(share)  # the last share of a multinomial absorbs rounding, so it must be a real one
    if n:
        drawn[:, used] = rng.multinomial(n, share[used], size=resamples)
    return drawn.reshape(resamples, *cell_CC.shape)


def _difference(joint_XCCC: np.ndarray) -> dict[str, np.ndarray]:
    a, b = rates(joint_XCCC.sum(axis=-1)), rates(joint_XCCC.sum(axis=-2))
    return {name: a[name] - b[name] for name in a}


def _percentiles(value_R: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(value_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_settings(resamples: int, level: float) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if not 0 < level < 1:
        raise ValueError(f"level is the share of certainty and must lie between 0 and 1, such as 0.95; got {level}")
