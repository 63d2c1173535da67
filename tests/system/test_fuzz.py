"""A small share of benchmarks/fuzz.py: no traceback, no hang, no wrong result. Counts: docs/reliability.md."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import fuzz

from emoexp import cli

CASES = dict.fromkeys(fuzz.KINDS, 40) | {"whole_runs": 4}


@pytest.fixture(scope="module")
def material() -> Iterator[fuzz.Material]:
    cli.register_sweeper()
    logging.disable(logging.CRITICAL)
    try:
        with fuzz.prepared() as found:
            yield found
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", CASES)
def test_damage_is_refused_or_harmless(kind, material, capsys):
    case = (fuzz.KINDS | {"whole_runs": fuzz.whole_runs})[kind]
    counts = fuzz.fuzzed(kind, case, range(CASES[kind]), material, seed=11)
    assert counts.total() == CASES[kind]
    assert not any(counts[what] for what in fuzz.FAILURES), capsys.readouterr().out


def test_failures_are_found(material, capsys):
    """A check that cannot fail is none."""

    def broken(material, rng):
        raise rng.choice([KeyError("x"), fuzz.Wrong("y"), fuzz.Hang()])

    counts = fuzz.fuzzed("broken", broken, range(30), material, seed=0)
    assert sum(counts[what] for what in fuzz.FAILURES) == 30 and all(counts[what] for what in fuzz.FAILURES)
    assert "--kind broken --only 0 --seed 0" in capsys.readouterr().out
    assert "| broken | 30 | 0 | 0 |" in fuzz.report({"broken": counts})
