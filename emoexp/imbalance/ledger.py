"""The ledger: for each class and epoch the prior that training aims at, whatever mixture of columns is in use.

q: a class's share of the labels; w: its weight in the loss; a: what the loss adds to its logit (logit adjustment).
Training then aims at a prior proportional to q·w/e^a: the network does not learn what the loss adds. The ledger shows
every factor.
What favours rare classes and cannot be written as a prior is named in words, as a heuristic.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from emoexp.imbalance import losses, sampling, weights
from emoexp.imbalance.strategy import EpochStrategy, Strategy

OVER_CORRECTION_THRESHOLD = 1.05  # from this ratio of a rarer class's effective prior to a more frequent one's on


def periods(strategy: Strategy) -> list[tuple[int, int, EpochStrategy]]:
    """Successive epochs in which the strategy does the same: first and last epoch, from 1, and what it does."""
    result: list[tuple[int, int, EpochStrategy]] = []
    for number, epoch in enumerate(strategy.per_epoch, 1):
        if result and _equal(result[-1][2], epoch):
            result[-1] = (result[-1][0], number, result[-1][2])
        else:
            result.append((number, number, epoch))
    return result


def _equal(one: EpochStrategy, other: EpochStrategy) -> bool:
    same = ("mix", "classes_take_turns", "second_stage", "divided_batch")
    if any(getattr(one, name) != getattr(other, name) for name in same) or one.loss.heuristic != other.loss.heuristic:
        return False
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("share_C", "exposure_C", "weight_C")]
    pairs += [(getattr(one.loss, name), getattr(other.loss, name)) for name in losses.CONSTANT_NAMES]
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def rows(strategy: Strategy, class_names: Sequence[str]) -> list[dict[str, float | int | str]]:
    """The ledger as a table, one row for each class. Of a run in two stages it shows the second, with which the run
    ends; what changes from epoch to epoch is given as its mean.

    images, copies: originals and copies in the pool. draws: expected number in an epoch. unique: expected number of
    different items among them. exposure: share of the labels that training meets; only where images are mixed, as
    otherwise it is the share of the draws. weight: in the loss, mean over these labels. shift: what the loss adds to
    the logits, less its mean over classes; only where it adds anything. prior: share of the originals. effective_prior:
    what training aims at. correction: effective prior over prior, 1 where nothing is corrected.
    """
    prior_C = strategy.original_C.double() / strategy.original_C.sum()
    epochs = strategy.per_epoch[strategy.second_stage_start :]
    share_C, exposure_C = (_mean([getattr(epoch, name) for epoch in epochs]) for name in ("share_C", "exposure_C"))
    weight_C = _mean([epoch.exposure_C * epoch.weight_C for epoch in epochs]) / exposure_C.clamp(min=1e-300)
    shift_C = _mean([_shift(epoch) for epoch in epochs])
    unique_C = _mean([_unique(strategy, epoch) for epoch in epochs])
    effective_C = _mean([effective_prior(epoch) for epoch in epochs])
    table: list[dict[str, float | int | str]] = []
    for c, name in enumerate(class_names):
        count = int(strategy.count_C[c])
        table.append(
            {
                "class": name,
                "images": int(strategy.original_C[c]),
                "copies": count - int(strategy.original_C[c]),
                "draws": round(float(share_C[c]) * strategy.epoch_size, 2),
                "unique": round(float(unique_C[c]), 2),
                **({"exposure": round(float(exposure_C[c]), 6)} if any(epoch.mix for epoch in epochs) else {}),
                "weight": round(float(weight_C[c]), 6),
                **({"shift": round(float(shift_C[c]), 6)} if bool((shift_C != 0).any()) else {}),
                "prior": round(float(prior_C[c]), 6),
                "effective_prior": round(float(effective_C[c]), 6),
                "correction": round(float(effective_C[c] / prior_C[c]), 4) if count else 0.0,
            }
        )
    return table


def _mean(values: Sequence[Tensor]) -> Tensor:
    return values[0] if all(torch.equal(value, values[0]) for value in values) else torch.stack([*values]).mean(0)


def _shift(epoch: EpochStrategy) -> Tensor:
    """What the loss adds to the logits, less its mean: adding the same to all logits changes no loss."""
    shift_C = epoch.loss.shift_C
    return torch.zeros_like(epoch.share_C) if shift_C is None else shift_C - shift_C.mean()


def _unique(strategy: Strategy, epoch: EpochStrategy) -> Tensor:
    """Expected number of different items of each class among an epoch's draws."""
    draws_C, count_C = epoch.share_C * strategy.epoch_size, strategy.count_C.double()
    if epoch.classes_take_turns:
        pairs = zip(draws_C, count_C, strict=True)
        return torch.stack([sampling.expected_unique(draws, count) for draws, count in pairs])
    if sampling.is_natural(epoch.share_C, strategy.count_C):
        return torch.minimum(draws_C, count_C)
    return count_C * (1 - (1 - epoch.share_C / count_C.clamp(min=1)) ** strategy.epoch_size)


def effective_prior(epoch: EpochStrategy) -> Tensor:
    """float64 C: share of the labels times weight, over e to the power of what the loss adds to the logits; sums to
    1."""
    product = _weighted(epoch) * torch.exp(-_shift(epoch))
    return product / product.sum()


def _weighted(epoch: EpochStrategy) -> Tensor:
    """What each class contributes to the loss, up to a factor: its share of the labels times its weight."""
    if epoch.divided_batch is not None:
        return weights.shares_in_batches(epoch.weight_C, epoch.exposure_C, epoch.divided_batch)
    return epoch.exposure_C * epoch.weight_C


def over_correction(strategy: Strategy) -> float:
    """The largest `over_correction_of` the effective priors of all epochs.

    At most 1 for every single strategy; inverse sampling with inverse weights gives n_max/n_min.
    """
    return max(over_correction_of(effective_prior(epoch), strategy.original_C) for _, _, epoch in periods(strategy))


def over_correction_of(prior_C: Tensor, original_C: Tensor) -> float:
    """The largest ratio of the prior of a class to that of another with at least as many originals."""
    present = original_C > 0
    prior, image = prior_C[present], original_C[present]
    ratio = prior[:, None] / prior[None, :]
    return float(torch.where(image[:, None] <= image[None, :], ratio, 0.0).max())


def warning(strategy: Strategy, class_names: Sequence[str]) -> str | None:
    """The sentence that names a double correction, or one that goes too far by itself; None where there is neither."""

    def factor_in(period: tuple[int, int, EpochStrategy]) -> float:
        return over_correction_of(effective_prior(period[2]), strategy.original_C)

    first, last, epoch = worst = max(periods(strategy), key=factor_in)
    factor = factor_in(worst)
    if factor <= OVER_CORRECTION_THRESHOLD:
        return None
    prior_C = effective_prior(epoch)
    highest, lowest = int(prior_C.argmax()), int(torch.where(strategy.original_C > 0, prior_C, 2.0).argmin())
    names = [f"{class_names[c]} ({int(strategy.original_C[c])} images)" for c in (highest, lowest)]
    epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
    when = "" if (first, last) == (1, len(strategy.per_epoch)) else f" in {epochs}"
    single = [over_correction_of(prior_C, strategy.original_C) for prior_C in _single_priors(epoch, strategy.count_C)]
    double = len(single) > 1 and factor > OVER_CORRECTION_THRESHOLD * max(single)
    each_is_fine = double and max(single) <= OVER_CORRECTION_THRESHOLD
    return (
        f"{'double correction' if double else 'over-correction'}{when}: training counts {names[0]} {factor:.3g} "
        f"times what it counts {names[1]}{'; each strategy alone would stop at equal' if each_is_fine else ''}"
    )


def _single_priors(epoch: EpochStrategy, count_C: Tensor) -> list[Tensor]:
    """The priors that each correction would aim at without the others: draws and mixing, weights, the loss's shift.
    One that corrects nothing is left out."""
    weight_C, shift_C = epoch.weight_C, _shift(epoch)
    priors = []
    if not sampling.is_natural(epoch.exposure_C, count_C):
        priors.append(epoch.exposure_C)
    if not torch.allclose(weight_C[epoch.exposure_C > 0], weight_C.max()):
        priors.append(count_C * weight_C)
    if bool(shift_C.abs().max() > 1e-6):
        priors.append(epoch.exposure_C * torch.exp(-shift_C))
    return priors


def heuristics(strategy: Strategy) -> list[str]:
    """What favours rare classes and cannot be written as a prior, in words: no row of the ledger shows it."""
    texts = [epoch.loss.heuristic for _, _, epoch in periods(strategy)]
    if strategy.columns.schedule.retrains:
        texts.append("the classifier is retrained on frozen features")
    return [text for text in dict.fromkeys(texts) if text]


def timeline(strategy: Strategy) -> list[dict[str, object]]:
    """The effective prior by epochs: a row for each of `periods`."""
    return [
        {
            "epochs": [first, last],
            "exposure": epoch.exposure_C.tolist(),
            "weight": epoch.weight_C.tolist(),
            "shift": _shift(epoch).tolist(),
            "effective_prior": effective_prior(epoch).tolist(),
            "over_correction": over_correction_of(effective_prior(epoch), strategy.original_C),
            "mixing": epoch.mix is not None,
            "loss": epoch.loss.heuristic,
        }
        for first, last, epoch in periods(strategy)
    ]
