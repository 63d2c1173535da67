"""The memory that a step needs is known before it starts, and a machine that lacks it is told so in one line."""

import pytest
import torch
from composing import checked, tiny
from torch import nn

from emoexp.config import build_model, build_training, options
from emoexp.sweep import outcomes
from emoexp.sweep.cells import DIED, Outcome
from emoexp.sweep.pool import OUT_OF_MEMORY
from emoexp.training import memory, run

CPU = torch.device("cpu")


def saved_bytes(model: nn.Module, image_BCHW: torch.Tensor) -> int:
    """Bytes that torch keeps for the gradient: the oracle."""
    size_of: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        size_of[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(image_BCHW).logits_BC.sum()
    return sum(size_of.values())


@pytest.mark.parametrize("architecture", options.listed("architecture"))
def test_the_estimate_is_near_what_torch_keeps(architecture):
    experiment, _ = checked(f"architecture={architecture}", "image_size=48", "batch_size=8")
    build = lambda: build_model.random_network(experiment, 7)  # noqa: E731
    estimate = memory.step_bytes(build, (1, 48, 48), 8)
    model = build()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    kept = saved_bytes(model, torch.randn(8, 1, 48, 48)) - 4 * parameters + 4 * 4 * parameters
    assert 0.6 * kept <= estimate <= 2.5 * kept


def test_it_grows_with_the_batch_and_not_with_this_machines_memory():
    experiment, _ = checked("image_size=2000")
    build = lambda: build_model.random_network(experiment, 7)  # noqa: E731
    one, many = (memory.step_bytes(build, (1, 2000, 2000), size) for size in (2, 200))
    assert 20 < many / one < 100 and many > 5e11


def test_a_network_that_cannot_be_counted_says_nothing():
    class Own(nn.Module):
        def forward(self, image):
            return image.numpy()

    assert memory.step_bytes(Own, (1, 8, 8), 4) is None


def test_what_the_machine_does_not_have_is_refused_with_the_ways_out(monkeypatch):
    monkeypatch.setattr(memory, "of_machine", lambda device: (4 * 10**9, 8 * 10**9))
    with pytest.raises(
        ValueError, match=r"about 13\.0 GB .* 4\.0 GB are free, and cpu has 8\.0 GB in all: lower batch_size"
    ):
        memory.check(13 * 10**9, 128, CPU)
    assert memory.check(5 * 10**9, 128, CPU).endswith(
        "It may be too much: lower batch_size, image_size, or the network's widths"
    )
    assert memory.check(10**9, 128, CPU) == "about 1.0 GB for a step of 128 images; 4.0 GB are free"


def test_the_machines_memory_is_read():
    free, everything = memory.of_machine(CPU)
    assert 10**8 < free <= everything < 2**50


def test_too_large_a_training_leaves_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "of_machine", lambda device: (10**5, 10**5))
    with pytest.raises(ValueError, match="MB in all"):
        run.train(*tiny(tmp_path))
    assert not (tmp_path / "outputs").exists()


def test_a_killed_cell_tells_what_its_step_needed(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.log").write_text("model  x\nmemory about 65.0 GB for a step of 128 images; 4.0 GB are free\n")
    (folder / "status.json").write_text('{"status": "RUNNING", "started": 1.0}')
    monkeypatch.setattr(outcomes.runs, "latest", lambda *_: folder)

    class Cell:
        machine, name = checked()[1], "cell"

    closed = outcomes.close_run(Cell(), Outcome(DIED, error=f"its process died: SIGKILL, {OUT_OF_MEMORY}"))
    assert closed.error.endswith("probably out of memory: about 65.0 GB for a step of 128 images; 4.0 GB are free")


def test_training_says_what_a_step_needs(tmp_path, blank_figures):
    run.train(*tiny(tmp_path, "epochs=1"))
    (log,) = (tmp_path / "outputs").glob("*/run.log")
    (line,) = [text for text in log.read_text().splitlines() if "memory " in text]
    assert " MB for a step of 32 images; " in line


def test_the_estimate_counts_the_images_of_an_epoch():
    experiment, _ = checked("batch_size=128")
    assert "a step of 15 images" in build_training.check_memory(experiment, 7, 15, CPU)
