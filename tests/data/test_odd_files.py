"""Forms of files that people have: read where it costs little, with a note that says what was taken."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_images import encoded

from emoexp.data import images, splits, table
from emoexp.data.dataset import Source
from emoexp.data.readers import fer2013, folder

SIDE = 48


def row(value: int) -> str:
    return " ".join([str(value)] * SIDE * SIDE)


def fer(path: Path, *, separator: str = ",", encoding: str = "utf-8", names: bool = False) -> Path:
    emotions = fer2013.CLASS_NAMES if names else range(7)
    lines = [separator.join(("emotion", "pixels", "Usage"))]
    for usage in ("Training", "PublicTest", "PrivateTest"):
        lines += [separator.join((str(emotion), row(10 + number), usage)) for number, emotion in enumerate(emotions)]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def load(root: Path) -> Source:
    keys = {"image_size": SIDE, "channels": 1, "cache": None, "on_corrupt": "refuse"}
    return fer2013.load(root=str(root), strict=False, **keys)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({}, ""),
        ({"separator": ";"}, "is separated by semicolons"),
        ({"separator": "\t"}, "is separated by tabs"),
        ({"encoding": "utf-16"}, "is in UTF-16"),
        ({"encoding": "utf-8-sig"}, ""),
        ({"encoding": "utf-16", "separator": ";"}, "is separated by semicolons and in UTF-16"),
        ({"names": True}, "has names of emotions in place of numbers in 21 rows"),
    ],
)
def test_forms_of_a_table(tmp_path, form, said):
    plain, other = load(fer(tmp_path / "plain.csv")), load(fer(tmp_path / "other.csv", **form))
    assert other.images_hash == plain.images_hash and (other.part == plain.part).all()
    notes = [note for note in other.notes if "ALTERED" not in note]
    assert any(said in note for note in notes) if said else not any("separated" in note for note in notes)


def test_an_emotion_that_there_is_not_is_named(tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_text(f"emotion,pixels,Usage\nbored,{row(1)},Training\n")
    with pytest.raises(ValueError, match=r"fer2013\.csv:2: emotion 'bored'; expected 0 to 6, or one of angry, disgust"):
        load(path)


def test_a_table_without_labels_says_who_reads_it(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text(f"pixels\n{row(1)}\n")
    with pytest.raises(ValueError, match=r"python -m emoexp\.predict run=outputs/<run> images=test\.csv"):
        load(path)


def test_a_picture_beside_the_table_is_left_out(tmp_path):
    root = tmp_path / "fer"
    root.mkdir()
    fer(root / "fer2013.csv")
    Image.new("RGB", (100, 60)).save(root / "cover.png")
    source = load(root)
    assert len(source.labels) == 21
    assert any(
        "1 pictures beside fer2013.csv are no part of it" in note and "cover.png" in note for note in source.notes
    )


def test_half_an_utf_16_is_refused():
    with pytest.raises(ValueError, match="not text in UTF-16"):
        list(table.read("a,b\n1,2".encode("utf-16") + b"x", "t.csv"))


# ---- pictures


def test_fractions_are_taken_as_grey_levels():
    value = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    found = images.decode_all(["a.tif"], [("a.tif", encoded(Image.fromarray(value), "TIFF"))], 8, 1, "refuse")
    assert np.array_equal(found.pixels[0, 0], (value * 255 + 0.5).astype(np.uint8))
    assert found.changes == ("1 of 1 images hold pixels as fractions of 1, which are taken times 255",)


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan, np.inf])
def test_other_floating_point_pixels_are_refused(value):
    picture = np.full((8, 8), value, np.float32)
    with pytest.raises(ValueError, match=r"0 to 1 is understood\. Save it with 8 or 16 bits"):
        images.decode(encoded(Image.fromarray(picture), "TIFF"), 8, 1)


def notes(*pictures: Image.Image, side: int = 16, channels: int = 1, kind: str = "PNG") -> tuple[str, ...]:
    contents = {f"{number}": encoded(picture, kind) for number, picture in enumerate(pictures)}
    return images.decode_all(list(contents), contents.items(), side, channels, "refuse").changes


def test_what_decoding_changes_is_counted():
    grey, red = Image.new("L", (16, 16), 90), Image.new("RGB", (16, 16), (250, 20, 20))
    assert notes(grey, grey.convert("RGB"), grey.convert("RGBA")) == ()
    assert notes(grey, red) == ("1 of 2 images are in colour and are read in grey; channels=3 keeps the colours",)
    assert notes(grey, red, channels=3) == ()
    large, small, wide = (Image.new("L", size, 9) for size in ((32, 32), (8, 8), (20, 16)))
    (note,) = notes(grey, large)
    assert note.startswith("1 of 2 images are larger than image_size=16 and are made smaller; a larger image_size=...")
    (note,) = notes(small, grey)
    assert note == "1 of 2 images are smaller than image_size=16 and are enlarged; a smaller image_size=... spares that"
    (note,) = notes(grey, wide)
    assert note == "1 of 2 images are not square: the square in their middle is taken, the rest is cut off"


def test_grey_photographs_stored_in_colour_are_grey():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)).convert("RGB")
    assert notes(picture, side=40, kind="JPEG") == () == notes(picture, side=40, kind="WEBP")


def test_training_is_told_of_it(tmp_path):
    for name in ("happy", "sad"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (30, 20), (200, 10, 10)).save(tmp_path / name / "a.png")
    keys = {"image_size": 16, "channels": 1, "cache": None, "identity": None, "on_corrupt": "refuse"}
    said = folder.load(root=str(tmp_path), **keys).notes
    assert [note.partition(" images ")[2].split(";")[0] for note in said] == [
        "are in colour and are read in grey",
        "are larger than image_size=16 and are made smaller",
        "are not square: the square in their middle is taken, the rest is cut off",
    ]


# ---- classes of one or two images


def source_of(counts: dict[str, int]) -> Source:
    labels = np.repeat(np.arange(len(counts)), list(counts.values()))
    total = len(labels)
    pixels = np.arange(total, dtype=np.uint8)[:, None, None, None]
    digest = np.array([f"{number:032x}" for number in range(total)], "S32")
    names = np.array([str(number) for number in range(total)])
    return Source("folder", pixels, labels, tuple(counts), names, np.full(total, -1, np.int8), None, digest, ())


@pytest.mark.parametrize("few", [1, 2])
def test_a_class_of_too_few_images_says_the_ways_out(few):
    for split in (
        lambda source: splits.split(source, mode="stratified", val=0.2, test=0.2, seed=0),
        lambda source: splits.kfold(source, folds=3, fold=0, seed=0),
    ):
        with pytest.raises(ValueError) as caught:
            split(source_of({"happy": 12, "sad": 12, "rare": few}))
        message = str(caught.value)
        assert f"fewer than 3 images of rare ({few})" in message and "move its folder out of the data" in message
    for fold in range(3):  # what the message promises
        splits.kfold(source_of({"happy": 12, "sad": 12, "rare": 3}), folds=3, fold=fold, seed=0)


def test_three_images_have_a_split():
    source, said = source_of({"happy": 12, "sad": 12, "rare": 3}), []
    for fold in range(5):
        try:
            splits.kfold(source, folds=5, fold=fold, seed=0)
        except ValueError as error:
            said.append(str(error))
    assert len(said) >= 2, "some folds have no image of the class"
    assert all("take split=kfold split.folds=3" in text and "split.val=0.3 split.test=0.3" in text for text in said)
    splits.split(source, mode="stratified", val=0.3, test=0.3, seed=0)
