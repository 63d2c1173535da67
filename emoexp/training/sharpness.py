"""Sharpness-aware minimisation: gradients of the loss where it is worst nearby, for all classes or for rare ones."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emoexp.models.network import Output


@dataclass(frozen=True)
class Sharpness:
    """rho: radius of the neighbourhood, a norm of all weights (Foret et al., ICLR 2021, arXiv 2010.01412, equation 2).
    tail_C: float32, 1 for a class whose loss is taken there, 0 for one whose loss is taken at the weights themselves
    (Zhou et al., ICCV 2023, ImbSAM); None: every class's is taken there."""

    rho: float
    tail_C: Tensor | None = None


def backward(
    output: Output,
    loss: Tensor,
    *,
    rho: float,
    tail_C: Tensor | None,
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    forward: Callable[[], Output],
    loss_of: Callable[[Output, Tensor | None], Tensor],
) -> None:
    """Leave the gradients that the optimizer is to follow; the weights come back as they were, bit for bit.

    The weights move by rho·g/‖g‖ along the gradient g of the tail's loss, and the gradient of that loss is taken there;
    the gradient of the other classes' loss is taken at the weights themselves. Batch norms count a batch once.

    Args:
        output, loss: of the batch at the weights themselves.
        rho, tail_C: as `Sharpness` has them.
        forward: runs the network on the batch.
        loss_of: the mean loss of an output, with a factor for each class (None: 1).
    """
    tail = loss if tail_C is None else loss_of(output, tail_C)
    slopes = torch.autograd.grad(tail, [*parameters], retain_graph=tail_C is not None, allow_unused=True)
    if tail_C is not None:
        loss_of(output, 1 - tail_C).backward()
    with _moved(parameters, slopes, rho), _counted_once(model):
        loss_of(forward(), tail_C).backward()


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
