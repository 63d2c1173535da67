"""Losses: one value for each sample; class weights and the mean are the training loop's.

An option of conf/imbalance/loss is a function of the classes' counts and of the shares in which training meets them. It
gives a `Loss`: a formula, and the constants that make it this loss. Most published losses are the softmax formula with
a scale, a shift, a margin, a focus or a smoothing; what is neutral is left out and costs nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Constants:
    """What a formula may know of the classes: float32 tensors of C values on the device of the logits.

    count_C: images of each class in the pool. share_C: the share of the labels that training meets, which is the prior
    that it really sees. weight_C: the class's weight, with a mean sample weight of 1. The others are a loss's own, None
    where they are neutral: scale_C multiplies the logits, shift_C is added to them, margin_C is taken from the
    target's; smoothing_C is the share of the target that samples of a class give to all classes alike; focus (one
    value) is the exponent of focal losses.
    """

    count_C: Tensor
    share_C: Tensor
    weight_C: Tensor
    scale_C: Tensor | None = None
    shift_C: Tensor | None = None
    margin_C: Tensor | None = None
    smoothing_C: Tensor | None = None
    focus: Tensor | None = None


# logits B×C, target (int64 B or float B×C), features B×F, constants, progress of the run in 0..1: loss of each sample
Formula = Callable[[Tensor, Tensor, Tensor, Constants, float | Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A formula and its own constants, float64, named as in `Constants`.

    shift_C is a log-prior that the network is spared from learning, which the ledger takes into account. heuristic:
    what else favours rare classes and is no prior, in words; empty where nothing does.
    """

    formula: Formula
    heuristic: str = ""
    scale_C: Tensor | None = None
    shift_C: Tensor | None = None
    margin_C: Tensor | None = None
    smoothing_C: Tensor | None = None
    focus: Tensor | None = None

    def constants(self, count_C: Tensor, share_C: Tensor, weight_C: Tensor, device: torch.device) -> Constants:
        """As the formula takes them."""
        own = {name: getattr(self, name) for name in OWN}
        moved = {name: value.float().to(device) for name, value in own.items() if value is not None}
        return Constants(*(value.float().to(device) for value in (count_C, share_C, weight_C)), **moved)


OWN = tuple(field.name for field in fields(Constants))[3:]


def softmax(
    logits_BC: Tensor, target: Tensor, feature_BF: Tensor, constants: Constants, progress: float | Tensor
) -> Tensor:
    """Softmax cross-entropy in nats of scale·logits + shift - margin of the target, focused, with a smoothed target.

    The focus of a class is (1-p)^focus of its own unweighted probability. Smoothing comes before the class weight, so
    that a rare class's weight does not leak into every sample.
    """
    soft_BC = distribution(target, logits_BC.shape[1])
    if constants.scale_C is not None:
        logits_BC = logits_BC * constants.scale_C
    if constants.shift_C is not None:
        logits_BC = logits_BC + constants.shift_C
    if constants.margin_C is not None:
        logits_BC = logits_BC - soft_BC * constants.margin_C
    log_p = functional.log_softmax(logits_BC, 1)
    value = log_p if constants.focus is None else log_p * _rest(log_p) ** constants.focus
    return -(smoothed(soft_BC, constants) * value).sum(1)


def one_vs_rest(
    logits_BC: Tensor, target: Tensor, feature_BF: Tensor, constants: Constants, progress: float | Tensor
) -> Tensor:
    """Focal binary cross-entropies of each class against the rest, summed over classes.

    The logits are lowered by log(C-1), so that a network which says nothing gives each class 1/C; the authors begin the
    last layer's bias there, and keep weight decay off it.
    """
    soft_BC = smoothed(distribution(target, logits_BC.shape[1]), constants)
    logits_BC = logits_BC - math.log(max(logits_BC.shape[1] - 1, 1))
    yes, no = functional.logsigmoid(logits_BC), functional.logsigmoid(-logits_BC)
    if constants.focus is not None:
        yes, no = yes * _rest(yes) ** constants.focus, no * _rest(no) ** constants.focus
    return -(soft_BC * yes + (1 - soft_BC) * no).sum(1)


def hinge(
    logits_BC: Tensor, target: Tensor, feature_BF: Tensor, constants: Constants, progress: float | Tensor
) -> Tensor:
    """Squared hinges of each class against the rest, max(0, margin ∓ logit)², summed over classes."""
    soft_BC = smoothed(distribution(target, logits_BC.shape[1]), constants)
    assert constants.margin_C is not None, "squared_hinge gives it"
    yes, no = (functional.relu(constants.margin_C + sign * logits_BC) ** 2 for sign in (-1, 1))
    return (soft_BC * yes + (1 - soft_BC) * no).sum(1)


def influence(
    logits_BC: Tensor,
    target: Tensor,
    feature_BF: Tensor,
    constants: Constants,
    progress: float | Tensor,
    *,
    alpha: float,
    epsilon: float,
    detach: bool,
) -> Tensor:
    """Softmax cross-entropy over a sample's influence ‖p-y‖₁·‖h‖₁ on the last layer's weights, times alpha."""
    apart_BC = torch.softmax(logits_BC, 1) - distribution(target, logits_BC.shape[1])
    factor_B = 1 / (apart_BC.abs().sum(1) * feature_BF.to(logits_BC.dtype).abs().sum(1) + epsilon)
    factor_B = factor_B.detach() if detach else factor_B
    return alpha * factor_B * softmax(logits_BC, target, feature_BF, constants, progress)


def distribution(target: Tensor, classes: int) -> Tensor:
    """Class indices B, or soft targets B×C as they are, as distributions B×C."""
    if target.is_floating_point():
        return target
    # torch's one_hot on a CPU reads the values to check them, and so could not be captured
    return (target[:, None] == torch.arange(classes, device=target.device)).to(torch.float32)


def smoothed(soft_BC: Tensor, constants: Constants) -> Tensor:
    """Targets with each class's share of smoothing given to all classes alike."""
    if constants.smoothing_C is None:
        return soft_BC
    share_B1 = (soft_BC * constants.smoothing_C).sum(1, keepdim=True)
    return soft_BC * (1 - share_B1) + share_B1 / soft_BC.shape[1]


def _rest(log_p: Tensor) -> Tensor:
    """1-p; the floor keeps the gradient of a power of it finite at p = 1."""
    return (-torch.expm1(log_p)).clamp(min=1e-7)


# The options of conf/imbalance/loss: functions of int64 counts and float64 shares of C classes.


def cross_entropy(count_C: Tensor, share_C: Tensor, *, smoothing: float) -> Loss:
    """Softmax cross-entropy. `smoothing` in [0, 1) moves that share of the target to all classes alike."""
    return Loss(softmax, smoothing_C=_same_smoothing(count_C, smoothing))


def focal(count_C: Tensor, share_C: Tensor, *, gamma: float, smoothing: float) -> Loss:
    """Softmax focal loss -(1-p)^gamma·log p: Lin et al., ICCV 2017 (arXiv 1708.02002), equation 4, for one target of
    many. A gamma of 0 is cross-entropy."""
    return Loss(softmax, _easy(gamma), smoothing_C=_same_smoothing(count_C, smoothing), focus=_focus(gamma))


def focal_ovr(count_C: Tensor, share_C: Tensor, *, gamma: float, smoothing: float) -> Loss:
    """Sigmoid focal loss of each class against the rest, summed: Lin et al., ICCV 2017, as Cui et al., CVPR 2019 (arXiv
    1901.05555), section 4.3, train it."""
    smoothing_C = _same_smoothing(count_C, smoothing)
    return Loss(one_vs_rest, _easy(gamma), smoothing_C=smoothing_C, focus=_focus(gamma))


def squared_hinge(count_C: Tensor, share_C: Tensor, *, margin: float, smoothing: float) -> Loss:
    """Squared hinge of each class against the rest (L2-SVM): Tang, 2013 (arXiv 1306.0239)."""
    smoothing_C = _same_smoothing(count_C, smoothing)
    return Loss(hinge, margin_C=torch.full((len(count_C),), margin, dtype=torch.float64), smoothing_C=smoothing_C)


def ldam(count_C: Tensor, share_C: Tensor, *, margin: float, scale: float, smoothing: float) -> Loss:
    """Label-distribution-aware margins: Cao et al., NeurIPS 2019 (arXiv 1906.07413), equations 12 and 13.

    The target's logit is lowered by scale·margin·(n_min/n_c)^(1/4). `scale` is that of the normalised head
    (`heads.CosineClassifier`), whose logits carry it already; `margin` is a cosine. A margin of 0 is cross-entropy.
    """
    least = _counted(count_C).min().double()
    margin_C = scale * margin * (least / count_C.double()) ** 0.25 if margin else None
    why = "rare classes get larger margins" if margin else ""
    return Loss(softmax, why, margin_C=margin_C, smoothing_C=_same_smoothing(count_C, smoothing))


def vector_scaling(count_C: Tensor, share_C: Tensor, *, gamma: float, tau: float, smoothing: float) -> Loss:
    """Logits (n_c/n_max)^gamma·z + tau·log of the prior: Kini et al., NeurIPS 2021 (arXiv 2103.01550).

    The prior is the one that training meets, whatever samples or mixes it. gamma 0 is the logit-adjusted loss (Menon et
    al., ICLR 2021, arXiv 2007.07314, equation 10), at tau 1 balanced softmax (Ren et al., NeurIPS 2020, arXiv
    2007.10740, equation 4); tau 0 is class-dependent temperatures (Ye et al., 2020, arXiv 2001.01385).
    """
    ratio = _counted(count_C).double() / count_C.max()
    return Loss(
        softmax,
        "logits of rare classes are scaled down in training" if gamma else "",
        scale_C=ratio**gamma if gamma else None,
        shift_C=tau * share_C.log() if tau else None,
        smoothing_C=_same_smoothing(count_C, smoothing),
    )


def label_aware_smoothing(count_C: Tensor, share_C: Tensor, *, frequent: float, rare: float, shape: str) -> Loss:
    """Smoothing by class, `frequent` of the largest and `rare` of the smallest: Zhong et al., CVPR 2021 (arXiv
    2104.00466), section 3.2, as the authors' code has it, with a share for all classes, the target's too. shape, of
    what lies between: concave, linear or convex."""
    count = _counted(count_C).double()
    t = (count - count.min()) / (count.max() - count.min()).clamp(min=1)
    curves = {"concave": (t * math.pi / 2).sin(), "linear": t, "convex": 1 - (t * math.pi / 2).cos()}
    return Loss(softmax, "frequent classes are smoothed more", smoothing_C=rare + (frequent - rare) * curves[shape])


def influence_balanced(
    count_C: Tensor, share_C: Tensor, *, alpha: float, epsilon: float, detach: bool, smoothing: float
) -> Loss:
    """Cross-entropy over each sample's influence: Park et al., ICCV 2021 (arXiv 2110.02444), equations 5 and 6.

    alpha: a factor, which scales the learning rate of plain gradient descent. detach: no gradient through the
    influence.
    """
    formula = partial(influence, alpha=alpha, epsilon=epsilon, detach=detach)
    return Loss(formula, "influential samples count less", smoothing_C=_same_smoothing(count_C, smoothing))


def _same_smoothing(count_C: Tensor, smoothing: float) -> Tensor | None:
    return torch.full((len(count_C),), smoothing, dtype=torch.float64) if smoothing else None


def _focus(gamma: float) -> Tensor | None:
    return torch.tensor(gamma, dtype=torch.float64) if gamma else None


def _easy(gamma: float) -> str:
    return "easy samples count less" if gamma else ""


def _counted(count_C: Tensor) -> Tensor:
    """The counts, each at least 1.

    Raises:
        ValueError: a class without images, for which there is no such loss.
    """
    if bool((count_C < 1).any()):
        empty = torch.nonzero(count_C < 1).flatten().tolist()
        raise ValueError(
            f"imbalance.loss: no training images of class number {', '.join(map(str, empty))} (from 0); this loss "
            "needs every class: add images, or leave the class out of the data"
        )
    return count_C
