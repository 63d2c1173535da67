"""A training that goes nowhere says so: where it diverges, and where no weight changes."""

import json

import pytest
import torch
from composing import tiny
from test_loop import fresh, never, recipe

from emoexp.training import loop, run

pytestmark = pytest.mark.usefixtures("blank_figures")


def test_a_network_that_diverged_is_told_before_its_metrics_are(monkeypatch):
    """The rate was so large that the last step of the epoch made the weights infinite: the metrics said "softmax"."""
    state, setup = fresh(lr=1e30), recipe(batch_size=64)
    with pytest.raises(FloatingPointError, match=r"training has diverged\. Try a smaller optimizer\.lr"):
        list(loop.fit(setup, state, never))


def test_the_run_says_failed(tmp_path):
    with pytest.raises(FloatingPointError, match=r"optimizer\.lr"):
        run.train(*tiny(tmp_path, "optimizer.lr=1e30", "batch_size=420"))
    (folder,) = (tmp_path / "outputs").iterdir()
    status = json.loads((folder / "status.json").read_text())
    assert status["status"] == "FAILED" and "training has diverged" in status["error"]


@pytest.mark.parametrize(("rate", "warned"), [("1e-300", True), ("0.001", False)])
def test_an_epoch_that_changes_no_weight_is_warned_of(rate, warned, tmp_path):
    run.train(*tiny(tmp_path, f"optimizer.lr={rate}", "epochs=1"))
    (log,) = (tmp_path / "outputs").glob("*/run.log")
    assert ("this epoch changed no weight: optimizer.lr=1e-300 is too small" in log.read_text()) is warned


def test_weights_are_compared_after_the_first_epoch_alone():
    state = fresh()
    same = [parameter.detach().clone() for parameter in state.model.parameters()]
    messages: list[str] = []
    handler = type("Kept", (), {"warning": lambda self, text, *values: messages.append(text % values)})()
    original, run.log = run.log, handler
    try:
        run.warn_of_weights_that_stay([], state)
        run.warn_of_weights_that_stay([torch.zeros_like(value) for value in same], state)
        assert messages == []
        run.warn_of_weights_that_stay(same, state)
        assert len(messages) == 1
    finally:
        run.log = original
