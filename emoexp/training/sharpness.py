"""Sharpness-aware minimisation: gradients at perturbed weights, where the loss is larger, for all or rare classes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emoexp.models.network import Output


@dataclass(frozen=True)
class Sharpness:
    """Options of sharpness-aware minimisation.

    rho: norm of the perturbation of all weights (Foret et al., ICLR 2021, arXiv 2010.01412, equation 2). tail_C:
    float32, 1 for a class whose loss is taken at the perturbed weights, 0 for one whose loss is taken at the weights
    themselves (Zhou et al., ICCV 2023, ImbSAM); None: 1 for every class.
    """

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
    """Compute the gradients for the optimizer, as `loss.backward()` does without sharpness-aware minimisation.

    The weights are perturbed by rho·g/‖g‖, where g is the gradient of the tail's loss, and the gradient of the tail's
    loss is taken there. The gradient of the other classes' loss is taken at the weights themselves. Afterwards the
    weights have their old values, bit for bit. Batch norms update their running statistics once for a batch.

    Args:
        output, loss: the network's output for the batch, and its loss, at the weights themselves.
        rho, tail_C: as in `Sharpness`.
        forward: runs the network on the batch.
        loss_of: the mean loss of an output, with a factor for each class (None: 1).
    """
    tail_loss = loss if tail_C is None else loss_of(output, tail_C)
    gradients = torch.autograd.grad(tail_loss, [*parameters], retain_graph=tail_C is not None, allow_unused=True)
    if tail_C is not None:
        loss_of(output, 1 - tail_C).backward()
    with _perturbed_weights(parameters, gradients, rho), _no_statistics_update(model):
        loss_of(forward(), tail_C).backward()


@contextmanager
def _perturbed_weights(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None], rho: float
) -> Iterator[None]:
    """In the block the weights are moved by rho along the gradients; where these are all 0 the weights stay."""
    pairs = [
        (parameter, gradient) for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None
    ]
    norm = nn.utils.get_total_norm([gradient for _, gradient in pairs])
    saved = [parameter.detach().clone() for parameter, _ in pairs]
    with torch.no_grad():
        for parameter, gradient in pairs:
            parameter.add_(gradient * (rho / (norm + 1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            for (parameter, _), value in zip(pairs, saved, strict=True):
                parameter.copy_(value)


@contextmanager
def _no_statistics_update(model: nn.Module) -> Iterator[None]:
    """In the block batch norms normalise by the batch and do not update their running statistics."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
