"""Boxes that are pasted: on whole pixels by rounding their edges, or floored twice as in the authors' code."""

import numpy as np
import pytest
import torch
from strategies import experiment, labelled, node

from emoexp.config.build_strategy import build_strategy
from emoexp.imbalance import mixing
from emoexp.imbalance.mixing import Mix

COUNT_E = torch.ones(200_000)


def kept(mix: Mix, side: int = 32) -> float:
    """The mean share of an image that stays its own."""
    return float(mixing.draw(mix, COUNT_E, COUNT_E, (side, side), seed=0, epoch=0).label_lam_E.mean())


def authors_kept(side: int, number: int) -> float:
    """The box of CutMix's and CMO's code, written out."""
    rng = np.random.default_rng(0)
    lam, middle = rng.random(number), rng.integers(0, side, (number, 2))
    cut = (side * np.sqrt(1 - lam)).astype(int)
    low, high = (np.clip(middle + sign * (cut // 2)[:, None], 0, side) for sign in (-1, 1))
    return float((1 - (high - low).prod(1) / side**2).mean())


def test_floored_boxes_keep_as_much_as_the_authors():
    floored, rounded = Mix(1.0, 1.0, paste=True, floored_side=32), Mix(1.0, 1.0, paste=True)
    assert kept(floored) == pytest.approx(0.701, abs=0.002) == authors_kept(32, 200_000)
    assert kept(rounded) == pytest.approx(0.680, abs=0.002)


@pytest.mark.parametrize("side", [8, 32, 48])
def test_the_ledger_expects_what_is_drawn(side):
    """Two classes of which one is always the partner's: its exposure is what boxes take."""
    mix = Mix(1.0, 1.0, paste=True, partner=0.0, floored_side=side)
    count_C, share_C = torch.tensor([900, 100]), torch.tensor([0.9, 0.1], dtype=torch.float64)
    lam = kept(mix, side)
    expected = lam * share_C + (1 - lam) * torch.tensor([0.5, 0.5], dtype=torch.float64)
    np.testing.assert_allclose(mix.exposure(count_C, share_C).numpy(), expected.numpy(), atol=2e-3)


def test_the_option_takes_the_side_of_the_images():
    for box, side in (("rounded", None), ("floored", 32)):
        made = experiment({"mix": node("mix", "cmo", box=box)}, image_size=32)
        assert build_strategy(made, labelled((40, 20, 4))).columns.mix.floored_side == side
