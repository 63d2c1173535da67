"""All images as one tensor, placed where training can gather from it fastest."""

import numpy as np
import torch
from torch import Tensor


def resident(images: np.ndarray, device: torch.device) -> Tensor:
    """Images as one uint8 tensor: in the device's memory if they take at most half of its free memory; otherwise in
    RAM, or on disk for a memory-mapped array. A second call with the same array and device returns the same tensor."""
    if device.type == "cpu":
        return torch.from_numpy(images)
    for source_array, placed_on, tensor in _last_placed:
        if source_array is images and placed_on == device:
            return tensor
    _last_placed.clear()
    tensor = torch.from_numpy(images)
    if device.type == "mps" or tensor.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
        tensor = tensor.to(device)
    _last_placed.append((images, device, tensor))
    return tensor


_last_placed: list[tuple[np.ndarray, torch.device, Tensor]] = []  # at most one: array, device and tensor


def to_device(image_BCHW: Tensor, device: torch.device) -> Tensor:
    """Images on a device; the copy from CPU to CUDA is asynchronous."""
    if device.type == "cuda" and image_BCHW.device.type == "cpu":
        return image_BCHW.pin_memory().to(device, non_blocking=True)
    return image_BCHW.to(device)
