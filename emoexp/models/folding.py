"""Folding of batch norms into the convolutions before them, for evaluation: the same function with fewer operations.

y = gamma (w x - mean) / sqrt(var + eps) + beta is a convolution with weights w gamma / sqrt(var + eps) and a bias.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emoexp.models.network import Network


def fold_batch_norms(model: Network, image_NCHW: Tensor) -> Network:
    """A copy of a model for evaluation, in which each batch norm that directly follows a convolution is folded into it.

    image_NCHW: one or two images. The model is run on them to see which batch norm follows which convolution.

    Returns:
        The copy; the model itself if no batch norm can be folded, or if the copy would compute something else.
    """
    pairs, logits = _convolution_norm_pairs(model, image_NCHW)
    fused_model = copy.deepcopy(model) if pairs else model
    for convolution, norm in pairs:
        layers = fused_model.get_submodule(convolution), fused_model.get_submodule(norm)
        fused_layer = fuse_conv_bn_eval(*layers)  # type: ignore[arg-type, type-var]  # the pairs name such layers
        _replace_module(fused_model, convolution, fused_layer.to(memory_format=torch.channels_last))
        _replace_module(fused_model, norm, nn.Identity())
    return fused_model if _computes_same(logits, fused_model, image_NCHW) else model


def _computes_same(logits: Tensor, fused_model: Network, image_NCHW: Tensor) -> bool:
    """Whether the copy gives the model's logits. It does not if the model uses a convolution's output a second time."""
    with torch.inference_mode():
        difference = (fused_model(image_NCHW).logits_BC - logits).abs().max()
    return bool(difference <= 1e-3 * logits.abs().max())


def _convolution_norm_pairs(model: Network, image_NCHW: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Names of each convolution and the batch norm that directly follows it, where both are called once; and the
    model's logits."""
    calls: dict[str, int] = {}
    convolution_outputs: list[tuple[str, Tensor]] = []  # holds the tensors: a new one could reuse a freed one's id
    norm_inputs: list[tuple[str, Tensor]] = []

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(module, nn.Conv2d):
                convolution_outputs.append((name, output))
            else:
                norm_inputs.append((name, inputs[0]))

        return hook

    layers = {name: layer for name, layer in model.named_modules() if type(layer) in (nn.Conv2d, nn.BatchNorm2d)}
    handles = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    try:
        with torch.inference_mode():
            logits = model(image_NCHW).logits_BC
    finally:
        for handle in handles:
            handle.remove()
    pairs = [
        (convolution, norm)
        for convolution, output in convolution_outputs
        for norm, norm_input in norm_inputs
        if norm_input is output and calls[convolution] == calls[norm] == 1 and _is_foldable(layers[norm])
    ]
    return pairs, logits


def _is_foldable(norm: nn.Module) -> bool:
    return not norm.training and norm.running_var is not None


def _replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent_name, _, child_name = name.rpartition(".")
    setattr(model.get_submodule(parent_name), child_name, module)
