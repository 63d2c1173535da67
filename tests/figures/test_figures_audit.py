"""Figures of an audit: what stands in them, whether it can be read, and that only the input decides the bytes."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from emoexp import figures
from emoexp.figures import faces, image_grids, style
from emoexp.metrics.class_balance import expected_interval

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
HOSTILE = (
    "<script>alert(1)</script>",
    "$x_1$",
    "=cmd()",
    "_hidden",
    "怒り",
    r"a\$b$^",
    "two\nlines\t\x00",
    "W" * 60,
    "long " * 20,
    "",
)
PARTS = ("train", "val", "test")
COUNTS = np.array([[4000, 40, 1, 0, 300, 90, 5, 12, 100_000, 3] * 3] * 3)


def names(num: int) -> tuple[str, ...]:
    known = {1: ("happy",), 7: EMOTIONS, 10: HOSTILE}
    return known.get(num, tuple(f"compound emotion number {c}" for c in range(num)))


def images(num: int, channels: int = 1, side: int = 8) -> np.ndarray:
    return np.random.default_rng(num).integers(0, 256, size=(num, channels, side, side), dtype=np.uint8)


def draw_means(path: Path, num: int) -> Path:
    label_N = np.arange(5 * num) % max(1, num - 1)  # the last of several classes has no image
    return figures.class_means(path, images(5 * num, 3 if num == 10 else 1), label_N, names(num))


def draw_sheet(path: Path, num: int) -> Path:
    captions = [f"{name}\n{name} · train" for name in names(num)]
    return figures.image_grid(path, images(num, 3 if num == 10 else 1), captions, title="odd", facts=f"{num} of 999")


def draw_pairs(path: Path, num: int) -> Path:
    captions = [f"{name} | {name}\n0.987 mirrored" for name in names(num)]
    return figures.image_pairs(
        path, images(num), images(num, 3, 20), captions, title="twins", facts=f"{num} of 999 pairs"
    )


def draw_counts(path: Path, num: int) -> Path:
    return figures.class_counts(path, COUNTS[:, :num], names(num), PARTS, title="counts")


def draw_expected(path: Path, num: int) -> Path:
    rows = [{"class": name} | expected_interval(int(n)) for name, n in zip(names(num), COUNTS[2], strict=False)]
    return figures.expected_intervals(path, rows, title="expected")


def draw_confound(path: Path, num: int) -> Path:
    scores = np.random.default_rng(num).random(num)
    rows = [
        {"feature": name, "macro_f1": f1, "chance": 0.14, "chance_high": 0.3}
        for name, f1 in zip(names(num), scores, strict=True)
    ]
    return figures.confound(path, rows, title="confounds", images=999)


def draw_leak(path: Path, num: int) -> Path:
    draw = np.random.default_rng(num)
    labels = ("leaky protocol", "clean", "clean, class-weighted loss", "W" * 40, "$x_1$")[: 2 + num % 4]
    rows = []
    for c, name in enumerate(names(num)):
        recall_A = draw.random(len(labels))
        arms = [
            {"label": label, "recall": r, "low": 0.8 * r, "high": min(1.0, 1.2 * r), "n": 123 * c}
            for label, r in zip(labels, recall_A, strict=True)
        ]
        rows.append({"class": name, "arms": arms})
    return figures.leak_worth(path, rows, title="leak", facts="95 % intervals")


DRAWINGS = (draw_means, draw_sheet, draw_pairs, draw_counts, draw_expected, draw_confound, draw_leak)
SIZES = [1, 7, 10, 30]


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


def heading(figure: Figure) -> str:
    assert figure._suptitle is not None
    return figure._suptitle.get_text().replace("\n", " ")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def ticks(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def entries(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def pixels(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


@pytest.mark.parametrize("draw", DRAWINGS)
@pytest.mark.parametrize("num", SIZES)
def test_everything_can_be_read(draw: Callable[[Path, int], Path], num: int, tmp_path: Path, drawn: list[Figure]):
    path = draw(tmp_path / "figures" / "a.png", num)
    assert path == tmp_path / "figures" / "a.png" and [one.name for one in path.parent.iterdir()] == ["a.png"]
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 3
    (figure,) = drawn
    title, (axes, *others) = figure._suptitle.get_window_extent(), figure.axes
    written = [text.get_window_extent() for text in axes.texts if text.get_text()]
    parts = [one.get_tightbbox() for one in (axes, *others)]
    for box in (title, *parts, *written):
        assert min(box.x0, box.y0) >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, box
        assert box is title or box.y1 <= title.y0
    legend = [axes.get_legend().get_window_extent()] if axes.get_legend() else []
    labels = [label.get_window_extent() for label in axes.get_yticklabels()] if axes.axison else []
    pictures = [image.get_window_extent() for image in axes.images]
    apart = [box.padded(-1) for box in written + legend + labels + pictures]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(apart, 2))


@pytest.mark.parametrize("draw", DRAWINGS)
def test_equal_input_gives_equal_bytes_and_other_input_another_picture(draw: Callable[[Path, int], Path], tmp_path):
    one, two, other = draw(tmp_path / "1.png", 7), draw(tmp_path / "2.png", 7), draw(tmp_path / "3.png", 10)
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()


def test_every_figure_says_how_many_images(tmp_path: Path, drawn: list[Figure]):
    for draw in DRAWINGS[:-1]:
        draw(tmp_path / "a.png", 7)
    total, tested = COUNTS[:, :7].sum(), COUNTS[2, :7].sum()
    expected = ["n = 35 images", "7 of 999", "7 of 999 pairs", f"n = {total:,} images", f"n = {tested:,} test images"]
    assert all(said in heading(one) for said, one in zip([*expected, "n = 999 images"], drawn, strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_means_and_deviations_by_hand(channels: int, tmp_path: Path, drawn: list[Figure]):
    image_NCHW, label_N = images(50, channels), np.repeat([2, 0, 1, 0], [3, 30, 7, 10])
    figures.class_means(tmp_path / "a.png", image_NCHW, label_N, ["a", "b", "c"])
    mean = np.stack([image_NCHW[label_N == c].mean(axis=0) for c in range(3)])
    light = mean[:, 0] if channels == 1 else np.einsum("k,ckhw->chw", [0.299, 0.587, 0.114], mean)
    found = drawn[0].axes[0].images
    for c, (above, below) in enumerate(zip(found[::2], found[1::2], strict=True)):
        shown = np.asarray(above.get_array()).reshape(8, 8, channels).transpose(2, 0, 1)
        assert np.abs(shown - mean[c]).max() <= 0.5
        assert np.allclose(below.get_array(), light[c] - light.mean(axis=0))
        low, high = below.get_clim()
        assert low == -high == -np.quantile(np.abs(light - light.mean(axis=0)), 0.99)
    assert [text for text in texts(drawn[0]) if text.startswith("n = ")] == ["n = 40", "n = 7", "n = 3"]


def test_means_are_read_in_blocks_and_do_not_depend_on_them(tmp_path: Path, monkeypatch):
    image_NCHW, label_N = images(50, 3), np.arange(50) % 4
    whole = figures.class_means(tmp_path / "a.png", image_NCHW, label_N, EMOTIONS[:4]).read_bytes()
    np.save(tmp_path / "images.npy", image_NCHW)
    mapped, most = np.load(tmp_path / "images.npy", mmap_mode="r"), 7

    class Reads(np.ndarray):
        def __getitem__(self, index: Any) -> Any:
            part = np.asarray(self).__getitem__(index)
            assert len(part) <= most
            return part

    monkeypatch.setattr(faces, "_BLOCK_BYTES", most * image_NCHW[0].nbytes)
    blocks = figures.class_means(tmp_path / "b.png", mapped.view(Reads), label_N, EMOTIONS[:4])
    assert blocks.read_bytes() == whole


def test_means_of_classes_without_images_and_of_no_images(tmp_path: Path, drawn: list[Figure]):
    figures.class_means(tmp_path / "a.png", images(4), np.array([0, 0, 2, 2]), ["a", "b", "c"])
    figures.class_means(tmp_path / "a.png", images(0), np.array([], int), ["a", "b"])
    figures.class_means(tmp_path / "a.png", images(2, 3, 512), np.array([0, 0]), ["a"])
    assert [len(one.axes[0].images) for one in drawn] == [4, 0, 2]
    assert [len(one.axes[0].patches) for one in drawn] == [1, 2, 0]
    left, right = pixels(drawn[0])[1::2]
    assert np.allclose(left, -right)  # the class without images has no part in the mean of the means
    assert not pixels(drawn[2])[1].any()


def test_means_stand_in_rows_of_at_most_eight(tmp_path: Path, drawn: list[Figure]):
    draw_means(tmp_path / "a.png", 30)
    corners = {image.get_extent()[3] for image in drawn[0].axes[0].images}
    assert len(corners) == 2 * 4 and len(drawn[0].axes[0].child_axes) == 4


def test_a_sheet_shows_pictures_in_order_with_their_captions(tmp_path: Path, drawn: list[Figure]):
    image_NCHW = images(5, 3)
    figures.image_grid(
        tmp_path / "a.png", image_NCHW, ["one", "", "3\n4", "\n6", "x" * 99], title="t", facts="f", columns=3
    )
    for shown, image_CHW in zip(pixels(drawn[0]), image_NCHW, strict=True):
        assert np.array_equal(shown, image_CHW.transpose(1, 2, 0))
    *short, long = texts(drawn[0])
    assert short == ["one", "3", "4", "6"] and "…" in long and long.strip("x") == "…"
    places = [(round(left, 2), round(top, 2)) for left, _, _, top in (i.get_extent() for i in drawn[0].axes[0].images)]
    assert len({x for x, _ in places}) == 3 and [y for _, y in places] == sorted(y for _, y in places)


def test_a_sheet_spends_no_room_on_captions_that_are_not_there(tmp_path: Path):
    heights = []
    for caption in ("", "one", "one\ntwo"):
        path = figures.image_grid(tmp_path / "a.png", images(24), [caption] * 24, title="t", facts="f")
        with Image.open(path) as picture:
            heights.append(picture.height)
    assert heights[0] < heights[1] < heights[2]


def test_a_sheet_fills_its_last_row(tmp_path: Path, drawn: list[Figure]):
    figures.image_grid(tmp_path / "a.png", images(26), [""] * 26, title="t", facts="f")
    rows = [image.get_extent()[3] for image in drawn[0].axes[0].images]
    assert sorted(rows.count(row) for row in set(rows)) == [8, 9, 9]


def test_more_than_a_sheet_holds_is_said_and_not_read(tmp_path: Path, drawn: list[Figure], monkeypatch):
    monkeypatch.setattr(image_grids, "MOST", 20)
    figures.image_grid(tmp_path / "a.png", images(30), [""] * 30, title="t", facts="30 of 999")
    figures.image_pairs(tmp_path / "a.png", images(60), images(60), [""] * 60, title="t", facts="60 of 999 pairs")
    assert [len(one.axes[0].images) for one in drawn] == [20, 2 * 48]
    assert "30 of 999 · 20 of 30 shown" in heading(drawn[0])
    assert "60 of 999 pairs · 48 of 60 shown" in heading(drawn[1])


def test_hundreds_of_pictures(tmp_path: Path, drawn: list[Figure]):
    figures.image_grid(tmp_path / "a.png", images(300, 3, 16), ["happy\n"] * 300, title="t", facts="f")
    assert len(drawn[0].axes[0].images) == 300


def test_nothing_to_show_says_so(tmp_path: Path, drawn: list[Figure]):
    figures.image_grid(tmp_path / "a.png", images(0), [], title="t", facts="0 of 0")
    figures.image_pairs(tmp_path / "a.png", images(0), images(0), [], title="t", facts="0 of 0")
    assert [texts(one) for one in drawn] == [["none"], ["none"]]


def test_the_two_of_a_pair_are_closer_than_pairs_and_on_one_ground(tmp_path: Path, drawn: list[Figure]):
    left, right = images(3), images(3, 3, 12)
    figures.image_pairs(tmp_path / "a.png", left, right, ["a | b\n0.9"] * 3, title="t", facts="f")
    shown = pixels(drawn[0])
    assert all(np.array_equal(shown[2 * k], left[k, 0]) for k in range(3))
    assert all(np.array_equal(shown[2 * k + 1], right[k].transpose(1, 2, 0)) for k in range(3))
    edges = [image.get_extent() for image in drawn[0].axes[0].images]
    assert edges[1][0] - edges[0][1] < (edges[2][0] - edges[1][1]) / 3
    grounds = [patch for patch in drawn[0].axes[0].patches if isinstance(patch, Rectangle)]
    for k, ground in enumerate(grounds):
        assert ground.get_x() < edges[2 * k][0] and edges[2 * k + 1][1] < ground.get_x() + ground.get_width()


def test_counts_ratio_and_absent_classes(tmp_path: Path, drawn: list[Figure]):
    figures.class_counts(tmp_path / "a.png", [[900, 0, 30], [5, 1, 0]], ["a", "b", "c"], ["train", "test"], title="t")
    assert texts(drawn[0]) == ["900", "0", "30", "5", "1", "0"]
    widths = [[bar.get_width() for bar in bars] for bars in drawn[0].axes[0].containers]
    assert widths == [[900, 0.1, 30], [5, 1, 0.1]] and drawn[0].axes[0].get_xlim()[0] > 0.1
    assert drawn[0].axes[0].get_xscale() == "log" and entries(drawn[0]) == ["train  930", "test  6"]
    assert "n = 936 images · imbalance ratio of train 30.0 (a over c)" in heading(drawn[0])
    assert "1 of 3 classes without any in train" in heading(drawn[0])


def test_counts_of_nothing(tmp_path: Path, drawn: list[Figure]):
    figures.class_counts(tmp_path / "a.png", np.zeros((3, 2), int), ["a", "b"], PARTS, title="t")
    assert "ratio" not in heading(drawn[0]) and "2 of 2 classes without any" in heading(drawn[0])


def test_expected_intervals_and_their_alarm(tmp_path: Path, drawn: list[Figure]):
    rows = [{"class": name} | expected_interval(n) for name, n in (("many", 1200), ("few", 20), ("none", 0))]
    figures.expected_intervals(tmp_path / "a.png", rows, title="t")
    (axes,) = drawn[0].axes
    bars = [(bars[0].get_x(), bars[0].get_x() + bars[0].get_width(), bars[0]) for bars in axes.containers]
    for row, (whole, half) in zip(rows, zip(bars[::2], bars[1::2], strict=True), strict=True):
        assert whole[:2] == pytest.approx((row["low"], row["high"]))
        assert half[:2] == pytest.approx((row["half_low"], row["half_high"]))
    alarmed = [bar.get_facecolor()[0] > 0.8 for _, _, bar in bars[::2]]
    assert alarmed == [False, True, True] == [text.get_weight() == "bold" for text in axes.texts[:3]]
    assert texts(drawn[0])[:3] == ["±3 points", "±20 points", "±50 points"]
    assert ticks(drawn[0]) == ["many  1,200", "few  20", "none  0"]
    figures.expected_intervals(tmp_path / "a.png", rows, title="t", level=0.9)
    assert "95 % Wilson" in heading(drawn[0]) and "90 % Wilson" in heading(drawn[1])


def test_confounds_are_sorted_and_judged_by_chance(tmp_path: Path, drawn: list[Figure]):
    found = (("low", 0.1, 0.14), ("best", 0.4, 0.15), ("within", 0.145, 0.15), ("none", None, 0.15))
    rows = [{"feature": name, "macro_f1": f1, "chance": 0.125, "chance_high": high} for name, f1, high in found]
    figures.confound(tmp_path / "a.png", rows, title="t")
    assert ticks(drawn[0]) == ["best", "within", "low", "none"]
    chance, *dots = drawn[0].axes[0].lines
    assert list(chance.get_xdata()) == [0.125] * 4
    assert [dot.get_xdata()[0] for dot in dots[:3]] == [0.4, 0.145, 0.1]
    assert [dot.get_color() for dot in dots[:2]] == [style.VERMILION, style.GREY]
    (bands,) = drawn[0].axes[0].containers
    assert [bar.get_width() for bar in bands] == pytest.approx([0.025, 0.025, 0.015, 0.025])
    assert "1 of 4 beyond chance" in heading(drawn[0]) and "n =" not in heading(drawn[0])


def test_leaks_show_every_arm_of_every_class_with_interval_and_n(tmp_path: Path, drawn: list[Figure]):
    arms = [{"label": "leaky", "recall": 0.9, "low": 0.8, "high": 1.0, "n": 1234}]
    arms += [{"label": "clean", "recall": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}]
    figures.leak_worth(
        tmp_path / "a.png", [{"class": name, "arms": arms} for name in ("fear", "sad")], title="t", facts="f"
    )
    (axes,) = drawn[0].axes
    whiskers, dots = axes.lines[::2], axes.lines[1::2]
    assert list(whiskers[0].get_xdata()) == [0.8, 1.0] and dots[0].get_xdata()[0] == 0.9 and len(dots) == 4
    assert texts(drawn[0]) == ["0.900", "1,234", "–", "0"] * 2 + ["recall", "n"]
    assert entries(drawn[0]) == ["leaky", "clean"] and ticks(drawn[0]) == ["fear", "sad"]


ARM = {"label": "a", "recall": 0.5, "low": 0.4, "high": 0.6, "n": 3}
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "type": (lambda p: figures.image_grid(p, np.zeros((1, 1, 8, 8)), [""], title="t", facts="f"), r"uint8.*float64"),
    "channels": (lambda p: figures.image_grid(p, images(1, 2), [""], title="t", facts="f"), r"\(1, 2, 8, 8\)"),
    "captions": (lambda p: figures.image_grid(p, images(2), [""], title="t", facts="f"), "2 images.*got 1"),
    "columns": (lambda p: figures.image_grid(p, images(1), [""], title="t", facts="f", columns=0), "got 0"),
    "right": (
        lambda p: figures.image_pairs(p, images(2), images(1), ["", ""], title="t", facts="f"),
        "right: 1 images",
    ),
    "left": (
        lambda p: figures.image_pairs(p, images(2)[0], images(2), ["", ""], title="t", facts="f"),
        "left.*(1, 8, 8)",
    ),
    "labels": (lambda p: figures.class_means(p, images(2), np.array([0]), ["a"]), "2 images.*got 1"),
    "label": (lambda p: figures.class_means(p, images(2), np.array([0, 2]), ["a", "b"]), r"0 to 1, got \[0 2\]"),
    "negative": (lambda p: figures.class_means(p, images(1), np.array([-1]), ["a", "b"]), r"0 to 1, got \[-1\]"),
    "no class": (lambda p: figures.class_means(p, images(0), np.array([], int), []), "needs classes"),
    "counts": (lambda p: figures.class_counts(p, [[1, 2]], ["a"], ["train"], title="t"), r"1 parts × 1 .*\(1, 2\)"),
    "no counts": (lambda p: figures.class_counts(p, np.zeros((3, 0)), [], PARTS, title="t"), "at least one"),
    "no rows": (lambda p: figures.expected_intervals(p, [], title="t"), "at least one class"),
    "no features": (lambda p: figures.confound(p, [], title="t"), "at least one feature"),
    "no arms": (lambda p: figures.leak_worth(p, [], title="t", facts="f"), "needs classes"),
    "other arms": (
        lambda p: figures.leak_worth(
            p,
            [{"class": "a", "arms": [ARM]}, {"class": "b", "arms": [ARM | {"label": "b"}]}],
            title="t",
            facts="f",
        ),
        r"same arms.*\['a'\], \['b'\]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_and_leaves_no_file(case: str, tmp_path: Path):
    call, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        call(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
