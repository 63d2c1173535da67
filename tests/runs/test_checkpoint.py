"""Checkpoints survive kills, find every flipped bit and run no code."""

import os
import resource
import signal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emoexp.runs import checkpoint

PAYLOAD = {"model": {"w": torch.arange(300.0)}, "epoch": 3, "history": [{"a": 0.1, "b": None}], "name": "x"}


def equal(one, other):
    assert one["epoch"] == other["epoch"] and one["history"] == other["history"]
    assert torch.equal(one["model"]["w"], other["model"]["w"])


def test_round_trip_and_plain_torch(tmp_path):
    checkpoint.save(tmp_path / "a.pt", PAYLOAD)
    equal(checkpoint.load(tmp_path / "a.pt"), PAYLOAD)
    equal(torch.load(tmp_path / "a.pt", weights_only=True), PAYLOAD)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**9), st.integers(0, 7))
def test_every_flipped_bit_is_found(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("bits") / "a.pt"
    checkpoint.save(path, PAYLOAD)
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] ^= 1 << bit
    path.write_bytes(raw)
    with pytest.raises(checkpoint.CorruptCheckpoint, match="damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize("keep", [0, 1, 50, 0.5, -1])
def test_truncated_files(tmp_path, keep):
    path = tmp_path / "a.pt"
    checkpoint.save(path, PAYLOAD)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)] if isinstance(keep, float) else raw[:keep])
    with pytest.raises(checkpoint.CorruptCheckpoint):
        checkpoint.load(path)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (self.marker,))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    marker = tmp_path / "marker"
    checkpoint.save(tmp_path / "a.pt", {"x": Malicious(str(marker))})
    with pytest.raises(checkpoint.CorruptCheckpoint, match="safely"):
        checkpoint.load(tmp_path / "a.pt")
    assert not marker.exists()


def test_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.pt"
    checkpoint.save(path, PAYLOAD)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            checkpoint.save(path, {"model": {"w": torch.zeros(10_000)}})
        except OSError as error:
            os._exit(0 if "could not save" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    equal(checkpoint.load(path), PAYLOAD)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]
