"""From the command line to plain, checked values, and from values to objects.

The only module that knows OmegaConf. Everything is checked before torch is imported or anything is trained: keys by
Hydra, types and ranges here, `_target_`s against the packages that are allowed.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from emoexp.config import conflicts, options

Node = dict[str, Any]

# where an option group stands in the configuration, and the folder of conf/ that holds its options
GROUPS = {
    "data": "data",
    "split": "split",
    "imbalance": "imbalance",
    "imbalance.copies": "imbalance/copies",
    "imbalance.copies.transform": "augmentation",
    "imbalance.sampling": "imbalance/sampling",
    "imbalance.weights": "imbalance/weights",
    "imbalance.loss": "imbalance/loss",
    "imbalance.schedule": "imbalance/schedule",
    "imbalance.mix": "imbalance/mix",
    "imbalance.posthoc": "imbalance/posthoc",
    "augmentation": "augmentation",
    "architecture": "architecture",
    "activation": "activation",
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "tracking": "tracking",
}
ALLOWED = ("emoexp", "torch.nn", "torch.optim")  # packages that a _target_ may point into
ENTRIES = ("train", "evaluate", "predict", "sync", "report", "audit")  # python -m would import them twice
PRECISIONS = ("fp32", "tf32", "bf16")
RESUMES = ("auto", "force", "never")
EXECUTORS = ("auto", "eager", "graph", "compiled")
PROTOCOLS = ("clean", "leaky")
MONITORS = (  # columns of history.jsonl that training can be judged by; the largest epoch is the last
    *(f"val/{name}" for name in "macro_f1 balanced_accuracy accuracy worst_recall mcc g_mean loss".split()),
    "epoch",
)
FACTORIES = ("activation", "optimizer", "scheduler")  # nodes that are built later, with more arguments
SWEEPER = {"_target_": "hydra_plugins.emoexp.Sweeper", "params": None}  # params: what an ablation's file varies


@dataclass
class Experiment:
    """Everything that decides a result: the scalars of conf/train.yaml, and the option groups as plain dictionaries."""

    seed: int = 0
    epochs: int = 15
    batch_size: int = 128
    image_size: int = 48
    channels: int = 1
    monitor: str = "val/macro_f1"
    patience: int | None = 10
    clip_norm: float | None = None
    precision: str = "fp32"
    deterministic: bool = False
    protocol: str = "clean"
    data: Any = MISSING
    split: Any = MISSING
    imbalance: Any = MISSING
    augmentation: Any = MISSING
    architecture: Any = MISSING
    activation: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING


@dataclass
class Machine:
    """What does not decide a result: where it is computed and kept."""

    device: str = "auto"
    threads: int | None = None
    executor: str = "auto"
    outputs: str = "outputs"
    cache: str | None = "~/.cache/emoexp"
    resume: str = "auto"
    sweep: str | None = None
    allow: list[str] = field(default_factory=list)
    tracking: Any = MISSING


@dataclass
class Tune:
    """The search for a learning rate that every cell of a sweep gets before its seeds run."""

    lr: Any = None
    seed: int = 1000
    epochs: int | None = None


@dataclass
class Sweep:
    """How --multirun goes about its cells; the same for all of them."""

    workers: int = 1
    pack: int = 1
    time_limit: float | None = None
    on_error: str = "continue"
    dry_run: bool = False
    tune: Tune = field(default_factory=Tune)

    @property
    def processes(self) -> int:
        """Cells at a time."""
        return self.workers * self.pack


@dataclass
class TrainSchema(Experiment, Machine, Sweep):
    """The root of conf/train.yaml, typed: Hydra refuses what does not fit."""

    experiment: Any = None
    ablation: Any = None


ConfigStore.instance().store(name="train_schema", node=TrainSchema, provider="emoexp")
ConfigStore.instance().store(group="hydra/sweeper", name="emoexp", node=SWEEPER, provider="emoexp")


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


def groups(plain: Mapping[str, Any]) -> Iterator[tuple[str, Node]]:
    """The option groups that a plain configuration holds: (path, node)."""
    for path in GROUPS:
        node: Any = plain
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        if isinstance(node, dict):
            yield path, node


def check_targets(node: Any, allow: list[str], path: str = "") -> None:
    """Refuse, at any depth, a `_target_` outside the allowed packages."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            check_targets(item, allow, f"{path}[{index}]")
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        check_targets(value, allow, f"{path}.{key}".lstrip("."))
    if "_target_" in node:
        check_target(str(node["_target_"]), allow, path)


def check_target(target: str, allow: list[str], path: str) -> None:
    """Refuse one `_target_`: it must lie in an allowed package and not in an entry module."""
    packages = (*ALLOWED, *allow)
    if not re.fullmatch(r"\w+(\.\w+)+", target) or not any(target.startswith(f"{name}.") for name in packages):
        raise ValueError(
            f"{path}._target_ is {target}, but only {', '.join(packages)} may be built; to let a package of your own "
            f"in, add allow=[{target.split('.')[0]}]"
        )
    if target.split(".")[:2] in [["emoexp", entry] for entry in ENTRIES]:
        raise ValueError(f"{path}._target_ is {target}, which is a command; point it to a library module")


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


def build(node: Node, allow: list[str], **extra: Any) -> Any:
    """What a node's `_target_` makes of its keys and of `extra`. The one place where configuration becomes objects.

    Raises:
        ValueError: the target is not allowed, also behind an alias, or does not exist.
    """
    check_targets(node, allow)
    target = node["_target_"]
    try:
        found = hydra.utils.get_object(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"_target_ {target} cannot be found: {error}") from error
    home = str(getattr(found, "__module__", ""))
    if not any(home == name or home.startswith(f"{name}.") for name in (*ALLOWED, *allow)):
        raise ValueError(f"_target_ {target} stands for something of {home}, which may not be built")
    keys = {key: value for key, value in node.items() if key not in ("name", "_partial_")}
    # always as a partial, called here: Hydra would turn dataclasses among the arguments into dictionaries, and
    # wrap the errors that are meant for people
    function = hydra.utils.instantiate(keys, _partial_=True, _convert_="all")
    if isinstance(function, functools.partial):  # Hydra's kind asks its own policy again at every call, 70 µs each
        function = functools.partial(function.func, *function.args, **function.keywords)
    return function if node.get("_partial_") else function(**extra)
