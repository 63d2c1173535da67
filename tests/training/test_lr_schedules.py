"""Schedules against torch's own, and early stopping against a scripted history."""

import math

import pytest
import torch

from emoexp.training import lr_schedules


def rates(scheduler_of, steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = scheduler_of(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_cosine_is_torchs():
    theirs = rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10, eta_min=0.01), 10)
    ours = [lr_schedules.cosine(step, 10, [], warmup=0.0, end=0.01) for step in range(10)]
    assert ours == pytest.approx(theirs)


def test_onecycle_is_torchs():
    steps = 101

    def cycle(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            1.0,
            total_steps=steps,
            pct_start=0.3,
            div_factor=25,
            final_div_factor=400,
            cycle_momentum=False,
        )

    # torch ends on its last step and rises over pct_start*total - 1 steps; ours are functions of a continuous progress
    theirs = rates(cycle, steps - 1)
    rise = (0.3 * steps - 1) / (steps - 1)
    ours = [lr_schedules.onecycle(s, steps - 1, [], rise=rise, start=1 / 25, end=1 / 10_000) for s in range(steps - 1)]
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_warmup_is_linear():
    assert [lr_schedules.cosine(s / 2, 10, [], warmup=2.0, end=0.0) for s in range(4)] == [0, 0.25, 0.5, 0.75]


def published(epoch: int) -> float:
    """adjust_learning_rate of the code of Cao et al. (2019), for 200 epochs."""
    epoch = epoch + 1
    if epoch <= 5:
        return epoch / 5
    return 0.0001 if epoch > 180 else 0.01 if epoch > 160 else 1.0


LDAM = {"warmup": 0.025, "at": [0.8, 0.9], "factors": [0.01, 0.0001]}


def test_steps_are_those_of_the_published_code():
    for epoch in range(200):
        for share in (0.0, 0.5, 96 / 97):
            assert lr_schedules.steps(epoch + share, 200, [], **LDAM) == pytest.approx(published(epoch)), epoch


@pytest.mark.parametrize("total", [10, 30, 50, 90, 100, 300, 1000])
def test_steps_keep_their_shape_in_other_lengths(total):
    factors = [lr_schedules.steps(epoch, total, [], **LDAM) for epoch in range(total)]
    assert factors.index(0.01) == round(0.8 * total) and factors.index(0.0001) == round(0.9 * total)
    assert factors[0] == pytest.approx(min(1, 1 / (0.025 * total))) and max(factors) == 1


def test_steps_without_warmup_and_milestones_are_constant():
    assert {lr_schedules.steps(e / 3, 10, [], warmup=0.0, at=[], factors=[]) for e in range(30)} == {1.0}


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_is_torchs(patience):
    values = [0.1, 0.3, 0.2, 0.25, 0.3, 0.29, 0.31, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.2, 0.1]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.5, patience, threshold=0.0, min_lr=0.01)
    for epoch in range(len(values)):
        theirs.step(values[epoch])
        ours = lr_schedules.plateau(epoch, 100, values[: epoch + 1], factor=0.5, patience=patience, least=0.01)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])


def test_constant():
    assert lr_schedules.constant(3.5, 10, [0.1]) == 1


def test_best_epoch_is_the_first_of_the_largest_and_never_nan():
    assert lr_schedules.best_epoch([0.1, 0.4, 0.4, 0.2]) == 1
    assert lr_schedules.best_epoch([math.nan, 0.1, math.nan]) == 1
    assert lr_schedules.best_epoch([math.nan]) is None and lr_schedules.best_epoch([]) is None


@pytest.mark.parametrize(
    ("values", "patience", "stops"),
    [
        ([4, 3, 3.1, 3.2], 3, True),
        ([4, 3, 3.1], 3, False),
        ([1, 2, 3], 1, False),
        ([3, math.nan], 1, True),
        ([], 1, False),
    ],
)
def test_exhausted(values, patience, stops):
    assert lr_schedules.should_stop_early(values, patience) is stops
    assert not lr_schedules.should_stop_early(values, None)
