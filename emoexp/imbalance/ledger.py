"""One ledger of the prior that training aims at, whatever mixture of columns is in use, epoch by epoch.

Training that meets labels in shares q, weighs them by w and spares the network a log-prior a aims at a prior
proportional to q·w/e^a. The ledger keeps every factor. What favours rare classes without being a prior is named as a
heuristic.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from emoexp.imbalance import losses, sampling
from emoexp.imbalance.strategy import EpochStrategy, Strategy

OVER = 1.05  # a rarer class that counts this much more than a more frequent one is named an over-correction


def periods(strategy: Strategy) -> list[tuple[int, int, EpochStrategy]]:
    """Runs of epochs that do the same: first and last epoch, from 1, and what they do."""
    found: list[tuple[int, int, EpochStrategy]] = []
    for epoch, stage in enumerate(strategy.per_epoch, 1):
        if found and _alike(found[-1][2], stage):
            found[-1] = (found[-1][0], epoch, found[-1][2])
        else:
            found.append((epoch, epoch, stage))
    return found


def _alike(one: EpochStrategy, other: EpochStrategy) -> bool:
    same = ("mix", "without_replacement", "second_stage")
    if any(getattr(one, name) != getattr(other, name) for name in same) or one.loss.heuristic != other.loss.heuristic:
        return False
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("share_C", "exposure_C", "weight_C")]
    pairs += [(getattr(one.loss, name), getattr(other.loss, name)) for name in losses.OWN]
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def rows(strategy: Strategy, class_names: Sequence[str]) -> list[dict[str, float | int | str]]:
    """The ledger as a table, one row for each class. Of a run in two parts it tells the second, which it ends with;
    what changes from epoch to epoch is given as its mean.

    images, copies: what the pool holds. draws: expected an epoch. unique: expected different items among them.
    exposure: share of the labels that training meets, where mixing makes it another than that of the draws. weight: of
    the loss, over these labels. shift: log-prior that the loss spares the network, shifted to a mean of 0; where there
    is one. prior: share of the originals. effective_prior: what training aims at. correction: effective prior over
    prior, 1 where nothing is corrected.
    """
    prior_C = strategy.image_C.double() / strategy.image_C.sum()
    stages = strategy.per_epoch[strategy.second_stage_start :]
    share_C, exposure_C = (_mean([getattr(stage, name) for stage in stages]) for name in ("share_C", "exposure_C"))
    weight_C = _mean([stage.exposure_C * stage.weight_C for stage in stages]) / exposure_C.clamp(min=1e-300)
    shift_C = _mean([_shift(stage) for stage in stages])
    unique_C = _mean([_unique(strategy, stage) for stage in stages])
    effective_C = _mean([effective_prior(stage) for stage in stages])
    table: list[dict[str, float | int | str]] = []
    for c, name in enumerate(class_names):
        count = int(strategy.count_C[c])
        table.append(
            {
                "class": name,
                "images": int(strategy.image_C[c]),
                "copies": count - int(strategy.image_C[c]),
                "draws": round(float(share_C[c]) * strategy.epoch_size, 2),
                "unique": round(float(unique_C[c]), 2),
                **({"exposure": round(float(exposure_C[c]), 6)} if any(stage.mix for stage in stages) else {}),
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


def _shift(stage: EpochStrategy) -> Tensor:
    """The log-prior that the loss spares the network, with a mean of 0, which changes no loss."""
    shift_C = stage.loss.shift_C
    return torch.zeros_like(stage.share_C) if shift_C is None else shift_C - shift_C.mean()


def _unique(strategy: Strategy, stage: EpochStrategy) -> Tensor:
    """Expected different items of each class in an epoch's draws."""
    draws_C, count_C = stage.share_C * strategy.epoch_size, strategy.count_C.double()
    if stage.without_replacement:
        return torch.stack([sampling.unique_dealt(*pair) for pair in zip(draws_C, count_C, strict=True)])
    if sampling.is_natural(stage.share_C, strategy.count_C):
        return torch.minimum(draws_C, count_C)
    return count_C * (1 - (1 - stage.share_C / count_C.clamp(min=1)) ** strategy.epoch_size)


def effective_prior(stage: EpochStrategy) -> Tensor:
    """float64 C: share of the labels times weight over what the loss takes away, summing to 1."""
    product = stage.exposure_C * stage.weight_C * torch.exp(-_shift(stage))
    return product / product.sum()


def over_correction(strategy: Strategy) -> float:
    """How much more the effective prior of any epoch gives to a rarer class than to a more frequent one, at worst.

    At most 1 for every single strategy; inverse sampling with inverse weights gives n_max/n_min.
    """
    return max(over(effective_prior(stage), strategy.image_C) for _, _, stage in periods(strategy))


def over(prior_C: Tensor, image_C: Tensor) -> float:
    """How much more a prior gives to a rarer class than to a more frequent one, at worst."""
    present = image_C > 0
    effective, image = prior_C[present], image_C[present]
    ratio = effective[:, None] / effective[None, :]
    return float(torch.where(image[:, None] <= image[None, :], ratio, 0.0).max())


def warning(strategy: Strategy, class_names: Sequence[str]) -> str | None:
    """The sentence that names a double correction, or one that goes too far by itself; None where there is neither."""
    first, last, stage = max(periods(strategy), key=lambda period: over(effective_prior(period[2]), strategy.image_C))
    effective = effective_prior(stage)
    factor = over(effective, strategy.image_C)
    if factor <= OVER:
        return None
    top, low = int(effective.argmax()), int(torch.where(strategy.image_C > 0, effective, 2.0).argmin())
    epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
    when = "" if (first, last) == (1, len(strategy.per_epoch)) else f" in {epochs}"
    alone = [over(prior_C, strategy.image_C) for prior_C in _corrections(stage, strategy.count_C)]
    several = len(alone) > 1 and factor > OVER * max(alone)
    counted = [f"{class_names[c]} ({int(strategy.image_C[c])} images)" for c in (top, low)]
    stops = "; each strategy alone would stop at equal" if several and max(alone) <= OVER else ""
    return (
        f"{'double correction' if several else 'over-correction'}{when}: training counts {counted[0]} {factor:.3g} "
        f"times what it counts {counted[1]}{stops}"
    )


def _corrections(stage: EpochStrategy, count_C: Tensor) -> list[Tensor]:
    """The priors that draws or mixing, weights, and the loss would each aim at alone, of those that move one."""
    weight_C, shift_C = stage.weight_C, _shift(stage)
    weigh = not torch.allclose(weight_C[stage.exposure_C > 0], weight_C.max())
    moved = [] if sampling.is_natural(stage.exposure_C, count_C) else [stage.exposure_C]
    moved += [count_C * weight_C] if weigh else []
    return moved + ([stage.exposure_C * torch.exp(-shift_C)] if bool(shift_C.abs().max() > 1e-6) else [])


def heuristics(strategy: Strategy) -> list[str]:
    """What favours rare classes without being a prior, and so stands in no row of the ledger."""
    retrained = ["the classifier is retrained on frozen features"] if strategy.columns.schedule.retrains else []
    told = [stage.loss.heuristic for _, _, stage in periods(strategy)] + retrained
    return [text for text in dict.fromkeys(told) if text]


def timeline(strategy: Strategy) -> list[dict[str, object]]:
    """The effective prior by epochs: a row for each run of epochs that do the same."""
    return [
        {
            "epochs": [first, last],
            "exposure": stage.exposure_C.tolist(),
            "weight": stage.weight_C.tolist(),
            "shift": _shift(stage).tolist(),
            "effective_prior": effective_prior(stage).tolist(),
            "over_correction": over(effective_prior(stage), strategy.image_C),
            "mixing": stage.mix is not None,
            "loss": stage.loss.heuristic,
        }
        for first, last, stage in periods(strategy)
    ]
