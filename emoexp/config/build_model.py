"""From a configuration, or from what a checkpoint holds, to a network."""

from typing import Any

from emoexp.config import build
from emoexp.config.schema import Experiment, Node
from emoexp.data.dataset import Dataset
from emoexp.data.normalisation import of_training_part
from emoexp.imbalance import posthoc
from emoexp.models import heads
from emoexp.models.network import Network


def head_of(experiment: Experiment) -> Node:
    """The last layer that a strategy wants: the network's own linear one, or one of cosines where the loss gives them a
    scale; with factors to be learnt or not."""
    loss, retrain = experiment.imbalance["loss"], experiment.imbalance["schedule"].get("retrain")
    head = {"kind": "normalised", "scale": loss["scale"]} if "scale" in loss else {"kind": "linear"}
    return head | ({"factors": True} if retrain in ("scale", "both") else {})


def model_spec(experiment: Experiment, data: Dataset) -> dict[str, Any]:
    """Everything that a model needs besides its weights, to be rebuilt and used on other images."""
    normalisation = of_training_part(data)
    architecture = dict(experiment.architecture)
    if "pretrained" in architecture:  # the weights come with the specification
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


def build_model(spec: dict[str, Any], allow: list[str]) -> Network:
    """The network that a specification describes, with fresh weights.

    Raises:
        ValueError: a class of the user's own that is no `Network`.
    """
    model = build.instantiate(
        spec["architecture"],
        allow,
        num_classes=len(spec["class_names"]),
        channels=spec["channels"],
        image_size=spec["image_size"],
        activation=build.instantiate(spec["activation"], allow),
    )
    if not isinstance(model, Network):
        raise ValueError(
            f"architecture {spec['architecture'].get('name')}: {type(model).__name__} is no network. Derive it from "
            "emoexp.models.network.Network, with `features` and `classifier` and without a `forward` of its own"
        )
    head = spec.get("head", {"kind": "linear"})
    if head["kind"] == "normalised":
        model.classifier = heads.CosineClassifier(*heads.sizes(model.classifier), scale=head["scale"])
    if head.get("factors"):
        model.classifier = heads.LearnableWeightScaling(model.classifier)
    return model


def trained_model(best: dict[str, Any], allow: list[str]) -> Network:
    """The network of a best.pt with its weights, and with what was fitted after training."""
    model = build_model(spec_of(best), allow)
    model.load_state_dict(best["model"])
    if "posthoc" in best:
        model.classifier = posthoc.apply(model.classifier, posthoc.restored(best["posthoc"]))
    return model


def spec_of(best: dict[str, Any]) -> dict[str, Any]:
    """The specification of the network in a best.pt; runs of version 0.1 called it card."""
    spec: dict[str, Any] = best["model_spec"] if "model_spec" in best else best["card"]
    return spec
