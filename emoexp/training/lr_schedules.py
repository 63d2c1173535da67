"""Learning-rate schedules, and when training ends: functions of progress and history, without a state to save.

A schedule returns the factor of the optimizer's learning rate. Its arguments: `epochs_done`, the epochs trained so far,
a fraction inside an epoch; `total_epochs`, the epochs at most; `monitored`, the monitored value of each epoch so far,
where larger is better.
"""

import math
from collections.abc import Sequence


def constant(epochs_done: float, total_epochs: int, monitored: Sequence[float]) -> float:
    """Always 1."""
    return 1.0


def cosine(epochs_done: float, total_epochs: int, monitored: Sequence[float], *, warmup: float, end: float) -> float:
    """Linear from 0 to 1 over `warmup` epochs, then half a cosine from 1 to `end`."""
    if epochs_done < warmup:
        return epochs_done / warmup
    return _cosine(1.0, end, (epochs_done - warmup) / max(total_epochs - warmup, 1e-9))


def onecycle(
    epochs_done: float, total_epochs: int, monitored: Sequence[float], *, rise: float, start: float, end: float
) -> float:
    """A cosine from `start` to 1 over the share `rise` of training, then a cosine from 1 to `end`."""
    peak = rise * total_epochs
    if epochs_done < peak:
        return _cosine(start, 1.0, epochs_done / peak)
    return _cosine(1.0, end, (epochs_done - peak) / max(total_epochs - peak, 1e-9))


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def plateau(
    epochs_done: float, total_epochs: int, monitored: Sequence[float], *, factor: float, patience: int, least: float
) -> float:
    """`factor` to the power of the reductions so far, not below `least`.

    A reduction follows when more than `patience` epochs in a row, counted from the last reduction, brought no new best.
    """
    best, bad_epochs, reductions = -math.inf, 0, 0
    for value in monitored:
        best, bad_epochs = (value, 0) if value > best else (best, bad_epochs + 1)
        if bad_epochs > patience:
            reductions, bad_epochs = reductions + 1, 0
    return max(factor**reductions, least)


def steps(
    epochs_done: float,
    total_epochs: int,
    monitored: Sequence[float],
    *,
    warmup: float,
    at: Sequence[float],
    factors: Sequence[float],
) -> float:
    """A rise from epoch to epoch over the share `warmup` of training, then 1, then factors[k] after the share at[k].

    As in the code of Cao et al. (NeurIPS 2019, arXiv 1906.07413): in a warm-up of W epochs, all steps of epoch e, from
    0, have the factor (e+1)/W, so that its last epoch has the whole rate. A milestone inside an epoch takes effect at
    the first step after it.
    """
    reached = [factor for share, factor in zip(at, factors, strict=True) if epochs_done >= share * total_epochs - 1e-9]
    warmup_epochs = warmup * total_epochs
    return (reached or [1.0])[-1] * min(1.0, (math.floor(epochs_done) + 1) / max(warmup_epochs, 1e-9))


def best_epoch(monitored: Sequence[float]) -> int | None:
    """Index of the largest value, the first of equals; NaN is never the best. None where no value is a number."""
    finite = [value if not math.isnan(value) else -math.inf for value in monitored]
    return finite.index(max(finite)) if finite and max(finite) > -math.inf else None


def should_stop_early(monitored: Sequence[float], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no new best."""
    best = best_epoch(monitored)
    epochs_since_best = len(monitored) if best is None else len(monitored) - 1 - best
    return patience is not None and epochs_since_best >= patience
