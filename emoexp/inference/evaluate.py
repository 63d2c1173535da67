"""A trained model at work on other images: judged where labels are known, or only asked."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from emoexp.config import build, build_data, build_model
from emoexp.config.schema import Node
from emoexp.data import images as reading
from emoexp.data.dataset import PARTS, Dataset, Source
from emoexp.data.normalisation import Normalisation
from emoexp.inference import results
from emoexp.models import mish
from emoexp.runs import checkpoint, machine
from emoexp.runs.files import write_json
from emoexp.runs.process import logging_to_stdout
from emoexp.training import batches, loop

log = logging.getLogger("emoexp")


@dataclass(frozen=True)
class Trained:
    """A run's best model, ready to be asked."""

    folder: Path
    card: dict[str, Any]
    model: nn.Module
    device: torch.device

    def probabilities(self, image_MCHW: np.ndarray, index_N: np.ndarray) -> np.ndarray:
        """Class probabilities N×C (float32) of some rows of uint8 images."""
        scale = Normalisation(self.card["mean"], self.card["std"])
        chunks = batches.evaluation(torch.from_numpy(image_MCHW), torch.from_numpy(index_N), scale, self.device)
        return loop.probabilities(loop.predict(self.model, chunks, self.card["precision"])).astype(np.float32)


def load(run: str, device: str, threads: int | None, cache: str | None, allow: list[str]) -> Trained:
    """The best model of a run folder.

    Raises:
        ValueError: no such run, or one that has no finished epoch.
    """
    folder = Path(run)
    if not (folder / "best.pt").is_file():
        near = (
            sorted(path.parent.name for path in folder.parent.glob("*/best.pt"))[:8] if folder.parent.is_dir() else []
        )
        raise ValueError(f"run={run} holds no best.pt; run folders beside it: {', '.join(near) or 'none'}")
    saved = checkpoint.load(folder / "best.pt")
    chosen = machine.choose(device)
    machine.prepare(chosen, threads, saved["card"]["precision"], deterministic=False)
    mish.prepare(cache)
    model = build_model.trained_model(saved, allow)
    return Trained(folder, saved["card"], model.to(chosen).to(memory_format=torch.channels_last), chosen)


def evaluate(plain: Node) -> dict[str, Any]:
    """Judge a run's model on a part of other data, with what training leaves: metrics, predictions, tables, figures.

    Classes are matched by name. "clean" leaves out images whose pixels the model was trained or chosen on.

    Returns:
        The metrics, which also stand in <run>/evaluations/<data>-<part>-<hash>/metrics.json.
    """
    logging_to_stdout()
    trained = load(plain["run"], plain["device"], plain["threads"], plain["cache"], plain["allow"])
    source, index = part_of(plain, trained)
    label_C = matched(source.class_names, trained.card["class_names"], plain["classes"] or {})
    seen = np.load(trained.folder / "seen.npy") if (trained.folder / "seen.npy").is_file() else np.array([], "S32")
    found = results.Predictions(
        part=plain["part"],
        probability_NC=trained.probabilities(source.images, index),
        target_N=label_C[source.labels[index]],
        clean_N=~np.isin(source.digest[index], seen),
        image_MCHW=source.images,
        index_N=index,
        names=source.names[index].tolist(),
        class_names=trained.card["class_names"],
        majority=trained.card["majority"],
        leaky=trained.card.get("protocol") == "leaky",
    )
    metrics = {
        plain["part"]: results.summary(found, clean=False),
        f"{plain['part']}_clean": results.summary(found, clean=True),
    }
    folder = trained.folder / "evaluations" / f"{source.name}-{plain['part']}-{content(source, index, label_C)}"
    keep(folder, found, metrics)
    return metrics


def keep(folder: Path, found: results.Predictions, metrics: dict[str, Any]) -> None:
    """Write an evaluation into its folder and say what came out."""
    folder.mkdir(parents=True, exist_ok=True)
    whole, clean = metrics[found.part], metrics[f"{found.part}_clean"]
    results.write(folder, found, whole, clean)
    write_json(folder / "metrics.json", metrics)
    log.info("%-6s %s", found.part, results.headline(whole))
    log.info("clean  %s", results.headline(clean))
    log.info("%s\nin     %s", results.table(results.per_class(whole, clean)), folder)


def content(source: Source, index: np.ndarray, label_C: np.ndarray) -> str:
    """Eight digits that name the images of an evaluation, whatever their order, and what their classes stand for."""
    pixels = b"".join(sorted(bytes(digest) for digest in source.digest[index]))
    return hashlib.sha256(pixels + label_C.tobytes()).hexdigest()[:8]


def part_of(plain: Node, trained: Trained) -> tuple[Source, np.ndarray]:
    """The images to judge, loaded as the model saw its own, and the indices of the part asked for."""
    card = trained.card
    cache = build_data.folder_of(plain["cache"])
    source = build_data.read(plain["data"], plain["allow"], card["image_size"], card["channels"], cache)
    for note in source.notes:
        log.info("data   %s", note)
    if plain["part"] == "all":
        return source, np.arange(len(source.labels))
    if plain["part"] not in PARTS:
        raise ValueError(f"part is train, val, test or all; it is {plain['part']}")
    given = np.flatnonzero(source.part == PARTS.index(plain["part"]))
    made = yaml.safe_load((trained.folder / "config.yaml").read_text())
    split = plain.get("split") or made["split"]
    if plain["part"] != "train" and len(given) and split.get("mode") == "official" and not shared(split, source):
        return source, given  # also of a set that has only this part
    long = made["data"] if made["data"]["name"] == plain["data"]["name"] else plain["data"]  # of the training part
    dataset: Dataset = build_data.with_long_tail(build.instantiate(split, plain["allow"], source=source), long)
    return dataset, dataset.where(plain["part"])


def shared(split: Node, source: Source) -> bool:
    """Whether a training's validation part was drawn from the test part of such a source."""
    return split.get("val_from") == "test" and bool((source.part == 0).any()) and not (source.part == 1).any()


def matched(theirs: tuple[str, ...], ours: list[str], renamed: dict[str, str]) -> np.ndarray:
    """For each class of the data the index of the model's class of that name (case aside), after renaming.

    Raises:
        ValueError: a class that the model does not know.
    """
    renamed = {str(key): str(value) for key, value in renamed.items()}
    if stray := sorted(renamed.keys() - set(theirs)):
        raise ValueError(f"classes renames {', '.join(stray)}, but the data's classes are {', '.join(theirs)}")
    place = {name.casefold(): index for index, name in enumerate(ours)}
    wanted = [renamed.get(name, name).casefold() for name in theirs]
    if unknown := [name for name, want in zip(theirs, wanted, strict=True) if want not in place]:
        raise ValueError(
            f"the model does not know the classes {', '.join(unknown)}; it knows {', '.join(ours)}. Name what "
            f"they are with 'classes={{{unknown[0]}: {ours[0]}}}', or leave them out of the data"
        )
    return np.array([place[want] for want in wanted], np.int64)


def predict(plain: Node) -> list[dict[str, Any]]:
    """Class probabilities of images without labels: a row an image, also written as CSV to `out`."""
    logging_to_stdout()
    trained = load(plain["run"], plain["device"], plain["threads"], plain["cache"], plain["allow"])
    paths, card = list(files(plain["images"])), trained.card
    Path(plain["out"]).absolute().parent.mkdir(parents=True, exist_ok=True)
    names = [str(path) for path in paths]
    contents = ((str(path), path.read_bytes()) for path in paths)
    decoded = reading.decode_all(names, contents, card["image_size"], card["channels"], plain["on_corrupt"])
    for note in decoded.notes:
        log.warning(note)
    probability = trained.probabilities(decoded.pixels, np.arange(len(decoded.pixels)))
    rows = []
    for place, row in zip(decoded.kept, probability, strict=True):
        best = int(row.argmax())
        said = {"image": names[place], "predicted": card["class_names"][best], "confidence": rounded(row[best])}
        columns = [f"p_{name}" if name in said else name for name in card["class_names"]]
        rows.append(said | {name: rounded(value) for name, value in zip(columns, row, strict=True)})
    results.write_table(Path(plain["out"]), rows)
    log.info("%s", results.table(rows[:50]))
    log.info("%d images, in %s", len(rows), plain["out"])
    return rows


def rounded(probability: np.floating) -> float:
    """Four digits, which is more than such a probability is worth."""
    return round(float(probability), 4)


def files(images: Any) -> Iterator[Path]:
    """The image files of a path or a list of them; folders are searched whole.

    Raises:
        ValueError: a path that is not there, or a folder without images.
    """
    for entry in images if isinstance(images, list) else [images]:
        path = Path(str(entry)).expanduser()
        inside = sorted(file for file in path.rglob("*") if reading.is_image(file.name)) if path.is_dir() else [path]
        if not inside or not path.exists():
            raise ValueError(
                f"images={path}: {'no images in that folder' if path.is_dir() else 'no such file or folder'}"
            )
        yield from inside
