"""How tests come by a strategy: every option of every column from its file, and small data to train it on."""

import copy
import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from composing import checked, composed
from omegaconf import OmegaConf
from torch import Tensor

from emoexp.config import build_strategy, build_training, options, schema
from emoexp.config.best_model import BestModel
from emoexp.config.fields import kinds
from emoexp.config.imbalance import Imbalance
from emoexp.config.naming import COLUMNS
from emoexp.config.option import read, value
from emoexp.config.schema import Experiment, Machine, Node
from emoexp.data.dataset import Dataset, digests
from emoexp.data.resident import resident
from emoexp.imbalance import losses, strategy
from emoexp.imbalance.losses import Loss
from emoexp.inference import predict
from emoexp.runs import checkpoint
from emoexp.training import loop, posthoc_fit
from emoexp.training.setup import TrainSetup
from emoexp.training.step import TrainState

GROUPS = {column: f"imbalance/{column}" for column in COLUMNS} | {"optimizer": "optimizer"}
SMALL = (  # a training of a tenth of a second: three epochs of five steps
    "data=folder",
    *"image_size=8 batch_size=12 epochs=3 patience=null activation=relu augmentation=none scheduler=constant".split(),
    *"architecture.widths=[4] architecture.dense=8 architecture.dropout=0.2 optimizer.lr=0.02 tracking=none".split(),
)
COUNT = (36, 12, 5, 1)
CPU = torch.device("cpu")


@cache
def nodes() -> dict[str, dict[str, Node]]:
    """The options of every column and of the optimizer, as composed; many to one composition, which takes long."""
    found: dict[str, dict[str, Node]] = {column: {} for column in GROUPS}
    for names in zip_longest(*(options.listed(group) for group in GROUPS.values())):
        chosen = {column: name for column, name in zip(GROUPS, names, strict=True) if name}
        made, _ = checked(*(f"{GROUPS[column]}={name}" for column, name in chosen.items()))
        for column, name in chosen.items():
            found[column][name] = made.plain()[column] if column == "optimizer" else made.imbalance.plain()[column]
    return found


@cache
def row(name: str) -> Node:
    """A row of the table, as composed; alone, which takes half as long."""
    made: Node = OmegaConf.to_container(composed(name=f"imbalance/{name}"), resolve=True)["imbalance"]
    return made


@cache
def base() -> tuple[Experiment, Machine]:
    return checked(*SMALL)


def node(column: str, name: str, **keys: Any) -> Node:
    """An option, with keys of its own."""
    return copy.deepcopy(nodes()[column][name]) | keys


def experiment(columns: dict[str, str | Node] | str, **keys: Any) -> Experiment:
    """A small experiment with some columns of the table, or a row of it, and what else there is."""
    usual, _ = base()
    if isinstance(columns, str):
        imbalance, optimizer = row(columns), usual.optimizer.plain()
    else:
        chosen = {column: node(column, of) if isinstance(of, str) else of for column, of in columns.items()}
        optimizer = chosen.pop("optimizer", usual.optimizer.plain()) | {"lr": usual.optimizer.lr}
        imbalance = row("none") | chosen
    keys = {"optimizer": optimizer} | keys
    typed = {key: read(schema.BASES[key], of, key) if isinstance(of, dict) else of for key, of in keys.items()}
    columns_of = {key: value(kind, imbalance[key], f"imbalance.{key}") for key, kind in kinds(Imbalance).items()}
    return dataclasses.replace(usual, imbalance=Imbalance(**columns_of), **typed)


@cache
def labelled(count: tuple[int, ...]) -> Dataset:
    """Labels alone: black training images of two pixels a side."""
    label = np.repeat(np.arange(len(count)), count)
    return dataclasses.replace(
        data((2, 2)),
        **{"images": np.zeros((len(label), 1, 2, 2), np.uint8), "labels": label, "part": np.zeros(len(label), np.int8)},
        class_names=tuple("abcdefgh"[: len(count)]),
    )


@cache
def data(count: tuple[int, ...] = COUNT, side: int = 8, validation: int = 10) -> Dataset:
    """Classes that overlap: a pattern of its own for each, in noise. Training, then validation and test alike."""
    draw, classes = np.random.default_rng(0), len(count)
    part = [count, (validation,) * classes, (validation,) * classes]
    label = np.concatenate([np.repeat(np.arange(classes), numbers) for numbers in part])
    pattern = draw.normal(size=(classes, 1, side, side))
    image = 128 + 28 * pattern[label] + 40 * draw.normal(size=(len(label), 1, side, side))
    pixels = image.clip(0, 255).astype(np.uint8)
    return Dataset(
        **{"name": "made", "images": pixels, "labels": label, "class_names": tuple("abcdefgh"[:classes])},
        **{"names": np.array([f"{k}.png" for k in range(len(label))]), "identity": None, "digest": digests(pixels)},
        part=np.repeat(np.arange(3), [sum(numbers) for numbers in part]).astype(np.int8),
        **{"notes": (), "split": "official"},
    )


def plan(columns: dict[str, str | Node] | str, count: tuple[int, ...] = COUNT, **keys: Any) -> strategy.Strategy:
    """A strategy, worked out for classes of so many images."""
    return build_strategy.build_strategy(experiment(columns, **keys), labelled(count))


def loss_of(columns: dict[str, str | Node] | str, count: tuple[int, ...] = COUNT) -> Loss:
    """The loss of a strategy at its end."""
    return plan(columns, count).per_epoch[-1].loss


def values(
    loss: Loss, logits_BC: Tensor, target: Tensor, feature_BF: Tensor | None = None, count: tuple[int, ...] = COUNT
) -> Tensor:
    """A loss of each sample."""
    share_C = torch.tensor(count).double() / sum(count)
    constants = loss.constants(torch.tensor(count), share_C, torch.ones(len(count)), CPU)
    feature_BF = torch.ones(len(logits_BC), 2).to(logits_BC) if feature_BF is None else feature_BF
    return loss.formula(logits_BC, target, feature_BF, constants, 0.5)


def begun(made: Experiment, images: Dataset | None = None) -> tuple[TrainSetup, TrainState]:
    """A training that is about to begin."""
    images, (_, place) = images or data(), base()
    worked = build_strategy.build_strategy(made, images)
    recipe = build_training.train_setup(made, place, images, worked, resident(images.images, CPU), CPU)
    return recipe, build_training.initial_state(made, images, CPU)


def never(step: int, steps: int) -> bool:
    return False


def trained(made: Experiment, images: Dataset | None = None) -> tuple[Tensor, Tensor]:
    """The probabilities that the best and the last epoch of a training give to validation once all is fitted."""
    images = images or data()
    recipe, state = begun(made, images)
    for epoch in loop.fit(recipe, state, never):
        if epoch.best:
            best, number = copy.deepcopy(state.model), state.epoch
    last = _said(recipe, fitted(recipe, images, made, state.model, recipe.epochs))
    return last if number == recipe.epochs else _said(recipe, fitted(recipe, images, made, best, number)), last


def fitted(
    recipe: TrainSetup, images: Dataset, made: Experiment, model: torch.nn.Module, epoch: int
) -> torch.nn.Module:
    """A model with what is fitted to it where its epoch, from 1, was the best."""
    model = copy.deepcopy(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *ignored: None)
        best = BestModel({}, epoch, {}, None)
        posthoc_fit.fit(SimpleNamespace(folder=Path()), made, base()[1], recipe, model, best, images)
    return model


def validation_images(recipe: TrainSetup) -> Iterator[Tensor]:
    """Batches of the validation part."""
    step_setup = recipe.step_setup
    return predict.batches(step_setup.image_NCHW, recipe.validation[0], step_setup.normalisation, step_setup.device)


def _said(recipe: TrainSetup, model: torch.nn.Module) -> Tensor:
    feature_VF = predict.features(model, validation_images(recipe), "fp32")
    with torch.no_grad():
        return model.classifier(feature_VF).double().softmax(1)


def differ(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    """Whether probabilities differ by more than rounding makes of them in a training."""
    return any(float((a - b).abs().max()) > 1e-5 for a, b in zip(one, other, strict=True))


def words(column: str, name: str, key: str) -> list[str]:
    """The words that an option's file says of a key."""
    line = re.search(rf"^{key}:.*?#(.*)$", options.text(GROUPS[column], name) or "", re.M)
    return re.findall(r"\w+", line[1]) if line else []


def own(loss: Loss) -> dict[str, Tensor]:
    """The constants that make a loss this one, but those that are neutral."""
    return {name: getattr(loss, name) for name in losses.CONSTANT_NAMES if getattr(loss, name) is not None}


ROWS_WITH_WEIGHTS = [name for name in options.listed("imbalance") if row(name)["weights"]["name"] != "none"]
