"""Mish (Misra, BMVC 2020), x tanh(softplus(x)), in three forms that agree to rounding.

torch's own form ("native") computes a logarithm, two exponentials and more for each element. On a CPU this costs more
time than the convolution before it. With e = exp(x) and n = e (e + 2), tanh(softplus(x)) = n / (n + 2), which needs
one exponential and one division. This second formula is compiled if there is a C++ compiler ("c++"); otherwise it is
a sequence of torch operations ("algebraic").

Both are used for float32 on a CPU only. At infinity they are defined as the limits: mish(-inf) is -0 with gradient 0,
mish(inf) is inf with gradient 1. In all other cases torch's own form is used: other types and devices, tracing and
export, function transforms, second derivatives.
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
BLOCK = 1 << 18  # elements that one thread processes at a time, so that the buffers stay in the cache

# (x, None) to mish(x); (x, gradient of the loss by mish(x)) to the gradient of the loss by x. Both are like x.
Form = Callable[[Tensor, Tensor | None], Tensor]


class Mish(nn.Module):
    """x tanh(softplus(x)), for each element.

    kernel: "auto", the compiled form if there is one, else the algebraic one; "algebraic"; or "native", torch's own.
    """

    def __init__(self, kernel: str = "auto") -> None:
        super().__init__()
        assert kernel in KERNELS
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """Mish of every element; shape, type and memory format stay."""
        if self.kernel == "native" or not _is_plain(x):
            return functional.mish(x)
        form = _compiled() if self.kernel == "auto" else None
        out: Tensor = _Mish.apply(x, form or algebraic)
        return out

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"kernel={self.kernel}"


def prepare(cache: str | None) -> None:
    """Compile the fast form, or load it from the folder `cache`, before its first use.

    cache: null: no file is kept. Only the first call in a process has an effect, so that the form never changes.
    """
    if not _state.is_prepared:
        _state.is_prepared, _state.compiled = True, load(cache)


def kernel() -> str:
    """The form that `kernel: auto` uses in this process for float32 on a CPU: "c++" or "algebraic"."""
    return "algebraic" if _compiled() is None else "c++"


def algebraic(x: Tensor, grad_output: Tensor | None) -> Tensor:
    """The value, or the gradient times `grad_output`, by torch's operations.

    With one thread, x is processed in blocks that stay in the cache. With several threads it is processed as a whole:
    the threads wait for each other after every operation, and on a busy machine this costs more than slow memory.
    """
    dense, grad_output, out = _dense_tensors(x, grad_output)
    flat, target = _flatten(dense), _flatten(out)
    size = max(flat.numel(), 1) if torch.get_num_threads() > 1 else BLOCK
    buffers = [torch.empty(min(size, flat.numel())) for _ in range(2 if grad_output is None else 3)]
    for start in range(0, flat.numel(), size):
        chunk = slice(start, start + size)
        views = [block[: flat[chunk].numel()] for block in buffers]
        if grad_output is None:
            _value(flat[chunk], target[chunk], *views)
        else:
            _gradient(flat[chunk], _flatten(grad_output)[chunk], target[chunk], *views)
    return out


def _value(x: Tensor, out: Tensor, bounded: Tensor, half: Tensor) -> None:
    """x / (1 + 1 / h) with h = e + e^2 / 2, which is n / 2; the formula also holds for an infinite e."""
    torch.clamp(x, min=-120, out=bounded)
    torch.exp(bounded, out=half)
    torch.addcmul(half, half, half, value=0.5, out=half)
    torch.div(bounded, half.reciprocal_().add_(1), out=out)


def _gradient(x: Tensor, grad_output: Tensor, out: Tensor, bounded: Tensor, e: Tensor, half: Tensor) -> None:
    """(h (h + 1) + x e (e + 1)) / (h + 1)^2."""
    torch.clamp(x, -120, 20, out=bounded)
    torch.exp(bounded, out=e)
    torch.addcmul(e, e, e, value=0.5, out=half)
    e.addcmul_(e, e).mul_(bounded)
    denominator = torch.add(half, 1, out=bounded)
    e.addcmul_(half, denominator).div_(denominator.mul_(denominator))
    torch.mul(e, grad_output, out=out)


class _Mish(torch.autograd.Function):
    """The autograd function. It saves x alone for the backward pass, as torch's own does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, form: Form) -> Tensor:
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        ctx.form = form
        return form(x, None)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: this gradient will be differentiated again
            return torch.autograd.grad(functional.mish(x), x, grad_output, create_graph=True)[0], None
        if not _is_plain(grad_output):  # a batch of gradients (vmap)
            return torch.ops.aten.mish_backward(grad_output, x), None
        form: Form = ctx.form
        return form(x, grad_output), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return torch.ops.aten.mish_backward(tangent, *ctx.saved_tensors)


@dataclass
class _State:
    is_prepared: bool = False
    compiled: Form | None = None


_state = _State()


def _compiled() -> Form | None:
    prepare(None)
    return _state.compiled


def load(cache: str | None) -> Form | None:
    """The compiled form; None if it cannot be compiled, or if a check shows that it does not compute Mish."""
    library = compiler.library(SOURCE, "mish", cache)
    if library is None:
        return None
    function = library.emoexp_mish
    function.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_uint, ctypes.c_void_p]
    function.restype = None
    parallel = _parallel()

    def form(x: Tensor, grad_output: Tensor | None) -> Tensor:
        dense, grad_output, out = _dense_tensors(x, grad_output)
        gradient = None if grad_output is None else grad_output.data_ptr()
        function(dense.data_ptr(), gradient, out.data_ptr(), out.numel(), torch.get_num_threads(), parallel)
        return out

    return form if _computes_mish(form) else None


def _computes_mish(form: Form) -> bool:
    """Whether a form agrees with the algebraic one, on enough elements for several threads: a compiler can be wrong."""
    x = torch.linspace(-30, 30, 100_001)
    grad_output = torch.ones(())  # expanded below: a gradient with strides of 0
    agrees = [
        torch.allclose(form(x, gradient), algebraic(x, gradient), rtol=1e-5, atol=1e-6)
        for gradient in (None, grad_output.expand_as(x))
    ]
    if not all(agrees):
        log.warning("the compiled Mish gives wrong values and is not used; please report the compiler's version")
    return all(agrees)


def _parallel() -> ctypes.c_void_p | None:
    """GOMP_parallel of torch's OpenMP, so that Mish uses torch's pool of threads; None if torch has another OpenMP."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            torch_library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
            return ctypes.cast(torch_library.GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return None


def _is_plain(x: Tensor) -> bool:
    """Whether x is an ordinary float32 tensor on the CPU, and its operations are neither traced nor transformed."""
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


def _dense_tensors(x: Tensor, grad_output: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """x and `grad_output` as dense tensors with the same strides, copied if necessary, and an empty tensor like them.

    torch.empty_like keeps the strides of x if and only if x is dense (without gaps and overlaps).
    """
    out = torch.empty_like(x)
    if x.stride() != out.stride():
        x = torch.empty_like(out).copy_(x)
    if grad_output is not None and grad_output.stride() != out.stride():
        grad_output = torch.empty_like(out).copy_(grad_output)
    return x, grad_output, out


def _flatten(dense: Tensor) -> Tensor:
    return dense.as_strided((dense.numel(),), (1,))
