"""Changes to torchvision's networks: another activation, another stem, and ImageNet's weights on request."""

import hashlib
import io
import logging
import pickle
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

log = logging.getLogger(__name__)

STEMS = ("small", "imagenet")
REPLACEABLE = (nn.ReLU, nn.Hardswish)


def replace_activations(network: nn.Module, activation: Callable[[], nn.Module]) -> None:
    """Put `activation` in place of every ReLU and hard-swish.

    The hard sigmoids of squeeze-and-excitation are not replaced: they are gates, factors of 0 to 1 for each channel.
    With an unbounded activation there, the output would grow with the square of the features.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, REPLACEABLE):
                setattr(module, name, activation())


def fresh_stem(channels: int, width: int, kernel: int, stride: int) -> nn.Conv2d:
    """A first convolution that divides the side by the stride, with new weights, drawn as in torchvision."""
    stem = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    return stem


def load_weights(network: nn.Module, weights: WeightsEnum, *, stem: str, fresh: Collection[str]) -> None:
    """Load ImageNet's weights into all parameters and statistics except those named in `fresh`, which stay as drawn.

    stem: name of the first convolution's weight, which is converted to the number of channels.

    Raises:
        ValueError: the weights cannot be fetched or read.
    """
    new_state = network.state_dict()
    pretrained = fetch(weights)
    if stem not in fresh:
        pretrained[stem] = fit_channels(pretrained[stem], new_state[stem].shape[1])
    network.load_state_dict({name: value if name in fresh else pretrained[name] for name, value in new_state.items()})


def fit_channels(kernel_OCHW: Tensor, channels: int) -> Tensor:
    """A kernel for colour images, converted to `channels`. Its output is the same for images whose channels are equal.

    The kernel of one channel is the sum over the colours; each of several channels gets an equal share of this sum.
    """
    if kernel_OCHW.shape[1] == channels:
        return kernel_OCHW
    return kernel_OCHW.sum(1, keepdim=True).repeat(1, channels, 1, 1) / channels


def fetch(weights: WeightsEnum) -> dict[str, Tensor]:
    """A network's published weights, from torch's download folder, or downloaded to it.

    Raises:
        ValueError: they can be neither read nor downloaded, or the file is another one than was published. The message
            says where to put the file.
    """
    file, content = _published(weights)
    try:
        return dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise _refusal(file, "cannot be read", error) from error


def weights_hash(weights: WeightsEnum) -> dict[str, str]:
    """The name of the file of a network's published weights, and its SHA-256. Raises as `fetch`."""
    file, content = _published(weights)
    return {file.name: hashlib.sha256(content).hexdigest()}


def _published(weights: WeightsEnum) -> tuple[Path, bytes]:
    """The file of published weights and its content, whose hash begins with the digits that its name ends with."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    try:
        if not file.is_file():
            log.info("fetching %s to %s", weights.url, file)
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(file), hash_prefix=_hash_in(file), progress=False)
        content = file.read_bytes()
    except (OSError, RuntimeError) as error:
        problem = "cannot be read" if file.is_file() else f"cannot be fetched from {weights.url}"
        raise _refusal(file, problem, error) from error
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(_hash_in(file)):
        reason = f"its SHA-256 begins with {found[:8]}, that of the published file with {_hash_in(file)}"
        raise _refusal(file, "is not the file that was published", reason)
    return file, content


def _hash_in(file: Path) -> str:
    """The first digits of the hash of a published file, which its name ends with: f37072fd of resnet18-f37072fd.pth."""
    return file.stem.rpartition("-")[2]


def _refusal(file: Path, problem: str, reason: object) -> ValueError:
    why = str(reason).strip().partition("\n")[0]
    return ValueError(
        f"architecture.pretrained=true: {file} {problem} ({why}). Put an intact {file.name} into {file.parent}, "
        "from a machine that is online, or choose architecture.pretrained=false"
    )


def warn_of_activation(architecture: str, activation: Callable[[], nn.Module], pretrained_with: str) -> None:
    """Warn if the activation is not the one that the weights were pretrained with."""
    new_activation = type(activation()).__name__
    if new_activation != pretrained_with:
        log.warning(
            "%s: the weights and batch-norm statistics were pretrained with %s, and the network now has %s. The "
            "features are distorted at first, and much of the advantage of pretraining is lost until they are trained "
            "again, more of it the less similar the two activations are; compare with "
            "architecture.pretrained=false",
            *(architecture, pretrained_with, new_activation),
        )
