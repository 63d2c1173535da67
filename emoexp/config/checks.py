"""A composed configuration as plain values, checked before torch is imported or anything is read or trained."""

import dataclasses
import math
from typing import Any

from omegaconf import DictConfig, OmegaConf

from emoexp.config import conflicts, options
from emoexp.config.build import check_targets
from emoexp.config.schema import (
    EXECUTORS,
    FACTORIES,
    GROUPS,
    MONITORS,
    PRECISIONS,
    PROTOCOLS,
    RESUMES,
    Experiment,
    Machine,
    Node,
    Sweep,
    Tune,
    groups,
)


def checked(config: DictConfig) -> tuple[Experiment, Machine]:
    """A composed training configuration as plain values.

    Raises:
        ValueError: a value of another kind than its default, out of its range, or a `_target_` that is not allowed.
    """
    OmegaConf.resolve(config)
    plain: Node = OmegaConf.to_container(config, throw_on_missing=True)  # type: ignore[assignment]
    check_targets(plain, plain["allow"])
    for path, node in groups(plain):
        if "name" not in node:
            raise ValueError(f"{path}: the option's file has no name; its first key is name: <name of the file>")
        if path in FACTORIES and node.get("_partial_") is not True:
            raise ValueError(f"{path}={node['name']}: the option's file needs _partial_: true, as conf/{path}/ shows")
        check_types(path, node, options.option(GROUPS[path], node["name"]))
    experiment = Experiment(**{f.name: plain[f.name] for f in dataclasses.fields(Experiment)})
    machine = Machine(**{f.name: plain[f.name] for f in dataclasses.fields(Machine)})
    for name, least in {"epochs": 1, "batch_size": 2, "image_size": 8, "patience": 1, "threads": 1}.items():
        value = plain[name]
        if value is not None and value < least:
            raise ValueError(f"{name} is at least {least}; it is {value}")
    words = {"channels": (1, 3), "precision": PRECISIONS, "resume": RESUMES, "monitor": MONITORS, "protocol": PROTOCOLS}
    words |= {"executor": EXECUTORS}
    for name, allowed in words.items():
        if plain[name] not in allowed:
            raise ValueError(f"{name} is one of {', '.join(map(str, allowed))}; it is {plain[name]}")
    conflicts.check(plain)
    if experiment.clip_norm is not None and not 0 < experiment.clip_norm < math.inf:
        raise ValueError(f"clip_norm is above 0, or null; it is {experiment.clip_norm}")
    if not 0 <= experiment.seed < 2**63:
        raise ValueError(f"seed is a whole number from 0 to 2^63-1; it is {experiment.seed}")
    return experiment, machine


def sweep_of(config: DictConfig) -> Sweep:
    """How a composed training configuration wants to be swept.

    Raises ValueError for a value out of its range.
    """
    whole: Node = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    values = {f.name: whole[f.name] for f in dataclasses.fields(Sweep)}
    tune = Tune(**values.pop("tune"))
    for name in ("workers", "pack"):
        if values[name] < 1:
            raise ValueError(f"{name} is at least 1; it is {values[name]}")
    if values["time_limit"] is not None and not values["time_limit"] > 0:
        raise ValueError(f"time_limit is minutes above 0, or null; it is {values['time_limit']}")
    if values["on_error"] not in ("continue", "stop"):
        raise ValueError(f"on_error is continue or stop; it is {values['on_error']}")
    if tune.lr is not None:
        if not (isinstance(tune.lr, list) and tune.lr and all(_is_number(lr) and lr > 0 for lr in tune.lr)):
            raise ValueError(f"tune.lr is a list of learning rates such as [0.001,0.003], or null; it is {tune.lr}")
        tune.lr = sorted({float(lr) for lr in tune.lr})
    if not 0 <= tune.seed < 2**63 or (tune.epochs is not None and tune.epochs < 1):
        raise ValueError(
            f"tune.seed is at least 0, tune.epochs at least 1 or null; they are {tune.seed}, {tune.epochs}"
        )
    return Sweep(**values, tune=tune)


def plain(config: DictConfig) -> Node:
    """A composed configuration of another command as plain values, its groups checked.

    Raises:
        ValueError: as `checked`, or a value that has to be given was not.
    """
    OmegaConf.resolve(config)
    if missing := sorted(str(key) for key in OmegaConf.missing_keys(config)):
        raise ValueError(f"{missing[0]} has to be given: {missing[0]}=...")
    values: Node = OmegaConf.to_container(config)  # type: ignore[assignment]
    check_targets(values, values.get("allow", []))
    for path, node in groups(values):
        check_types(path, node, options.option(GROUPS[path], node.get("name", "")))
    return values


def check_types(path: str, node: Node, defaults: Node) -> None:
    """Refuse values of another kind than the option's file has: a number stays a number, a switch a switch."""
    for key, default in defaults.items():
        value = node.get(key)
        if isinstance(default, bool):
            fits = isinstance(value, bool)
        elif isinstance(default, float):
            fits = _is_number(value)
        elif isinstance(default, int):
            fits = isinstance(value, int) and not isinstance(value, bool)
        elif isinstance(default, list) and default and all(map(_is_number, default)):
            fits = isinstance(value, list) and all(map(_is_number, value))
        else:
            fits = default is None or isinstance(default, str) or isinstance(value, type(default))
        if not fits:
            kind = {bool: "true or false", float: "a number", int: "a whole number", list: "a list"}
            kind |= {dict: f"a node of {', '.join(default)}"} if isinstance(default, dict) else {}
            raise ValueError(f"{path}.{key} is {kind.get(type(default), type(default).__name__)}; it is {value!r}")
        if isinstance(default, dict) and isinstance(value, dict):
            check_types(f"{path}.{key}", value, default)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
