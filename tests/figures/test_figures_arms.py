"""Figures of several arms: drawn for few and many, odd names and missing values; the edge is the right one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emoexp import figures

CLASSES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
NAMES = [
    "none",
    "augment",
    "sampler",
    "weighted_loss",
    "augment_sampler",
    "$x_1$ <b>",
    "a very long name of an arm, indeed",
    "ü\n",
]


def arms(count: int) -> list[str]:
    return [NAMES[k % 8] + (f" {k}" if k >= 8 else "") for k in range(count)]


def drawn(path: Path) -> np.ndarray:
    """The picture, which has to show something."""
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.std() > 5 and min(picture.shape[:2]) > 100
    return picture


def everything(folder: Path, count: int, seeds: int) -> list[Path]:
    rng = np.random.default_rng(count)
    names = arms(count)
    values = [(0.5 + 0.03 * rng.standard_normal(seeds)).tolist() for _ in names]
    ends = [(min(v) - 0.01, max(v) + 0.01) if seeds > 1 else None for v in values]
    recall = np.array(rng.random((count, 7)))
    recall[0, 3] = np.nan
    change = 0.2 * rng.standard_normal((count, 7, 7))
    change[0, 2] = np.nan
    curve = (np.array([0.2, 0.6, 1.0]), np.array([1.0, 0.7, 0.2]))
    said = ["better", "worse", "cannot tell"]
    return [
        figures.seeds(folder / "a.png", names, values, ends, "macro-F1", "facts"),
        figures.differences(
            folder / "b.png", names, [v[0] - 0.5 for v in values], ends, [said[k % 3] for k in range(count)], "t", "f"
        ),
        figures.tradeoff(folder / "c.png", names, values, [v[::-1] for v in values], "accuracy", "recall", "t", "f"),
        figures.recalls(folder / "d.png", names, CLASSES, recall, [10, 98, 1624, 5, 6, 7, 8], "t"),
        figures.confusion_differences(folder / "e.png", names, change, CLASSES, "t"),
        figures.overlay(folder / "f.png", names, [[curve] * seeds for _ in names], [0.5] * count, 0.14, "t", "f"),
    ]


@pytest.mark.parametrize(("count", "seeds"), [(1, 1), (2, 6), (9, 3)])
def test_every_figure_draws(tmp_path, count, seeds):
    for path in everything(tmp_path, count, seeds):
        drawn(path)


def test_equal_input_gives_equal_bytes_and_other_input_another_picture(tmp_path):
    one, two = everything(tmp_path / "1", 2, 2), everything(tmp_path / "2", 2, 2)
    other = everything(tmp_path / "3", 3, 2)
    for a, b, c in zip(one, two, other, strict=True):
        assert a.read_bytes() == b.read_bytes() != c.read_bytes()


def test_the_pareto_edge_by_hand():
    assert figures.pareto([0.6, 0.7, 0.5, 0.65], [0.5, 0.2, 0.4, 0.5]) == [3, 1]
    assert figures.pareto([1.0], [1.0]) == [0] and figures.pareto([1, 1], [2, 2]) == [0, 1]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_pareto_edge_is_what_nobody_beats(points):
    x, y = [p[0] for p in points], [p[1] for p in points]
    edge = figures.pareto(x, y)
    assert sorted(set(edge)) == sorted(edge) and edge
    for i in range(len(points)):
        beaten = any(x[j] >= x[i] and y[j] >= y[i] and (x[j], y[j]) != (x[i], y[i]) for j in range(len(points)))
        assert (i in edge) != beaten
    heights = [y[i] for i in edge]
    assert heights == sorted(heights, reverse=True)
