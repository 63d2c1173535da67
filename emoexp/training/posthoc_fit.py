"""What is fitted to a finished model on its validation part, and kept beside its weights."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from emoexp.config import build
from emoexp.config.schema import Experiment, Machine
from emoexp.data.dataset import Dataset
from emoexp.imbalance import ledger, posthoc
from emoexp.imbalance.posthoc import Evidence
from emoexp.models import heads
from emoexp.runs import checkpoint
from emoexp.runs.folder import Run
from emoexp.training.batches import evaluation
from emoexp.training.step import Recipe

log = logging.getLogger("emoexp")


def fit(
    run: Run,
    experiment: Experiment,
    place: Machine,
    recipe: Recipe,
    model: nn.Module,
    best: dict[str, Any],
    data: Dataset,
) -> dict[str, Any]:
    """Fit the strategy's post-hoc column, change the model's last layer, and keep the fit in best.pt.

    model: the best epoch's, as it was trained; best: its best.pt.

    Returns:
        What was fitted, for metrics.json; empty where nothing is to be.
    """
    node = experiment.imbalance["posthoc"]
    if node["name"] == "none":
        return {}
    prior_C = ledger.effective_prior(recipe.batches.plan.per_epoch[best["epoch"] - 1])
    fitted = build.instantiate(node, place.allow)(evidence(model, recipe, data, prior_C))
    model.classifier = posthoc.apply(model.classifier, fitted)  # type: ignore[arg-type]
    checkpoint.save(run.folder / "best.pt", best | {"posthoc": posthoc.kept(fitted)})
    told = {"name": node["name"], **fitted.told}
    numbers = [f"{key} {value:.3g}" for key, value in told.items() if isinstance(value, float)]
    log.info("fitted %s on validation (%s): %s", node["name"], told.get("metric", ""), ", ".join(numbers))
    return told


def evidence(model: nn.Module, recipe: Recipe, data: Dataset, prior_C: Tensor) -> Evidence:
    """What a fit may see: the validation part through a model."""
    index_V, target_V = recipe.validation
    feature_VF = features(model, recipe, index_V)
    head = model.classifier
    device = recipe.batches.device
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        logits_VC = head(feature_VF.to(device)).double().cpu()  # type: ignore[operator]

    def means() -> Tensor:
        index_N = data.where("train")
        unit_NF = heads.unit(features(model, recipe, torch.from_numpy(index_N)).double())
        label_N, classes = torch.from_numpy(data.labels[index_N]), recipe.num_classes
        sum_CF = unit_NF.new_zeros(classes, unit_NF.shape[1]).index_add_(0, label_N, unit_NF)
        return sum_CF / torch.bincount(label_N, minlength=classes)[:, None]

    linear = head if type(head) is nn.Linear else None
    weight_CF = None if linear is None else linear.weight.detach().double().cpu()
    return Evidence(logits_VC, feature_VF.double(), target_V, weight_CF, prior_C, means)


def features(model: nn.Module, recipe: Recipe, index_N: Tensor) -> Tensor:
    """What the last layer sees of some images, in evaluation mode: float32 N×F, CPU."""
    model.eval()
    batches, out = recipe.batches, []
    with torch.no_grad():
        for image in evaluation(batches.image_NCHW, index_N, batches.normalisation, batches.device):
            with torch.autocast(image.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                out.append(model.features(image).float())  # type: ignore[operator]
    return torch.cat(out).cpu()
