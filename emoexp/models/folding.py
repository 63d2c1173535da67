"""Batch norms folded into the convolutions before them: the same function in evaluation, with one pass less a layer.

y = gamma (w x - mean) / sqrt(var + eps) + beta is a convolution with weights w gamma / sqrt(var + eps) and a bias.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emoexp.models.network import Network


def folded(model: Network, image_NCHW: Tensor) -> Network:
    """A copy of a model for evaluation, every batch norm that takes a convolution's output as it is folded into it.

    image_NCHW: an image or two that the model is run on, to see which batch norm follows which convolution. The model
    itself comes back where there is none to fold.
    """
    pairs, logits = _watched(model, image_NCHW)
    own = copy.deepcopy(model) if pairs else model
    for convolution, norm in pairs:
        fused = fuse_conv_bn_eval(own.get_submodule(convolution), own.get_submodule(norm))  # type: ignore[arg-type, type-var]
        _put(own, convolution, fused.to(memory_format=torch.channels_last))
        _put(own, norm, nn.Identity())
    return own if _same(logits, own, image_NCHW) else model


def _same(logits: Tensor, own: Network, image_NCHW: Tensor) -> bool:
    """Whether the copy computes what the model does: one that uses a convolution's output twice would not."""
    with torch.inference_mode():
        apart = (own(image_NCHW).logits_BC - logits).abs().max()
    return bool(apart <= 1e-3 * logits.abs().max())


def _watched(model: Network, image_NCHW: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Names of each convolution and the batch norm that follows it, both used once and nothing between them; and what
    the model says."""
    calls: dict[str, int] = {}
    made: list[tuple[str, Tensor]] = []  # kept alive: a freed tensor's identity may come again
    taken: list[tuple[str, Tensor]] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            (made if isinstance(module, nn.Conv2d) else taken).append(
                (name, output if isinstance(module, nn.Conv2d) else inputs[0])
            )

        return hook

    watched = {name: part for name, part in model.named_modules() if type(part) in (nn.Conv2d, nn.BatchNorm2d)}
    handles = [part.register_forward_hook(watch(name)) for name, part in watched.items()]
    try:
        with torch.inference_mode():
            logits = model(image_NCHW).logits_BC
    finally:
        for handle in handles:
            handle.remove()
    pairs = [(conv, norm) for conv, output in made for norm, given in taken if given is output]
    return [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1 and _foldable(watched[pair[1]])], logits


def _foldable(norm: nn.Module) -> bool:
    return not norm.training and norm.running_var is not None


def _put(model: nn.Module, name: str, part: nn.Module) -> None:
    above, _, last = name.rpartition(".")
    setattr(model.get_submodule(above), last, part)
