"""Builds a network from a configuration, or from a checkpoint."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from emoexp.config import best_model, option
from emoexp.config.best_model import BestModel
from emoexp.config.fields import Node
from emoexp.config.models import Activation, Architecture, Head
from emoexp.config.schema import Experiment
from emoexp.data.dataset import Dataset
from emoexp.data.normalisation import of_training_part
from emoexp.imbalance import posthoc
from emoexp.models import heads
from emoexp.models.network import Network


def model_spec(experiment: Experiment, data: Dataset) -> dict[str, Any]:
    """Everything besides its weights that is needed to build a model again and to use it on other images."""
    normalisation = of_training_part(data)
    architecture = experiment.architecture.plain()
    if "pretrained" in architecture:  # the weights come with the specification
        architecture["pretrained"] = False
    return {
        "architecture": architecture,
        "activation": experiment.activation.plain(),
        "head": experiment.imbalance.head().plain(),
        "class_names": list(data.class_names),
        "image_size": experiment.image_size,
        "channels": experiment.channels,
        "mean": normalisation.mean,
        "std": normalisation.std,
        "precision": experiment.precision,
        "data": experiment.data.name,
        "protocol": experiment.protocol,
        "majority": int(data.counts("train").argmax()),
    }


def fresh_model(experiment: Experiment, num_classes: int) -> Network:
    """The network of a configuration, with new random weights or with pretrained ones.

    Raises:
        ValueError: the architecture builds something that is no `Network`.
    """
    model = _build_network(
        experiment.architecture,
        num_classes=num_classes,
        channels=experiment.channels,
        image_size=experiment.image_size,
        activation=experiment.activation.build(),
    )
    return with_head(model, experiment.imbalance.head())


def random_network(experiment: Experiment, num_classes: int) -> Network:
    """The network of a configuration with ReLU as activation and without its strategy's head: enough to count with."""
    architecture = experiment.architecture
    if "pretrained" in architecture.plain():
        architecture = architecture.having(pretrained=False)
    return _build_network(
        architecture,
        num_classes=num_classes,
        channels=experiment.channels,
        image_size=experiment.image_size,
        activation=nn.ReLU,
    )


def build_model(spec: Node, allow: Sequence[str]) -> Network:
    """The network that a checkpoint's specification describes, with new random weights.

    Raises:
        ValueError: an unknown option, a wrong value, a class that `allow` does not name, or an architecture that builds
            something that is no `Network`.
    """
    activation = option.read(Activation, spec["activation"], "activation", allow, from_run_folder=True)
    architecture = option.read(Architecture, spec["architecture"], "architecture", allow, from_run_folder=True)
    if "pretrained" in architecture.plain():
        architecture = architecture.having(pretrained=False)  # its weights are in the file
    model = _build_network(
        architecture,
        num_classes=len(spec["class_names"]),
        channels=spec["channels"],
        image_size=spec["image_size"],
        activation=activation.build(),
    )
    return with_head(model, Head.read(spec.get("head", "linear")))


def _build_network(
    architecture: Architecture, *, num_classes: int, channels: int, image_size: int, activation: Callable[[], nn.Module]
) -> Network:
    """The network of an architecture, checked here: a wrong class would fail only later, in the training step."""
    network: object = architecture.build(
        num_classes=num_classes, channels=channels, image_size=image_size, activation=activation
    )
    if not isinstance(network, Network):
        kind = f"{type(network).__module__}.{type(network).__qualname__}"
        raise ValueError(
            f"architecture={architecture.name} builds {kind}, which is no subclass of emoexp.models.network.Network. "
            "Derive the class from Network: define `features` and `classifier`, and no `forward`"
        )
    return network


def with_head(model: Network, head: Head) -> Network:
    """A network with the last layer that a strategy wants."""
    if head.kind == "cosine":
        model.classifier = heads.CosineClassifier(*heads.sizes(model.classifier), scale=head.scale)
    if head.factors:
        model.classifier = heads.LearnableWeightScaling(model.classifier)
    return model


def trained_model(best: BestModel, allow: Sequence[str]) -> Network:
    """The network of a best.pt with its weights, and with what was fitted after training.

    Raises:
        ValueError: as `build_model`, or weights that do not fit the network.
    """
    if best.spec["architecture"]["name"] in Architecture.known:
        with torch.device("meta"):  # shapes without memory: a stranger's specification may ask for any size
            best_model.check_shapes(build_model(best.spec, allow).state_dict(), best.weights)
    model = build_model(best.spec, allow)
    best_model.check_shapes(model.state_dict(), best.weights)
    model.load_state_dict(best.weights)
    if best.fit is not None:
        model.classifier = posthoc.apply(model.classifier, best.fit)
    return model
