"""Learning rates and the end of training as functions of progress and history: nothing to save, nothing to restore.

A schedule gives the factor of the optimizer's rate from `done` (epochs trained, a fraction inside an epoch), `total`
(epochs at most) and `monitored` (the values watched so far, larger is better).
"""

import math
from collections.abc import Sequence


def constant(done: float, total: int, monitored: Sequence[float]) -> float:
    """Always 1."""
    return 1.0


def cosine(done: float, total: int, monitored: Sequence[float], *, warmup: float, end: float) -> float:
    """Linear from 0 to 1 over `warmup` epochs, then half a cosine from 1 to `end`."""
    if done < warmup:
        return done / warmup
    return _cosine(1.0, end, (done - warmup) / max(total - warmup, 1e-9))


def onecycle(done: float, total: int, monitored: Sequence[float], *, rise: float, start: float, end: float) -> float:
    """A cosine from `start` to 1 over the share `rise` of training, then a cosine from 1 to `end`."""
    peak = rise * total
    if done < peak:
        return _cosine(start, 1.0, done / peak)
    return _cosine(1.0, end, (done - peak) / max(total - peak, 1e-9))


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def plateau(
    done: float, total: int, monitored: Sequence[float], *, factor: float, patience: int, least: float
) -> float:
    """`factor` to the power of the reductions so far, not below `least`.

    A reduction falls due when more than `patience` epochs in a row brought no new best since the last one.
    """
    best, waited, reductions = -math.inf, 0, 0
    for value in monitored:
        best, waited = (value, 0) if value > best else (best, waited + 1)
        if waited > patience:
            reductions, waited = reductions + 1, 0
    return max(factor**reductions, least)


def steps(
    done: float,
    total: int,
    monitored: Sequence[float],
    *,
    warmup: float,
    at: Sequence[float],
    factors: Sequence[float],
) -> float:
    """A rise from epoch to epoch over the share `warmup` of training, then 1, then factors[k] from the share at[k] on.

    As the code of Cao et al. (NeurIPS 2019, arXiv 1906.07413) has it: all steps of epoch e, from 0, take (e+1)/W of the
    rate in a warm-up of W epochs, so that its last epoch has the whole rate. A milestone inside an epoch counts from
    the step that passes it on.
    """
    passed = [factor for share, factor in zip(at, factors, strict=True) if done >= share * total - 1e-9]
    rising = warmup * total
    return (passed or [1.0])[-1] * min(1.0, (math.floor(done) + 1) / max(rising, 1e-9))


def best_epoch(monitored: Sequence[float]) -> int | None:
    """Index of the first largest value; NaN is never the best. None where there is nothing to choose."""
    finite = [value if not math.isnan(value) else -math.inf for value in monitored]
    return finite.index(max(finite)) if finite and max(finite) > -math.inf else None


def exhausted(monitored: Sequence[float], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no new best."""
    best = best_epoch(monitored)
    since = len(monitored) if best is None else len(monitored) - 1 - best
    return patience is not None and since >= patience
