"""After training: what turns a finished model's logits into better balanced decisions, or into better probabilities.

Every fit sees the validation part alone, is a function of it (nothing is drawn), and tells what it fitted. A value that
is tuned is the best on validation by one metric; of equals the one nearest to changing nothing. What a fit says of
validation (`before`, `after`) is therefore flattering, most of all where classes have few validation images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from emoexp.imbalance import search
from emoexp.models import heads
from emoexp.models.heads import Head

METRICS = ("macro_f1", "balanced_accuracy", "accuracy", "worst_recall")

M = TypeVar("M", bound=nn.Module)
Told = dict[str, float | list[float] | str]


@dataclass(frozen=True)
class Evidence:
    """What a fit may see, on the CPU.

    logits_VC, feature_VF: float64 of the validation images, target_V: their int64 classes. weight_CF: of the last
    layer where it is linear. prior_C: float64, the prior that training aimed at (the ledger's; sums to 1, 0 for a class
    never drawn). mean_CF: gives the class means of training features of length 1 (`heads.unit`), NaN for a class
    without images.
    """

    logits_VC: Tensor
    feature_VF: Tensor
    target_V: Tensor
    weight_CF: Tensor | None
    prior_C: Tensor
    mean_CF: Callable[[], Tensor]


@dataclass(frozen=True)
class Fitted:
    """What a fit decided.

    told: in words and numbers, for metrics.json. In this order: weight_CF replaces a linear head's weights, without
    bias, or mean_CF the head by class means; then logits become scale·logits + shift_C.
    """

    told: Told = field(default_factory=dict)
    scale: float = 1.0
    shift_C: Tensor | None = None
    weight_CF: Tensor | None = None
    mean_CF: Tensor | None = None


def none(evidence: Evidence) -> Fitted:
    """The model as it was trained."""
    return Fitted()


def logit_adjustment(evidence: Evidence, *, tau: float | None, metric: str) -> Fitted:
    """Logits less tau·log(prior): Menon et al., ICLR 2021 (arXiv 2007.07314), equation 9.

    The prior is what training aimed at: after a balanced sampler, weights or loss there is nothing left to adjust. A
    tau of 1 is consistent for the balanced error where probabilities are calibrated, 0 changes nothing; None takes the
    best of 0, 0.05, .. 2.

    Raises:
        ValueError: a class that was never drawn, whose prior has no logarithm.
    """
    if missing := torch.nonzero(evidence.prior_C <= 0).flatten().tolist():
        raise ValueError(
            f"imbalance.posthoc=logit_adjustment divides by the prior of each class, which training must have drawn; "
            f"classes {missing} have prior 0. Give them training images, or choose imbalance/posthoc=offsets"
        )
    log_C = evidence.prior_C.log()
    tau, told = _tuned(evidence, metric, tau, [k / 20 for k in range(41)], lambda tau: evidence.logits_VC - tau * log_C)
    return Fitted({"tau": tau} | told, shift_C=-tau * log_C)


def tau_norm(evidence: Evidence, *, tau: float | None, metric: str) -> Fitted:
    """Weights w_c/‖w_c‖^tau, bias dropped: Kang et al., ICLR 2020 (arXiv 1910.09217), section 4, and the authors' code.

    A tau of 0 keeps the weights, 1 brings them to length 1; None takes the best of 0, 0.1, .. 2. It relies on rare
    classes having shorter weights, which depends on the optimizer (Menon et al. 2021): SGD's are, Adam's need not be.

    Raises:
        ValueError: a head that is not linear.
    """
    if evidence.weight_CF is None:
        raise ValueError(
            "imbalance.posthoc=tau_norm rescales the weights of a linear last layer, and this model's is another. "
            "Train with a linear head, or choose imbalance/posthoc=logit_adjustment or offsets"
        )
    weight_CF = evidence.weight_CF.double()
    length_C1 = weight_CF.norm(dim=1, keepdim=True)
    length_C1 = torch.where(length_C1 > 0, length_C1, 1.0)  # a weight of zeros stays one

    def logits(tau: float) -> Tensor:
        return evidence.feature_VF @ (weight_CF / length_C1**tau).T

    tau, told = _tuned(evidence, metric, tau, [k / 10 for k in range(21)], logits)
    return Fitted({"tau": tau} | told, weight_CF=weight_CF / length_C1**tau)


def nearest_class_mean(evidence: Evidence) -> Fitted:
    """The class whose mean training feature is nearest, features of length 1 (NCM: Kang et al., ICLR 2020, section
    4); and a temperature for its probabilities, which changes no decision.

    Raises:
        ValueError: a class without training images.
    """
    mean_CF = evidence.mean_CF().double()
    if missing := torch.nonzero(~mean_CF.isfinite().all(1)).flatten().tolist():
        raise ValueError(
            f"imbalance.posthoc=nearest_class_mean needs training images of each class; classes {missing} have none "
            "or features that are not finite. Give them images, or choose imbalance/posthoc=none"
        )
    with torch.no_grad():
        logits_VC = _means(mean_CF)(evidence.feature_VF)
    warmth, told = _cooled(logits_VC, evidence.target_V)
    return Fitted(told, scale=1 / warmth, mean_CF=mean_CF)


def temperature(evidence: Evidence) -> Fitted:
    """Logits over one temperature, that of the least negative log-likelihood: Guo et al., ICML 2017 (arXiv 1706.04599),
    section 4.2. Decisions stay. It lies within 0.001..1000; where all validation images are right it goes to 0.001.
    """
    warmth, told = _cooled(evidence.logits_VC, evidence.target_V)
    return Fitted(told, scale=1 / warmth)


def offsets(evidence: Evidence, *, metric: str, step: float, most: float, rounds: int) -> Fitted:
    """One offset a class on the logits, fitted to the metric itself; logit adjustment without its assumption.

    Coordinate ascent from 0: class by class, the rarest in validation first, the best of the multiples of `step` from
    -most to most (nats), until a round changes nothing or `rounds` are done. The metric never falls. A class without
    validation images is left where it is. At the end the mean is taken off, so that offsets sum to 0.

    Raises:
        ValueError: an unknown metric, or a step, reach or number of rounds out of range.
    """
    logits_VC, target_V = evidence.logits_VC.numpy(), evidence.target_V.numpy()
    half = math.floor(most / step + 1e-9)
    count_C = np.bincount(target_V, minlength=logits_VC.shape[1])
    order = [int(c) for c in np.lexsort((evidence.prior_C.numpy(), count_C)) if count_C[c]]
    grid_G = np.arange(-half, half + 1) * step
    offset_C = search.ascent(logits_VC, target_V, metric, grid_G, order, rounds)
    shift_C = torch.from_numpy(offset_C - offset_C.mean())
    if _rate(evidence, metric, evidence.logits_VC + shift_C) < _rate(evidence, metric, evidence.logits_VC):
        shift_C = torch.zeros_like(shift_C)  # equal logits, which rounding has decided the other way
    told = _compared(evidence, metric, evidence.logits_VC + shift_C)
    return Fitted({"offsets": shift_C.tolist()} | told, shift_C=shift_C)


def rehearse(fit: Callable[[Evidence], Fitted], *, prior_C: Tensor, linear: bool) -> None:
    """Try a fit on one made-up validation image before training, so that what it would refuse is found in time.

    prior_C: as in `Evidence`. linear: whether the last layer is.

    Raises:
        ValueError: the fit's.
    """
    made_CC = torch.eye(len(prior_C), dtype=torch.float64)
    weight_CF = made_CC if linear else None
    target_V = torch.zeros(1, dtype=torch.int64)
    mean_CF = torch.where(prior_C[:, None] > 0, made_CC, torch.nan)  # of what training never sees there is none
    fit(Evidence(made_CC[:1], made_CC[:1], target_V, weight_CF, prior_C, lambda: mean_CF))


def apply(classifier: Head, fitted: Fitted) -> Head:
    """The head that carries a fit out, around or in place of `classifier`, on its device and in its type.

    Raises:
        ValueError: a classifier that is no head.
    """
    features, classes = heads.sizes(classifier)
    known = next(iter(classifier.state_dict().values()))
    if fitted.weight_CF is not None:
        plain = nn.utils.skip_init(nn.Linear, features, classes, bias=False)  # draws nothing
        classifier = _filled(plain, {"weight": fitted.weight_CF}).to(known)
    elif fitted.mean_CF is not None:
        classifier = _means(fitted.mean_CF).to(known)
    if fitted.scale == 1 and fitted.shift_C is None:
        return classifier
    shift_C = torch.zeros(classes) if fitted.shift_C is None else fitted.shift_C
    adjusted = heads.AdjustedLogits(classifier)
    with torch.no_grad():
        adjusted.scale.fill_(fitted.scale)
        adjusted.shift_C.copy_(shift_C)
    return adjusted


def kept(fitted: Fitted) -> dict[str, Any]:
    """A fit as plain values and tensors, for a checkpoint."""
    return {one.name: getattr(fitted, one.name) for one in fields(Fitted)}


def restored(values: dict[str, Any]) -> Fitted:
    """A fit from what `kept` made of it.

    Raises:
        ValueError: keys that are missing or unknown.
    """
    names = {one.name for one in fields(Fitted)}
    if values.keys() != names:
        raise ValueError(
            f"a kept fit holds {', '.join(sorted(names))}; this one holds {', '.join(sorted(values)) or 'nothing'}. "
            "Fit it again"
        )
    return Fitted(**values)


def _tuned(
    evidence: Evidence, metric: str, tau: float | None, grid: Sequence[float], logits: Callable[[float], Tensor]
) -> tuple[float, Told]:
    """A value as it was given or the best of the grid, and what it changes."""
    if tau is None:
        rate_G = np.array([_rate(evidence, metric, logits(value)) for value in grid])
        tau = search.best(np.array(grid), rate_G, now=0.0)
    return float(tau), _compared(evidence, metric, logits(tau))


def _compared(evidence: Evidence, metric: str, logits_VC: Tensor) -> Told:
    before, after = _rate(evidence, metric, evidence.logits_VC), _rate(evidence, metric, logits_VC)
    return {"metric": metric, "before": before, "after": after}


def _rate(evidence: Evidence, metric: str, logits_VC: Tensor) -> float:
    said_GV = logits_VC.argmax(1).numpy()[None]
    return float(search.rates(said_GV, evidence.target_V.numpy(), logits_VC.shape[1], metric)[0])


def _cooled(logits_VC: Tensor, target_V: Tensor) -> tuple[float, Told]:
    """The temperature of the least negative log-likelihood, and what it changes."""
    gap_VC = (logits_VC - logits_VC.gather(1, target_V[:, None])).numpy()
    sharp = search.sharpness(gap_VC)
    warmth = 1 / sharp
    told: Told = {"temperature": warmth, "metric": "nll"}
    told |= {"before": search.nll(gap_VC), "after": search.nll(sharp * gap_VC)}
    if sharp in (search.SHARPEST, 1 / search.SHARPEST):
        told["note"] = "an end of the range: validation is all right, or no better than chance"
    return warmth, told


def _means(mean_CF: Tensor) -> heads.NearestClassMean:
    classes, features = mean_CF.shape
    return _filled(heads.NearestClassMean(features, classes), {"mean_CF": mean_CF})


def _filled(module: M, values: dict[str, Tensor]) -> M:
    """A module with these values, in their type."""
    first = next(iter(values.values()))
    module = module.to(first.dtype)
    module.load_state_dict(values)
    return module
