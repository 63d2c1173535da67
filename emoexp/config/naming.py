"""What a run is called and what it is: from its resolved choices alone."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from emoexp.config import options
from emoexp.config.fields import Node
from emoexp.config.imbalance import Imbalance
from emoexp.config.schema import Experiment

COLUMNS = ("copies", "sampling", "weights", "loss", "schedule", "mix", "posthoc")
PATHS = (
    "root",
    "dataset",
    "follow_links",
)  # keys of a data source that say where it lies and what it is called, not what it is


def changed(group: str, node: Node) -> Node:
    """An option's name and the keys in which a node differs from the option's file."""
    defaults = options.option(group, str(node.get("name")))
    skip = {"transform", *COLUMNS, *PATHS}
    kept = {key: value for key, value in node.items() if key not in skip}
    return {"name": node.get("name"), **_apart(kept, defaults)}


def _apart(node: Node, defaults: Node) -> Node:
    """The keys in which a node differs from its defaults, at any depth."""
    apart = {key: value for key, value in node.items() if value != defaults.get(key, ...)}
    for key, value in apart.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            apart[key] = _apart(value, defaults[key])
    return apart


def choices(experiment: Experiment) -> dict[str, Any]:
    """What an experiment chooses, other than its defaults: scalars by name, option groups by path.

    A key at its default does not stand here, so that a new key leaves the names of old runs alone. A row of
    imbalance is no choice by itself: its columns are.
    """
    plain = experiment.plain()
    usual = _usual_options()
    found: dict[str, Any] = {}
    for field in dataclasses.fields(Experiment):
        if not isinstance(plain[field.name], dict) and plain[field.name] != field.default:
            found[field.name] = plain[field.name]
    for path, node in options.groups(plain):
        choice = changed(options.GROUPS[path], node | {"name": "none"} if path == "imbalance" else node)
        if choice != {"name": usual.get(path)}:
            found[path] = choice
    return found


@cache
def _usual_options() -> dict[str, str]:
    """The option of each group that conf/train.yaml and conf/imbalance/none.yaml choose."""
    usual = {"imbalance.copies.transform": "standard", **options.chosen("", "train")}
    return usual | {f"imbalance.{column}": choice for column, choice in options.chosen("imbalance", "none").items()}


def strategy(imbalance: Imbalance) -> str:
    """What a strategy is called in names and tables: the row whose columns it has, else its columns.

    `imbalance=sampler imbalance/loss=focal` is "sampling_inverse.loss_focal", never "sampler".
    """
    row = imbalance.plain()
    columns = {column: changed(f"imbalance/{column}", row[column]) for column in COLUMNS}
    transform = row["copies"].get("transform")
    if transform and changed("augmentation", transform) != {"name": "standard"}:
        columns["copies"]["transform"] = changed("augmentation", transform)
    scale = "" if imbalance.weight_scale == "mean1" else f".weight_scale_{imbalance.weight_scale}"
    for known, chosen in _rows().items():
        if columns == chosen:
            return known + scale
    plain = _rows()["none"]
    return ".".join(_words(column, choice) for column, choice in columns.items() if choice != plain[column]) + scale


def _words(column: str, choice: Node) -> str:
    extra = [
        f"{key}{value['name'] if isinstance(value, dict) else value}" for key, value in choice.items() if key != "name"
    ]
    return safe("_".join([column, str(choice["name"]), *extra]))


@cache
def _rows() -> dict[str, dict[str, Node]]:
    """The named rows of conf/imbalance, each with the options of its columns and the values that it gives them."""
    plain = options.chosen("imbalance", "none")
    rows = {}
    for row in options.listed("imbalance"):
        overrides = re.findall(r"^ *- *override (\w+): *(\w+)", options.text("imbalance", row) or "", re.MULTILINE)
        own = options.option("imbalance", row)
        names = {column: dict(overrides).get(column, plain[column]) for column in COLUMNS}
        rows[row] = {c: changed(f"imbalance/{c}", {"name": names[c], **own.get(c, {})}) for c in COLUMNS}
    return rows


def name(experiment: Experiment) -> str:
    """The name of a run's folder: its main choices and a hash of all (letters, digits, dot, dash, underscore)."""
    main = [safe(experiment.data.label)[:40], experiment.architecture.name, experiment.activation.name]
    words = [*main, strategy(experiment.imbalance), f"s{experiment.seed}"]
    words += [] if experiment.protocol == "clean" else [experiment.protocol]
    digest = hashlib.sha256(json.dumps(choices(experiment), sort_keys=True, default=str).encode()).hexdigest()
    return safe("-".join(words)) + f"-{digest[:8]}"


def safe(text: str) -> str:
    """Only letters, digits, dot, dash and underscore, at most 150 of them."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:150]


def params(experiment: Experiment) -> dict[str, Any]:
    """Every axis and value of an experiment, flat: `imbalance` is the strategy's name, `optimizer.lr` a value."""
    flat = experiment.plain()
    out: dict[str, Any] = {key: value for key, value in flat.items() if not isinstance(value, dict)}
    for path, node in options.groups(flat):
        out[path] = strategy(experiment.imbalance) if path == "imbalance" else node["name"]
        out |= {f"{path}.{key}": value for key, value in _values(node, path) if key != "name"}
    return out


def _values(node: Node, path: str) -> Iterator[tuple[str, Any]]:
    """The values of a node and of the nodes inside that are no groups of their own: long_tail.factor of data."""
    for key, value in node.items():
        if isinstance(value, dict) and f"{path}.{key}" not in options.GROUPS:
            yield from ((f"{key}.{below}", inner) for below, inner in _values(value, f"{path}.{key}"))
        elif not isinstance(value, dict) and not key.startswith("_"):
            yield key, value
