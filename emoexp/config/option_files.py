"""Option files of the user's own, or of somebody they had them from: what they may not set, checked before Hydra acts.

Hydra runs any callable that a file names below `hydra` (callbacks, formatters of a log), opens any file, and sets any
environment variable. So a file may hold values of options, and of `hydra` alone what an ablation varies.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emoexp.runs import files

HYDRA_PACKAGE = re.compile(r"#\s*@package\s+hydra\b")


def check(arguments: Sequence[str]) -> None:
    """Check every file of the folders that a command line adds to the search path.

    Raises:
        ValueError: names the first file that is no YAML or sets what it may not, and what that is.
    """
    for folder in folders(arguments):
        for path in sorted(Path(folder).rglob("*.yaml")):
            if problem := next(_problems(path), None):
                raise ValueError(
                    f"{path} sets {problem}, by which a file could run any program; take it out, and give it on the "
                    "command line if you want it"
                )


def folders(arguments: Sequence[str]) -> Iterator[str]:
    """The folders of --config-dir and of hydra.searchpath."""
    for index, word in enumerate(arguments):
        if word in ("--config-dir", "-cd"):
            yield from arguments[index + 1 : index + 2]
        elif word.startswith(("--config-dir=", "-cd=")):
            yield word.partition("=")[2]
        elif word.lstrip("+").startswith("hydra.searchpath="):
            yield from re.findall(r"file://([^,\]\"']+)", word)


def _problems(path: Path) -> Iterator[str]:
    """What a file sets that it may not."""
    content = files.read_yaml(path)
    if HYDRA_PACKAGE.search(path.read_text(encoding="utf-8")):
        yield "the package hydra"
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        first = str(key).partition(".")[0]
        if first == "allow":
            yield "allow"
        elif first == "hydra" and not _is_ablation(value):
            yield "hydra"
    for entry in content.get("defaults") or []:
        words = [str(entry)] if not isinstance(entry, dict) else [str(word) for pair in entry.items() for word in pair]
        if any(re.search(r"(^|\s|/|@)hydra([/.@]|$)", word) for word in words):
            yield f"{words[0]} in its defaults list"


def _is_ablation(value: Any) -> bool:
    """Whether a file's values below `hydra` are only what a sweep varies."""
    return (
        isinstance(value, dict)
        and set(value) == {"sweeper"}
        and isinstance(value["sweeper"], dict)
        and set(value["sweeper"]) == {"params"}
    )
