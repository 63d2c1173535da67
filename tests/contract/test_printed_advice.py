"""What the program advises can be typed: each key, option, value and command in its texts is one that there is.

The texts are all strings of the package, docstrings too, and the comments of conf/.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from composing import checked

from emoexp import cli
from emoexp.config import options, words

ROOT = Path(__file__).parents[2]
COMMANDS = [name for name in ("train", "evaluate", "predict", "report", "audit", "sync") if options.text("", name)]
UNKNOWN = "<>"  # what a text takes from a variable
ADVICE = re.compile(r"(?<![\w./\[{=\-$%])([a-z_]+(?:[./][a-zA-Z_]+)*)=(<>|[^\s,;:)\]}'\"`]*)")
OF_A_NODE = re.compile(r"(?<!\w)<>\.([a-z_]+)=(<>|[^\s,;:)\]}'\"`]*)")
FOLDERS = {*options.GROUPS.values()}
PYTHON = {  # words of Python calls, of SQL, of a line of MPS and of a command that is not ours
    *("average", "decay", "filter_by", "in_features", "journal_mode", "kernel", "labels", "out_features", "s", "scale"),
    *("weight", "zero_division", "hydra.searchpath"),
}


def texts() -> Iterator[tuple[str, str]]:
    """Each text with the place where it stands."""
    for path in sorted((ROOT / "emoexp").rglob("*.py")):
        inside: set[int] = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                inside |= {id(part) for part in node.values}
                parts = [part.value if isinstance(part, ast.Constant) else UNKNOWN for part in node.values]
                yield f"{path.relative_to(ROOT)}:{node.lineno}", "".join(map(str, parts))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if "#" in line:
                own = "|".join(options.option(path.parent.relative_to(ROOT / "conf").as_posix(), path.stem)) or "-"
                folder = path.parent.relative_to(ROOT / "conf").as_posix()
                group = next((key for key, its in options.GROUPS.items() if its == folder), "")
                # a file's comment may name the file's own keys without their group
                comment = re.sub(rf"(?<![\w.])({own})=", rf"{group}.\1=", line.partition("#")[2])
                yield f"{path.relative_to(ROOT)}:{number}", comment if group else line.partition("#")[2]


@cache
def keys() -> frozenset[str]:
    return frozenset(key for name in COMMANDS for key in cli.known_keys(name))


def advice() -> list[tuple[str, str, str]]:
    """Place, key and value of everything that a text tells to type."""
    return [(place, *match) for place, text in texts() for match in ADVICE.findall(text) if match[0] not in PYTHON]


def test_there_is_advice():
    assert len(advice()) > 200 and {key for _, key, _ in advice()} >= {"data", "epochs", "imbalance/mix", "resume"}


def test_every_key_is_one():
    assert [f"{place} {key}" for place, key, _ in advice() if key not in keys()] == []


def test_every_key_of_a_node_is_one():
    leaves = {key.rpartition(".")[2] for key in keys()}
    found = [(place, leaf) for place, text in texts() for leaf, _ in OF_A_NODE.findall(text)]
    assert len(found) > 10 and [one for one in found if one[1] not in leaves] == []


def test_every_option_is_one():
    wrong = [
        f"{place} {key}={value}"
        for place, key, value in advice()
        if key in FOLDERS and UNKNOWN not in value and "<" not in value
        for choice in value.rstrip(".?").split("|")
        if choice and choice not in ("...", "x") and choice not in options.listed(key)
    ]
    assert wrong == []


def test_every_command_is_one():
    commands = {match for _, text in texts() for match in re.findall(r"python -m emoexp\.(\w+)", text)}
    assert commands >= {"train", "sync", "audit"}
    assert all((ROOT / "emoexp" / f"{name}.py").is_file() for name in commands)


def literal(value: str) -> bool:
    return bool(value) and not re.search(r"[<>.]{2}|[<>$|?%(]|^(http|sqlite)$", value)


TYPED = sorted({(key, value.rstrip(".")) for _, key, value in advice() if literal(value.rstrip("."))})


@pytest.mark.parametrize(("key", "value"), [pair for pair in TYPED if "." in pair[0] and pair[0] in keys()])
def test_every_value_is_taken(key: str, value: str) -> None:
    """Some option of the key's group takes the value; what else it needs is said beside it in the text."""
    group = options.GROUPS.get(key.partition(".")[0] if not key.startswith("imbalance.") else key.rpartition(".")[0])
    if group is None:
        pytest.skip(f"{key} is no key of a group")
    (word,) = words.prepare([f"{key}={value}"])
    errors = []
    for option in options.listed(group):
        try:
            checked(f"{group}={option}", word)
            return
        except Exception as error:  # noqa: BLE001 - the next option may take it
            errors.append(f"{option}: {error}")
    assert any("does nothing" in error or "needs" in error for error in errors), errors
