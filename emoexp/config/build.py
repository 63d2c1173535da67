"""From a `_target_` to an object: the one place that builds something by a name that a configuration gives.

What may be named is explicit. Each group of options has its `homes`: modules of ours or of torch, whose own public
classes and functions are the group's vocabulary. Everything else has to be defined in a package that the user's own
command line names in `allow`.
"""

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from emoexp.config.fields import Node, shown

PRIVATE = ("_target_", "_partial_")  # the only keys that begin with an underscore
Homes = Mapping[str, str]  # a module by which things are named → the module or package that has to define them


def ours(*modules: str) -> Homes:
    """Homes among this package's modules."""
    return {f"emoexp.{module}": f"emoexp.{module}" for module in modules}


def check_own_node(node: Node, path: str, allow: Sequence[str], homes: Homes, *, from_run_folder: bool = False) -> None:
    """Refuse a node with a `_target_` that could build more than its group's things and the user's own.

    from_run_folder: the node comes from a run folder, which may be a stranger's: nothing is built below it.

    Raises:
        ValueError: names the key and what may stand there.
    """
    check_target(str(node["_target_"]), path, allow, homes)
    for key, value in _leaves(node, path):
        name = key.rpartition(".")[2]
        if name.startswith("_") and name not in PRIVATE:
            raise ValueError(f"{key} is a key that nothing reads; of keys with an underscore there is only _target_")
        if name == "_partial_" and not isinstance(value, bool):
            raise ValueError(f"{key} is true or false; it is {shown(value)}")
        if key.endswith("._target_") and key != f"{path}._target_":
            if from_run_folder:
                raise ValueError(
                    f"{key}: below an option that a run folder holds nothing is built; it is {shown(value)}"
                )
            check_target(str(value), key.removesuffix("._target_"), allow, {})
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"{key} is a plain value; it is {value}")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values of nested dictionaries and lists, by their paths."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def check_target(target: str, path: str, allow: Sequence[str], homes: Homes) -> None:
    """Refuse a `_target_` by its text alone: nothing is imported that may not be built."""
    module, _, name = target.rpartition(".")
    if re.fullmatch(r"\w+(\.\w+)+", target):
        if any(target.startswith(f"{package}.") for package in allow):
            return
        if module in homes and not name.startswith("_"):
            return
    choice = ", ".join(homes) or "nothing without allow"
    raise ValueError(
        f"{path}._target_ is {target}; here may be built: {choice}. To let a package of your own in, add "
        f"allow=[{target.split('.')[0]}]"
    )


def build_object(node: Node, allow: Sequence[str], homes: Homes, **extra: Any) -> Any:
    """What a node's `_target_` makes of its keys and of `extra`; with `_partial_`, a function of what is missing.

    Raises:
        ValueError: the target is not allowed, also behind an alias, or does not exist.
    """
    check_own_node(node, str(node.get("name", "")), allow, homes)
    return _build(node, allow, homes, extra)


def _build(node: Node, allow: Sequence[str], homes: Homes, extra: dict[str, Any]) -> Any:
    function = find(str(node["_target_"]), allow, homes)
    keys = {key: _built(value, allow) for key, value in node.items() if key not in (*PRIVATE, "name")}
    is_partial = node.get("_partial_", False)
    try:
        signature = inspect.signature(function)
        (signature.bind_partial if is_partial else signature.bind)(**keys, **extra)
    except TypeError as error:
        raise ValueError(f"_target_ {node['_target_']} does not take these keys: {error}") from error
    except ValueError:
        pass  # it has no signature: what it takes shows when it is called
    return functools.partial(function, **keys, **extra) if is_partial else function(**keys, **extra)


def _built(value: Any, allow: Sequence[str]) -> Any:
    """A value of a node, in which nodes of the user's own packages are built."""
    if isinstance(value, list):
        return [_built(entry, allow) for entry in value]
    if isinstance(value, dict):
        if "_target_" in value:
            return _build(value, allow, {}, {})
        return {key: _built(inner, allow) for key, inner in value.items()}
    return value


def find(target: str, allow: Sequence[str], homes: Homes) -> Callable[..., Any]:
    """The class or function that a `_target_` names.

    Raises:
        ValueError: it does not exist, or is defined elsewhere than the name says.
    """
    module, _, name = target.rpartition(".")
    try:
        found: Any = _imported(module)
        found = getattr(found, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"_target_ {target} cannot be found: {error}") from error
    defined_in = str(getattr(found, "__module__", ""))
    allowed = [homes[module]] if module in homes else list(allow)
    if not callable(found) or not any(defined_in == one or defined_in.startswith(f"{one}.") for one in allowed):
        raise ValueError(
            f"_target_ {target} stands for something of {defined_in or 'no module'}, which may not be built"
        )
    return found


def _imported(name: str) -> Any:
    """A module, or a class of one: `package.module` or `package.module.Class`."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        module, _, leaf = name.rpartition(".")
        if not module or error.name != name:
            raise
        return getattr(importlib.import_module(module), leaf)
