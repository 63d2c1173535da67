"""Predictions of a trained model for images without labels: the work of `python -m emoexp.predict`."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emoexp.config.schema import Node
from emoexp.data import images as reading
from emoexp.inference.trained import load
from emoexp.runs.process import logging_to_stdout
from emoexp.runs.tables import table, write_table

log = logging.getLogger("emoexp")


def predict(plain: Node) -> list[dict[str, Any]]:
    """Class probabilities of images without labels: one row for each image, also written as CSV to `out`."""
    logging_to_stdout()
    trained = load(plain["run"], plain["device"], plain["threads"], plain["cache"], plain["allow"])
    paths, spec = list(find_images(plain["images"])), trained.spec
    Path(plain["out"]).absolute().parent.mkdir(parents=True, exist_ok=True)
    names = [str(path) for path in paths]
    contents = ((str(path), path.read_bytes()) for path in paths)
    decoded = reading.decode_all(names, contents, spec["image_size"], spec["channels"], plain["on_corrupt"])
    for note in decoded.notes:
        log.warning(note)
    probability = trained.probabilities(decoded.pixels, np.arange(len(decoded.pixels)))
    rows = []
    for position, row in zip(decoded.index, probability, strict=True):
        best = int(row.argmax())
        prediction = {
            "image": names[position],
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


def find_images(images: Any) -> Iterator[Path]:
    """The image files of a path or of a list of paths; folders are searched with all folders in them.

    Raises:
        ValueError: a path that does not exist, or a folder without images.
    """
    for entry in images if isinstance(images, list) else [images]:
        path = Path(str(entry)).expanduser()
        image_paths = (
            sorted(file for file in path.rglob("*") if reading.is_image(file.name)) if path.is_dir() else [path]
        )
        if not image_paths or not path.exists():
            raise ValueError(
                f"images={path}: {'no images in that folder' if path.is_dir() else 'no such file or folder'}"
            )
        yield from image_paths
