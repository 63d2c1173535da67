"""One ledger of the prior that training aims at, whatever mixture of copies, sampling and weights is in use.

Training with draw shares q and loss weights w aims at a prior proportional to q·w. The ledger keeps every factor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emoexp.imbalance import copies, weights

OVER = 1.05  # a rarer class that counts this much more than a more frequent one is named an over-correction


@dataclass(frozen=True)
class Plan:
    """A strategy, worked out for the training part: the pool, the draws, the weights.

    parent_P, copy_P, label_P: int64 lineage and class of each item of the pool. image_C, count_C: int64 originals and
    items of each class. share_C: float64 share of draws. weight_C: float64 weight, mean sample weight 1. epoch_size:
    draws an epoch.
    """

    parent_P: Tensor
    copy_P: Tensor
    label_P: Tensor
    image_C: Tensor
    count_C: Tensor
    share_C: Tensor
    weight_C: Tensor
    epoch_size: int


def plan(
    label_N: Tensor,
    num_classes: int,
    *,
    target: Callable[[Tensor], Tensor],
    share: Callable[[Tensor], Tensor],
    weight: Callable[[Tensor], Tensor],
    epoch_size: int | str,
    seed: int,
) -> Plan:
    """Work a strategy out for the labels of the training part.

    `target`, `share` and `weight` are the columns copies, sampling and weights as functions of class counts; the last
    two see the counts after copies were added. `epoch_size` is "pool", "originals" or a number of draws.
    """
    image_C = torch.bincount(label_N, minlength=num_classes)
    parent_P, copy_P = copies.lineage(label_N, target(image_C), seed=seed)
    label_P = label_N[parent_P]
    count_C = torch.bincount(label_P, minlength=num_classes)
    share_C = share(count_C)
    weight_C = weights.normalised(weight(count_C), share_C)
    size = {"pool": len(label_P), "originals": len(label_N)}.get(str(epoch_size), epoch_size)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"imbalance.epoch_size is pool, originals or a number of draws above 0; it is {epoch_size!r}")
    return Plan(parent_P, copy_P, label_P, image_C, count_C, share_C, weight_C, size)


def rows(plan: Plan, class_names: Sequence[str]) -> list[dict[str, float | int | str]]:
    """The ledger as a table, one row for each class.

    images, copies: what the pool holds. draws: expected an epoch. unique: expected different items among them.
    weight: of the loss. prior: share of the originals. effective_prior: what training aims at, q·w normalised.
    correction: effective prior over prior, 1 where nothing is corrected.
    """
    prior_C = plan.image_C.double() / plan.image_C.sum()
    effective_C = effective_prior(plan)
    natural = torch.allclose(plan.share_C, plan.count_C.double() / plan.count_C.sum(), rtol=0, atol=1e-12)
    table: list[dict[str, float | int | str]] = []
    for c, name in enumerate(class_names):
        count, draws = int(plan.count_C[c]), float(plan.share_C[c]) * plan.epoch_size
        miss = (1 - float(plan.share_C[c]) / count) ** plan.epoch_size if count else 1.0
        unique = min(draws, count) if natural else count * (1 - miss)
        table.append(
            {
                "class": name,
                "images": int(plan.image_C[c]),
                "copies": count - int(plan.image_C[c]),
                "draws": round(draws, 2),
                "unique": round(unique, 2),
                "weight": round(float(plan.weight_C[c]), 6),
                "prior": round(float(prior_C[c]), 6),
                "effective_prior": round(float(effective_C[c]), 6),
                "correction": round(float(effective_C[c] / prior_C[c]), 4) if count else 0.0,
            }
        )
    return table


def effective_prior(plan: Plan) -> Tensor:
    """float64 C: share of draws times weight, summing to 1."""
    product = plan.share_C * plan.weight_C
    return product / product.sum()


def over_correction(plan: Plan) -> float:
    """How much more the effective prior gives to a rarer class than to a more frequent one, at worst.

    At most 1 for every single strategy; inverse sampling with inverse weights gives n_max/n_min.
    """
    present = plan.image_C > 0
    effective, image = effective_prior(plan)[present], plan.image_C[present]
    ratio = effective[:, None] / effective[None, :]
    return float(torch.where(image[:, None] <= image[None, :], ratio, 0.0).max())


def warning(plan: Plan, class_names: Sequence[str]) -> str | None:
    """The sentence that names a double correction, or None."""
    factor = over_correction(plan)
    if factor <= OVER:
        return None
    effective = effective_prior(plan)
    top, low = int(effective.argmax()), int(torch.where(plan.image_C > 0, effective, 2.0).argmin())
    return (
        f"double correction: training counts {class_names[top]} ({int(plan.image_C[top])} images) {factor:.3g} times "
        f"what it counts {class_names[low]} ({int(plan.image_C[low])} images); each strategy alone would stop at equal"
    )
