"""Figures: what stands in them, whether it can be read, and that only the input decides the bytes."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn import metrics as oracle

from emoexp import figures
from emoexp.figures import curves, style
from emoexp.metrics import classification

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
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
COUNTS = {
    2: (180, 20),
    7: (60, 9, 50, 90, 70, 60, 40),
    8: (30, 9, 12, 0, 8, 7, 6, 5),  # one class is absent
    9: (20, 9, 9, 9, 9, 9, 9, 9, 0),
    30: (*(int(200 * 40 ** (-c / 28)) for c in range(29)), 0),
}


def names(num_classes: int) -> tuple[str, ...]:
    known = {2: ("smile", "no smile"), 7: EMOTIONS, 8: HOSTILE}
    return known.get(num_classes, tuple(f"compound emotion number {c}" for c in range(num_classes)))


def judged(num_classes: int, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng, count_C = np.random.default_rng(num_classes), np.array(COUNTS[num_classes])
    target_N = rng.permutation(np.repeat(np.arange(num_classes), count_C))
    score_NC = np.exp(rng.normal(size=(len(target_N), num_classes)) + skill * np.eye(num_classes)[target_N])
    return score_NC / score_NC.sum(axis=1, keepdims=True), target_N


def draw_confusion(path: Path, num_classes: int) -> Path:
    probability_NC, target_N = judged(num_classes)
    confusion_CC = classification.confusion(target_N, probability_NC.argmax(axis=1), num_classes)
    return figures.confusion(path, confusion_CC, names(num_classes), "sampler mish seed 0, test")


def draw_precision_recall(path: Path, num_classes: int) -> Path:
    return figures.precision_recall(path, *judged(num_classes), names(num_classes), "sampler mish seed 0, test")


def draw_mistakes(path: Path, num_classes: int) -> Path:
    probability_NC, target_N = judged(num_classes)
    image_NCHW = np.random.default_rng(0).integers(0, 256, size=(len(target_N), 1, 8, 8), dtype=np.uint8)
    files = [f"test/some/long/folder/PublicTest_{i:08}.png" for i in range(len(target_N))]
    index_N, class_names = np.arange(len(image_NCHW)), names(num_classes)
    return figures.mistakes(path, image_NCHW, index_N, target_N, probability_NC, class_names, files)


def ledger_rows(num_classes: int) -> list[dict[str, Any]]:
    original_C = np.array(COUNTS[num_classes], dtype=np.float64)
    prior_C, effective_C = original_C / original_C.sum(), np.full(num_classes, 1 / num_classes)
    return [
        {
            "class": name,
            "images": int(original_C[c]),
            "copies": int(3 * original_C[c]) if c else 0,
            "draws": 100.0,
            "unique": 10.0,
            "weight": 1.25,
            "prior": float(prior_C[c]),
            "effective_prior": float(effective_C[c]),
            "correction": 1.0,
        }
        for c, name in enumerate(names(num_classes))
    ]


def draw_ledger(path: Path, num_classes: int) -> Path:
    return figures.ledger(path, ledger_rows(num_classes))


def history(epochs: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "train/lr": 1e-3 * 0.5**epoch,
            "train/loss": 2.0 / epoch,
            "train/accuracy": 1 - 0.8 / epoch,
            "val/loss": 2.2 / epoch,
            "val/accuracy": 0.7 - 0.5 / epoch,
            "val/macro_f1": 0.6 - 0.01 * abs(epoch - 7),
            "val/balanced_accuracy": 0.55 - 0.3 / epoch,
            "val/worst_recall": 0.3 - 0.3 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


def draw_training(path: Path, epochs: int) -> Path:
    return figures.training(path, history(epochs), images=2871, title="sampler mish seed 0")


def draw_prior_course(path: Path, num_classes: int) -> Path:
    even = np.full(num_classes, 1 / num_classes)
    prior = np.arange(1, num_classes + 1) / np.arange(1, num_classes + 1).sum()
    timeline = [
        {"epochs": [1, 8], "effective_prior": prior.tolist()},
        {"epochs": [9, 10], "effective_prior": list(even)},
    ]
    return figures.prior_course(path, timeline, names(num_classes), sum(COUNTS[num_classes]))


DRAWINGS = (draw_confusion, draw_precision_recall, draw_mistakes, draw_ledger, draw_training, draw_prior_course)


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
    return figure.get_suptitle()


@pytest.mark.parametrize("draw", DRAWINGS)
def test_equal_input_gives_equal_bytes_and_a_whole_png(draw: Callable[[Path, int], Path], tmp_path: Path) -> None:
    first = draw(tmp_path / "new folder" / "a.png", 8)
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "red", "text.parse_math": True}):
        second = draw(tmp_path / "b.png", 8)
    assert first.read_bytes() == second.read_bytes()
    assert {file.name for file in tmp_path.rglob("*.*")} == {"a.png", "b.png"}
    with Image.open(first) as picture:
        picture.load()
        assert picture.format == "PNG" and min(picture.size) > 200
        assert set(picture.info) == {"dpi"}  # no date, no version


@pytest.mark.parametrize("draw", DRAWINGS)
@pytest.mark.parametrize("size", [2, 8, 30])
def test_nothing_leaves_the_sheet_or_lies_under_the_heading(
    draw: Callable[[Path, int], Path], size: int, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw(tmp_path / "a.png", size)
    (figure,) = drawn
    title, parts = figure._suptitle.get_window_extent(), [axes.get_tightbbox() for axes in figure.axes]
    labels = [text.get_window_extent() for text in (figure._supxlabel, figure._supylabel) if text]
    for box in (title, *parts, *labels):
        assert min(box.x0, box.y0) >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, box
    assert max(box.y1 for box in parts) <= title.y0
    assert not any(one.overlaps(other) for one, other in itertools.combinations(parts, 2))


@pytest.mark.parametrize("size", [7, 8])
def test_texts_of_neighbouring_pictures_do_not_overlap(size: int, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_mistakes(tmp_path / "a.png", size)
    boxes = [text.get_window_extent() for text in drawn[0].axes[0].texts]
    pictures = [image.get_window_extent() for image in drawn[0].axes[0].images]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes + pictures, 2))


@pytest.mark.parametrize("draw", DRAWINGS)
def test_drawing_changes_no_setting_of_matplotlib(draw: Callable[[Path, int], Path], tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    draw(tmp_path / "a.png", 2)
    with pytest.raises(ZeroDivisionError), style.saved_figure(tmp_path / "b.png", 3, 3, "x", "y"):
        raise ZeroDivisionError
    assert dict(matplotlib.rcParams) == before
    assert not (tmp_path / "b.png").exists()


def test_pyplot_is_not_imported() -> None:
    code = "import sys, emoexp.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_every_figure_says_how_many_images(tmp_path: Path, drawn: list[Figure]) -> None:
    for draw in DRAWINGS:
        draw(tmp_path / "a.png", 7)
    n = sum(COUNTS[7])
    expected = [f"n = {n}", f"n = {n}", f"n = {n}", f"n = {n} training images", "n = 2,871 validation images"]
    expected.append(f"n = {n} training images")
    assert all(text in heading(figure) for text, figure in zip(expected, drawn, strict=True))


def test_the_confusion_shows_counts_and_shares_of_each_row(tmp_path: Path, drawn: list[Figure]) -> None:
    confusion_CC = np.array([[1500, 500, 0], [1, 3, 0], [0, 0, 0]])
    figures.confusion(tmp_path / "a.png", confusion_CC, ["big", "small", "none"], "x")
    left, right = ([text.get_text() for text in axes.texts] for axes in drawn[0].axes)
    assert left == ["1,500", "500", "0", "1", "3", "0", "0", "0", "0"]
    assert right == ["75", "25", "0", "25", "75", "0", "–", "–", "–"]
    assert [label.get_text() for label in drawn[0].axes[0].get_yticklabels()] == [
        "big  2,000",
        "small  4",
        "none  0",
    ]
    assert f"accuracy {1503 / 2004:.3f} · macro-F1" in heading(drawn[0])
    assert "worst recall 0.750 (small)" in heading(drawn[0])


def test_letters_on_dark_cells_are_white(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.confusion(tmp_path / "a.png", np.array([[9, 1], [4, 6]]), ["a", "b"], "x")
    assert [text.get_color() for text in drawn[0].axes[1].texts] == ["white", style.INK, style.INK, style.INK]


def test_a_confusion_without_images_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        figures.confusion(tmp_path / "a.png", np.zeros((2, 2), dtype=int), ["a", "b"], "x")
    assert list(tmp_path.iterdir()) == []


def test_precision_recall_shows_sklearns_ap_and_the_prevalence_of_each_class(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    probability_NC, target_N = judged(7)
    figures.precision_recall(tmp_path / "a.png", probability_NC, target_N, EMOTIONS, "x")
    (axes,) = drawn[0].axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    for c, name in enumerate(EMOTIONS):
        ap = oracle.average_precision_score(target_N == c, probability_NC[:, c])
        assert labels[c] == f"AP {ap:.3f}  {name} ({COUNTS[7][c]})"
        line, chance = axes.lines[2 * c], axes.lines[2 * c + 1]
        assert chance.get_ydata()[0] == pytest.approx(COUNTS[7][c] / len(target_N))
        assert line.get_color() == chance.get_color()
    truth_NC = np.eye(7)[target_N]
    micro = oracle.average_precision_score(truth_NC, probability_NC, average="micro")
    macro = oracle.average_precision_score(truth_NC, probability_NC, average="macro")
    assert labels[7:9] == [f"AP {micro:.3f}  micro", f"AP {macro:.3f}  macro (mean precision)"]
    assert f"macro AP {macro:.3f} (chance 0.143) · micro AP {micro:.3f} (chance 0.143)" in heading(drawn[0])


@pytest.mark.parametrize("num_classes", [2, 7, 8, 30])
def test_the_area_under_the_macro_curve_is_macro_ap(num_classes: int) -> None:
    probability_NC, target_N = judged(num_classes)
    lines = [curves._curve("", probability_NC[:, c], target_N == c) for c in range(num_classes)]
    summary = classification.summarise(probability_NC, target_N, names(num_classes))
    assert curves.mean_curve(lines).ap == pytest.approx(summary["macro_ap"])


def test_more_than_eight_classes_get_a_panel_each(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_precision_recall(tmp_path / "a.png", 9)
    titles = [axes.get_title(loc="left") for axes in drawn[0].axes if axes.axison]
    probability_NC, target_N = judged(9)
    ap = oracle.average_precision_score(target_N == 0, probability_NC[:, 0])
    assert len(titles) == 10
    assert titles[1].endswith(f"AP {ap:.3f} (20)") and titles[9].endswith("no images")


def test_training_marks_the_best_epoch(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.training(tmp_path / "a.png", history(12))
    figures.training(tmp_path / "a.png", history(12), best=3)
    for figure, best in zip(drawn, (7, 3), strict=True):
        assert all(list(axes.lines[-1].get_xdata()) == [best, best] for axes in figure.axes)
        assert heading(figure).endswith(f"at epoch {best}")
    assert "macro-F1 0.600" in heading(drawn[0])


def test_training_of_one_epoch_and_with_holes(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.training(tmp_path / "a.png", history(1))
    broken = history(5)
    broken[1]["val/loss"], broken[2]["val/macro_f1"], broken[3]["train/loss"] = (
        float("nan"),
        None,
        float("inf"),
    )
    del broken[4]["train/lr"]
    figures.training(tmp_path / "a.png", broken)
    loss, score, rate = drawn[1].axes
    assert np.isnan(loss.lines[0].get_ydata()).tolist() == [False, False, False, True, False]
    assert np.isnan(loss.lines[1].get_ydata()).tolist() == [False, True, False, False, False]
    assert np.isnan(score.lines[0].get_ydata()).tolist() == [False, False, True, False, False]
    assert np.isnan(rate.lines[0].get_ydata()).tolist() == [False, False, False, False, True]
    figures.training(tmp_path / "a.png", [{"epoch": 1, "train/loss": float("nan")}])


def test_training_needs_epochs_and_knows_the_best(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one epoch"):
        figures.training(tmp_path / "a.png", [])
    with pytest.raises(ValueError, match=r"best epoch 9 is not in the history \(epochs 1 to 4\)"):
        figures.training(tmp_path / "a.png", history(4), best=9)


def test_the_ledger_shows_images_copies_draws_and_priors(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_ledger(tmp_path / "a.png", 7)
    left, right = drawn[0].axes
    images, copies = left.containers
    assert [bar.get_width() for bar in images] == list(COUNTS[7])
    assert [bar.get_x() for bar in copies] == list(COUNTS[7])
    assert [bar.get_width() for bar in copies] == [0, *(3 * n for n in COUNTS[7][1:])]
    assert left.lines[0].get_xdata().tolist() == [100.0] * 7
    data, aim = right.containers
    assert [bar.get_width() for bar in data] == pytest.approx([n / sum(COUNTS[7]) for n in COUNTS[7]])
    assert [bar.get_width() for bar in aim] == pytest.approx([1 / 7] * 7)
    assert right.lines[0].get_xdata()[0] == pytest.approx(1 / 7)
    assert left.texts[1].get_text() == "9 + 27 → 100"
    assert right.texts[1].get_text() == f"{9 / sum(COUNTS[7]):.3f} → 0.143  (weight 1.25)"
    with pytest.raises(ValueError, match="at least one class"):
        figures.ledger(tmp_path / "a.png", [])


def test_the_prior_by_epochs_is_a_step_for_each_period(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_prior_course(tmp_path / "a.png", 7)
    (axes,) = drawn[0].axes
    values, edges, _ = axes.patches[0].get_data()
    assert edges.tolist() == [0.5, 8.5, 10.5] and values.tolist() == pytest.approx([1 / 28, 1 / 7])
    assert len(axes.patches) == 7 and axes.get_ylim()[1] > 7 / 28
    with pytest.raises(ValueError, match="at least one period"):
        figures.prior_course(tmp_path / "a.png", [], names(7), 0)


class Reads:
    """Images that note which of them were read."""

    def __init__(self, image_NCHW: np.ndarray) -> None:
        self.image_NCHW = image_NCHW
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.image_NCHW)

    def __getitem__(self, index: int) -> np.ndarray:
        self.read.append(int(index))
        return self.image_NCHW[index]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_most_confident_mistakes_are_shown_in_order(channels: int, tmp_path: Path, drawn: list[Figure]) -> None:
    confidence_N = np.array([0.9, 0.6, 0.8, 0.7, 0.95])
    probability_NC, target_N = np.stack([confidence_N, 1 - confidence_N], axis=1), np.array([1, 1, 0, 1, 1])
    images = Reads(np.random.default_rng(0).integers(0, 256, size=(5, channels, 6, 5), dtype=np.uint8))
    figures.mistakes(
        tmp_path / "a.png", images, np.arange(len(images)), target_N, probability_NC, ["sad", "happy"], list("vwxyz")
    )
    assert images.read == [4, 0, 3, 1]
    (axes,) = drawn[0].axes
    truth, said, files = ([text.get_text() for text in axes.texts[k::3]] for k in (0, 1, 2))
    assert truth == ["happy"] * 4
    assert said == [f"→ sad {confidence:.2f}" for confidence in (0.95, 0.9, 0.7, 0.6)]
    assert files == ["z", "v", "y", "w"]
    assert "4 of 4 mistakes · n = 5" in heading(drawn[0])
    for shown, i in zip(axes.images, images.read, strict=True):
        pixels = np.asarray(shown.get_array()).reshape(6, 5, channels)
        assert np.array_equal(pixels, images.image_NCHW[i].transpose(1, 2, 0))
        assert shown.get_window_extent().width / shown.get_window_extent().height == pytest.approx(5 / 6)


def test_at_most_32_mistakes_and_none_at_all(tmp_path: Path, drawn: list[Figure]) -> None:
    image_NCHW, target_N = np.zeros((40, 1, 4, 4), dtype=np.uint8), np.zeros(40, dtype=int)
    right_NC = np.tile([0.9, 0.1], (40, 1))
    figures.mistakes(tmp_path / "a.png", image_NCHW, np.arange(40), target_N, right_NC[:, ::-1], ["a", "b"], ["x"] * 40)
    figures.mistakes(tmp_path / "a.png", image_NCHW, np.arange(40), target_N, right_NC, ["a", "b"], ["x"] * 40)
    assert len(drawn[0].axes[0].images) == 32 and "32 of 40 mistakes" in heading(drawn[0])
    assert "No mistakes in 40 images" in [text.get_text() for text in drawn[1].axes[0].texts]
    with pytest.raises(ValueError, match="got 40 and 1"):
        figures.mistakes(tmp_path / "a.png", image_NCHW, np.arange(40), target_N, right_NC, ["a", "b"], ["x"])


def test_hostile_names_stand_in_the_figure_as_they_are(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_confusion(tmp_path / "a.png", 8)
    labels = [label.get_text() for label in drawn[0].axes[1].get_yticklabels()]
    assert labels[1:7] == ["$x_1$", "=cmd()", "_hidden", r"\u6012\u308a", r"a\$b$^", r"two lines \x00"]
    assert not any(label.get_parse_math() for label in drawn[0].axes[1].get_yticklabels())


def test_printable_names_are_short_single_lines_that_differ() -> None:
    assert style.printable(["happy", "a\n b"]) == ["happy", "a b"]
    assert style.printable(["0123456789abcdefghij"], 9) == ["0123…ghij"]
    alike = style.printable(["surprise " + "very " * 9 + end for end in ("much", "very much", "too much")], 18)
    assert len(set(alike)) == 3 and max(map(len, alike)) <= 18
    assert style.printable(["", " "]) == ["~0", "~1"]


@pytest.mark.parametrize("title", ["", "$a$ " * 60, "x" * 300, "emotion_cnn · мish · 怒り"])
def test_any_title_will_do(title: str, tmp_path: Path, drawn: list[Figure]) -> None:
    figures.training(tmp_path / "a.png", history(2), title=title)
    assert drawn[0]._suptitle.get_window_extent().x1 <= drawn[0].bbox.x1
