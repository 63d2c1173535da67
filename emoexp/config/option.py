"""An option of a group holds typed, checked values; its `build` turns them into an object that training uses.

A node of a configuration is read by the class that its name stands for; every group lists its classes. A class of
somebody's own, behind a `_target_` that the command line allows, is an option too.
"""

import dataclasses
import difflib
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar, get_args

from emoexp.config import options
from emoexp.config.build import Homes, build_object, check_own_node
from emoexp.config.fields import Node, accepted, check_keys, kinds, shown

OLD_TARGETS = {  # of options that torch builds, as run folders of earlier versions name them
    "activation": {"elu": "ELU", "gelu": "GELU", "leaky_relu": "LeakyReLU", "relu": "ReLU", "swish": "SiLU"},
    "optimizer": {"adam": "Adam", "adamw": "AdamW", "sam": "AdamW", "sam_tail": "AdamW", "sgd": "SGD"},
}


@dataclass(frozen=True, kw_only=True)
class Values:
    """Typed values that stand together in a node of the configuration."""

    def check(self, path: str) -> None:
        """Refuse values that are each allowed and do not go together. path: where they stand, as `optimizer`."""

    def plain(self) -> Node:
        """The node that the values were read from."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclass(frozen=True, kw_only=True)
class Option(Values, ABC):
    """One option of a group.

    folder: of conf/, where its file lies. known: the group's options by name. own: what reads a class that is not ours.
    """

    folder: ClassVar[str]
    known: ClassVar[Mapping[str, type["Option"]]]
    own: ClassVar[type["Own"]]

    name: str

    def having(self, **values: Any) -> Self:
        """The same option with other values, checked."""
        allow = self.allow if isinstance(self, Own) else ()
        path = self.folder.replace("/", ".")
        return read(type(self), self.plain() | values, path, allow)


@dataclass(frozen=True, kw_only=True)
class Own(Option):
    """An option that a class or function of somebody's own makes.

    node: as it was written. allow: the packages that it may come from. taken: keys that are ours, not its target's.
    factory: whether its target is called later, with more arguments, so that the node needs `_partial_: true`. homes:
    modules whose things the group may name without `allow`; see `emoexp.config.build`.
    """

    taken: ClassVar[tuple[str, ...]] = ()
    factory: ClassVar[bool] = False
    homes: ClassVar[Homes] = {}

    node: Node
    allow: tuple[str, ...]

    def plain(self) -> Node:
        """The node that the option was read from."""
        return dict(self.node)

    def made(self, **extra: Any) -> Any:
        """What the target makes of the node's keys and of `extra`."""
        keys = {key: value for key, value in self.node.items() if key not in self.taken}
        return build_object(keys, self.allow, self.homes, **extra)


T = TypeVar("T", bound=Option)


def read(base: type[T], node: Any, path: str, allow: Sequence[str] = (), *, from_run_folder: bool = False) -> T:
    """A node of a group as the option that it stands for. A key that it lacks has the value of the option's file.

    base: the group's class. path: where the node stands, for messages. allow: packages of the user's own.
    from_run_folder: the node comes from a run folder, which may be a stranger's; see `check_own_node`.

    Raises:
        ValueError: names the key, what is allowed and what came.
    """
    if not isinstance(node, Mapping):
        choice = f"; an option is chosen by {base.folder}={shown(node)}" if "/" in base.folder else ""
        raise ValueError(f"{path} is an option, a node with a name; it is {shown(node)}{choice}")
    if "name" not in node:
        raise ValueError(f"{path}: the option's file has no name; its first key is name: <name of the file>")
    name, target = str(node["name"]), node.get("_target_")
    known = base.known.get(name)
    if known is not None and (target is None or (from_run_folder and _was_ours(base, name, str(target)))):
        values = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
        # the group lists options of its own kind alone
        return read_values(known, values, path, allow, from_run_folder=from_run_folder, what=f"{path}={name}")  # type: ignore[return-value]
    if target is None:
        near = difflib.get_close_matches(name, base.known, n=1)
        raise ValueError(
            f"{path}={name} is none of {', '.join(base.known)}"
            + (f"; did you mean {near[0]}?" if near else "")
            + "; a new option needs a class here, or in its file a _target_ that names a class of your own"
        )
    if known is not None:
        raise ValueError(
            f"{path}._target_ is {target}, but {path}={name} is built by this package. Take _target_ out, or give a "
            "class of your own a file and a name of its own"
        )
    untyped = {key: value for key, value in node.items() if key not in base.own.taken}
    check_own_node(untyped, path, allow, base.own.homes, from_run_folder=from_run_folder)
    return _own(base.own, dict(node), path, tuple(allow), from_run_folder)  # type: ignore[return-value]  # as above


def _was_ours(base: type[Option], name: str, target: str) -> bool:
    """Whether a `_target_` is one that an earlier version wrote beside an option's name."""
    module, _, leaf = target.rpartition(".")
    return module.partition(".")[0] == "emoexp" or (
        module in ("torch.nn", "torch.optim") and OLD_TARGETS.get(base.folder, {}).get(name) == leaf
    )


def _own(own: type[Own], node: Node, path: str, allow: tuple[str, ...], from_run_folder: bool) -> Own:
    if own.factory and node.get("_partial_") is not True:
        raise ValueError(f"{path}={node['name']}: the option's file needs _partial_: true")
    hints = {key: kind for key, kind in kinds(own).items() if key not in ("name", "node", "allow")}
    values = {
        key: value(kind, node[key], f"{path}.{key}", allow, from_run_folder)
        for key, kind in hints.items()
        if key in node
    }
    made = own(name=str(node["name"]), node=node, allow=allow, **values)
    made.check(path)
    return made


V = TypeVar("V", bound=Values)


def read_values(
    of: type[V], node: Any, path: str, allow: Sequence[str] = (), *, from_run_folder: bool = False, what: str = ""
) -> V:
    """A node as typed values; see `read`. what: how messages call the node, its path by default."""
    hints = kinds(of)
    if not isinstance(node, Mapping):
        raise ValueError(f"{path} is a node of {', '.join(hints)}; it is {shown(node)}")
    prefix = f"{path}." if path else ""
    check_keys(prefix, what or path, node, hints)
    usual = options.option(of.folder, str(node.get("name"))) if issubclass(of, Option) else {}
    values = {}
    for key, kind in hints.items():
        if key not in node and key not in usual:
            raise ValueError(f"{prefix}{key} is missing: {prefix}{key}=... has to be given")
        given = node.get(key, usual.get(key))
        if isinstance(given, Mapping) and isinstance(usual.get(key), Mapping):
            given = {**usual[key], **given}
        values[key] = value(kind, given, f"{prefix}{key}", allow, from_run_folder)
    made = of(**values)
    made.check(path)
    return made


def value(kind: Any, given: Any, key: str, allow: Sequence[str] = (), from_run_folder: bool = False) -> Any:
    """What a field of a kind holds where a configuration gives this."""
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and issubclass(one, Values) and (given is not None or one is kind):
            if issubclass(one, Option):
                return read(one, given, key, allow, from_run_folder=from_run_folder)
            return read_values(one, given, key, allow, from_run_folder=from_run_folder)
    return accepted(key, kind, given)


def plain(held: Any) -> Any:
    """Typed values as a node, anything else as it is."""
    return held.plain() if isinstance(held, Values) else held
