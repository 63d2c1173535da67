"""The second part of a run in which the classifier is retrained alone: what learns, and how it begins."""

import torch
from torch import nn

from emoexp import rng
from emoexp.models import heads
from emoexp.training.step import Phase, Recipe, State

SCALE = "scale_C"  # of `heads.Scaled`
_ZERO = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)  # whose state begins at zero


def enter(recipe: Recipe, state: State, phase: Phase) -> None:
    """Before an epoch, or what is left of one: training mode, and only what learns asks for gradients."""
    plan, model = recipe.batches.plan, state.model
    model.train()
    if phase.norms_frozen:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    last = {id(p): name for name, p in model.classifier.named_parameters()}  # type: ignore[union-attr]
    for group in state.optimizer.param_groups:  # always: a run before may have left a shared model's features frozen
        for parameter in group["params"]:
            parameter.requires_grad_(_learns(phase.learning, last.get(id(parameter))))
    if phase.learning != "none" and (state.epoch, state.step) == (plan.second_stage_start, 0):
        _begin(recipe, state, phase)


def _learns(learning: str, name: str | None) -> bool:
    """Whether a parameter learns; name: of one of the classifier's, else None."""
    if name == SCALE:
        return learning in ("scale", "both")
    return learning == "none" or (name is not None and learning != "scale")


def _begin(recipe: Recipe, state: State, phase: Phase) -> None:
    """A fresh classifier where one is wanted, and an optimizer that remembers nothing."""
    if phase.learning == "fresh":
        rng.reseed(recipe.seed, "classifier")
        heads.fresh(state.model.classifier)  # type: ignore[arg-type]
    forget(state.optimizer)


def forget(optimizer: torch.optim.Optimizer) -> None:
    """Bring an optimizer's state to where it began; in place where that is zero: recorded steps know these tensors."""
    if type(optimizer) not in _ZERO or optimizer.defaults.get("dampening"):
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
