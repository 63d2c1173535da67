"""From a configuration to the imbalance strategy, worked out for the training part."""

import torch

from emoexp.config import build
from emoexp.config.build import without
from emoexp.config.build_model import head_of
from emoexp.config.schema import Experiment, Machine, Node
from emoexp.data.dataset import Dataset
from emoexp.imbalance import ledger, posthoc, strategy

_NO_COPIES = {"_target_": "emoexp.imbalance.copies.none", "_partial_": True}


def build_strategy(experiment: Experiment, place: Machine, data: Dataset) -> strategy.Strategy:
    """The imbalance strategy, worked out for the training part. A leaky protocol has made its copies before."""
    node = experiment.imbalance
    copies = _NO_COPIES if data.leaky else copies_target(node["copies"])
    columns = strategy.Columns(
        target=build.instantiate(copies, place.allow),
        share=build.instantiate(without(node["sampling"], "replacement"), place.allow),
        weight=build.instantiate(node["weights"], place.allow),
        loss=build.instantiate(node["loss"], place.allow),
        schedule=build.instantiate(node["schedule"], place.allow),
        mix=build.instantiate(node["mix"], place.allow),
        replacement=node["sampling"].get("replacement", True),
    )
    plan = strategy.build(
        torch.from_numpy(data.labels[data.where("train")]),
        len(data.class_names),
        columns,
        epochs=experiment.epochs,
        epoch_size=node["epoch_size"],
        seed=experiment.seed,
    )
    fit = build.instantiate(node["posthoc"], place.allow)
    last = ledger.effective_prior(plan.per_epoch[-1])
    posthoc.rehearse(fit, prior_C=last, linear=head_of(experiment) == {"kind": "linear"})
    return plan


def heuristics(experiment: Experiment, plan: strategy.Strategy) -> list[str]:
    """What favours rare classes without being a prior that training aims at, and so stands in no row of the ledger."""
    told, fit = ledger.heuristics(plan), experiment.imbalance["posthoc"]["name"]
    if experiment.optimizer.get("tail") is not None:
        told.append("sharpness is minimised for rare classes alone")
    return [*told, f"{fit} is fitted on validation after training"] if fit != "none" else told


def copies_target(copies: Node) -> Node:
    """The column copies less the keys that say how a copy looks."""
    return without(copies, "transform", "redraw")
