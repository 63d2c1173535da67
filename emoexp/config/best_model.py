"""best.pt: what it may hold, checked before anything is built from it, since a run folder may be a stranger's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from emoexp.config.fields import Count, ImageSize, Length, Node, Positive, Range, accepted, check_keys
from emoexp.config.models import Activation, Architecture, Head
from emoexp.config.option import Values, read_values
from emoexp.imbalance import posthoc
from emoexp.runs import checkpoint

OLDER = {"head": "linear", "protocol": "clean"}  # of files that were written before there was a choice


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Values):
    """Everything besides its weights that is needed to build a model again and to use it on other images."""

    architecture: Architecture
    activation: Activation
    class_names: Annotated[list[str], Length(2)]
    image_size: ImageSize
    channels: Literal[1, 3]
    mean: Annotated[float, Range(least=0, most=1)]
    std: Positive
    precision: Literal["fp32", "tf32", "bf16"]
    data: str
    protocol: Literal["clean", "leaky"]
    majority: Annotated[int, Range(least=0)]

    def check(self, path: str) -> None:
        """Refuse class names that are not distinct, and a majority class that is none of them."""
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError(f"{path}.class_names are distinct; they are {', '.join(self.class_names)}")
        if self.majority >= len(self.class_names):
            raise ValueError(f"{path}.majority is an index into {len(self.class_names)} classes; it is {self.majority}")
        self.architecture.check_image(self.image_size)


@dataclass(frozen=True)
class BestModel:
    """The content of best.pt.

    spec: as in the file, with the keys that older files lack. epoch: the best one, from 1. weights: by their names,
    finite. fit: what was fitted to validation afterwards, None where nothing was.
    """

    spec: Node
    epoch: int
    weights: dict[str, Tensor]
    fit: posthoc.FitResult | None

    def payload(self) -> dict[str, Any]:
        """The content of the file."""
        fit = {} if self.fit is None else {"posthoc": posthoc.to_checkpoint(self.fit)}
        return {"model_spec": self.spec, "epoch": self.epoch, "model": self.weights} | fit


def read(path: Path, allow: Sequence[str] = ()) -> BestModel:
    """Read a best.pt.

    allow: packages of the user's own, which a network or activation may come from.

    Raises:
        ValueError: names the file, the key, what is expected and what came.
    """
    try:
        return _checked(checkpoint.load(path), allow)
    except checkpoint.CorruptCheckpoint:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _checked(best: dict[str, Any], allow: Sequence[str]) -> BestModel:
    if "card" in best:  # so runs of version 0.1 call it
        best = {"model_spec" if key == "card" else key: value for key, value in best.items()}
    check_keys("", "best.pt", best, ("model_spec", "epoch", "model", "posthoc"))
    for key in ("model_spec", "epoch", "model"):
        if key not in best:
            raise ValueError(f"{key} is missing")
    node = best["model_spec"]
    if not isinstance(node, Mapping):
        raise ValueError(f"model_spec is a node of keys; it is of type {type(node).__name__}")
    spec = dict(node) | {key: value for key, value in OLDER.items() if key not in node}
    typed = {key: value for key, value in spec.items() if key != "head"}
    read_values(ModelSpec, typed, "model_spec", allow, from_run_folder=True)
    Head.read(spec["head"])
    weights = best["model"]
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError("model holds tensors by their names; it holds none")
    for name, tensor in weights.items():
        check_tensor(f"model.{name}", tensor)
    fit = None if "posthoc" not in best else _fit(best["posthoc"])
    return BestModel(spec, accepted("epoch", Count, best["epoch"]), dict(weights), fit)


def _fit(values: Any) -> posthoc.FitResult:
    if not isinstance(values, Mapping):
        raise ValueError(f"posthoc is a node of keys; it is of type {type(values).__name__}")
    fit = posthoc.from_checkpoint(dict(values))
    accepted("posthoc.scale", Positive, fit.scale)
    for name, dimensions in (("shift_C", 1), ("weight_CF", 2), ("mean_CF", 2)):
        if (tensor := getattr(fit, name)) is not None:
            check_tensor(f"posthoc.{name}", tensor, dimensions)
    return fit


def check_tensor(key: str, tensor: Any, dimensions: int | None = None) -> None:
    """Refuse what is no tensor, one of another number of dimensions, and numbers that are not finite."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{key} is a tensor; it is of type {type(tensor).__name__}")
    if dimensions is not None and tensor.dim() != dimensions:
        raise ValueError(f"{key} is a tensor of {dimensions} dimensions; its shape is {list(tensor.shape)}")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{key} holds numbers that are not finite: the training went wrong, or the file was altered")


def check_shapes(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that do not fit a network, by their names and shapes.

    Raises:
        ValueError: names the first that is missing, left over or of another shape.
    """
    for name, tensor in expected.items():
        if name not in weights:
            raise ValueError(f"model.{name} is missing: the specification describes a network that has it")
        if weights[name].shape != tensor.shape or weights[name].dtype != tensor.dtype:
            raise ValueError(
                f"model.{name} is {tensor.dtype} of shape {list(tensor.shape)} in the network that the specification "
                f"describes; in the file it is {weights[name].dtype} of shape {list(weights[name].shape)}"
            )
    if left := sorted(set(weights) - set(expected)):
        raise ValueError(f"model.{left[0]} has no place in the network that the specification describes")
