"""After training: fits on validation that change a model's last layer, for better balanced predictions or better
calibrated probabilities.

Every fit sees the validation part alone and is a function of it: nothing is drawn at random. It reports what it fitted.
A value that is tuned is the best on validation by one metric; of equally good values, the one that changes least. The
metric after the fit (`after` in the report) is therefore optimistic, most of all where classes have few validation
images.
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

M = TypeVar("M", bound=nn.Module)
FitReport = dict[str, float | list[float] | str]


@dataclass(frozen=True)
class Evidence:
    """All that a fit may see, on the CPU.

    logits_VC, feature_VF: float64 of the validation images, target_V: their int64 classes. weight_CF: of the last
    layer where it is linear. prior_C: float64, the prior that training aimed at (the ledger's effective prior; it sums
    to 1 and is 0 for a class never drawn). mean_CF: a function, since it takes long; it gives the class means of
    training features of length 1 (`heads.unit_length`), NaN for a class without images.
    """

    logits_VC: Tensor
    feature_VF: Tensor
    target_V: Tensor
    weight_CF: Tensor | None
    prior_C: Tensor
    mean_CF: Callable[[], Tensor]


@dataclass(frozen=True)
class FitResult:
    """What a fit found; `apply` builds the last layer from it.

    report: the fitted values, and the metric before and after, for metrics.json. weight_CF: new weights of a linear
    head, which loses its bias. mean_CF: class means, whose head replaces the old one. scale, shift_C: the logits of
    that head become scale·logits + shift_C.
    """

    report: FitReport = field(default_factory=dict)
    scale: float = 1.0
    shift_C: Tensor | None = None
    weight_CF: Tensor | None = None
    mean_CF: Tensor | None = None


def none(evidence: Evidence) -> FitResult:
    """The model as it was trained."""
    return FitResult()


def logit_adjustment(evidence: Evidence, *, tau: float | None, metric: str) -> FitResult:
    """Logits less tau·log(prior): Menon et al., ICLR 2021 (arXiv 2007.07314), equation 9.

    The prior is what training aimed at: after a balanced sampler, weights or loss there is nothing left to adjust. A
    tau of 1 is consistent for the balanced error where probabilities are calibrated, 0 changes nothing; None takes the
    best of 0, 0.05, .. 2.

    Raises:
        ValueError: a class that was never drawn, whose prior has no logarithm.
    """
    if missing := torch.nonzero(evidence.prior_C <= 0).flatten().tolist():
        raise ValueError(
            f"imbalance/posthoc=logit_adjustment divides by the prior of each class, which training must have drawn; "
            f"classes {missing} have prior 0. Give them training images, or choose imbalance/posthoc=offsets"
        )
    log_C = evidence.prior_C.log()
    grid = [k / 20 for k in range(41)]
    tau, report = _tune_tau(evidence, metric, tau, grid, lambda tau: evidence.logits_VC - tau * log_C)
    return FitResult({"tau": tau} | report, shift_C=-tau * log_C)


def tau_norm(evidence: Evidence, *, tau: float | None, metric: str, bias: str = "drop") -> FitResult:
    """Weights w_c/‖w_c‖^tau: Kang et al., ICLR 2020 (arXiv 1910.09217), section 4, and the authors' code.

    bias: "drop" the last layer's, as there, or "keep" it, as those who report tau-normalised numbers on CIFAR do.
    A tau of 0 keeps the weights, 1 brings them to length 1; None takes the best of 0, 0.1, .. 2. It relies on rare
    classes having shorter weights, which depends on the optimizer (Menon et al. 2021): SGD's are, Adam's need not be.

    Raises:
        ValueError: a head that is not linear.
    """
    if evidence.weight_CF is None:
        raise ValueError(
            "imbalance/posthoc=tau_norm rescales the weights of a linear last layer, and this model's is another. "
            "Train with a linear head, or choose imbalance/posthoc=logit_adjustment or offsets"
        )
    weight_CF = evidence.weight_CF.double()
    length_C1 = weight_CF.norm(dim=1, keepdim=True)
    length_C1 = torch.where(length_C1 > 0, length_C1, 1.0)  # weights of zeros stay zeros

    kept_C = (evidence.logits_VC - evidence.feature_VF @ weight_CF.T).mean(0) if bias == "keep" else None

    def logits(tau: float) -> Tensor:
        without_bias_VC = evidence.feature_VF @ (weight_CF / length_C1**tau).T
        return without_bias_VC if kept_C is None else without_bias_VC + kept_C

    tau, report = _tune_tau(evidence, metric, tau, [k / 10 for k in range(21)], logits)
    return FitResult({"tau": tau} | report, weight_CF=weight_CF / length_C1**tau, shift_C=kept_C)


def nearest_class_mean(evidence: Evidence) -> FitResult:
    """The class whose mean training feature is nearest, features of length 1 (NCM: Kang et al., ICLR 2020, section
    4); and a temperature for its probabilities, which changes no predicted class.

    Raises:
        ValueError: a class without training images.
    """
    mean_CF = evidence.mean_CF().double()
    if missing := torch.nonzero(~mean_CF.isfinite().all(1)).flatten().tolist():
        raise ValueError(
            f"imbalance/posthoc=nearest_class_mean needs training images of each class; classes {missing} have none "
            "or features that are not finite. Give them images, or choose imbalance/posthoc=none"
        )
    with torch.no_grad():
        logits_VC = _class_mean_head(mean_CF)(evidence.feature_VF)
    fitted_temperature, report = _fit_temperature(logits_VC, evidence.target_V)
    return FitResult(report, scale=1 / fitted_temperature, mean_CF=mean_CF)


def temperature(evidence: Evidence) -> FitResult:
    """Logits over one temperature, that of the least negative log-likelihood: Guo et al., ICML 2017 (arXiv 1706.04599),
    section 4.2. No predicted class changes. The temperature lies in 0.001..1000; where all validation images are
    predicted rightly it is 0.001.
    """
    fitted_temperature, report = _fit_temperature(evidence.logits_VC, evidence.target_V)
    return FitResult(report, scale=1 / fitted_temperature)


def offsets(evidence: Evidence, *, metric: str, step: float, most: float, rounds: int) -> FitResult:
    """One offset a class on the logits, fitted to the metric itself; logit adjustment without its assumption.

    Coordinate ascent from 0: class by class, the rarest in validation first, the best of the multiples of `step` from
    -most to most (nats), until a round changes nothing or `rounds` are done. The metric never falls. A class without
    validation images keeps its offset of 0. At the end the mean is subtracted, so that offsets sum to 0.

    Raises:
        ValueError: an unknown metric, or a step, reach or number of rounds out of range.
    """
    logits_VC, target_V = evidence.logits_VC.numpy(), evidence.target_V.numpy()
    half = math.floor(most / step + 1e-9)
    count_C = np.bincount(target_V, minlength=logits_VC.shape[1])
    order = [int(c) for c in np.lexsort((evidence.prior_C.numpy(), count_C)) if count_C[c]]
    grid_G = np.arange(-half, half + 1) * step
    offset_C = search.coordinate_ascent(logits_VC, target_V, metric, grid_G, order, rounds)
    shift_C = torch.from_numpy(offset_C - offset_C.mean())
    without, with_offsets = evidence.logits_VC, evidence.logits_VC + shift_C
    if _metric_value(evidence, metric, with_offsets) < _metric_value(evidence, metric, without):
        shift_C = torch.zeros_like(shift_C)  # the subtracted mean has rounded two equal logits apart
    report = _before_and_after(evidence, metric, evidence.logits_VC + shift_C)
    return FitResult({"offsets": shift_C.tolist()} | report, shift_C=shift_C)


def check_before_training(fit: Callable[[Evidence], FitResult], *, prior_C: Tensor, linear: bool) -> None:
    """Try a fit on one artificial validation image, so that a fit that cannot work is refused before training.

    prior_C: as in `Evidence`. linear: whether the last layer is linear.

    Raises:
        ValueError: what the fit raises.
    """
    identity_CC = torch.eye(len(prior_C), dtype=torch.float64)
    weight_CF = identity_CC if linear else None
    target_V = torch.zeros(1, dtype=torch.int64)
    mean_CF = torch.where(prior_C[:, None] > 0, identity_CC, torch.nan)  # a class that is never drawn has no mean
    fit(Evidence(identity_CC[:1], identity_CC[:1], target_V, weight_CF, prior_C, lambda: mean_CF))


def apply(classifier: Head, result: FitResult) -> Head:
    """The last layer that a fit asks for, around or in place of `classifier`, on its device and in its dtype.

    Raises:
        ValueError: a classifier that is no head, or a fit for another number of classes or features.
    """
    features, classes = heads.sizes(classifier)
    for name, shape in (("shift_C", [classes]), ("weight_CF", [classes, features]), ("mean_CF", [classes, features])):
        tensor = getattr(result, name)
        if tensor is not None and list(tensor.shape) != shape:
            raise ValueError(
                f"posthoc.{name} has the shape {list(tensor.shape)}; for {classes} classes and {features} features it "
                f"is {shape}"
            )
    like = next(iter(classifier.state_dict().values()))
    if result.weight_CF is not None:
        linear = nn.utils.skip_init(nn.Linear, features, classes, bias=False)  # so that no random number is drawn
        classifier = _load(linear, {"weight": result.weight_CF}).to(like)
    elif result.mean_CF is not None:
        classifier = _class_mean_head(result.mean_CF).to(like)
    if result.scale == 1 and result.shift_C is None:
        return classifier
    shift_C = torch.zeros(classes) if result.shift_C is None else result.shift_C
    adjusted = heads.AdjustedLogits(classifier)
    with torch.no_grad():
        adjusted.scale.fill_(result.scale)
        adjusted.shift_C.copy_(shift_C)
    return adjusted


def to_checkpoint(result: FitResult) -> dict[str, Any]:
    """A fit as plain values and tensors, as best.pt holds it."""
    return {key: getattr(result, name) for name, key in _CHECKPOINT_KEYS.items()}


def from_checkpoint(values: dict[str, Any]) -> FitResult:
    """A fit from what `to_checkpoint` made of it.

    Raises:
        ValueError: keys that are missing or unknown.
    """
    keys = set(_CHECKPOINT_KEYS.values())
    if values.keys() != keys:
        raise ValueError(
            f"a stored fit holds {', '.join(sorted(keys))}; this one holds {', '.join(sorted(values)) or 'nothing'}. "
            "Fit it again"
        )
    return FitResult(**{name: values[key] for name, key in _CHECKPOINT_KEYS.items()})


# field -> key in best.pt; the key of the report is an older word, which files that exist use
_CHECKPOINT_KEYS = {one.name: one.name for one in fields(FitResult)} | {"report": "told"}


def _tune_tau(
    evidence: Evidence, metric: str, tau: float | None, grid: Sequence[float], logits: Callable[[float], Tensor]
) -> tuple[float, FitReport]:
    """tau, or the best of the grid where it is None, and the metric before and after. logits: those of validation, as
    a function of tau."""
    if tau is None:
        value_G = np.array([_metric_value(evidence, metric, logits(candidate)) for candidate in grid])
        tau = search.best(np.array(grid), value_G, current=0.0)
    return float(tau), _before_and_after(evidence, metric, logits(tau))


def _before_and_after(evidence: Evidence, metric: str, logits_VC: Tensor) -> FitReport:
    before, after = _metric_value(evidence, metric, evidence.logits_VC), _metric_value(evidence, metric, logits_VC)
    return {"metric": metric, "before": before, "after": after}


def _metric_value(evidence: Evidence, metric: str, logits_VC: Tensor) -> float:
    predicted_GV = logits_VC.argmax(1).numpy()[None]
    return float(search.metric_values(predicted_GV, evidence.target_V.numpy(), logits_VC.shape[1], metric)[0])


def _fit_temperature(logits_VC: Tensor, target_V: Tensor) -> tuple[float, FitReport]:
    """The temperature of the least negative log-likelihood, and that likelihood before and after."""
    gap_VC = (logits_VC - logits_VC.gather(1, target_V[:, None])).numpy()
    inverse = search.best_inverse_temperature(gap_VC)
    report: FitReport = {"temperature": 1 / inverse, "metric": "nll"}
    report |= {"before": search.nll(gap_VC), "after": search.nll(inverse * gap_VC)}
    if inverse in (search.MAX_INVERSE_TEMPERATURE, 1 / search.MAX_INVERSE_TEMPERATURE):
        report["note"] = "an end of the range: validation is all right, or no better than chance"
    return 1 / inverse, report


def _class_mean_head(mean_CF: Tensor) -> heads.NearestClassMean:
    classes, features = mean_CF.shape
    return _load(heads.NearestClassMean(features, classes), {"mean_CF": mean_CF})


def _load(module: M, values: dict[str, Tensor]) -> M:
    """A module with these values, in their dtype."""
    first = next(iter(values.values()))
    module = module.to(first.dtype)
    module.load_state_dict(values)
    return module
