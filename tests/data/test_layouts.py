"""Folders of other people: what can be read in one way is read and said, what can be read in two is asked."""

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoexp.data import archive
from emoexp.data.dataset import Source
from emoexp.data.readers import folder, layout

TRAIN, VAL, TEST = 0, 1, 2


def made(root: Path, *folders: str, each: int = 2) -> Path:
    rng = np.random.default_rng(0)
    for name in folders:
        (root / name).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).save(root / name / f"{number}.png")
    return root


def read(root: Path, **keys) -> Source:
    usual = {"image_size": 12, "channels": 1, "cache": None, "identity": None, "on_corrupt": "refuse"}
    return folder.load(root=str(root), **(usual | keys))


def parts(source: Source) -> dict[str, list[int]]:
    return {
        name: sorted(set(source.part[source.labels == number].tolist()))
        for number, name in enumerate(source.class_names)
    }


BOTH = ("happy", "sad")


@pytest.mark.parametrize(
    ("names", "found", "said"),
    [
        ([f"{part}/{c}" for part in ("train", "dev", "test") for c in BOTH], [TRAIN, VAL, TEST], ""),
        ([f"{part}/{c}" for part in ("Train", "eval") for c in BOTH], [TRAIN, VAL], ""),
        ([f"{part}/{c}" for part in ("Training", "PublicTest", "PrivateTest") for c in BOTH], [TRAIN, VAL, TEST], ""),
        (
            [f"{part}/{c}" for part in ("Training", "PublicTest") for c in BOTH],
            [TRAIN, TEST],
            "taken for the test part",
        ),
        ([f"{part}/{c}" for part in ("Train_Set", "Test_Set") for c in BOTH], [TRAIN, TEST], "are taken for parts"),
        ([f"{part}/{c}" for part in ("my-train", "myTest") for c in BOTH], [TRAIN, TEST], "are taken for parts"),
        ([f"{c}/{part}" for part in ("train", "test") for c in BOTH], [TRAIN, TEST], "inside the class folders"),
        ([f"data/{c}/{part}" for part in ("Train", "Val") for c in BOTH], [TRAIN, VAL], "inside the class folders"),
        (["happy/images", "sad/images"], [-1], ""),
        (["happy/2019", "happy/2020", "sad/2021"], [-1], ""),
        (["contest", "protest", "training_shoes"], [-1], ""),
    ],
)
def test_what_can_be_read_in_one_way_is_read(tmp_path, names, found, said):
    source = read(made(tmp_path / "root", *names))
    assert all(where == found for where in parts(source).values()), parts(source)
    assert set(source.class_names) == (set(BOTH) if found != [-1] or "happy" in names[0] else set(names))
    assert any(said in note for note in source.notes) if said else not any("taken" in note for note in source.notes)


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (["train", "bus", "car"], ["classes"]),
        (["Train_Set", "Test_Set"], ["classes"]),
        (["train/happy", "train/sad", "other/happy", "other/sad"], ["classes"]),
        (["happy/train", "happy/test", "sad"], ["classes", "parts_inside"]),
        (["happy/train", "happy/test", "sad/others"], ["classes", "parts_inside"]),
        (["site_a/happy", "site_a/sad", "site_b/happy", "site_b/sad"], ["classes"]),
    ],
)
def test_what_can_be_read_in_two_ways_is_asked_and_the_key_answers(tmp_path, names, asked):
    root = made(tmp_path / "root", *names)
    with pytest.raises(ValueError) as caught:
        read(root)
    message = str(caught.value)
    assert str(root) in message and "\n" not in message
    for choice in asked:
        assert f"data.layout={choice}" in message
    source = read(root, layout="classes")
    assert set(source.class_names) == {name.split("/")[0] for name in names} and (source.part == -1).all()


def test_parts_on_request(tmp_path):
    root = made(tmp_path / "root", "my train/happy", "my train/sad", "test2/happy", "test2/sad")
    assert parts(read(root, layout="parts")) == {"happy": [TRAIN, TEST], "sad": [TRAIN, TEST]}
    inside = made(tmp_path / "inside", "happy/train", "happy/test", "sad/train")
    assert parts(read(inside, layout="parts_inside")) == {"happy": [TRAIN, TEST], "sad": [TRAIN]}
    with pytest.raises(ValueError, match=r"a, b name no part.*data\.layout=classes"):
        read(made(tmp_path / "none", "a/happy", "b/happy"), layout="parts")
    with pytest.raises(ValueError, match=r"2019 name no part.*data\.layout=classes"):
        read(made(tmp_path / "year", "happy/2019", "sad/test"), layout="parts_inside")


def test_a_flat_test_folder_is_left_out_with_what_to_do(tmp_path):
    root = made(tmp_path / "root", "train/happy", "train/sad", "test")
    source = read(root)
    assert len(source.labels) == 4 and set(source.part.tolist()) == {TRAIN}
    (note,) = [note for note in source.notes if "no labels" in note]
    assert note.startswith("2 images in test/") and f"emoexp.predict run=outputs/<run> images={root / 'test'}" in note
    with pytest.raises(ValueError, match="images in train itself"):
        read(made(tmp_path / "other", "train", "test/happy"))


def test_two_folders_for_one_part_are_refused(tmp_path):
    with pytest.raises(ValueError, match="several folders for val: Dev, valid"):
        read(made(tmp_path / "root", "train/a", "Dev/a", "valid/a"))


def test_the_layout_is_one_of_those_that_there_are():
    with pytest.raises(ValueError, match="outside of class folders"):
        layout.find("root", ["1.png"], "classes")
    assert [layout.suggested_part(name) for name in ("trainTest", "latest", "VAL", "x_dev_1")] == [None, None, VAL, VAL]


# ---- links


def test_links_are_followed_only_on_request(tmp_path):
    elsewhere = made(tmp_path / "elsewhere", "happy", "sad")
    root = tmp_path / "root"
    root.mkdir()
    for name in BOTH:
        (root / name).symlink_to(elsewhere / name)
    with pytest.raises(ValueError, match=r"links to folders.*happy, sad.*data\.follow_links=true"):
        read(root)
    source = read(root, follow_links=True)
    assert source.class_names == BOTH and len(source.labels) == 4
    assert source.images_hash == read(elsewhere).images_hash


def test_a_link_to_a_folder_that_it_lies_in_is_refused(tmp_path):
    root = made(tmp_path / "root", "happy", "sad")
    (root / "happy" / "again").symlink_to(root)
    with pytest.raises(ValueError, match="the link happy/again leads to a folder that it lies in"):
        read(root, follow_links=True)


def test_a_changed_file_behind_a_link_is_read_again(tmp_path):
    elsewhere, root = made(tmp_path / "elsewhere", "happy", "sad"), tmp_path / "root"
    root.mkdir()
    for name in BOTH:
        (root / name).symlink_to(elsewhere / name)
    keys = {"follow_links": True, "cache": str(tmp_path / "cache")}
    before = read(root, **keys)
    made(elsewhere, "sad/more")
    assert len(read(root, **keys).labels) == len(before.labels) + 2


# ---- archives of Windows


def windows_archive(path: Path, names: list[str], tmp_path: Path) -> Path:
    picture = made(tmp_path / "picture", "x", each=1) / "x" / "0.png"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            entry = zipfile.ZipInfo("x")
            entry.filename, entry.create_system = name, 0
            file.writestr(entry, b"" if name.endswith("\\") else picture.read_bytes())
    return path


def test_an_archive_of_windows_is_read(tmp_path):
    names = ["train\\", "train\\happy\\1.png", "train\\sad\\2.png", "test\\happy\\3.png", "test\\sad\\4.png"]
    source = read(windows_archive(tmp_path / "w.zip", names, tmp_path))
    assert parts(source) == {"happy": [TRAIN, TEST], "sad": [TRAIN, TEST]}
    assert "train/happy/1.png" in source.names.tolist()


@pytest.mark.parametrize(
    "name", ["..\\out\\1.png", "C:\\happy\\1.png", "\\\\server\\happy\\1.png", "happy\\..\\..\\1.png"]
)
def test_its_names_may_not_lead_out(tmp_path, name):
    with pytest.raises(ValueError, match="names that lead out of it"):
        read(windows_archive(tmp_path / "w.zip", [name, "sad\\2.png"], tmp_path))


def test_two_files_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = windows_archive(tmp_path / "w.zip", ["a/1.png", "a/1.png"], tmp_path)
    with pytest.raises(ValueError, match=r"several files of one name: a/1\.png"):
        read(path)


# ---- names that are not UTF-8


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf_8_are_escaped(tmp_path):
    root = made(tmp_path / "root", "happy")
    os.rename(os.fsencode(root / "happy" / "0.png"), os.fsencode(root / "happy") + b"/\xe9.png")
    made(root, "sad")
    os.rename(os.fsencode(root / "sad"), os.fsencode(root) + b"/col\xe8re")
    source = read(root)
    assert source.class_names == ("col\\xe8re", "happy") and "happy/\\xe9.png" in source.names.tolist()
    for text in (*source.class_names, *source.names.tolist()):
        text.encode()
    assert archive.printable("été.png") == "été.png"
