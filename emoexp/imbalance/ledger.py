"""One ledger of the prior that training aims at, whatever mixture of columns is in use, epoch by epoch.

Training that meets labels in shares q, weighs them by w and spares the network a log-prior a aims at a prior
proportional to q·w/e^a. The ledger keeps every factor. What favours rare classes without being a prior is named as a
heuristic.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from emoexp.imbalance import copies, losses, sampling, weights
from emoexp.imbalance.losses import Loss
from emoexp.imbalance.mixing import Mix
from emoexp.imbalance.schedule import TIMED, Schedule

OVER = 1.05  # a rarer class that counts this much more than a more frequent one is named an over-correction
PLAIN = partial(losses.cross_entropy, smoothing=0.0)
NEVER = Schedule()


@dataclass(frozen=True)
class Columns:
    """What a strategy is made of, as functions of class counts; what is left out does nothing.

    target: images of each class once copies were added. share: draws of each class, at a progress of the run in 0..1.
    weight, loss: of the classes' counts. replacement: whether `share` is drawn with it; else classes take turns, and
    each deals its items like a deck.
    """

    target: Callable[[Tensor], Tensor] = copies.none
    share: Callable[[Tensor, float], Tensor] = sampling.uniform
    weight: Callable[[Tensor], Tensor] = weights.none
    loss: Callable[[Tensor, Tensor], Loss] = PLAIN
    schedule: Schedule = NEVER
    mix: Mix | None = None
    replacement: bool = True

    def stage(self, count_C: Tensor, epoch: int, epochs: int) -> "Stage":
        """What the strategy does in an epoch, given the counts of the pool."""
        first, progress = self.schedule.first(epochs), (epoch + 0.5) / epochs  # an epoch's middle stands for it
        second = epoch >= first > 0
        acts = {column: self.schedule.acts(column, second or first == 0) for column in TIMED}
        share_C = (self.share if acts["sampling"] else sampling.uniform)(count_C, progress)
        mix = self.mix if self.mix and acts["mix"] and self.mix.acts(progress) else None
        exposure_C = mix.exposure(count_C, share_C) if mix else share_C
        weight_C = weights.normalised((self.weight if acts["weights"] else weights.none)(count_C), exposure_C)
        loss = (self.loss if acts["loss"] else PLAIN)(count_C, exposure_C)
        return Stage(share_C, exposure_C, weight_C, loss, mix, acts["sampling"] and not self.replacement, second)


@dataclass(frozen=True)
class Stage:
    """What a strategy does in an epoch, float64 tensors of C classes.

    share_C: share of draws. exposure_C: share of the labels that training meets, which mixing may shift. weight_C: of
    the loss, mean sample weight 1. mix: how images are mixed, None where they are not. decks: whether classes take
    turns and deal without replacement. second: whether it belongs to the second part.
    """

    share_C: Tensor
    exposure_C: Tensor
    weight_C: Tensor
    loss: Loss
    mix: Mix | None
    decks: bool
    second: bool


@dataclass(frozen=True)
class Plan:
    """A strategy, worked out for the training part: the pool, and what each epoch does with it.

    parent_P, copy_P, label_P: int64 lineage and class of each item of the pool. image_C, count_C: int64 originals and
    items of each class. stages: one for each epoch. epoch_size: draws an epoch.
    """

    parent_P: Tensor
    copy_P: Tensor
    label_P: Tensor
    image_C: Tensor
    count_C: Tensor
    columns: Columns
    stages: tuple[Stage, ...]
    epoch_size: int
    _dealt: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def stage(self, epoch: int) -> Stage:
        """What the strategy does in an epoch; after the run, what it did in the last one."""
        return self.stages[min(epoch, len(self.stages) - 1)]

    @property
    def first(self) -> int:
        """The epoch, from 0, from which on the whole strategy is in force."""
        return next((epoch for epoch, stage in enumerate(self.stages) if stage.second), 0)

    def order(self, epoch: int, seed: int) -> Tensor:
        """Items of the pool that an epoch draws (int64)."""
        stage = self.stage(epoch)
        if not stage.decks:
            return sampling.order(self.label_P, stage.share_C, size=self.epoch_size, seed=seed, epoch=epoch)
        turn_E = sampling.turns(stage.share_C, size=self.epoch_size, seed=seed, epoch=epoch)
        return sampling.deal(self.label_P, turn_E, self._dealt_before(epoch, seed), seed=seed)

    def _dealt_before(self, epoch: int, seed: int) -> Tensor:
        """How many items of each class decks have dealt in earlier epochs."""
        known = max((at for of, at in self._dealt if of == seed and at <= epoch), default=0)
        dealt_C = self._dealt.get((seed, known), torch.zeros_like(self.count_C))
        for at in range(known, epoch):
            if (stage := self.stage(at)).decks:
                turn_E = sampling.turns(stage.share_C, size=self.epoch_size, seed=seed, epoch=at)
                dealt_C = dealt_C + torch.bincount(turn_E, minlength=len(dealt_C))
            self._dealt[seed, at + 1] = dealt_C
        return dealt_C

    def partners(self, epoch: int, seed: int) -> Tensor | None:
        """Items that the drawn ones are mixed with; None where nothing is mixed."""
        stage = self.stage(epoch)
        if stage.mix is None:
            return None
        share_C = stage.mix.partners(self.count_C, stage.share_C)
        return sampling.order(self.label_P, share_C, size=self.epoch_size, seed=seed, epoch=epoch, purpose="partners")


def plan(label_N: Tensor, num_classes: int, columns: Columns, *, epochs: int, epoch_size: int | str, seed: int) -> Plan:
    """Work a strategy out for the labels of the training part.

    All columns but copies see the counts after copies were added. `epoch_size` is "pool", "originals" or a number of
    draws.
    """
    image_C = torch.bincount(label_N, minlength=num_classes)
    parent_P, copy_P = copies.lineage(label_N, columns.target(image_C), seed=seed)
    label_P = label_N[parent_P]
    count_C = torch.bincount(label_P, minlength=num_classes)
    size = {"pool": len(label_P), "originals": len(label_N)}.get(str(epoch_size), epoch_size)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"imbalance.epoch_size is pool, originals or a number of draws above 0; it is {epoch_size!r}")
    stages = tuple(columns.stage(count_C, epoch, epochs) for epoch in range(epochs))
    if columns.mix and not any(stage.mix for stage in stages):
        raise ValueError(
            f"imbalance.mix mixes in none of the {epochs} epochs: lower imbalance.mix.edge, or take mix=none"
        )
    return Plan(parent_P, copy_P, label_P, image_C, count_C, columns, stages, size)


def periods(plan: Plan) -> list[tuple[int, int, Stage]]:
    """Runs of epochs that do the same: first and last epoch, from 1, and what they do."""
    found: list[tuple[int, int, Stage]] = []
    for epoch, stage in enumerate(plan.stages, 1):
        if found and _alike(found[-1][2], stage):
            found[-1] = (found[-1][0], epoch, found[-1][2])
        else:
            found.append((epoch, epoch, stage))
    return found


def _alike(one: Stage, other: Stage) -> bool:
    same = ("mix", "decks", "second")
    if any(getattr(one, name) != getattr(other, name) for name in same) or one.loss.heuristic != other.loss.heuristic:
        return False
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("share_C", "exposure_C", "weight_C")]
    pairs += [(getattr(one.loss, name), getattr(other.loss, name)) for name in losses.OWN]
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def rows(plan: Plan, class_names: Sequence[str]) -> list[dict[str, float | int | str]]:
    """The ledger as a table, one row for each class. Of a run in two parts it tells the second, which it ends with;
    what changes from epoch to epoch is given as its mean.

    images, copies: what the pool holds. draws: expected an epoch. unique: expected different items among them.
    exposure: share of the labels that training meets, where mixing makes it another than that of the draws. weight: of
    the loss, over these labels. shift: log-prior that the loss spares the network, shifted to a mean of 0; where there
    is one. prior: share of the originals. effective_prior: what training aims at. correction: effective prior over
    prior, 1 where nothing is corrected.
    """
    prior_C = plan.image_C.double() / plan.image_C.sum()
    stages = plan.stages[plan.first :]
    share_C, exposure_C = (_mean([getattr(stage, name) for stage in stages]) for name in ("share_C", "exposure_C"))
    weight_C = _mean([stage.exposure_C * stage.weight_C for stage in stages]) / exposure_C.clamp(min=1e-300)
    shift_C = _mean([_shift(stage) for stage in stages])
    unique_C = _mean([_unique(plan, stage) for stage in stages])
    effective_C = _mean([effective_prior(stage) for stage in stages])
    table: list[dict[str, float | int | str]] = []
    for c, name in enumerate(class_names):
        count = int(plan.count_C[c])
        table.append(
            {
                "class": name,
                "images": int(plan.image_C[c]),
                "copies": count - int(plan.image_C[c]),
                "draws": round(float(share_C[c]) * plan.epoch_size, 2),
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


def _shift(stage: Stage) -> Tensor:
    """The log-prior that the loss spares the network, with a mean of 0, which changes no loss."""
    shift_C = stage.loss.shift_C
    return torch.zeros_like(stage.share_C) if shift_C is None else shift_C - shift_C.mean()


def _unique(plan: Plan, stage: Stage) -> Tensor:
    """Expected different items of each class in an epoch's draws."""
    draws_C, count_C = stage.share_C * plan.epoch_size, plan.count_C.double()
    if stage.decks:
        return torch.stack([sampling.unique_dealt(*pair) for pair in zip(draws_C, count_C, strict=True)])
    if sampling.is_natural(stage.share_C, plan.count_C):
        return torch.minimum(draws_C, count_C)
    return count_C * (1 - (1 - stage.share_C / count_C.clamp(min=1)) ** plan.epoch_size)


def effective_prior(stage: Stage) -> Tensor:
    """float64 C: share of the labels times weight over what the loss takes away, summing to 1."""
    product = stage.exposure_C * stage.weight_C * torch.exp(-_shift(stage))
    return product / product.sum()


def over_correction(plan: Plan) -> float:
    """How much more the effective prior of any epoch gives to a rarer class than to a more frequent one, at worst.

    At most 1 for every single strategy; inverse sampling with inverse weights gives n_max/n_min.
    """
    return max(over(effective_prior(stage), plan.image_C) for _, _, stage in periods(plan))


def over(prior_C: Tensor, image_C: Tensor) -> float:
    """How much more a prior gives to a rarer class than to a more frequent one, at worst."""
    present = image_C > 0
    effective, image = prior_C[present], image_C[present]
    ratio = effective[:, None] / effective[None, :]
    return float(torch.where(image[:, None] <= image[None, :], ratio, 0.0).max())


def warning(plan: Plan, class_names: Sequence[str]) -> str | None:
    """The sentence that names a double correction, or one that goes too far by itself; None where there is neither."""
    first, last, stage = max(periods(plan), key=lambda period: over(effective_prior(period[2]), plan.image_C))
    effective = effective_prior(stage)
    factor = over(effective, plan.image_C)
    if factor <= OVER:
        return None
    top, low = int(effective.argmax()), int(torch.where(plan.image_C > 0, effective, 2.0).argmin())
    epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
    when = "" if (first, last) == (1, len(plan.stages)) else f" in {epochs}"
    alone = [over(prior_C, plan.image_C) for prior_C in _corrections(stage, plan.count_C)]
    several = len(alone) > 1 and factor > OVER * max(alone)
    counted = [f"{class_names[c]} ({int(plan.image_C[c])} images)" for c in (top, low)]
    stops = "; each strategy alone would stop at equal" if several and max(alone) <= OVER else ""
    return (
        f"{'double correction' if several else 'over-correction'}{when}: training counts {counted[0]} {factor:.3g} "
        f"times what it counts {counted[1]}{stops}"
    )


def _corrections(stage: Stage, count_C: Tensor) -> list[Tensor]:
    """The priors that draws or mixing, weights, and the loss would each aim at alone, of those that move one."""
    weight_C, shift_C = stage.weight_C, _shift(stage)
    weigh = not torch.allclose(weight_C[stage.exposure_C > 0], weight_C.max())
    moved = [] if sampling.is_natural(stage.exposure_C, count_C) else [stage.exposure_C]
    moved += [count_C * weight_C] if weigh else []
    return moved + ([stage.exposure_C * torch.exp(-shift_C)] if bool(shift_C.abs().max() > 1e-6) else [])


def heuristics(plan: Plan) -> list[str]:
    """What favours rare classes without being a prior, and so stands in no row of the ledger."""
    retrained = ["the classifier is retrained on frozen features"] if plan.columns.schedule.retrains else []
    told = [stage.loss.heuristic for _, _, stage in periods(plan)] + retrained
    return [text for text in dict.fromkeys(told) if text]


def timeline(plan: Plan) -> list[dict[str, object]]:
    """The effective prior by epochs: a row for each run of epochs that do the same."""
    return [
        {
            "epochs": [first, last],
            "exposure": stage.exposure_C.tolist(),
            "weight": stage.weight_C.tolist(),
            "shift": _shift(stage).tolist(),
            "effective_prior": effective_prior(stage).tolist(),
            "over_correction": over(effective_prior(stage), plan.image_C),
            "mixing": stage.mix is not None,
            "loss": stage.loss.heuristic,
        }
        for first, last, stage in periods(plan)
    ]
