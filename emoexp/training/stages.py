"""The start of an epoch: training mode, which parameters are trained, and the start of a second stage."""

import torch
from torch import nn

from emoexp import rng
from emoexp.models import heads
from emoexp.training.setup import TrainSetup
from emoexp.training.step import EpochPlan, TrainState

CLASS_FACTORS = "scale_C"  # of `heads.LearnableWeightScaling`
_STATE_BEGINS_AT_ZERO = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


def begin_epoch(setup: TrainSetup, state: TrainState, epoch: EpochPlan) -> None:
    """Before an epoch, or what is left of one: training mode, and only what learns asks for gradients."""
    model = state.model
    model.train()
    if epoch.norms_frozen:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    name_of = {id(parameter): name for name, parameter in model.classifier.named_parameters()}
    for group in state.optimizer.param_groups:  # always: a run before may have left a shared model's features frozen
        for parameter in group["params"]:
            parameter.requires_grad_(learns(epoch.retrain, name_of.get(id(parameter))))
    start = setup.samples.strategy.second_stage_start
    if epoch.retrain != "none" and (state.epoch, state.step) == (start, 0):
        if epoch.retrain == "fresh":
            rng.reseed(setup.seed, "classifier")
            heads.reset(model.classifier)
        reset_state(state.optimizer)


def learns(retrain: str, name: str | None) -> bool:
    """Whether a parameter learns; name: of a parameter of the classifier, None for all others."""
    if name == CLASS_FACTORS:
        return retrain in ("scale", "both")
    return retrain == "none" or (name is not None and retrain != "scale")


def reset_state(optimizer: torch.optim.Optimizer) -> None:
    """Bring an optimizer's state to where it began; in place where that is zero: captured steps use these tensors."""
    if type(optimizer) not in _STATE_BEGINS_AT_ZERO or optimizer.defaults.get("dampening"):
        optimizer.state.clear()
        return
    for values in optimizer.state.values():
        for value in values.values():
            if isinstance(value, torch.Tensor):
                value.zero_()
    if optimizer.defaults.get("momentum"):  # a fused SGD wants all of these or none
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
