"""Mish: every form against float64, on every layout of memory, and the compiled one's life on disk."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from emoexp.models import compiler, mish
from emoexp.models.mish import Mish, algebraic, load
from emoexp.models.mish_source import SOURCE

COMPILED = load(None)
FORMS = {"algebraic": algebraic} | ({"c++": COMPILED} if COMPILED else {})
needs_compiler = pytest.mark.skipif(COMPILED is None, reason="no C++ compiler here")
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def precise(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mish and its derivative in float64, by the definition."""
    x64 = x.double().numpy()
    tanh = np.tanh(np.logaddexp(0, x64))
    return x64 * tanh, tanh + x64 * (1 - tanh**2) * np.exp(-np.logaddexp(0, -x64))


def slope(form: Callable[[Tensor, Tensor | None], Tensor], x: Tensor) -> Tensor:
    return form(x, torch.ones_like(x))


def bits(x: Tensor) -> list[int]:
    return x.contiguous().view(torch.int32).flatten().tolist()


@every_form
@pytest.mark.parametrize("low, high", [(-87, -20), (-20, -3), (-3, 0), (0, 1), (1, 20), (20, 88), (1e3, 1e4)])
def test_value_and_gradient_are_right_to_rounding(form, low: float, high: float) -> None:
    x = torch.linspace(low, high, 100_001)
    value, derivative = precise(x)
    spacing = np.spacing(np.abs(value).astype(np.float32))
    assert np.max(np.abs(form(x, None).numpy() - value) / spacing) <= 4
    # the derivative crosses zero at -1.19: judged against the larger of itself and its terms there
    scale = np.maximum(np.abs(derivative), np.where(np.abs(x.numpy() + 1.2) < 1, 0.1, 0))
    assert np.max(np.abs(slope(form, x).numpy() - derivative) / scale) <= 10 * 2.0**-24


@every_form
def test_tiny_results_go_to_zero(form) -> None:
    x = torch.linspace(-130, -85, 10_001)
    value, derivative = precise(x)
    np.testing.assert_allclose(form(x, None).numpy(), value, rtol=1e-6, atol=4e-37)
    np.testing.assert_allclose(slope(form, x).numpy(), derivative, rtol=1e-6, atol=4e-37)


@every_form
def test_extremes(form) -> None:
    x = torch.tensor([0.0, -0.0, 1e4, -1e4, 3e38, -3e38, np.inf, -np.inf, np.nan])
    value, derivative = form(x, None), slope(form, x)
    expected = torch.tensor([0.0, -0.0, 1e4, -0.0, 3e38, -0.0, np.inf, -0.0])
    assert bits(value[:-1]) == bits(expected)
    assert derivative[:-1].abs().tolist() == pytest.approx([0.6, 0.6, 1, 0, 1, 0, 1, 0], rel=1e-7)
    assert value[-1].isnan() and derivative[-1].isnan()


@every_form
def test_gradient_is_multiplied_by_what_comes_from_above(form) -> None:
    x, above = torch.randn(1000), torch.randn(1000)
    torch.testing.assert_close(form(x, above), slope(form, x) * above, rtol=3e-7, atol=0)
    assert form(torch.zeros(3), torch.tensor([np.inf, -np.inf, np.nan])).isfinite().sum() == 0


@pytest.mark.parametrize("kernel", mish.KERNELS)
def test_module_agrees_with_torch_in_value_and_gradient(kernel: str) -> None:
    x = torch.randn(4, 3, 5, 5, requires_grad=True)
    above = torch.randn_like(x)
    (gradient,) = torch.autograd.grad(Mish(kernel)(x), x, above)
    y64 = functional.mish(x.double())
    (gradient64,) = torch.autograd.grad(y64, x, above.double())
    torch.testing.assert_close(Mish(kernel)(x), y64.float(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradient, gradient64, rtol=1e-6, atol=1e-6)


def test_module_runs_the_form_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def form(x: Tensor, above: Tensor | None) -> Tensor:
        called.append("compiled")
        return algebraic(x, above)

    monkeypatch.setattr(mish, "_state", mish._State(True, form))
    x = torch.randn(5, requires_grad=True)
    assert mish.kernel() == "c++"
    Mish("algebraic")(x).sum().backward()
    Mish("native")(x).sum().backward()
    assert called == []
    Mish()(x).sum().backward()
    assert called == ["compiled", "compiled"]
    monkeypatch.setattr(mish, "_state", mish._State(True, None))
    assert mish.kernel() == "algebraic"
    Mish()(x).sum().backward()
    assert called == ["compiled", "compiled"]


def layouts() -> dict[str, Tensor]:
    x = torch.randn(2, 6, 4, 8)
    return {
        "contiguous": x,
        "channels_last": x.to(memory_format=torch.channels_last),
        "channels_last_3d": torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
        "transposed": x.transpose(1, 3),
        "offset": x.flatten()[1:],
        "gaps": x[:, ::2, 1:, ::3],
        "expanded": torch.randn(1, 6, 1, 8).expand(2, 6, 4, 8),
        "overlapping": torch.randn(20).as_strided((8, 4), (2, 1)),
        "one pixel": torch.randn(3, 5, 1, 1).to(memory_format=torch.channels_last),
        "scalar": torch.randn(()),
        "empty": torch.randn(0, 3, 4, 4),
    }


@every_form
@pytest.mark.parametrize("layout", layouts())
def test_layout_of_memory_changes_nothing(form, layout: str) -> None:
    x = layouts()[layout]
    above = torch.randn(x.shape)
    kept = x.clone()
    plain = x.contiguous().flatten()
    value, gradient = form(x, None), form(x, above)
    assert bits(value) == bits(form(plain, None))
    assert bits(gradient) == bits(form(plain, above.flatten()))
    assert value.stride() == torch.empty_like(x).stride() == gradient.stride()
    assert torch.equal(x, kept)


@every_form
def test_gradient_from_above_may_lie_otherwise(form) -> None:
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    above = torch.randn(2, 3, 4, 4)
    last = above.to(memory_format=torch.channels_last)
    assert bits(form(x, above)) == bits(form(x, last))
    assert bits(form(x, torch.ones(()).expand_as(x))) == bits(slope(form, x))


@needs_compiler
def test_an_elements_bits_depend_on_nothing_but_the_element() -> None:
    x, above = torch.randn(200_003) * 8, torch.randn(200_003)
    torch.set_num_threads(1)
    value, gradient = bits(COMPILED(x, None)), bits(COMPILED(x, above))
    for count in (2, 3):
        torch.set_num_threads(count)
        assert bits(COMPILED(x, None)) == value
        assert bits(COMPILED(x, above)) == gradient
    for start in range(0, 20):
        for length in (1, 7, 8, 15, 16, 17, 33, 70):
            place = slice(start, start + length)
            assert bits(COMPILED(x[place], None)) == value[place]
            assert bits(COMPILED(x[place], above[place])) == gradient[place]


def test_algebraic_bits_do_not_depend_on_threads() -> None:
    x, above = torch.randn(300_001) * 8, torch.randn(300_001)
    torch.set_num_threads(1)
    value, gradient = bits(algebraic(x, None)), bits(algebraic(x, above))
    torch.set_num_threads(2)
    assert bits(algebraic(x, None)) == value
    assert bits(algebraic(x, above)) == gradient


@needs_compiler
def test_threads_are_torchs_own() -> None:
    """With a second pool of threads the two would fight for the cores."""
    torch.set_num_threads(2)
    big = torch.randn(1_000_000)
    (big + big).sum()
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("threads are counted in Linux's /proc")
    before = len(list(tasks.iterdir()))
    COMPILED(big, None)
    assert len(list(tasks.iterdir())) == before


def test_float64_and_second_derivatives() -> None:
    x = torch.randn(7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Mish(), x)
    assert torch.autograd.gradgradcheck(Mish(), x)
    y = x.detach().float().requires_grad_()
    second = []
    for z in (x, y):
        (first,) = torch.autograd.grad(Mish()(z).sum(), z, create_graph=True)
        second.append(torch.autograd.grad((first**2).sum(), z)[0])
    torch.testing.assert_close(second[1].double(), second[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_are_torchs(dtype: torch.dtype) -> None:
    x = torch.randn(50).to(dtype)
    assert torch.equal(Mish()(x), functional.mish(x))


def test_autocast() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), Mish())
    with torch.autocast("cpu", torch.bfloat16):
        y = network(torch.randn(2, 1, 8, 8))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert network[0].weight.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # torch's own, in jvp
def test_function_transforms() -> None:
    x = torch.randn(4, 3)
    torch.testing.assert_close(torch.vmap(Mish())(x), functional.mish(x))
    derivative = torch.func.vmap(torch.func.vmap(torch.func.grad(Mish())))(x)
    torch.testing.assert_close(derivative.numpy(), precise(x)[1].astype(np.float32), rtol=1e-5, atol=1e-6)
    _, tangent = torch.func.jvp(Mish(), (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, derivative)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        torch.testing.assert_close(forward_ad.unpack_dual(Mish()(dual)).tangent, derivative)
    jacobian = torch.autograd.functional.jacobian(Mish(), x[0], vectorize=True)
    torch.testing.assert_close(jacobian.diag(), derivative[0])


def test_tracing_records_mish_and_not_a_constant() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    x, other = torch.randn(5), torch.randn(5)
    traced = {mode: make_fx(Mish(), tracing_mode=mode)(x) for mode in ("real", "fake")}
    traced["fx"] = torch.fx.symbolic_trace(nn.Sequential(Mish()))
    for program in traced.values():
        torch.testing.assert_close(program(other), functional.mish(other))


def test_an_exported_program_needs_nothing_of_ours() -> None:
    program = torch.export.export(nn.Sequential(nn.Linear(3, 3), Mish()), (torch.randn(2, 3),))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets == ["aten.linear.default", "aten.mish.default"]


def test_inference_mode_and_no_grad() -> None:
    x = torch.randn(10, requires_grad=True)
    with torch.inference_mode():
        inference = Mish()(x)
    with torch.no_grad():
        assert torch.equal(inference, Mish()(x))
    assert not inference.requires_grad


@needs_compiler
def test_a_compiled_library_is_kept_and_taken_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(str(cache)) is not None
    (kept,) = (cache / "kernels").iterdir()
    monkeypatch.setattr(compiler, "COMPILERS", ())
    assert load(str(cache)) is not None
    assert list((cache / "kernels").iterdir()) == [kept]
    kept.unlink()
    assert load(str(cache)) is None


@needs_compiler
def test_another_source_or_processor_is_another_library(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source, processor in (("int first;", ""), ("int second;", ""), ("int second;", "other")):
        monkeypatch.setattr(compiler, "_processor_description", lambda processor=processor: processor)
        assert compiler.library(source, "test", str(cache)) is not None
    assert len(list((cache / "kernels").iterdir())) == 3


@needs_compiler
def test_a_broken_library_is_made_anew(cache: Path) -> None:
    assert load(str(cache / "whole")) is not None
    (whole,) = (cache / "whole" / "kernels").iterdir()
    broken = cache / "broken" / "kernels" / whole.name
    broken.parent.mkdir(parents=True, mode=0o700)
    broken.touch(0o700)
    assert load(str(cache / "broken")) is not None
    assert broken.read_bytes()[:4] == b"\x7fELF" or broken.stat().st_size > 1000


@pytest.mark.parametrize("found", [None, "/bin/false", "/nowhere/g++"])
def test_without_a_working_compiler_the_algebraic_form_serves(
    found: str | None, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler.shutil, "which", lambda name: found)
    monkeypatch.setattr(mish, "_state", mish._State())
    mish.prepare(str(cache))
    assert mish.kernel() == "algebraic"
    x = torch.randn(9)
    assert bits(Mish()(x)) == bits(algebraic(x, None))
    assert list((cache / "kernels").iterdir()) == []


@needs_compiler
def test_source_that_does_not_compile_gives_no_library(cache: Path) -> None:
    assert compiler.library("this is no C++", "test", str(cache)) is None
    assert compiler.library("this is no C++", "test", None) is None


@needs_compiler
def test_a_compiler_that_is_wrong_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mish, "SOURCE", SOURCE.replace("n + 2.0f", "n + 2.1f"))
    assert load(None) is None
    assert "gives wrong values" in caplog.text


@needs_compiler
def test_without_a_folder_of_its_own_nothing_is_left(cache: Path) -> None:
    (cache / "kernels").write_text("a file where the folder should be")
    assert load(str(cache)) is not None
    open_to_all = cache / "open"
    (open_to_all / "kernels").mkdir(parents=True)
    (open_to_all / "kernels").chmod(0o777)
    assert load(str(open_to_all)) is not None
    assert list((open_to_all / "kernels").iterdir()) == []


@needs_compiler
def test_a_folder_below_one_that_others_write_to_is_not_trusted(cache: Path) -> None:
    above = cache / "above"
    above.mkdir()
    above.chmod(0o777)
    assert compiler._private_folder(str(above / "cache")) is None
    above.chmod(0o1777)  # sticky, as /tmp is
    assert compiler._private_folder(str(above / "cache")) is not None


@needs_compiler
def test_a_library_that_others_can_write_to_is_not_loaded(cache: Path) -> None:
    assert load(str(cache)) is not None
    (kept,) = (cache / "kernels").iterdir()
    assert compiler._load(kept) is not None
    kept.chmod(0o722)
    assert compiler._load(kept) is None
    link = cache / "link.so"
    link.symlink_to(kept)
    kept.chmod(0o700)
    assert compiler._load(link) is None


@needs_compiler
def test_processes_that_compile_at_once_do_not_disturb_each_other(cache: Path) -> None:
    code = "import sys; from emoexp.models import compiler, mish_source; " + (
        "sys.exit(compiler.library(mish_source.SOURCE, 'mish', sys.argv[1]) is None)"
    )
    command = [sys.executable, "-c", code, str(cache)]
    root = Path(__file__).resolve().parents[2]
    running = [subprocess.Popen(command, cwd=root) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert len(list((cache / "kernels").iterdir())) == 1


@pytest.mark.slow
def test_the_fast_forms_are_faster() -> None:
    """Far below what is measured (3 and 10 times), so that a busy machine does not fail."""
    from time import perf_counter

    torch.set_num_threads(1)
    x, above = torch.randn(64, 32, 24, 24), torch.randn(64, 32, 24, 24)

    def seconds(kernel: str) -> float:
        z = x.clone().requires_grad_()
        started = perf_counter()
        torch.autograd.grad(Mish(kernel)(z), z, above)
        return perf_counter() - started

    best = {kernel: min(seconds(kernel) for _ in range(15)) for kernel in mish.KERNELS}
    assert best["native"] > 1.3 * best["algebraic"]
    if COMPILED:
        assert best["native"] > 2.5 * best["auto"]
