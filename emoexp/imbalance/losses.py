"""Losses: one value for each sample; the training step multiplies it by the class weight and takes the mean.

An option of conf/imbalance/loss is a function of the classes' counts and of the shares in which training meets them. It
returns a `Loss`: a formula, and the constants that tell this loss from others with the same formula. Most published
losses are the softmax formula with a scale, a shift, a margin, a focus or a smoothing; a constant that changes nothing
is None and costs no time.
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

    count_C: images of each class in the pool. exposure_C: the class's share of the labels that training meets.
    weight_C: the class's weight, with a mean sample weight of 1. The others are set by the loss, None where they would
    change nothing: scale_C multiplies the logits, shift_C is added to them, margin_C is subtracted from the target's
    logit; smoothing_C is the share of the target that samples of a class give to all classes alike; focus (one value)
    is the exponent of focal losses.
    """

    count_C: Tensor
    exposure_C: Tensor
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
    """A formula and the constants that the loss sets, float64, named as in `Constants`.

    shift_C: a log-prior that is added to the logits in training, so that the network itself does not learn it; the
    ledger takes it into account. heuristic: in words, what else decides which classes or samples count more and is no
    prior; empty where nothing does.
    """

    formula: Formula
    heuristic: str = ""
    scale_C: Tensor | None = None
    shift_C: Tensor | None = None
    margin_C: Tensor | None = None
    smoothing_C: Tensor | None = None
    focus: Tensor | None = None

    def constants(self, count_C: Tensor, exposure_C: Tensor, weight_C: Tensor, device: torch.device) -> Constants:
        """All constants, as the formula takes them."""
        values = {name: getattr(self, name) for name in CONSTANT_NAMES}
        values |= {"count_C": count_C, "exposure_C": exposure_C, "weight_C": weight_C}
        return Constants(**{name: value.float().to(device) for name, value in values.items() if value is not None})


CONSTANT_NAMES = tuple(field.name for field in fields(Constants) if field.default is None)  # those that a loss sets


def softmax(
    logits_BC: Tensor, target: Tensor, feature_BF: Tensor, constants: Constants, progress: float | Tensor
) -> Tensor:
    """Softmax cross-entropy in nats of scale·logits + shift, with a margin off the target's logit, a focus and label
    smoothing.

    The focus multiplies the log-probability of each class by (1-p)^focus. Smoothing comes before the class weight, so
    that the weight of a rare class changes only the samples of that class.
    """
    soft_BC = soft_targets(target, logits_BC.shape[1])
    if constants.scale_C is not None:
        logits_BC = logits_BC * constants.scale_C
    if constants.shift_C is not None:
        logits_BC = logits_BC + constants.shift_C
    if constants.margin_C is not None:
        logits_BC = logits_BC - soft_BC * constants.margin_C
    log_p_BC = functional.log_softmax(logits_BC, 1)
    focal_BC = log_p_BC if constants.focus is None else log_p_BC * _complement(log_p_BC) ** constants.focus
    return -(smooth(soft_BC, constants) * focal_BC).sum(1)


def one_vs_rest(
    logits_BC: Tensor, target: Tensor, feature_BF: Tensor, constants: Constants, progress: float | Tensor
) -> Tensor:
    """Focal binary cross-entropies of each class against the rest, summed over classes.

    The logits are lowered by log(C-1), so that logits of 0 give each class a probability of 1/C; the authors instead
    initialise the last layer's bias to this value, and apply no weight decay to it.
    """
    soft_BC = smooth(soft_targets(target, logits_BC.shape[1]), constants)
    logits_BC = logits_BC - math.log(max(logits_BC.shape[1] - 1, 1))
    own_BC, rest_BC = functional.logsigmoid(logits_BC), functional.logsigmoid(-logits_BC)  # log p and log(1-p)
    if constants.focus is not None:
        own_BC = own_BC * _complement(own_BC) ** constants.focus
        rest_BC = rest_BC * _complement(rest_BC) ** constants.focus
    return -(soft_BC * own_BC + (1 - soft_BC) * rest_BC).sum(1)


def hinge(
    logits_BC: Tensor, target: Tensor, feature_BF: Tensor, constants: Constants, progress: float | Tensor
) -> Tensor:
    """Squared hinges of each class against the rest, max(0, margin ∓ logit)², summed over classes."""
    soft_BC = smooth(soft_targets(target, logits_BC.shape[1]), constants)
    assert constants.margin_C is not None, "squared_hinge sets it"
    own_BC, rest_BC = (functional.relu(constants.margin_C + sign * logits_BC) ** 2 for sign in (-1, 1))
    return (soft_BC * own_BC + (1 - soft_BC) * rest_BC).sum(1)


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
    """Softmax cross-entropy, divided by the sample's influence ‖p-y‖₁·‖h‖₁ on the last layer's weights, times alpha.

    epsilon: added to the influence. detach: no gradient through the influence.
    """
    difference_BC = torch.softmax(logits_BC, 1) - soft_targets(target, logits_BC.shape[1])
    factor_B = 1 / (difference_BC.abs().sum(1) * feature_BF.to(logits_BC.dtype).abs().sum(1) + epsilon)
    factor_B = factor_B.detach() if detach else factor_B
    return alpha * factor_B * softmax(logits_BC, target, feature_BF, constants, progress)


def soft_targets(target: Tensor, classes: int) -> Tensor:
    """Class indices B as one-hot rows B×C; soft targets B×C stay as they are."""
    if target.is_floating_point():
        return target
    # torch's one_hot on a CPU reads the values to check them, and so could not be captured
    return (target[:, None] == torch.arange(classes, device=target.device)).to(torch.float32)


def smooth(soft_BC: Tensor, constants: Constants) -> Tensor:
    """Label smoothing: soft targets that give each class's smoothing_C to all classes alike."""
    if constants.smoothing_C is None:
        return soft_BC
    share_B1 = (soft_BC * constants.smoothing_C).sum(1, keepdim=True)
    return soft_BC * (1 - share_B1) + share_B1 / soft_BC.shape[1]


def _complement(log_p: Tensor) -> Tensor:
    """1-p, at least 1e-7, so that the gradient of a power of it is finite at p = 1."""
    return (-torch.expm1(log_p)).clamp(min=1e-7)


# The options of conf/imbalance/loss: functions of int64 counts and float64 shares of C classes.


def cross_entropy(count_C: Tensor, exposure_C: Tensor, *, smoothing: float) -> Loss:
    """Softmax cross-entropy. `smoothing` in [0, 1) moves that share of the target to all classes alike."""
    return Loss(softmax, smoothing_C=_equal_smoothing(count_C, smoothing))


def focal(count_C: Tensor, exposure_C: Tensor, *, gamma: float, smoothing: float) -> Loss:
    """Softmax focal loss -(1-p)^gamma·log p: Lin et al., ICCV 2017 (arXiv 1708.02002), equation 4, for one target of
    many. A gamma of 0 is cross-entropy."""
    return Loss(softmax, _focal_heuristic(gamma), smoothing_C=_equal_smoothing(count_C, smoothing), focus=_focus(gamma))


def focal_ovr(count_C: Tensor, exposure_C: Tensor, *, gamma: float, smoothing: float) -> Loss:
    """Sigmoid focal loss of each class against the rest, summed: Lin et al., ICCV 2017, as Cui et al., CVPR 2019 (arXiv
    1901.05555), section 4.3, train it."""
    smoothing_C = _equal_smoothing(count_C, smoothing)
    return Loss(one_vs_rest, _focal_heuristic(gamma), smoothing_C=smoothing_C, focus=_focus(gamma))


def squared_hinge(count_C: Tensor, exposure_C: Tensor, *, margin: float, smoothing: float) -> Loss:
    """Squared hinge of each class against the rest (L2-SVM): Tang, 2013 (arXiv 1306.0239)."""
    smoothing_C = _equal_smoothing(count_C, smoothing)
    return Loss(hinge, margin_C=torch.full((len(count_C),), margin, dtype=torch.float64), smoothing_C=smoothing_C)


def ldam(count_C: Tensor, exposure_C: Tensor, *, margin: float, scale: float, smoothing: float) -> Loss:
    """Label-distribution-aware margins: Cao et al., NeurIPS 2019 (arXiv 1906.07413), equations 12 and 13.

    The target's logit is lowered by scale·margin·(n_min/n_c)^(1/4). `margin` is a cosine. `scale` is the factor by
    which the normalised head (`heads.CosineClassifier`) multiplies its cosines. A margin of 0 is cross-entropy.
    """
    rarest = _require_images(count_C).min().double()
    margin_C = scale * margin * (rarest / count_C.double()) ** 0.25 if margin else None
    heuristic = "rare classes get larger margins" if margin else ""
    return Loss(softmax, heuristic, margin_C=margin_C, smoothing_C=_equal_smoothing(count_C, smoothing))


def vector_scaling(count_C: Tensor, exposure_C: Tensor, *, gamma: float, tau: float, smoothing: float) -> Loss:
    """Logits (n_c/n_max)^gamma·z + tau·log of the prior: Kini et al., NeurIPS 2021 (arXiv 2103.01550).

    The prior is the share of the labels that training meets, after sampling and mixing. gamma 0 is the logit-adjusted
    loss (Menon et al., ICLR 2021, arXiv 2007.07314, equation 10), at tau 1 balanced softmax (Ren et al., NeurIPS 2020,
    arXiv 2007.10740, equation 4); tau 0 is class-dependent temperatures (Ye et al., 2020, arXiv 2001.01385).
    """
    ratio = _require_images(count_C).double() / count_C.max()
    return Loss(
        softmax,
        "logits of rare classes are scaled down in training" if gamma else "",
        scale_C=ratio**gamma if gamma else None,
        shift_C=tau * exposure_C.log() if tau else None,
        smoothing_C=_equal_smoothing(count_C, smoothing),
    )


def label_aware_smoothing(count_C: Tensor, exposure_C: Tensor, *, frequent: float, rare: float, shape: str) -> Loss:
    """Label smoothing by class: Zhong et al., CVPR 2021 (arXiv 2104.00466), section 3.2.

    frequent, rare: smoothing of the largest and of the smallest class. shape: concave, linear or convex, how smoothing
    grows with the count between them. As in the authors' code, the smoothed share goes to all classes, the target's
    own included.
    """
    count = _require_images(count_C).double()
    relative = (count - count.min()) / (count.max() - count.min()).clamp(min=1)
    angle = relative * math.pi / 2
    curves = {"concave": angle.sin(), "linear": relative, "convex": 1 - angle.cos()}
    return Loss(softmax, "frequent classes are smoothed more", smoothing_C=rare + (frequent - rare) * curves[shape])


def influence_balanced(
    count_C: Tensor, exposure_C: Tensor, *, alpha: float, epsilon: float, detach: bool, smoothing: float
) -> Loss:
    """Cross-entropy divided by each sample's influence: Park et al., ICCV 2021 (arXiv 2110.02444), equations 5 and 6.

    alpha: a factor, which scales the learning rate of plain gradient descent. detach: no gradient through the
    influence.
    """
    formula = partial(influence, alpha=alpha, epsilon=epsilon, detach=detach)
    return Loss(formula, "influential samples count less", smoothing_C=_equal_smoothing(count_C, smoothing))


def _equal_smoothing(count_C: Tensor, smoothing: float) -> Tensor | None:
    return torch.full((len(count_C),), smoothing, dtype=torch.float64) if smoothing else None


def _focus(gamma: float) -> Tensor | None:
    return torch.tensor(gamma, dtype=torch.float64) if gamma else None


def _focal_heuristic(gamma: float) -> str:
    return "easy samples count less" if gamma else ""


def _require_images(count_C: Tensor) -> Tensor:
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
