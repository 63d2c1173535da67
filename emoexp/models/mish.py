"""Mish (Misra, BMVC 2020), x tanh(softplus(x)), in three forms that agree to rounding.

torch's own form takes a logarithm, two exponentials and more an element, and on a CPU costs more than the
convolution beside it. With e = exp(x) and n = e (e + 2), tanh(softplus(x)) = n / (n + 2): one exponential,
one division. That form is compiled where there is a C++ compiler ("c++"), else a chain of torch operations in
blocks ("algebraic").

The two serve float32 on a CPU and define the limits: mish(-inf) is -0 with gradient 0, mish(inf) is inf with
gradient 1. Everything else is left to torch: other types and devices, tracing and export, function
transforms, second derivatives.
"""

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from emoexp.models import compiler
from emoexp.models.mish_source import SOURCE

log = logging.getLogger(__name__)

KERNELS = ("auto", "algebraic", "native")
BLOCK = 1 << 18  # elements that one thread takes at once: the temporaries stay in the cache

# (x, gradient of what follows or None for the value itself) to a tensor like x
Form = Callable[[Tensor, Tensor | None], Tensor]


class Mish(nn.Module):
    """x tanh(softplus(x)), for each element.

    kernel: "auto", the compiled form where there is one, else the algebraic; "algebraic"; or "native",
    torch's.
    """

    def __init__(self, kernel: str = "auto") -> None:
        super().__init__()
        assert kernel in KERNELS
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """Mish of every element; shape, type and memory format stay."""
        if self.kernel == "native" or not _plain(x):
            return functional.mish(x)
        form = _compiled() if self.kernel == "auto" else None
        out: Tensor = _Mish.apply(x, form or algebraic)
        return out

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"kernel={self.kernel}"


def prepare(cache: str | None) -> None:
    """Compile the fast form, or load it from the folder `cache`, now rather than at first use.

    null: keep no file. Once in a process: a form that ran is not exchanged for another.
    """
    if not _state.asked:
        _state.asked, _state.compiled = True, load(cache)


def kernel() -> str:
    """The form that `kernel: auto` takes here for float32 on a CPU: "c++" or "algebraic"."""
    return "algebraic" if _compiled() is None else "c++"


def algebraic(x: Tensor, above: Tensor | None) -> Tensor:
    """The value, or the gradient times `above`, by torch's operations.

    One thread goes by blocks that stay in the cache. Several take the whole at once: they wait for each other
    after every operation, which on a busy machine costs more than the memory's way.
    """
    dense, above, out = _dense(x, above)
    flat, target = _flat(dense), _flat(out)
    size = max(flat.numel(), 1) if torch.get_num_threads() > 1 else BLOCK
    space = [torch.empty(min(size, flat.numel())) for _ in range(2 if above is None else 3)]
    for start in range(0, flat.numel(), size):
        place = slice(start, start + size)
        room = [block[: flat[place].numel()] for block in space]
        if above is None:
            _value(flat[place], target[place], *room)
        else:
            _gradient(flat[place], _flat(above)[place], target[place], *room)
    return out


def _value(x: Tensor, out: Tensor, bounded: Tensor, half: Tensor) -> None:
    """x / (1 + 1 / h) with h = e + e^2 / 2, which is n / 2; an infinite e is harmless here."""
    torch.clamp(x, min=-120, out=bounded)
    torch.exp(bounded, out=half)
    torch.addcmul(half, half, half, value=0.5, out=half)
    torch.div(bounded, half.reciprocal_().add_(1), out=out)


def _gradient(x: Tensor, above: Tensor, out: Tensor, bounded: Tensor, e: Tensor, half: Tensor) -> None:
    """(h (h + 1) + x e (e + 1)) / (h + 1)^2."""
    torch.clamp(x, -120, 20, out=bounded)
    torch.exp(bounded, out=e)
    torch.addcmul(e, e, e, value=0.5, out=half)
    e.addcmul_(e, e).mul_(bounded)
    below = torch.add(half, 1, out=bounded)
    e.addcmul_(half, below).div_(below.mul_(below))
    torch.mul(e, above, out=out)


class _Mish(torch.autograd.Function):
    """Keeps x alone for the backward pass, as torch's does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, form: Form) -> Tensor:
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        ctx.form = form
        return form(x, None)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate this gradient
            return torch.autograd.grad(functional.mish(x), x, above, create_graph=True)[0], None
        if not _plain(above):  # many gradients at once
            return torch.ops.aten.mish_backward(above, x), None
        form: Form = ctx.form
        return form(x, above), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return torch.ops.aten.mish_backward(tangent, *ctx.saved_tensors)


@dataclass
class _State:
    asked: bool = False
    compiled: Form | None = None


_state = _State()


def _compiled() -> Form | None:
    prepare(None)
    return _state.compiled


def load(cache: str | None) -> Form | None:
    """The compiled form, once it has shown that it computes Mish; None where there is none."""
    loaded = compiler.library(SOURCE, "mish", cache)
    if loaded is None:
        return None
    function = loaded.emoexp_mish
    function.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_uint, ctypes.c_void_p]
    function.restype = None
    parallel = _parallel()

    def form(x: Tensor, above: Tensor | None) -> Tensor:
        dense, above, out = _dense(x, above)
        gradient = None if above is None else above.data_ptr()
        function(dense.data_ptr(), gradient, out.data_ptr(), out.numel(), torch.get_num_threads(), parallel)
        return out

    return form if _computes_mish(form) else None


def _computes_mish(form: Form) -> bool:
    """A compiler can be wrong: compare once, on more elements than one thread takes."""
    x = torch.linspace(-30, 30, 100_001)
    above = torch.ones(())  # spread over x without a copy
    right = [
        torch.allclose(form(x, given), algebraic(x, given), rtol=1e-5, atol=1e-6)
        for given in (None, above.expand_as(x))
    ]
    if not all(right):
        log.warning("the compiled Mish computes something else and is not used; report the compiler's version")
    return all(right)


def _parallel() -> ctypes.c_void_p | None:
    """GOMP_parallel of the OpenMP that torch runs on: one pool of threads. None where it runs on another."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            torchs = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
            return ctypes.cast(torchs.GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return None


def _plain(x: Tensor) -> bool:
    """Whether x is ordinary float32 memory on the CPU and nobody records or transforms what is done to it."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.layout == torch.strided
        and not x.is_neg()
        and torch._C._has_storage(x)
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not is_in_torch_dispatch_mode()
        and not torch._C._are_functorch_transforms_active()
    )


def _dense(x: Tensor, above: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """x and `above` without gaps and in one order of memory, copied if need be, and room for a result.

    torch gives a result the strides of its model if and only if the model has no gaps or overlaps.
    """
    out = torch.empty_like(x)
    if x.stride() != out.stride():
        x = torch.empty_like(out).copy_(x)
    if above is not None and above.stride() != out.stride():
        above = torch.empty_like(out).copy_(above)
    return x, above, out


def _flat(dense: Tensor) -> Tensor:
    return dense.as_strided((dense.numel(),), (1,))
