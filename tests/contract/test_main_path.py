"""The way from the command to the optimizer stays short: train → run → loop → step."""

import sys
import traceback
from pathlib import Path

import pytest
import torch
from composing import TINY

import emoexp
from emoexp import train
from emoexp.config import build_training
from emoexp.models.network import Network

PACKAGE = Path(emoexp.__file__).parent


def frames_at(monkeypatch, tmp_path, target, name) -> list[tuple[str, str]]:
    """Our own frames, outermost first, from the command's job to the first call of a method in a real run."""
    seen: list[list[traceback.FrameSummary]] = []
    original = getattr(target, name)

    def watched(self, *arguments, **keys):
        if not seen:
            seen.append(traceback.extract_stack())
        return original(self, *arguments, **keys)

    places = [f"outputs={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}"]
    monkeypatch.setattr(sys, "argv", ["train", *TINY, "epochs=1", *places])
    with monkeypatch.context() as patch:
        patch.setattr(target, name, watched)
        train.main()
    ours = [frame for frame in seen[0] if Path(frame.filename).is_relative_to(PACKAGE)]
    rooms = [(Path(frame.filename).relative_to(PACKAGE).as_posix(), frame.name) for frame in ours]
    return rooms[rooms.index(("train.py", "job")) :]


def test_four_frames_from_the_command_to_the_optimizers_step(monkeypatch, tmp_path):
    path = frames_at(monkeypatch, tmp_path, torch.optim.AdamW, "step")
    assert path == [
        ("train.py", "job"),
        ("training/run.py", "train"),
        ("training/loop.py", "fit"),
        ("training/loop.py", "train_epoch"),
        ("training/step.py", "step"),
    ]


def test_a_step_calls_the_networks_forward(monkeypatch, tmp_path):
    """Hooks, compiled networks and wrappers of data parallelism see what is called, and nothing else."""
    monkeypatch.setattr(build_training, "check_memory", lambda *_: None)  # it runs the network before the first step
    path = frames_at(monkeypatch, tmp_path, Network, "forward")
    assert path[-2:] == [("training/step.py", "step"), ("training/step.py", "forward")]


@pytest.mark.parametrize("module", ["step", "loop"])
def test_the_main_path_knows_no_graphs(module):
    text = (PACKAGE / "training" / f"{module}.py").read_text()
    assert "cuda_graphs" not in text and "torch.cuda" not in text
