"""What torchvision's networks need to serve here: activation, stem, ImageNet's weights on request."""

import logging
import pickle
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

log = logging.getLogger(__name__)

STEMS = ("small", "imagenet")
REPLACED = (nn.ReLU, nn.Hardswish)


def replace_activations(network: nn.Module, activation: Callable[[], nn.Module]) -> None:
    """Put `activation` in place of every ReLU and hard-swish.

    The hard sigmoids of squeeze-and-excitation stay: they are gates, factors from 0 to 1 for whole channels.
    An activation without bounds there would not choose among channels but square them.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, REPLACED):
                setattr(module, name, activation())


def fresh_stem(channels: int, width: int, kernel: int, stride: int) -> nn.Conv2d:
    """A first convolution that keeps the side or divides it by the stride; drawn as torchvision's own."""
    stem = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    return stem


def load_weights(network: nn.Module, weights: WeightsEnum, *, stem: str, fresh: Collection[str]) -> None:
    """Load ImageNet's weights into all parameters and statistics but the `fresh` ones.

    stem: name of the first convolution's weight, fitted to the number of channels.

    Raises:
        ValueError: the weights cannot be fetched or read.
    """
    own = network.state_dict()
    learnt = fetch(weights)
    if stem not in fresh:
        learnt[stem] = fit_channels(learnt[stem], own[stem].shape[1])
    network.load_state_dict({name: value if name in fresh else learnt[name] for name, value in own.items()})


def fit_channels(kernel_OCHW: Tensor, channels: int) -> Tensor:
    """A kernel for colour images as one for `channels`, with the same answer where all channels are equal.

    Grey gets the sum over the colours; a number of channels other than three, equal shares of it.
    """
    if kernel_OCHW.shape[1] == channels:
        return kernel_OCHW
    return kernel_OCHW.sum(1, keepdim=True).repeat(1, channels, 1, 1) / channels


def fetch(weights: WeightsEnum) -> dict[str, Tensor]:
    """A network's published weights, from torch's folder of downloads or else fetched into it.

    Raises:
        ValueError: neither has them in a readable form. It says where to put the file.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not file.is_file():
        log.info("fetching %s to %s", weights.url, file)
    try:
        learnt = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        how = f"{file} cannot be read" if file.is_file() else f"{weights.url} cannot be fetched to {file}"
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"architecture.pretrained=true: {how} ({reason}). Put an intact {file.name} into {file.parent}, "
            "from a machine that is online, or choose architecture.pretrained=false"
        ) from error
    return dict(learnt)


def warn_of_activation(where: str, activation: Callable[[], nn.Module], learnt_with: str) -> None:
    """Say what an activation that the weights were not learnt with does to them, where it is another."""
    chosen = type(activation()).__name__
    if chosen != learnt_with:
        log.warning(
            "%s: the pretrained weights and batch-norm statistics were learnt with %s and now meet %s. The "
            "features are distorted at first and much of the advantage is lost until they are trained again, "
            "the more so the less the two look alike; compare with pretrained=false",
            *(where, learnt_with, chosen),
        )
