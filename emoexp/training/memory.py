"""How much memory a training needs, estimated before it starts: a process that the system kills cannot say why."""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

REFUSED = 1.5  # times the memory that the machine has: the estimate is not exact


def step_bytes(build: Callable[[], nn.Module], image_shape: tuple[int, int, int], batch_size: int) -> int | None:
    """Bytes that a step takes in single precision: outputs of all layers, which the gradient needs, weights, gradients
    and an optimizer's two moments.

    build: makes the network; it is built without memory for its weights. image_shape: channels, height, width.

    Returns:
        None for a network that cannot be built or run so.
    """
    sizes: list[int] = []

    def count(module: nn.Module, inputs: object, output: object) -> None:
        sizes.extend(
            tensor.numel()
            for tensor in (output if isinstance(output, tuple) else (output,))
            if isinstance(tensor, Tensor)
        )

    try:
        with torch.device("meta"), torch.no_grad():
            model = build().eval()
            for module in model.modules():
                if not list(module.children()):
                    module.register_forward_hook(count)
            model(torch.empty(2, *image_shape))
    except Exception:  # noqa: BLE001 - a network of the user's own may do anything; then nothing is known
        return None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    largest = max(sizes, default=0)
    images = 3 * 2 * math.prod(image_shape)  # as bytes, as numbers, and transformed
    return 4 * (batch_size * (sum(sizes) + 2 * largest + images) // 2 + 4 * parameters)


def of_machine(device: torch.device) -> tuple[int, int]:
    """Bytes that are free on a device, and all that it has; of the main memory, what this process may use of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    about = Path("/proc/meminfo")
    if not about.is_file():
        everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return everything, everything
    size_of = {
        key: 1024 * int(size) for key, size in re.findall(r"^(\w+): +(\d+) kB", about.read_text(encoding="utf-8"), re.M)
    }
    free, everything = size_of["MemAvailable"] + size_of["SwapFree"], size_of["MemTotal"] + size_of["SwapTotal"]
    limit = _limit_of_group()
    return min(free, limit), min(everything, limit)


def _limit_of_group() -> int:
    """The limit of the control group that the process runs in, as a container sets it."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(path).read_text(encoding="utf-8").strip() if Path(path).is_file() else ""
        if text.isdigit():
            return int(text)
    return 2**63


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{max(1.0, size / 1e6):.0f} MB"


def check(needed: int, batch_size: int, device: torch.device) -> str:
    """What a step needs and what is free, in words.

    Raises:
        ValueError: the machine does not have so much, by far.
    """
    free, everything = of_machine(device)
    said = f"about {_gigabytes(needed)} for a step of {batch_size} images; {_gigabytes(free)} are free"
    lower = "lower batch_size, image_size, or the network's widths"
    if needed > REFUSED * everything:
        raise ValueError(f"{said}, and {device.type} has {_gigabytes(everything)} in all: {lower}")
    return f"{said}. It may be too much: {lower}" if needed > free else said
