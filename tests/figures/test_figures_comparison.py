"""Figures of a comparison: what stands in them, whether it can be read, and that only the input decides the bytes."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from sklearn import metrics as oracle

from emoexp import figures
from emoexp.figures import style
from emoexp.metrics import classification

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
TRAIN = (3995, 436, 4097, 7215, 4965, 4830, 3171)
WAYS = ("none", "sampler", "weighted_loss", "augment", "augment, sampler", "sampler, weighted_loss")
HOSTILE = (
    "<script>alert(1)</script>",
    "$x_1$",
    "=cmd()",
    "_hidden",
    "怒り",
    r"a\$b$^",
    "two\nlines\t\x00",
    "long " * 20,
)


def arms(count: int) -> list[str]:
    known = {2: ["relu", "mish"], 8: list(HOSTILE)}
    return known.get(count, [f"activation_{i}, augment, sampler, {WAYS[i % len(WAYS)]}" for i in range(count)])


def draws(count: int, seeds: int = 3) -> list[list[float]]:
    rng = np.random.default_rng(count)
    return [list(0.6 + 0.02 * rng.normal() + 0.01 * rng.normal(size=seeds)) for _ in range(count)]


def judged(skill: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    truth_N = np.arange(400) < 20
    return np.random.default_rng(seed).normal(size=400) + skill * truth_N, truth_N


def steps(count: int, seeds: int = 2) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    return [
        [classification.precision_recall_steps(*judged(1 + a / count, s)) for s in range(seeds)] for a in range(count)
    ]


def area(curve: tuple[np.ndarray, np.ndarray]) -> float:
    return float(np.sum(np.diff(curve[0], prepend=0.0) * curve[1]))


def draw_seeds(path: Path, count: int) -> Path:
    values = draws(count)
    ends = [None if i % 3 == 2 else (min(v) - 0.02, max(v) + 0.02) for i, v in enumerate(values)]
    return figures.seeds(path, arms(count), values, ends, "macro-F1 on test", "3 seeds")


def draw_differences(path: Path, count: int) -> Path:
    value = np.random.default_rng(count).normal(size=count)
    said = [("cannot tell", "better", "worse")[i % 3] for i in range(count)]
    ends = [None if i % 4 == 3 else (v - 1, v + 1.5) for i, v in enumerate(value)]
    return figures.differences(path, arms(count), list(value), ends, said, "macro-F1: points above relu", "paired")


def draw_tradeoff(path: Path, count: int) -> Path:
    x, y = draws(count), draws(count + 1)[1:]
    return figures.tradeoff(path, arms(count), x, y, "accuracy", "recall of disgust", "title", "3 seeds")


def draw_overlay(path: Path, count: int) -> Path:
    curves = steps(count)
    ap = [float(np.mean([area(curve) for curve in of_arm])) for of_arm in curves]
    return figures.overlay(path, arms(count), curves, ap, 0.05, "precision over recall of disgust", "20 images")


def draw_recalls(path: Path, count: int) -> Path:
    recall = np.random.default_rng(count).random((count, 7))
    return figures.recalls(path, arms(count), EMOTIONS, recall, TRAIN, "recall of each class")


def draw_confusions(path: Path, count: int) -> Path:
    change = np.random.default_rng(count).normal(0, 0.03, size=(count, 8, 8))
    return figures.confusion_differences(path, arms(count), change, HOSTILE, "confusion minus that of relu")


DRAWINGS = (draw_seeds, draw_differences, draw_tradeoff, draw_overlay, draw_recalls, draw_confusions)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures made in a test, to be asked what they show."""
    kept: list[Figure] = []

    class Kept(Figure):
        def __init__(self, *, figsize: tuple[float, float], layout: Any) -> None:
            super().__init__(figsize=figsize, layout=layout)
            kept.append(self)

    monkeypatch.setattr(style, "Figure", Kept)
    return kept


def points(axes: Axes, marker: str) -> list[list[float]]:
    return [[float(x) for x in line.get_xdata()] for line in axes.lines if line.get_marker() == marker]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def rows(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def assert_inside(figure: Figure) -> None:
    title, parts = figure._suptitle.get_window_extent(), [axes.get_tightbbox() for axes in figure.axes]
    boxes = [title, *(box for box in parts if box is not None)]
    for box in boxes:
        assert min(box.x0, box.y0) >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, box
    assert max(box.y1 for box in boxes[1:]) <= title.y0
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes[1:], 2))


@pytest.mark.parametrize("draw", DRAWINGS)
def test_equal_input_gives_equal_bytes_and_a_whole_png(draw: Callable[[Path, int], Path], tmp_path: Path) -> None:
    first = draw(tmp_path / "new folder" / "a.png", 2)
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "red", "text.parse_math": True}):
        second = draw(tmp_path / "b.png", 2)
    assert first == tmp_path / "new folder" / "a.png"
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as picture:
        picture.load()
        assert picture.format == "PNG" and min(picture.size) > 150


@pytest.mark.parametrize("draw", DRAWINGS)
@pytest.mark.parametrize("count", [1, 8, 32])
def test_nothing_leaves_the_sheet_or_lies_under_the_heading(
    draw: Callable[[Path, int], Path], count: int, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw(tmp_path / "a.png", count)
    assert_inside(drawn[0])


def test_every_seed_is_a_dot_and_the_bar_is_their_mean(tmp_path: Path, drawn: list[Figure]) -> None:
    values, ends = [[0.5, 0.6, 0.7], [0.4]], [(0.45, 0.75), None]
    figures.seeds(tmp_path / "a.png", ["relu", "mish"], values, ends, "x", "y")
    (axes,) = drawn[0].axes
    assert points(axes, "o") == values
    assert points(axes, "|") == [[pytest.approx(0.6)], [0.4]]
    assert points(axes, "None") == [[0.45, 0.75]]  # one seed has no interval
    assert rows(axes) == ["relu", "mish"]
    assert axes.yaxis_inverted()  # the first arm stands on top


def test_a_difference_has_its_interval_its_verdict_and_the_line_of_none(tmp_path: Path, drawn: list[Figure]) -> None:
    ends = [(0.5, 1.9), (-2.1, -0.2), (-0.4, 1.0), None]
    said = ["better", "worse", "cannot tell", "cannot tell"]
    figures.differences(tmp_path / "a.png", list("abcd"), [1.2, -1.1, 0.3, -0.7], ends, said, "x", "y")
    (axes,) = drawn[0].axes
    zero, *intervals = points(axes, "None")
    assert zero == [0.0, 0.0]
    assert intervals == [list(end) for end in ends if end]
    assert points(axes, "o") == [[1.2], [-1.1], [0.3], [-0.7]]
    assert texts(axes) == said
    colours = [text.get_color() for text in axes.texts]
    assert len(set(colours[:3])) == 3 and colours[2] == colours[3] == style.GREY
    for text, dot in zip(axes.texts, [line for line in axes.lines if line.get_marker() == "o"], strict=True):
        assert text.get_color() == dot.get_color()
    ends_at = [axes.transData.transform((end, 0))[0] for end in (1.9, -0.2, 1.0, -0.7)]
    assert all(text.get_window_extent().x0 > end for text, end in zip(axes.texts, ends_at, strict=True))


def test_a_tradeoff_shows_seeds_means_and_the_edge(tmp_path: Path, drawn: list[Figure]) -> None:
    x, y = [[0.60, 0.62], [0.70, 0.72], [0.50, 0.52]], [[0.30, 0.50], [0.20, 0.30], [0.35, 0.37]]
    figures.tradeoff(tmp_path / "a.png", ["one", "two", "beaten"], x, y, "accuracy", "recall", "x", "facts")
    (axes,) = drawn[0].axes
    (edge,) = (line for line in axes.lines if line.get_marker() == "None")
    assert list(zip(edge.get_xdata(), edge.get_ydata(), strict=True)) == [
        (pytest.approx(0.61), pytest.approx(0.40)),
        (pytest.approx(0.71), pytest.approx(0.25)),
    ]
    small, large = ([line for line in axes.lines if line.get_marker() == "o"][k::2] for k in (0, 1))
    assert [line.get_xdata().tolist() for line in small] == x and [line.get_ydata().tolist() for line in small] == y
    assert [line.get_ydata()[0] for line in large] == pytest.approx([0.40, 0.25, 0.36])
    assert min(line.get_markersize() for line in large) > max(line.get_markersize() for line in small)
    assert [line.get_color() for line in small] == [line.get_color() for line in large]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two", "beaten"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("accuracy", "recall")


def test_arms_of_a_tradeoff_are_told_apart_by_colour_and_mark(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_tradeoff(tmp_path / "a.png", 32)
    lines = drawn[0].axes[0].get_legend().get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 32


def test_the_pareto_edge_of_hand_made_points() -> None:
    assert figures.pareto([], []) == []
    assert figures.pareto([0.5], [0.5]) == [0]
    assert figures.pareto([3, 1, 2, 2, 0], [1, 3, 2, 1, 3]) == [1, 2, 0]  # (2, 1) and (0, 3) are beaten
    assert figures.pareto([1, 1, 2], [5, 4, 5]) == [2]  # as much of one and more of the other beats
    assert figures.pareto([1, 1], [2, 2]) == [0, 1]  # equal points do not beat each other


@pytest.mark.parametrize("seed", range(20))
def test_the_pareto_edge_is_what_a_sweep_from_the_right_keeps(seed: int) -> None:
    x, y = np.random.default_rng(seed).integers(0, 6, size=(2, 12)).tolist()  # coarse: many ties
    kept, highest = set(), -1
    for i in sorted(range(12), key=lambda i: (-x[i], -y[i])):
        if y[i] > highest:
            highest = y[i]
            kept |= {j for j in range(12) if (x[j], y[j]) == (x[i], y[i])}
    edge = figures.pareto(x, y)
    assert set(edge) == kept
    assert [x[i] for i in edge] == sorted(x[i] for i in edge)
    assert [y[i] for i in edge] == sorted((y[i] for i in edge), reverse=True)


def test_the_overlay_shows_curves_whose_area_is_sklearns_ap_and_the_chance(tmp_path: Path, drawn: list[Figure]) -> None:
    curves = steps(2, 3)
    figures.overlay(tmp_path / "a.png", ["relu", "mish"], curves, [0.25, 0.75], 0.05, "x", "20 images")
    (axes,) = drawn[0].axes
    shown = []
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        if line.get_drawstyle() == "steps-pre":
            shown.append(round(float(np.sum(np.diff(x) * y[1:])), 9))
    for a, s in itertools.product(range(2), range(3)):
        score, truth = judged(1 + a / 2, s)
        assert round(float(oracle.average_precision_score(truth, score)), 9) in shown
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["AP 0.250  relu", "AP 0.750  mish", "AP 0.050  chance"]
    assert [list(line.get_ydata()) for line in axes.lines if line.get_drawstyle() == "default"] == [[0.05, 0.05]]
    assert len({line.get_color() for line in axes.get_legend().get_lines()}) == 3


def test_recalls_are_percent_and_a_missing_one_is_a_dash(tmp_path: Path, drawn: list[Figure]) -> None:
    recall = np.array([[0.0, 0.555], [1.0, np.nan]])
    figures.recalls(tmp_path / "a.png", ["relu", "mish"], ["happy", "disgust"], recall, [7215, 436], "x")
    (axes,) = drawn[0].axes
    assert texts(axes) == ["0", "56", "100", "–"]
    assert [text.get_color() for text in axes.texts] == [style.INK, style.INK, "white", style.INK]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["happy\n7,215", "disgust\n436"]
    assert rows(axes) == ["relu", "mish"]
    assert axes.images[0].get_clim() == (0, 1)


def test_confusions_share_one_scale_around_zero(tmp_path: Path, drawn: list[Figure]) -> None:
    change = np.array([[[0.03, -0.03], [0.0, 0.0]], [[-0.124, 0.124], [np.nan, np.nan]]])
    figures.confusion_differences(tmp_path / "a.png", ["mish", "gelu"], change, ["happy", "disgust"], "x")
    one, other = drawn[0].axes
    assert texts(one) == ["3", "-3", "0", "0"] and texts(other) == ["-12", "12", "–", "–"]
    assert one.images[0].get_clim() == other.images[0].get_clim() == pytest.approx((-12.4, 12.4))
    assert [axes.get_title(loc="left") for axes in (one, other)] == ["mish", "gelu"]
    assert rows(one) == ["happy", "disgust"]
    red, blue = (one.images[0].to_rgba(np.array([[value]]))[0, 0] for value in (-12.4, 12.4))
    assert red[0] > red[2] and blue[2] > blue[0]
    assert one.images[0].to_rgba(np.array([[0.0]]))[0, 0] == pytest.approx((1, 1, 1, 1), abs=0.01)


def test_small_differences_are_not_blown_up(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.confusion_differences(tmp_path / "a.png", ["mish"], np.full((1, 2, 2), 0.001), ["a", "b"], "x")
    assert drawn[0].axes[0].images[0].get_clim() == (-1, 1)  # at least a point each way


def test_rows_of_different_lengths_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        figures.seeds(tmp_path / "a.png", ["relu"], [[0.5], [0.6]], [None], "x", "y")
    with pytest.raises(ValueError, match="zip"):
        figures.differences(tmp_path / "a.png", ["relu"], [0.5], [None, None], ["worse"], "x", "y")
    with pytest.raises(ValueError, match="zip"):
        figures.recalls(tmp_path / "a.png", ["relu"], ["a", "b"], np.zeros((1, 2)), [1], "x")
    assert list(tmp_path.iterdir()) == []


def test_hostile_names_stand_in_the_figure_as_they_are(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_seeds(tmp_path / "a.png", 8)
    draw_confusions(tmp_path / "b.png", 8)
    assert rows(drawn[0].axes[0])[1:7] == ["$x_1$", "=cmd()", "_hidden", r"\u6012\u308a", r"a\$b$^", r"two lines \x00"]
    assert drawn[1].axes[1].get_title(loc="left") == "$x_1$"
    assert not any(label.get_parse_math() for label in drawn[0].axes[0].get_yticklabels())


def test_a_hundredth_of_a_point_below_zero_is_no_minus_zero(tmp_path: Path, drawn: list[Figure]) -> None:
    change = np.array([[[-0.004, 0.004], [-0.006, 0.006]]])
    figures.confusion_differences(tmp_path / "a.png", ["mish"], change, ["a", "b"], "x")
    assert texts(drawn[0].axes[0]) == ["0", "0", "-1", "1"]


def test_what_has_no_value_leaves_its_place_empty(tmp_path: Path, drawn: list[Figure]) -> None:
    nan = float("nan")
    figures.seeds(tmp_path / "a.png", ["relu", "mish"], [[0.5, 0.6], [nan]], [(0.4, 0.7), None], "x", "y")
    figures.differences(tmp_path / "a.png", ["relu", "mish"], [nan, 1.0], [None, None], ["cannot tell"] * 2, "x", "y")
    figures.tradeoff(tmp_path / "a.png", ["a", "b"], [[0.5], [0.6]], [[nan], [0.5]], "x", "y", "x", "y")
    figures.confusion_differences(tmp_path / "a.png", ["mish"], np.full((1, 2, 2), nan), ["a", "b"], "x")
    figures.recalls(tmp_path / "a.png", ["mish"], ["a", "b"], np.full((1, 2), nan), [1, 1], "x")
    for figure in drawn:
        assert_inside(figure)
    assert texts(drawn[3].axes[0]) == ["–"] * 4 and texts(drawn[4].axes[0]) == ["–"] * 2
    edge = drawn[2].axes[0].lines[0]
    assert (list(edge.get_xdata()), list(edge.get_ydata())) == ([0.6], [0.5])


def test_a_point_without_a_value_is_not_on_the_pareto_edge() -> None:
    nan = float("nan")
    assert figures.pareto([nan, 1, 2, 9], [9, 2, 1, nan]) == [1, 2]


def test_the_thick_line_of_an_overlay_has_the_mean_ap_as_its_area(tmp_path: Path, drawn: list[Figure]) -> None:
    curves = steps(2, 3)
    ap = [float(np.mean([area(curve) for curve in of_arm])) for of_arm in curves]
    figures.overlay(tmp_path / "a.png", ["relu", "mish"], curves, ap, 0.05, "x", "20 images")
    thick = [
        line for line in drawn[0].axes[0].lines if line.get_drawstyle() == "steps-pre" and line.get_alpha() is None
    ]
    shown = [float(np.sum(np.diff(line.get_xdata()) * np.asarray(line.get_ydata())[1:])) for line in thick]
    assert shown == pytest.approx(ap)


@pytest.mark.parametrize("count", [4, 5])
def test_more_than_four_arms_get_a_panel_each(count: int, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_overlay(tmp_path / "a.png", count)
    shown = [axes for axes in drawn[0].axes if axes.axison]
    assert len(shown) == (1 if count == 4 else 5)
    if count == 5:
        ap = [np.mean([area(curve) for curve in of_arm]) for of_arm in steps(5)]
        names = style.printable(arms(5), 34)
        titles = [axes.get_title(loc="left") for axes in shown]
        assert titles == [f"{name}\nAP {value:.3f}" for name, value in zip(names, ap, strict=True)]
        assert [len(axes.lines) for axes in shown] == [5] * 5  # all arms, two seeds, their mean, chance


@pytest.mark.parametrize("classes", [EMOTIONS, HOSTILE, tuple(f"compound emotion number {c}" for c in range(30))])
def test_class_names_do_not_overlap(classes: tuple[str, ...], tmp_path: Path, drawn: list[Figure]) -> None:
    figures.recalls(tmp_path / "a.png", arms(2), classes, np.full((2, len(classes)), 0.5), [1000] * len(classes), "x")
    change = np.zeros((2, len(classes), len(classes)))
    figures.confusion_differences(tmp_path / "b.png", arms(2), change, classes, "x")
    for axes in (drawn[0].axes[0], drawn[1].axes[0], drawn[1].axes[1]):
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            boxes = [label.get_window_extent() for label in labels if label.get_text()]
            assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
    assert_inside(drawn[0])
    assert_inside(drawn[1])


def test_confusions_of_many_classes_say_their_scale_instead_of_numbers(tmp_path: Path, drawn: list[Figure]) -> None:
    change = np.full((1, 13, 13), 0.07)
    figures.confusion_differences(tmp_path / "a.png", ["mish"], change, [str(c) for c in range(13)], "x")
    assert texts(drawn[0].axes[0]) == []
    assert "full colour: 7 points" in drawn[0].get_suptitle().replace("\n", " ")
