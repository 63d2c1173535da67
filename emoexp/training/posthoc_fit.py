"""Fits a strategy's post-hoc column to a finished model, on the validation part, and saves it beside the weights."""

import dataclasses
import logging
from typing import Any

import torch
from torch import Tensor, nn

from emoexp.config.best_model import BestModel
from emoexp.config.schema import Experiment, Machine
from emoexp.data.dataset import Dataset
from emoexp.imbalance import ledger, posthoc
from emoexp.imbalance.posthoc import Evidence
from emoexp.inference import predict
from emoexp.models import heads
from emoexp.models.network import Network
from emoexp.runs import checkpoint
from emoexp.runs.folder import Run
from emoexp.training.setup import TrainSetup

log = logging.getLogger("emoexp")


def fit(
    run: Run,
    experiment: Experiment,
    machine: Machine,
    setup: TrainSetup,
    model: Network,
    best: BestModel,
    data: Dataset,
) -> dict[str, Any]:
    """Fit the strategy's post-hoc column, change the model's last layer, and keep the fit in best.pt.

    model: the best epoch's, as it was trained. best: the content of best.pt.

    Returns:
        The name and the values of the fit, for metrics.json; empty where the strategy has no post-hoc column.
    """
    column = experiment.imbalance.posthoc
    if column.name == "none":
        return {}
    prior_C = ledger.effective_prior(setup.samples.strategy.per_epoch[best.epoch - 1])
    result = column.build()(evidence(model, setup, data, prior_C))
    model.classifier = posthoc.apply(model.classifier, result)
    checkpoint.save(run.folder / "best.pt", dataclasses.replace(best, fit=result).payload())
    report = {"name": column.name, **result.report}
    numbers = [f"{key} {value:.3g}" for key, value in report.items() if isinstance(value, float)]
    log.info("fitted %s on validation (%s): %s", column.name, report.get("metric", ""), ", ".join(numbers))
    return report


def evidence(model: Network, setup: TrainSetup, data: Dataset, prior_C: Tensor) -> Evidence:
    """The data of a fit: the model's features and logits of the validation part, and its last layer."""
    step_setup, (index_V, target_V) = setup.step_setup, setup.validation

    def features_of(index_N: Tensor) -> Tensor:
        images = predict.batches(step_setup.image_NCHW, index_N, step_setup.normalisation, step_setup.device)
        return predict.features(model, images, step_setup.precision)

    feature_VF, head = features_of(index_V), model.classifier
    with (
        torch.no_grad(),
        torch.autocast(step_setup.device.type, torch.bfloat16, enabled=step_setup.precision == "bf16"),
    ):
        logits_VC = head(feature_VF.to(step_setup.device)).double().cpu()

    def class_means() -> Tensor:
        index_N = data.where("train")
        unit_NF = heads.unit_length(features_of(torch.from_numpy(index_N)).double())
        label_N, classes = torch.from_numpy(data.labels[index_N]), setup.num_classes
        sum_CF = unit_NF.new_zeros(classes, unit_NF.shape[1]).index_add_(0, label_N, unit_NF)
        return sum_CF / torch.bincount(label_N, minlength=classes)[:, None]

    weight_CF = head.weight.detach().double().cpu() if type(head) is nn.Linear else None
    return Evidence(logits_VC, feature_VF.double(), target_V, weight_CF, prior_C, class_means)
