"""From a node of the configuration to an object: the one place that calls `instantiate`, behind a list of packages."""

import functools
import re
from collections.abc import Iterator
from typing import Any

from emoexp.config.fields import Node

ALLOWED = ("emoexp", "torch.nn", "torch.optim")  # packages that a _target_ may point into
LAYER = re.compile(r"(torch\.nn|emoexp\.models\.\w+)\.[A-Z]\w*")  # what a run folder may name by itself
ENTRIES = ("train", "evaluate", "predict", "sync", "report", "audit")  # python -m would import them twice


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


def check_kept(node: Any, allow: list[str], path: str) -> None:
    """Refuse, at any depth, a `_target_` of a run folder that is no layer or network and that `allow` does not name.

    A run folder may come from a stranger. The classes of torch.nn and of emoexp.models take the node's plain values.
    """
    check_targets(node, allow, path)
    for target in _targets(node):
        if not LAYER.fullmatch(target) and not any(target.startswith(f"{name}.") for name in allow):
            raise ValueError(
                f"{path}._target_ is {target}, which a run folder may not have built; if you trust the run, add "
                f"allow=[{target.split('.')[0]}]"
            )


def _targets(node: Any) -> Iterator[str]:
    """The `_target_`s of a node, at any depth."""
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _targets(value)
    if isinstance(node, dict) and "_target_" in node:
        yield str(node["_target_"])


def instantiate(node: Node, allow: list[str], **extra: Any) -> Any:
    """What a node's `_target_` makes of its keys and of `extra`. The one place where configuration becomes objects.

    Raises:
        ValueError: the target is not allowed, also behind an alias, or does not exist.
    """
    check_targets(node, allow)
    import hydra

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
