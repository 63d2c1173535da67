"""The learning rate of a second stage that retrains: the run's schedule once more, a cosine, or steps at thirds."""

import dataclasses
import math

import pytest
from composing import checked
from test_loop import recipe

from emoexp.imbalance.schedule import Schedule


def factors(rates: str, epochs: int = 40, rate: float = 1.0) -> list[float]:
    stages = Schedule(start=0.25, late=["sampling"], retrain="fresh", rates=rates, rate=rate)
    setup = recipe(stages=stages, epochs=epochs, schedule=lambda done, total, monitored: 1 - done / total)
    setup = dataclasses.replace(setup, epochs=epochs)
    return [setup.lr_factor(epoch, []) for epoch in range(epochs)]


def test_by_default_the_runs_schedule_begins_anew():
    assert factors("same") == pytest.approx([*[1 - k / 10 for k in range(10)], *[1 - k / 30 for k in range(30)]])


def test_thirds_are_the_ten_and_twenty_of_thirty_epochs():
    assert factors("thirds")[10:] == pytest.approx([1.0] * 10 + [0.1] * 10 + [0.01] * 10)
    assert factors("thirds")[:10] == factors("same")[:10], "the first stage keeps its own"


def test_a_cosine_goes_to_zero():
    expected = [0.5 * (1 + math.cos(math.pi * k / 30)) for k in range(30)]
    assert factors("cosine")[10:] == pytest.approx(expected)
    assert factors("cosine", rate=0.5)[10:] == pytest.approx([value / 2 for value in expected])


def test_rates_of_a_stage_that_does_not_retrain_are_refused():
    with pytest.raises(ValueError, match=r"rates=cosine is for a stage that retrains"):
        checked("imbalance=crt", "imbalance.schedule.retrain=none", "imbalance.schedule.rates=cosine")
    assert checked("imbalance=crt", "imbalance.schedule.rates=thirds")[0].imbalance.schedule.build().rates == "thirds"
