"""From a configuration, or from what a checkpoint holds, to a network."""

from typing import Any

from torch import nn

from emoexp.config import build
from emoexp.config.schema import Experiment, Node
from emoexp.data.dataset import Dataset
from emoexp.data.normalisation import of_training_part
from emoexp.imbalance import posthoc
from emoexp.models import heads


def head_of(experiment: Experiment) -> Node:
    """The last layer that a strategy wants: the network's own linear one, or one of cosines where the loss gives them a
    scale; with factors to be learnt or not."""
    loss, retrain = experiment.imbalance["loss"], experiment.imbalance["schedule"].get("retrain")
    head = {"kind": "normalised", "scale": loss["scale"]} if "scale" in loss else {"kind": "linear"}
    return head | ({"factors": True} if retrain in ("scale", "both") else {})


def card_of(experiment: Experiment, data: Dataset) -> dict[str, Any]:
    """Everything that a model needs besides its weights, to be rebuilt and used on other images."""
    normalisation = of_training_part(data)
    architecture = dict(experiment.architecture)
    if "pretrained" in architecture:  # the weights come with the card
        architecture["pretrained"] = False
    return {
        "architecture": architecture,
        "activation": dict(experiment.activation),
        "head": head_of(experiment),
        "class_names": list(data.class_names),
        "image_size": experiment.image_size,
        "channels": experiment.channels,
        "mean": normalisation.mean,
        "std": normalisation.std,
        "precision": experiment.precision,
        "data": experiment.data["name"],
        "protocol": experiment.protocol,
        "majority": int(data.counts("train").argmax()),
    }


def build_model(card: dict[str, Any], allow: list[str]) -> nn.Module:
    """The network of a card, with fresh weights."""
    model: nn.Module = build.instantiate(
        card["architecture"],
        allow,
        num_classes=len(card["class_names"]),
        channels=card["channels"],
        image_size=card["image_size"],
        activation=build.instantiate(card["activation"], allow),
    )
    head = card.get("head", {"kind": "linear"})
    if head["kind"] == "normalised":
        model.classifier = heads.Normalised(*heads.sizes(model.classifier), scale=head["scale"])  # type: ignore[arg-type]
    if head.get("factors"):
        model.classifier = heads.Scaled(model.classifier)  # type: ignore[arg-type]
    return model


def trained_model(best: dict[str, Any], allow: list[str]) -> nn.Module:
    """The network of a best.pt with its weights, and with what was fitted after training."""
    model = build_model(best["card"], allow)
    model.load_state_dict(best["model"])
    if "posthoc" in best:
        model.classifier = posthoc.apply(model.classifier, posthoc.restored(best["posthoc"]))  # type: ignore[arg-type]
    return model
