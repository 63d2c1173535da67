"""A trained model judged on other images whose labels are known: what `python -m emoexp.evaluate` does."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from emoexp.config import build_data, option
from emoexp.config.data import LongTail, Split
from emoexp.config.schema import Node
from emoexp.data.dataset import PARTS, Source
from emoexp.inference import results
from emoexp.inference.trained import TrainedModel, load
from emoexp.runs.files import write_json
from emoexp.runs.process import logging_to_stdout
from emoexp.runs.tables import table

log = logging.getLogger("emoexp")


def evaluate(plain: Node) -> dict[str, Any]:
    """Judge a run's model on a part of other data, with what training leaves: metrics, predictions, tables, figures.

    Classes are matched by name. "clean" leaves out images whose pixels the model was trained or chosen on.

    Returns:
        The metrics, which also stand in <run>/evaluations/<data>-<part>-<hash>/metrics.json.
    """
    logging_to_stdout()
    trained = load(plain["run"], plain["device"], plain["threads"], plain["cache"], plain["allow"])
    source, index = part_of(plain, trained)
    label_C = matched(source.class_names, trained.spec["class_names"], plain["classes"] or {})
    seen = np.load(trained.folder / "seen.npy") if (trained.folder / "seen.npy").is_file() else np.array([], "S32")
    predictions = results.Predictions(
        part=plain["part"],
        probability_NC=trained.probabilities(source.images, index),
        target_N=label_C[source.labels[index]],
        clean_N=~np.isin(source.digest[index], seen),
        image_MCHW=source.images,
        index_N=index,
        names=source.names[index].tolist(),
        class_names=trained.spec["class_names"],
        majority=trained.spec["majority"],
        leaky=trained.spec.get("protocol") == "leaky",
    )
    metrics = {
        plain["part"]: results.summary(predictions, clean=False),
        f"{plain['part']}_clean": results.summary(predictions, clean=True),
    }
    folder = trained.folder / "evaluations" / f"{source.name}-{plain['part']}-{content(source, index, label_C)}"
    keep(folder, predictions, metrics)
    return metrics


def keep(folder: Path, predictions: results.Predictions, metrics: dict[str, Any]) -> None:
    """Write an evaluation into its folder and say what came out."""
    folder.mkdir(parents=True, exist_ok=True)
    whole, clean = metrics[predictions.part], metrics[f"{predictions.part}_clean"]
    results.write(folder, predictions, whole, clean)
    write_json(folder / "metrics.json", metrics)
    log.info("%-6s %s", predictions.part, results.headline(whole))
    log.info("clean  %s", results.headline(clean))
    log.info("%s\nin     %s", table(results.per_class(whole, clean)), folder)


def content(source: Source, index: np.ndarray, label_C: np.ndarray) -> str:
    """Eight digits that name the images of an evaluation, whatever their order, and what their classes stand for."""
    pixels = b"".join(sorted(bytes(digest) for digest in source.digest[index]))
    return hashlib.sha256(pixels + label_C.tobytes()).hexdigest()[:8]


def part_of(plain: Node, trained: TrainedModel) -> tuple[Source, np.ndarray]:
    """The images to judge, loaded as the model saw its own, and the indices of the part asked for."""
    spec = trained.spec
    cache = build_data.folder_of(plain["cache"])
    source: Source = plain["data"].build(image_size=spec["image_size"], channels=spec["channels"], cache=cache)
    for note in source.notes:
        log.info("data   %s", note)
    if plain["part"] == "all":
        return source, np.arange(len(source.labels))
    if plain["part"] not in PARTS:
        raise ValueError(f"part is train, val, test or all; it is {plain['part']}")
    given = np.flatnonzero(source.part == PARTS.index(plain["part"]))
    made = yaml.safe_load((trained.folder / "config.yaml").read_text())
    split: Split = plain.get("split") or option.read(Split, made["split"], "split", plain["allow"], kept=True)
    if plain["part"] != "train" and len(given) and split.keeps_parts(source):
        return source, given  # also of a set that has only this part
    tail: LongTail = plain["data"].long_tail
    if made["data"]["name"] == plain["data"].name:  # the run's own, of the training part
        tail = LongTail.kept(made["data"])
    dataset = build_data.with_long_tail(split.build(source), tail)
    return dataset, dataset.where(plain["part"])


def matched(theirs: tuple[str, ...], ours: list[str], renamed: dict[str, str]) -> np.ndarray:
    """For each class of the data the index of the model's class of that name (case aside), after renaming.

    Raises:
        ValueError: a class that the model does not know.
    """
    renamed = {str(key): str(value) for key, value in renamed.items()}
    if stray := sorted(renamed.keys() - set(theirs)):
        raise ValueError(f"classes renames {', '.join(stray)}, but the data's classes are {', '.join(theirs)}")
    index_of = {name.casefold(): index for index, name in enumerate(ours)}
    wanted = [renamed.get(name, name).casefold() for name in theirs]
    if unknown := [name for name, want in zip(theirs, wanted, strict=True) if want not in index_of]:
        raise ValueError(
            f"the model does not know the classes {', '.join(unknown)}; it knows {', '.join(ours)}. Name what "
            f"they are with 'classes={{{unknown[0]}: {ours[0]}}}', or leave them out of the data"
        )
    return np.array([index_of[want] for want in wanted], np.int64)
