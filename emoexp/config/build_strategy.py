"""From a configuration to the imbalance strategy, worked out for the training part."""

import dataclasses

import torch

from emoexp.config.models import Head
from emoexp.config.schema import Experiment
from emoexp.data.dataset import Dataset
from emoexp.imbalance import copies, ledger, posthoc, strategy


def build_strategy(experiment: Experiment, data: Dataset) -> strategy.Strategy:
    """The imbalance strategy, worked out for the training part. A leaky protocol has made its copies before."""
    row = experiment.imbalance
    mix = row.mix.build()
    if mix is not None and getattr(row.mix, "box", None) == "floored":
        mix = dataclasses.replace(mix, floored_side=experiment.image_size)
    columns = strategy.Columns(
        target=copies.none if data.leaky else row.copies.build(),
        share=row.sampling.build(),
        weight=row.weights.build(),
        loss=row.loss.build(),
        schedule=row.schedule.build(),
        mix=mix,
        replacement=row.sampling.replaces,
        weight_scale=row.weight_scale,
        batch_size=experiment.batch_size,
    )
    plan = strategy.build(
        torch.from_numpy(data.labels[data.where("train")]),
        len(data.class_names),
        columns,
        epochs=experiment.epochs,
        epoch_size=row.epoch_size,
        seed=experiment.seed,
    )
    last = ledger.effective_prior(plan.per_epoch[-1])
    posthoc.check_before_training(row.posthoc.build(), prior_C=last, linear=row.head() == Head())
    return plan


def heuristics(experiment: Experiment, plan: strategy.Strategy) -> list[str]:
    """What favours rare classes without being a prior that training aims at, and so stands in no row of the ledger."""
    texts, fit = ledger.heuristics(plan), experiment.imbalance.posthoc.name
    if experiment.optimizer.tail is not None:
        texts.append("sharpness is minimised for rare classes alone")
    return [*texts, f"{fit} is fitted on validation after training"] if fit != "none" else texts
