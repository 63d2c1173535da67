"""manifest.json: all that decides a run's result, and in what two runs of one name differ.

A run's folder is named by its configuration. The manifest also records what the configuration does not contain: the
version of the results, the user's own packages, data, device, threads, kernels, versions of libraries. Where one of
these differs, a run is continued or returned only with a message. The git commit is only a note: it is not compared.
"""

import ast
import hashlib
import importlib.util
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

# Raise it by one with every change of the code by which some configuration gives other numbers than before: finished
# runs of the older version are then no longer returned, continued, or compared with newer ones. What changes no number
# (names, modules, figures, messages, speed) leaves it as it is. tests/contract/test_results_version.py trains tiny
# runs and fails where their results have changed and this number has not.
RESULTS_VERSION = 1

DECIDING = ("experiment", "results_version", "packages", "data", "weights", "device", "threads", "kernels", "versions")


def facts(experiment: dict[str, Any], packages: Sequence[str]) -> dict[str, Any]:
    """The part of a manifest that an experiment and the code give.

    Args:
        experiment: all its values, in plain dictionaries. Keys that begin with `_` (`_target_`) are left out: they say
            how a thing is built, not what it is, and change when a module moves.
        packages: the user's own packages, which a `_target_` may point into (`allow` of the command line).
    """
    return {
        "experiment": _without_private_keys(experiment),
        "results_version": RESULTS_VERSION,
        "packages": {package: source_digest(package) for package in packages},
        "git": git(),
    }


def _without_private_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_private_keys(inner) for key, inner in value.items() if not str(key).startswith("_")}
    if isinstance(value, list | tuple):
        return [_without_private_keys(inner) for inner in value]
    return value


def differences(old_manifest: dict[str, Any], new_manifest: dict[str, Any]) -> list[str]:
    """The values that decide a result and differ between two manifests, one text each.

    A manifest from before results had a version counts as version 1 (see `upgraded`).
    """
    # such a manifest has one hash of the user's packages and all other code, so that packages cannot be compared
    # and one from before pretrained weights were recorded says nothing about them
    deciding = [key for key in DECIDING if key not in ("packages", "weights") or key in old_manifest]
    old_manifest = upgraded(old_manifest)
    sentences = []
    for key in deciding:
        old, new = _leaves(old_manifest.get(key), key), _leaves(new_manifest.get(key), key)
        # folders of one name share all choices: a key that the older one lacks has its default there. Of data with the
        # same content, what the older manifest did not record is the same too.
        is_subset = (key == "experiment" and old) or (key == "data" and "data.content" in old)
        compared = old.keys() if is_subset else old.keys() | new.keys()
        names = [name for name in sorted(compared) if old.get(name) != new.get(name)]
        sentences += [f"{name} ({old.get(name)}, now {new.get(name)})" for name in names[:3]]
        sentences += [f"{len(names) - 3} more of {key}"] if len(names) > 3 else []
    return sentences


def upgraded(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest in today's keys.

    Before results had a version, a manifest held a digest of all code that decides them ("code"), which changed with
    every edit, mostly of code that left the results alone. All such runs count as version 1, without packages.
    """
    if "code" not in manifest:
        return manifest
    return {"results_version": 1, "packages": {}} | manifest


def _leaves(value: Any, path: str) -> dict[str, Any]:
    """The values of nested dictionaries by their path, without keys that begin with `_`."""
    if not isinstance(value, dict):
        return {path: value}
    leaves: dict[str, Any] = {}
    for key, inner in value.items():
        if not str(key).startswith("_"):
            leaves.update(_leaves(inner, f"{path}.{key}"))
    return leaves


@cache
def source_digest(package: str) -> str:
    """A hash of a package's Python files, without comments and line numbers.

    A process reads the files once, as it imports the package once. A package that cannot be found has the hash of no
    files.
    """
    digest = hashlib.sha256()
    for path in sorted(_sources(package)):
        digest.update(f"{path.name}\n{ast.dump(ast.parse(path.read_text(encoding='utf-8')))}\n".encode())
    return digest.hexdigest()[:16]


def _sources(package: str) -> list[Path]:
    """The Python files of a module or package that can be imported; none where it cannot."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.py")]
    return [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []


@cache
def git() -> dict[str, Any]:
    """The commit of the checkout that this package stands in, and whether files differ from it; empty outside one."""
    root = Path(__file__).parent
    outputs = []
    for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            process = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603, S607 - fixed words
        except (OSError, subprocess.SubprocessError):
            return {}
        outputs.append(process.stdout.strip())
    return {"commit": outputs[0], "dirty": bool(outputs[1])}
