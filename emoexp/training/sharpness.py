"""Sharpness-aware minimisation: gradients of the loss where it is worst nearby, for all classes or for rare ones."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sharpness:
    """rho: radius of the neighbourhood, a norm of all weights (Foret et al., ICLR 2021, arXiv 2010.01412, equation 2).
    tail_C: float32, 1 for a class whose loss is taken there, 0 for one whose loss is taken at the weights themselves
    (Zhou et al., ICCV 2023, ImbSAM); None: every class's is taken there."""

    rho: float
    tail_C: Tensor | None = None


def backward(
    sharpness: Sharpness,
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    forward: Callable[[], tuple[Tensor, Tensor]],
    mean: Callable[[tuple[Tensor, Tensor], Tensor | None], Tensor],
) -> tuple[Tensor, Tensor]:
    """Leave the gradients that the optimizer is to follow; the weights come back as they were, bit for bit.

    The weights move by rho·g/‖g‖ along the gradient g of the tail's loss, and that loss is derived there; the other
    classes' loss is derived at the weights themselves. Batch norms count a batch once.

    Args:
        forward: runs the network, to features and logits.
        mean: the mean loss of these, with a factor for each class (None: 1).

    Returns:
        The mean loss of all classes, and the logits, at the weights themselves.
    """
    out, tail_C = forward(), sharpness.tail_C
    loss = mean(out, None)
    tail = loss if tail_C is None else mean(out, tail_C)
    slopes = torch.autograd.grad(tail, [*parameters], retain_graph=tail_C is not None, allow_unused=True)
    if tail_C is not None:
        mean(out, 1 - tail_C).backward()
    with _moved(parameters, slopes, sharpness.rho), _counted_once(model):
        mean(forward(), tail_C).backward()
    return loss, out[1]


@contextmanager
def _moved(parameters: Sequence[nn.Parameter], slopes: Sequence[Tensor | None], rho: float) -> Iterator[None]:
    """The weights at the end of a step of length rho uphill; a gradient of 0 moves nothing."""
    pairs = [(parameter, slope) for parameter, slope in zip(parameters, slopes, strict=True) if slope is not None]
    norm = nn.utils.get_total_norm([slope for _, slope in pairs])
    before = [parameter.detach().clone() for parameter, _ in pairs]
    with torch.no_grad():
        for parameter, slope in pairs:
            parameter.add_(slope * (rho / (norm + 1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            for (parameter, _), value in zip(pairs, before, strict=True):
                parameter.copy_(value)


@contextmanager
def _counted_once(model: nn.Module) -> Iterator[None]:
    """Batch norms that normalise by the batch and leave their statistics alone."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
