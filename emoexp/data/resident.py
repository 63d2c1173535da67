"""All images as one tensor, placed where training can gather from it fastest."""

import numpy as np
import torch
from torch import Tensor


def resident(images: np.ndarray, device: torch.device) -> Tensor:
    """Images as one uint8 tensor: in the device's memory where they take at most half of what is free, else in RAM or,
    for a memory-mapped array, on disk. Asked again for the images it placed last, it gives the same tensor."""
    if device.type == "cpu":
        return torch.from_numpy(images)
    for known, there, tensor in _placed:
        if known is images and there == device:
            return tensor
    _placed.clear()
    tensor = torch.from_numpy(images)
    if device.type == "mps" or tensor.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
        tensor = tensor.to(device)
    _placed.append((images, device, tensor))
    return tensor


_placed: list[tuple[np.ndarray, torch.device, Tensor]] = []


def to_device(image_BCHW: Tensor, device: torch.device) -> Tensor:
    """Images on a device; on their way to CUDA the host does not wait for them."""
    if device.type == "cuda" and image_BCHW.device.type == "cpu":
        return image_BCHW.pin_memory().to(device, non_blocking=True)
    return image_BCHW.to(device)
