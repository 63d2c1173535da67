"""The machine that computes: device, threads, precision, allocator; and what of it a run's manifest records."""

import ctypes
import os
import platform
import sys
from importlib.metadata import version

import torch


def tune_allocator() -> None:
    """Keep large freed blocks instead of returning them to the system after every step (glibc; no effect elsewhere).

    The activations of a first layer, 38 MB at batch 128, are larger than glibc's threshold: without this, each step
    would map their memory anew, which takes a quarter of its time. It costs some resident memory.
    """
    if _glibc():
        trim_threshold, mmap_threshold = -1, -3
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 1 << 30)


def release_unused_memory() -> None:
    """Return memory that the allocator kept to the operating system; called once, after training."""
    if _glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _glibc() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def choose(device: str) -> torch.device:
    """The device of a name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ValueError: there is no such device here.
    """
    if device == "auto":
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    try:
        torch_device = torch.device(device)
        torch.zeros(1, device=torch_device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"device={device} cannot be used here ({reason}); device=auto takes what there is") from error
    return torch_device


def prepare(device: torch.device, threads: int | None, precision: str, deterministic: bool) -> None:
    """Set what torch keeps for the whole process: threads, tensor-core precision, determinism."""
    tune_allocator()
    if threads:
        torch.set_num_threads(threads)
    tensor_cores = precision in ("tf32", "bf16")
    torch.backends.cuda.matmul.allow_tf32 = tensor_cores
    torch.backends.cudnn.allow_tf32 = tensor_cores
    torch.backends.cudnn.benchmark = device.type == "cuda" and not deterministic
    if deterministic:  # cuBLAS reads it when it starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if (
        torch.are_deterministic_algorithms_enabled() != deterministic
    ):  # setting it makes torch load its compiler: only where it changes
        torch.use_deterministic_algorithms(deterministic)
    # nothing reads memory before it is written, and torch's filling of new memory costs 9 % of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def check_precision(device: torch.device, precision: str) -> None:
    """Refuse a precision that only makes training slower.

    Raises:
        ValueError: bf16 on a processor that has to emulate it.
    """
    if precision == "bf16" and device.type == "cpu" and not _bf16_arithmetic():
        raise ValueError(
            "precision=bf16: this processor has no bf16 arithmetic (AVX512_BF16 or AMX), and training would take two "
            "to four times as long as with precision=fp32, which is also the more exact"
        )


def _bf16_arithmetic() -> bool:
    return bool(torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16"))


def facts(device: torch.device) -> dict[str, object]:
    """Device, threads and versions, which also decide the bits of a result."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    packages = ("torch", "torchvision", "numpy", "pillow")
    return {
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
    }
