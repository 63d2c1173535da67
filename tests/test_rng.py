"""Draws are functions of names and numbers."""

import pytest
import torch
from scipy.stats import kstest

from emoexp import rng


def test_pinned_numbers_never_change():
    assert rng.fold(0, "order", 1) == rng.fold(0, "order", 1)
    first = rng.uniform(0, "a", torch.arange(3), draws=2)
    assert torch.equal(first[1:2], rng.uniform(0, "a", torch.tensor([1]), draws=2))


def test_mixing_is_lowbias32():
    """Wellons' published constants, computed here in plain Python."""

    def lowbias32(x: int) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ x >> 16

    values = [0, 1, 2, 12345, 2**31, 2**32 - 1]
    assert [int(v) for v in rng._mix(torch.tensor(values))] == [lowbias32(v) for v in values]


@pytest.mark.parametrize("column", range(4))
def test_uniform_is_uniform(column: int):
    draws = rng.uniform(7, "test", torch.arange(50_000), 3, draws=4)
    assert kstest(draws[:, column].numpy(), "uniform").pvalue > 1e-4
    assert draws.min() >= 0 and draws.max() < 1


def test_columns_and_neighbours_are_uncorrelated():
    draws = rng.uniform(0, "test", torch.arange(100_000), draws=3)
    together = torch.cat([draws[:-1], draws[1:]], 1).T
    correlation = torch.corrcoef(together) - torch.eye(6)
    assert correlation.abs().max() < 0.015


def test_every_argument_matters():
    base = (0, "a", 1, 2)
    other = [(1, "a", 1, 2), (2**40, "a", 1, 2), (0, "b", 1, 2), (0, "a", 2, 1), (0, "a", 1, 3)]
    assert len({rng.fold(*arguments) for arguments in [base, *other]}) == 6


def test_uniform_double_is_uniform():
    draws = rng.uniform_double(3, "x", 1, torch.arange(50_000))
    assert kstest(draws.numpy(), "uniform").pvalue > 1e-4


def test_permutation():
    first, second = (rng.permutation(0, "p", epoch, size=1000) for epoch in (0, 1))
    assert torch.equal(first.sort().values, torch.arange(1000))
    assert not torch.equal(first, second)
    assert torch.equal(first, rng.permutation(0, "p", 0, size=1000))


def test_reseed_decides_dropout():
    drop = torch.nn.Dropout(0.5)
    rng.reseed(0, "dropout", 3, 4)
    first = drop(torch.ones(100))
    torch.rand(17)
    rng.reseed(0, "dropout", 3, 4)
    assert torch.equal(first, drop(torch.ones(100)))
