"""Predictions of a trained model for images without labels: the work of `python -m emoexp.predict`."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from emoexp.config.schema import Node
from emoexp.data import archive
from emoexp.data import images as reading
from emoexp.data import table as text_table
from emoexp.data.archive import Tree
from emoexp.data.readers import fer2013_csv
from emoexp.inference.trained import load
from emoexp.runs.process import logging_to_stdout
from emoexp.runs.tables import table, write_table

log = logging.getLogger("emoexp")
_TABLES = (".csv", ".csv.gz", ".tsv")


def predict(plain: Node) -> list[dict[str, Any]]:
    """Class probabilities of images without labels: one row for each image, also written as CSV to `out`."""
    logging_to_stdout()
    trained = load(plain["run"], plain["device"], plain["threads"], plain["cache"], plain["allow"])
    spec = trained.spec
    Path(plain["out"]).absolute().parent.mkdir(parents=True, exist_ok=True)
    options = {key: plain[key] for key in ("on_corrupt", "follow_links")}
    names, pixels = read_images(plain["images"], spec["image_size"], spec["channels"], **options)
    probability = trained.probabilities(pixels, np.arange(len(pixels)))
    rows = []
    for name, row in zip(names, probability, strict=True):
        best = int(row.argmax())
        prediction = {
            "image": name,
            "predicted": spec["class_names"][best],
            "confidence": round_probability(row[best]),
        }
        columns = [f"p_{name}" if name in prediction else name for name in spec["class_names"]]
        rows.append(prediction | {name: round_probability(value) for name, value in zip(columns, row, strict=True)})
    write_table(Path(plain["out"]), rows)
    log.info("%s", table(rows[:50]))
    log.info("%d images, in %s", len(rows), plain["out"])
    return rows


def round_probability(probability: np.floating) -> float:
    """A probability with four digits; its error is larger than that."""
    return round(float(probability), 4)


def read_images(
    images: Any, image_size: int, channels: int, *, on_corrupt: str, follow_links: bool
) -> tuple[list[str], np.ndarray]:
    """Names and pixels (uint8 N×C×S×S) of the images of a path or of a list of paths: image files, folders and archives
    of them, read by the rules of training, and tables with a column of pixels, as FER2013's test.csv.

    Raises:
        ValueError: a path that does not exist or holds no image, or images that cannot be read.
    """
    all_names: list[str] = []
    all_pixels: list[np.ndarray] = []
    for entry in images if isinstance(images, list) else [images]:
        path = Path(str(entry)).expanduser()
        if not (path.is_file() or path.is_dir()):
            kind = "neither a file nor a folder" if path.exists() else "no such file or folder"
            raise ValueError(f"images={path}: {kind}")
        if path.is_file() and path.name.casefold().endswith(_TABLES):
            with archive.open_tree(path) as tree:
                data = tree.read(path.name, text_table.MAX_BYTES)
            grey, names, notes = fer2013_csv.read_pixels(data, str(path), on_corrupt)
            pixels = reading.resize_all(grey, image_size, channels)
        else:
            with archive.open_tree(path, follow_links=follow_links) as tree:
                names, pixels, notes = _read_tree(path, tree, image_size, channels, on_corrupt)
        for note in notes:
            log.warning(note)
        all_names += names
        all_pixels.append(pixels)
    return all_names, np.concatenate(all_pixels)


def _read_tree(
    path: Path, tree: Tree, size: int, channels: int, on_corrupt: str
) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """Names, pixels and notes of an image file, or of the images in a folder or archive."""
    is_one_file = tree.names == (path.name,) and path.is_file()
    names = [name for name in tree.names if is_one_file or reading.is_image(name)]
    if not names:
        raise ValueError(f"images={path}: no images in it")
    decoded = reading.decode_all(names, tree.read_many(names, reading.MAX_BYTES), size, channels, on_corrupt)
    shown = [archive.printable(str(path if is_one_file else path / name)) for name in names]
    return [shown[index] for index in decoded.index], decoded.pixels, (*decoded.notes, *decoded.changes)
