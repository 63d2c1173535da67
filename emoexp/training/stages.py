"""What happens at the start of an epoch: training mode, which parameters are trained, the start of a second stage."""

import torch
from torch import nn

from emoexp import rng
from emoexp.models import heads
from emoexp.training.setup import TrainSetup
from emoexp.training.step import EpochPlan, TrainState

CLASS_FACTORS = "scale_C"  # of `heads.LearnableWeightScaling`
_STATE_STARTS_AT_ZERO = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


def begin_epoch(setup: TrainSetup, state: TrainState, plan: EpochPlan) -> None:
    """Before the first step of an epoch, or before the first one after a resume: set training mode, and let only the
    parameters that are trained require gradients. Before a second stage: reset the classifier and the optimizer."""
    model = state.model
    model.train()
    if plan.norms_frozen:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    name_of = {id(parameter): name for name, parameter in model.classifier.named_parameters()}
    for group in state.optimizer.param_groups:  # always: an earlier run may have frozen the features of a shared model
        for parameter in group["params"]:
            parameter.requires_grad_(is_trained(plan.retrain, name_of.get(id(parameter))))
    start = setup.samples.strategy.second_stage_start
    if plan.retrain != "none" and (state.epoch, state.step) == (start, 0):
        if plan.retrain == "fresh":
            rng.reseed(setup.seed, "classifier")
            heads.reset(model.classifier)
        reset_state(state.optimizer)


def is_trained(retrain: str, name: str | None) -> bool:
    """Whether a parameter is trained. name: its name in the classifier; None for a parameter outside the classifier."""
    if name == CLASS_FACTORS:
        return retrain in ("scale", "both")
    return retrain == "none" or (name is not None and retrain != "scale")


def reset_state(optimizer: torch.optim.Optimizer) -> None:
    """Reset an optimizer's state. State that starts at zero is reset in place: captured steps use its tensors."""
    if type(optimizer) not in _STATE_STARTS_AT_ZERO or optimizer.defaults.get("dampening"):
        optimizer.state.clear()
        return
    for values in optimizer.state.values():
        for value in values.values():
            if isinstance(value, torch.Tensor):
                value.zero_()
    if optimizer.defaults.get("momentum"):  # a fused SGD needs a buffer for all parameters or for none
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
