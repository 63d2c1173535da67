"""Forward passes in evaluation mode, for validation during training, for evaluation and for prediction."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from emoexp.data.mapped import gather
from emoexp.data.normalisation import Normalisation
from emoexp.data.resident import to_device
from emoexp.models import folding
from emoexp.models.network import Network

_PIXELS = {"cpu": 256 * 48 * 48, "cuda": 2048 * 48 * 48}  # in one forward pass


def batches(
    image_NCHW: Tensor, index_N: Tensor, normalisation: Normalisation, device: torch.device
) -> Iterator[Tensor]:
    """Batches of the images of an index, in its order and not augmented: normalised float32, channels last."""
    for index_B in index_N.split(batch_size(device, image_NCHW.shape[2] * image_NCHW.shape[3])):
        image = to_device(gather(image_NCHW, index_B.to(image_NCHW.device)), device)
        yield normalisation(image).contiguous(memory_format=torch.channels_last)


def batch_size(device: torch.device, pixels: int) -> int:
    """Number of images, of so many pixels each, in one forward pass: enough to fill a GPU; fewer on a CPU, where larger
    batches are not faster."""
    return max(1, _PIXELS.get(device.type, _PIXELS["cpu"]) // pixels)


def logits(model: Network, batches: Iterator[Tensor], precision: str) -> Tensor:
    """Logits N×C (float32, CPU) of batches of normalised images. On a CPU, batch norms are folded into convolutions."""
    model.eval()
    out: list[Tensor] = []
    with torch.inference_mode():
        for image in batches:
            if not out and image.device.type == "cpu":  # on a GPU, folding takes longer than inference
                model = folding.fold_batch_norms(model, image[:2])
            with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bf16"):
                out.append(model(image).logits_BC.float())
    return torch.cat(out).cpu()


def probabilities(logits_NC: Tensor) -> np.ndarray:
    """Softmax in float64."""
    return torch.softmax(logits_NC.double(), 1).numpy()


def features(model: Network, batches: Iterator[Tensor], precision: str) -> Tensor:
    """Features, the input of the classifier, of batches of normalised images: float32 N×F, CPU."""
    model.eval()
    out: list[Tensor] = []
    with torch.no_grad():
        for image in batches:
            with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bf16"):
                out.append(model.features(image).float())
    return torch.cat(out).cpu()
