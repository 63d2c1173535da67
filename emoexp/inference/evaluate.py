"""Evaluates a trained model on other labelled images: the work of `python -m emoexp.evaluate`."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from emoexp.config import build_data, naming, option, sources
from emoexp.config.data import DataSource, LongTail, Split
from emoexp.config.schema import Node
from emoexp.data.dataset import PARTS, Source
from emoexp.inference import results
from emoexp.inference.trained import TrainedModel, load
from emoexp.runs import files
from emoexp.runs.files import write_json
from emoexp.runs.process import logging_to_stdout
from emoexp.runs.tables import table

log = logging.getLogger("emoexp")


def evaluate(options: Node) -> dict[str, Any]:
    """Evaluate the model of a run on a part of other data. Like training, it writes metrics, predictions, tables and
    figures.

    Classes are matched by name. "clean" metrics leave out images whose pixels the run had in training or validation.

    Returns:
        The metrics, which are also written to <run>/evaluations/<data>-<part>-<hash>/metrics.json.
    """
    logging_to_stdout()
    trained = load(options["run"], options["device"], options["threads"], options["cache"], options["allow"])
    part, source, index = part_of(options, trained)
    label_C = match_classes(source.class_names, trained.spec["class_names"], options["classes"] or {})
    seen = files.read_digests(trained.folder / "seen.npy")
    if seen is None:
        log.warning("clean  is unknown: %s has no seen.npy, which tells the images of its training", trained.folder)
    predictions = results.Predictions(
        part=part,
        probability_NC=trained.probabilities(source.images, index),
        target_N=label_C[source.labels[index]],
        clean_N=None if seen is None else ~np.isin(source.digest[index], seen),
        image_MCHW=source.images,
        index_N=index,
        names=source.names[index].tolist(),
        class_names=trained.spec["class_names"],
        majority=trained.spec["majority"],
        leaky=trained.spec.get("protocol") == "leaky",
    )
    whole, clean = results.summaries(predictions)
    metrics = {part: whole, f"{part}_clean": clean}
    label = naming.safe(options["data"].label)
    folder = trained.folder / "evaluations" / f"{label}-{part}-{images_hash(source, index, label_C)}"
    write_evaluation(folder, predictions, metrics)
    return metrics


def write_evaluation(folder: Path, predictions: results.Predictions, metrics: dict[str, Any]) -> None:
    """Write an evaluation into its folder and log its metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    whole, clean = metrics[predictions.part], metrics[f"{predictions.part}_clean"]
    results.write(folder, predictions, whole, clean)
    write_json(folder / "metrics.json", metrics)
    log.info("%-6s %s", predictions.part, results.headline(whole))
    if predictions.clean_N is not None:
        log.info("clean  %s", results.headline(clean))
    log.info("%s\nin     %s", table(results.per_class(whole, clean)), folder)


def images_hash(source: Source, index: np.ndarray, label_C: np.ndarray) -> str:
    """Eight digits that identify the images of an evaluation, in any order, and the matching of their classes."""
    pixels = b"".join(sorted(bytes(digest) for digest in source.digest[index]))
    return hashlib.sha256(pixels + label_C.tobytes()).hexdigest()[:8]


def part_of(options: Node, trained: TrainedModel) -> tuple[str, Source, np.ndarray]:
    """The part that is judged, the images, loaded with size and channels of the model, and the indices of that part.

    Where no part is asked for: of the data that the run was trained on, the run's own test part; of other data their
    test part, or all images where they have none. The log says which, and how many of how many images.
    """
    spec, data, asked = trained.spec, options["data"], options["part"]
    if asked not in (None, "all", *PARTS):
        raise ValueError(f"part is train, val, test or all, or null for what suits the data; it is {asked}")
    source = sources.read_source(data, spec["image_size"], spec["channels"], sources.folder_of(options["cache"]))
    for note in source.notes:
        log.info("data   %s", note)
    config = files.read_yaml(trained.folder / "config.yaml")
    if not isinstance(config, dict) or not {"split", "data"} <= config.keys():
        raise ValueError(f"{trained.folder / 'config.yaml'} is no configuration of a run: split or data is missing")
    is_own = _is_own(trained.folder, config["data"], data, source)
    has_parts, has_test = bool((source.part >= 0).any()), bool((source.part == PARTS.index("test")).any())
    part = asked or ("test" if is_own or has_test or options.get("split") else "all")
    judged, index = _judged(options, config, source, part, is_own)
    what = "all" if part == "all" else f"the {part} part, {len(index):,} of"
    whose = "of the run's own data" if is_own else "of other data than the run's"
    note = ""
    if part == "all" and not asked:
        note = ", which have no test part" if has_parts else ", which have no parts"
    elif part != "all" and not is_own and not options.get("split") and not (source.part == PARTS.index(part)).any():
        note = ", cut by the run's split"
    log.info("judge  %s %d images %s%s", what, len(source.labels), whose, note)
    return part, judged, index


def _is_own(folder: Path, config: Node, data: DataSource, source: Source) -> bool:
    """Whether images are those that a run was trained on: by their content, or, where an old run does not tell it, by
    the option and where they lie."""
    content = (files.read_json(folder / "manifest.json").get("data") or {}).get("images")
    if isinstance(content, str):
        return content == source.images_hash
    return bool(config.get("name") == data.name and config.get("root") == data.plain().get("root"))


def _judged(options: Node, config: Node, source: Source, part: str, is_own: bool) -> tuple[Source, np.ndarray]:
    """The images, split where that is needed, and the indices of a part."""
    if part == "all":
        return source, np.arange(len(source.labels))
    index = np.flatnonzero(source.part == PARTS.index(part))
    split: Split = options.get("split") or option.read(
        Split, config["split"], "split", options["allow"], from_run_folder=True
    )
    if part != "train" and len(index) and split.keeps_parts(source):
        return source, index  # no split is needed, so that the set may lack the other parts
    # the run's own data have the long tail of the run
    long_tail: LongTail = LongTail.kept(config["data"]) if is_own else options["data"].long_tail
    dataset = build_data.with_long_tail(split.build(source), long_tail)
    return dataset, dataset.where(part)


def match_classes(data_classes: tuple[str, ...], model_classes: list[str], model_name_of: dict[str, str]) -> np.ndarray:
    """For each class of the data, the index of the model's class of the same name; upper and lower case do not matter.

    model_name_of: the model's name of a class, where the data have another name for it.

    Raises:
        ValueError: a class that the model does not know.
    """
    model_name_of = {str(key): str(value) for key, value in model_name_of.items()}
    if unknown_keys := sorted(model_name_of.keys() - set(data_classes)):
        raise ValueError(
            f"classes renames {', '.join(unknown_keys)}, but the data's classes are {', '.join(data_classes)}"
        )
    index_of = {name.casefold(): index for index, name in enumerate(model_classes)}
    model_names = [model_name_of.get(name, name).casefold() for name in data_classes]
    if unknown := [
        name for name, model_name in zip(data_classes, model_names, strict=True) if model_name not in index_of
    ]:
        raise ValueError(
            f"the model does not know the classes {', '.join(unknown)}; it knows {', '.join(model_classes)}. Name what "
            f"they are with 'classes={{{unknown[0]}: {model_classes[0]}}}', or leave them out of the data"
        )
    return np.array([index_of[name] for name in model_names], np.int64)
