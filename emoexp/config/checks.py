"""A composed configuration as typed values, checked before torch is imported or anything is read or trained."""

import dataclasses
from typing import Any, TypeVar, get_args

from omegaconf import DictConfig, OmegaConf

from emoexp.config import option
from emoexp.config.fields import Node, accepted, check_keys, kinds
from emoexp.config.option import Values
from emoexp.config.schema import BASES, Experiment, Machine, Sweep

CHOICES = ("experiment", "ablation")  # keys of the root that say which option was chosen
GROUPS = ("data", "split", "tracking")  # of the commands besides train


def checked(config: DictConfig) -> tuple[Experiment, Machine]:
    """A composed training configuration as typed values.

    Raises:
        ValueError: a value of another kind or out of its range, values that do not go together, or a `_target_` that is
            not allowed.
    """
    node = _plain(config)
    accepted("allow", list[str], node["allow"])
    check_keys("", "train", node, [*kinds(Experiment), *kinds(Machine), *kinds(Sweep), *CHOICES])
    experiment, machine = _root(Experiment, node), _root(Machine, node)
    experiment.check_choices(node.get("experiment"))
    return experiment, machine


def sweep_of(config: DictConfig) -> Sweep:
    """How a composed training configuration wants to be swept.

    Raises ValueError for a value out of its range.
    """
    sweep = _root(Sweep, _plain(config))
    if sweep.tune.lr is None:
        return sweep
    rates = sorted({float(lr) for lr in sweep.tune.lr})
    return dataclasses.replace(sweep, tune=dataclasses.replace(sweep.tune, lr=rates))


def plain(config: DictConfig) -> Node:
    """A composed configuration of another command as plain values, its groups typed and checked.

    Raises:
        ValueError: as `checked`, or a value that has to be given was not.
    """
    if missing := sorted(str(key) for key in OmegaConf.missing_keys(config)):
        raise ValueError(f"{missing[0]} has to be given: {missing[0]}=...")
    values = _plain(config)
    allow = accepted("allow", list[str], values.get("allow", []))
    for path in GROUPS:
        if values.get(path) is not None:
            values[path] = option.read(BASES[path], values[path], path, allow)
    return values


def _plain(config: DictConfig) -> Node:
    OmegaConf.resolve(config)
    node = OmegaConf.to_container(config, throw_on_missing=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items() if key != "hydra"}


Root = TypeVar("Root", bound=Values)


def _root(of: type[Root], node: Node) -> Root:
    """The values of a root's fields."""
    values: dict[str, Any] = {}
    for key, kind in kinds(of).items():
        if key not in node:
            raise ValueError(f"{key} is missing: {key}=... has to be given")
        value = node[key]
        if isinstance(value, int | float) and not isinstance(value, bool):
            words = (kind, *get_args(kind))
            value = str(value) if str in words else value  # a folder may be called 2024
        values[key] = option.value(kind, value, key, node["allow"])
        if key in ("clip_norm", "time_limit") and value is not None:
            values[key] = float(value)
    return of(**values)
