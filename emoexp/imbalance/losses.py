"""Losses: one value for each sample; class weights and the mean are the training loop's.

All have one interface: logits, target, features, the ledger's constants and the progress of the run, so that a loss
that adjusts by a prior, or changes on the way, needs no other door.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Constants:
    """What a loss may know of the classes: float32 tensors of C values on the device of the logits.

    count_C: images of each class in the pool. share_C: the share of draws it gets, which is the prior that training
    really sees. weight_C: its weight, with a mean sample weight of 1.
    """

    count_C: Tensor
    share_C: Tensor
    weight_C: Tensor


def cross_entropy(
    logits_BC: Tensor,
    target: Tensor,
    feature_BF: Tensor,
    constants: Constants,
    progress: float | Tensor,
    *,
    smoothing: float,
) -> Tensor:
    """Softmax cross-entropy in nats. `smoothing` in [0, 1) moves that share of the target to all classes alike.

    Smoothing comes before the class weight, so that a rare class's weight does not leak into every sample.
    """
    return -(distribution(target, logits_BC.shape[1], smoothing) * functional.log_softmax(logits_BC, 1)).sum(1)


def focal(
    logits_BC: Tensor,
    target: Tensor,
    feature_BF: Tensor,
    constants: Constants,
    progress: float | Tensor,
    *,
    gamma: float,
    smoothing: float,
) -> Tensor:
    """Softmax focal loss -(1-p)^gamma·log p of the target class: Lin et al., ICCV 2017 (arXiv 1708.02002), equation 4.

    p comes from the unweighted logits; a class weight multiplies the result. A gamma of 0 is cross-entropy.
    """
    log_p = functional.log_softmax(logits_BC, 1)
    focus = (-torch.expm1(log_p)).clamp(min=1e-7) ** gamma  # (1-p)^gamma; the floor keeps the gradient finite at p = 1
    return -(distribution(target, logits_BC.shape[1], smoothing) * focus * log_p).sum(1)


def distribution(target: Tensor, classes: int, smoothing: float) -> Tensor:
    """Class indices B or soft targets B×C as float32 distributions B×C, smoothed towards the uniform one."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"imbalance.loss.smoothing lies in 0 <= smoothing < 1; it is {smoothing}")
    soft = target if target.is_floating_point() else _one_hot(target, classes)
    return soft * (1 - smoothing) + smoothing / classes if smoothing else soft


def _one_hot(target_B: Tensor, classes: int) -> Tensor:
    """torch's one_hot, which on a CPU reads the values to check them, and so could not be captured."""
    return (target_B[:, None] == torch.arange(classes, device=target_B.device)).to(torch.float32)
