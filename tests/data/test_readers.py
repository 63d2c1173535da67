"""Readers of FER2013, facial_expressions and folders: layouts agree, mess is counted or refused."""

import csv
import gzip
import io
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from emoexp.data import splits
from emoexp.data.dataset import Source
from emoexp.data.readers import facial_expressions, fer2013, folder, layout

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data"
NAMES = fer2013.CLASS_NAMES


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def face(number: int, side: int = 48) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side), dtype=np.uint8)


def lay_out(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


def fer(root: Path, **changes: object) -> Source:
    options = {
        "image_size": 48,
        "channels": 1,
        "cache": None,
        "strict": False,
        "on_corrupt": "refuse",
    } | changes
    return fer2013.load(root=str(root), **options)


def own(root: Path, **changes: object) -> Source:
    options = {
        "image_size": 48,
        "channels": 1,
        "cache": None,
        "identity": None,
        "on_corrupt": "refuse",
    } | changes
    return folder.load(root=str(root), **options)


def legend(root: Path, **changes: object) -> Source:
    return facial_expressions.load(
        **({"image_size": 48, "channels": 1, "cache": None, "on_corrupt": "refuse"} | changes), root=str(root)
    )


USAGES = ("Training", "PublicTest", "PrivateTest")
ROWS = [(c, u, face(100 * u + c)) for u in range(3) for c in range(7)]


def fer_files(usages: tuple[int, ...] = (0, 1, 2)) -> dict[str, bytes]:
    return {
        f"{'train' if u == 0 else 'test'}/{NAMES[c]}/{USAGES[u]}_{c:05d}.png": png(pixels)
        for c, u, pixels in ROWS
        if u in usages
    }


def fer_csv(header: tuple[str, ...] = ("emotion", "pixels", "Usage"), bom: str = "", end: str = "\n") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    writer.writerow(header)
    for c, u, pixels in ROWS:
        values = {"emotion": str(c), "pixels": " ".join(map(str, pixels.ravel())), "usage": USAGES[u]}
        writer.writerow([values[title.strip().casefold()] for title in header])
    return (bom + text.getvalue()).encode()


FORMS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda path: lay_out(path / "fer", fer_files()),
    "zip": lambda path: zipped(path / "fer.zip", fer_files()),
    "zip_below": lambda path: zipped(path / "fer.zip", {f"top/{k}": v for k, v in fer_files().items()}),
    "tar": lambda path: tarred(path / "fer.tar.gz", fer_files()),
    "csv": lambda path: lay_out(path, {"fer2013.csv": fer_csv()}) / "fer2013.csv",
    "csv_bom_crlf": lambda path: lay_out(path, {"fer2013.csv": fer_csv(bom="\ufeff", end="\r\n")}),
    "icml": lambda path: lay_out(path, {"icml_face_data.csv": fer_csv(("emotion", " Usage", " pixels"))}),
    "csv_gz": lambda path: lay_out(path, {"fer2013.csv.gz": gzip.compress(fer_csv())}) / "fer2013.csv.gz",
    "csv_zip": lambda path: zipped(path / "fer.zip", {"fer/fer2013.csv": fer_csv(), "fer/README": b"x"}),
    "csv_among_others": lambda path: lay_out(
        path / "icml", {"icml_face_data.csv": fer_csv(), "train.csv": b"a", "test.csv": b"b"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_fer2013_holds_the_same(form: str, tmp_path: Path) -> None:
    source = fer(FORMS[form](tmp_path))
    found = {
        (label, part, image.tobytes())
        for label, part, image in zip(source.labels, source.part, source.images, strict=True)
    }
    assert found == {(c, u, pixels.tobytes()) for c, u, pixels in ROWS}
    assert source.class_names == NAMES
    assert source.images.shape == (21, 1, 48, 48)
    assert any(
        note.startswith("ALTERED copy of FER2013: Training has angry 1 instead of 3995") for note in source.notes
    )


def test_three_folders_without_prefixes_are_the_three_parts(tmp_path: Path) -> None:
    parts = ("train", "val", "test")
    files = {f"{parts[u]}/{NAMES[c].title()}/{c}.png": png(pixels) for c, u, pixels in ROWS}
    assert np.bincount(fer(lay_out(tmp_path, files)).part).tolist() == [7, 7, 7]


def test_without_private_test_public_test_is_test(tmp_path: Path) -> None:
    source = fer(lay_out(tmp_path, fer_files((0, 1))))
    assert sorted(set(source.part.tolist())) == [0, 2]
    assert any("without PrivateTest" in note for note in source.notes)


def test_prefixes_overrule_folders_and_it_is_said(tmp_path: Path) -> None:
    files = {name.replace("test/", "train/"): data for name, data in fer_files().items()}
    source = fer(lay_out(tmp_path, files))
    assert np.bincount(source.part).tolist() == [7, 7, 7]
    assert any("14 images are in a folder that contradicts" in note for note in source.notes)


def test_strict_refuses_an_altered_copy_also_from_the_cache(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "fer", fer_files())
    fer(root, cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"ALTERED copy.*data.strict=false"):
        fer(root, cache=str(tmp_path / "cache"), strict=True)


def test_enlarged_copies_are_named(tmp_path: Path) -> None:
    files = {name: png(face(i, 75)) for i, name in enumerate(fer_files())}
    source = fer(lay_out(tmp_path, files))
    assert any("21 images are not 48x48, most of them 75x75" in note for note in source.notes)


def test_colour_and_size_are_as_asked(tmp_path: Path) -> None:
    source = fer(lay_out(tmp_path, fer_files()), image_size=32, channels=3)
    assert source.images.shape == (21, 3, 32, 32)
    assert np.array_equal(source.images[:, 0], source.images[:, 2])


def test_statistics_tell_a_copy_that_was_changed() -> None:
    random = np.random.default_rng(0)
    counts = fer2013.COUNTS[0]
    labels = np.repeat(np.arange(7), counts)
    size = len(labels)

    def rows(mean: float, std: float) -> fer2013.Rows:
        two = np.array([mean - std, mean + std]) * 255  # of equal share: exactly this mean and deviation
        small = two[random.permutation(size * 64) % 2].round().astype(np.uint8).reshape(size, 1, 8, 8)
        return fer2013.Rows(small, labels, np.zeros(size, dtype=int), np.array([]), ())

    assert fer2013.compare(rows(0.5077, 0.2550)) == []
    assert "deviation 0.2059 instead of 0.5077 and 0.2550" in fer2013.compare(rows(0.5077, 0.206))[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"\n\n", "empty file"),
        (b"emotion,pixels,Usage\n", "no rows"),
        (b"emotion,Usage\n0,Training\n", "no column pixels"),
        (b"pixels\n1 2\n", "without labels"),
        (b"emotion,emotion,pixels\n", "is named twice"),
        (b"emotion,pixels,Usage\n7,1 2,Training\n", r"fer2013.csv:2: emotion '7'"),
        (b"emotion,pixels,Usage\n\n0,1 2,Trainin\n", r"fer2013.csv:3: Usage 'Trainin'"),
        (b"emotion,pixels,Usage\n0,1 2\n", r"fer2013.csv:2: 2 fields, expected 3"),
        (b"emotion,pixels,Usage\n0,\xff\xfe,Training\n", r"fer2013.csv:2: not text in UTF-8"),
        (b'emotion,pixels,Usage\n0,"1 2,Training\n', "fer2013.csv:2"),
        (b"\x1f\x8b broken", "damaged gzip"),
    ],
)
def test_broken_tables_are_refused_with_the_line(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fer(lay_out(tmp_path, {"fer2013.csv": data}))


@pytest.mark.parametrize(
    "wrong", ["1 " * 2303, "1 " * 2305, "-1 " + "1 " * 2303, "256 " + "1 " * 2303, "12.5 " + "1 " * 2303]
)
def test_rows_with_wrong_pixels_are_listed_by_line_or_dropped(wrong: str, tmp_path: Path) -> None:
    lines = fer_csv().decode().splitlines()
    lines[5] = f"4,{wrong},Training"
    lines[9] = f"1,{wrong},PublicTest"
    root = lay_out(tmp_path, {"fer2013.csv": "\n".join(lines).encode()})
    with pytest.raises(ValueError, match=r"2 of 21 images cannot be used:\n  fer2013.csv:6: (.|\n)*fer2013.csv:10: "):
        fer(root)
    source = fer(root, on_corrupt="drop")
    assert len(source.labels) == 19
    assert "fer2013.csv:6" in source.notes[1]


def test_tabs_between_pixels_are_blanks(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {"fer2013.csv": fer_csv().replace(b" ", b"\t")})
    assert np.array_equal(fer(root).images[0, 0], ROWS[0][2])


@pytest.mark.parametrize("load", [fer, own, legend])
def test_a_missing_root_says_what_was_looked_for(load: Callable[[Path], Source], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"finds nothing at .*nowhere.*data.root="):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty"):
        load(tmp_path / "empty")


def test_unknown_class_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train/joyful/a.png; expected"):
        fer(lay_out(tmp_path, {"train/joyful/a.png": png(face(1))}))


def folder_files(prefix: str = "") -> dict[str, bytes]:
    return {
        f"{prefix}{name}/p{i % 5}_{i}.png": png(face(100 * k + i))
        for k, name in enumerate(("10", "9", "a"))
        for i in range(9)
    }


@pytest.mark.parametrize("prefix", ["", "set/", "a/b/"])
def test_folders_are_classes_in_natural_order(prefix: str, tmp_path: Path) -> None:
    source = own(lay_out(tmp_path, folder_files(prefix)))
    assert source.class_names == ("9", "10", "a")
    assert np.bincount(source.labels).tolist() == [9, 9, 9]
    assert set(source.part.tolist()) == {-1}
    assert source.identity is None
    for name, label in zip(source.names, source.labels, strict=True):
        assert source.class_names[label] == name.split("/")[-2]


def test_folders_of_parts_are_parts_and_zip_and_tar_are_the_same(tmp_path: Path) -> None:
    files = folder_files("Training/") | folder_files("valid/") | folder_files("test/")
    roots = (
        lay_out(tmp_path / "set", files),
        zipped(tmp_path / "set.zip", files),
        tarred(tmp_path / "set.tgz", files),
    )
    read = [own(root) for root in roots]
    for source in read:
        assert np.bincount(source.part).tolist() == [27, 27, 27]
        assert np.array_equal(source.images, read[0].images)
        assert source.names.tolist() == read[0].names.tolist()


def test_identity_is_the_pattern_s_group(tmp_path: Path) -> None:
    root = lay_out(tmp_path, folder_files() | {"a/odd.png": png(face(999))})
    source = own(root, identity=r"^(p\d)_")
    assert source.identity is not None
    assert np.unique(source.identity).tolist() == [-1, 0, 1, 2, 3, 4]
    assert source.identity[source.names.tolist().index("a/odd.png")] == -1
    assert any("does not match 1 file names" in note for note in source.notes)
    data = splits.split(source, mode="identity", val=0.2, test=0.2, seed=0)
    assert len({(i, p) for i, p in zip(data.identity, data.part, strict=True) if i >= 0}) == 5


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"1.png": b"x"}, {}, "outside of class folders"),
        ({"train/a/1.png": b"x", "b/1.png": b"x"}, {}, "which may be a part or a class"),
        ({"train/1.png": b"x", "train/a/1.png": b"x"}, {}, "in train itself"),
        ({"val/a/1.png": b"x", "valid/a/1.png": b"x"}, {}, "several folders for val: val, valid"),
        ({"a/1.png": b"x", "A/1.png": b"x"}, {}, "differ in case only: A, a"),
        ({"a/1.txt": b"x"}, {}, "holds no image"),
        ({"a/1.png": b"x", "b/1.txt": b"x"}, {}, "without any image.*: b"),
        ({"train/a/1.png": b"x", "val/a/1.png": b"x", "val/b/1.txt": b"x"}, {}, "without any image.*: val/b"),
        ({"a/1.png": b"x", "b/1.png": b"x"}, {}, "2 of 2 images cannot be used"),
        ({"a/1.png": b"x"}, {"on_corrupt": "skip"}, "refuse or drop"),
    ],
)
def test_folders_that_are_not_understood_are_refused(
    files: dict[str, bytes], options: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        own(lay_out(tmp_path, files), **options)


def test_hidden_files_are_no_images_and_others_are_counted(tmp_path: Path) -> None:
    extra = {"a/._p0_0.png": b"x", "__MACOSX/a/p.png": b"x", ".git/x.png": b"x", "a/notes.txt": b"x"}
    source = own(lay_out(tmp_path, folder_files() | extra))
    assert len(source.labels) == 27
    assert any("1 files without an image" in note and "a/notes.txt" in note for note in source.notes)


@pytest.mark.parametrize("name", ["../a/1.png", "/etc/a/1.png", "a/../../1.png", "C:/a/1.png", "a\\..\\..\\1.png"])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_archives_that_lead_out_are_refused(pack: Callable, name: str, tmp_path: Path) -> None:
    path = pack(tmp_path / ("x.zip" if pack is zipped else "x.tar.gz"), folder_files() | {name: png(face(1))})
    with pytest.raises(ValueError, match="lead out of it"):
        own(path)


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        link = tarfile.TarInfo("a/1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        entry = zipfile.ZipInfo("a/1.png")
        entry.external_attr = 0o120777 << 16
        packed.writestr(entry, "/etc/passwd")
    for name in ("x.tar", "x.zip"):
        with pytest.raises(ValueError, match="links or devices"):
            own(tmp_path / name)


def test_links_out_of_a_folder_are_refused_and_links_within_are_read(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "set", folder_files())
    os.symlink("p0_0.png", root / "a" / "twin.png")
    assert len(own(root).labels) == 28
    lay_out(tmp_path / "elsewhere", {"1.png": png(face(1))})
    os.symlink(tmp_path / "elsewhere", root / "b")
    with pytest.raises(ValueError, match=r"lead out of it.*: b"):
        own(root)


def test_broken_archives_are_refused(tmp_path: Path) -> None:
    good = zipped(tmp_path / "good.zip", folder_files()).read_bytes()
    for name, data in (
        ("cut.zip", good[:2000]),
        ("text.zip", b"x"),
        ("text.tar", b"x"),
        ("cut.tar.gz", b"\x1f\x8b\x08"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="not an archive that can be read"):
            own(tmp_path / name)


def messy(tmp_path: Path, rows: str, names: list[str]) -> Path:
    files = {f"fe/images/{name}": png(face(i, 50)) for i, name in enumerate(names)}
    return lay_out(tmp_path, files | {"fe/data/legend.csv": rows.encode()})


PEOPLE = ["A_B_0001.jpg", "A_B_0002.jpg", "C_0001.jpg", "D_3.jpg", "odd.jpg", "E_0001.jpg", "spare_0001.jpg"]
LEGEND = """user.id,image,emotion
x,A_B_0001.jpg,neutral
y,A_B_0002.jpg,HAPPINESS
y,C_0001.jpg,Fear
z,C_0001.jpg,fear
x,D_3.jpg,anger
x,odd.jpg, Sad

x,E_0001.jpg,surprise
y,E_0001.jpg,sadness
"""


def test_the_legend_s_mess_is_sorted_out_and_counted(tmp_path: Path) -> None:
    source = legend(messy(tmp_path, LEGEND, PEOPLE))
    labels = {
        name.rsplit("/", 1)[1]: source.class_names[label]
        for name, label in zip(source.names, source.labels, strict=True)
    }
    assert labels == {
        "A_B_0001.jpg": "neutral",
        "A_B_0002.jpg": "happiness",
        "C_0001.jpg": "fear",
        "D_3.jpg": "anger",
        "odd.jpg": "sadness",
    }
    assert source.identity is not None
    assert source.identity.tolist() == [0, 0, 1, 2, -1]
    text = "\n".join(source.notes)
    assert "3 labels are written differently" in text
    assert "2 repeated rows" in text
    assert "1 images carry different labels and are left out: E_0001.jpg" in text
    assert "2 images without a usable label" in text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "image,emotion\nA_B_0001.jpg,bored\n",
            r"legend.csv:2: label 'bored' is not known; known are neutral",
        ),
        ("image,emotion\n../../etc/passwd,fear\n", r"legend.csv:2: image '../../etc/passwd' leads out"),
        ("image,emotion\n/etc/passwd,fear\n", r"legend.csv:2: image '/etc/passwd' leads out"),
        (
            "image,emotion\nnone.jpg,fear\nA_B_0001.jpg,fear",
            r"1 of 2 images cannot be used:\n  fe/images/none.jpg is missing",
        ),
        ("image,label\nA_B_0001.jpg,fear\n", r"legend.csv:1: no column emotion"),
        ("image,emotion\nA_B_0001.jpg\n", r"legend.csv:2: expected image,emotion"),
        ("image,emotion\n", "lists no image"),
        ("", "empty file"),
    ],
)
def test_a_legend_that_is_not_understood_is_refused(rows: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        legend(messy(tmp_path, rows, PEOPLE))


def test_no_legend_or_two_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finds none"):
        legend(lay_out(tmp_path, {"images/a.jpg": png(face(1))}))
    lay_out(tmp_path, {"legend.csv": b"x", "data/legend.csv": b"x"})
    with pytest.raises(ValueError, match="2 of them"):
        legend(tmp_path)


def real(name: str) -> Path:
    if not (REAL / name).exists():
        pytest.skip(f"the real images {name} are not here")
    return REAL / name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fer2013.zip", "fer2013_webp95.zip"])
def test_the_real_fer2013_is_known_as_such(name: str) -> None:
    source = fer(real(name), strict=True)
    assert np.bincount(source.labels[source.part == 0]).tolist() == fer2013.COUNTS[0].tolist()
    assert np.bincount(source.labels[source.part == 2]).tolist() == fer2013.COUNTS[1].tolist()
    data = splits.split(source, mode="official", val=0.1, test=0.2, seed=0)
    assert len(data.where("val")) == pytest.approx(2871, abs=3)
    assert data.clean("val").all()
    assert int((~data.clean("test")).sum()) == 280  # published count of PublicTest images that stand in Training
    assert any("13 images are blank" in note for note in source.notes)


@pytest.mark.slow
def test_the_real_facial_expressions_are_split_by_person() -> None:
    source = legend(real("facial_expressions.zip"))
    assert np.bincount(source.labels).tolist()[-2:] == [18, 8]
    assert any("812 labels are written differently" in note for note in source.notes)
    data = splits.split(source, mode="official", val=0.1, test=0.2, seed=0)
    assert data.identity is not None
    pairs = {(i, p) for i, p in zip(data.identity.tolist(), data.part.tolist(), strict=True) if i >= 0}
    assert len(pairs) == len(np.unique(data.identity[data.identity >= 0]))
    for part, share in zip(("val", "test"), (0.1, 0.2), strict=True):
        assert (data.counts(part) >= 1).all()
        assert np.abs(data.counts(part) - share * np.bincount(data.labels)).max() <= 12  # disgust comes from few people


def test_sixty_thousand_classes_are_told_apart_in_seconds():
    names = [f"{number:05d}/a.png" for number in range(60_000)]
    tree = SimpleNamespace(root=Path("images"), folders=[name[:5] for name in names])
    started = time.process_time()
    assert len(folder._classes(tree, names, layout.find("images", names, "auto"))) == 60_000
    assert time.process_time() - started < 10, "the time grows with the square of the classes"
    with pytest.raises(ValueError, match="differ in case only: 00001X, 00001x"):
        folder._classes(tree, [*names, "00001X/a.png", "00001x/a.png"], layout.Layout(0, 0))
