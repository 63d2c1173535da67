"""The words of a command line: paths and other texts are taken as they stand, and what cannot be read is explained."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException

from emoexp.config import options

# keys that hold a text of the user's: a path, a name, a pattern
TEXTS = re.compile(
    r"data\.(root|labels|identity|name|dataset|content)|outputs|cache|sweep|run|runs|images|out|filter|audit\.runs"
)
FOLDERS = {*options.GROUPS.values(), "experiment", "ablation"}  # groups of options
LISTS = re.compile(r"runs|images|audit\.runs")  # those that may be several


def prepare(words: Sequence[str]) -> list[str]:
    """The words as Hydra has to read them: a text that Hydra would take for a number, or cannot read, is put in quotes.

    Raises:
        ValueError: a word that is no override; says what to write.
    """
    parser = OverridesParser.create()
    return [_prepare(parser, word, words[index + 1 :]) for index, word in enumerate(words)]


def _prepare(parser: OverridesParser, word: str, following: Sequence[str]) -> str:
    if word.startswith("-") or "=" not in word:
        return word
    key, _, value = word.partition("=")
    is_text = TEXTS.fullmatch(key.lstrip("+")) is not None
    if is_text and re.search(r",|\$\{", value) and _exists(value):  # neither a sweep nor another key's value
        return f"{key}={quoted(value.replace('${', chr(92) + '${'))}"
    try:
        override = parser.parse_override(word)
    except HydraException as error:
        if is_text:
            return f"{key}={quoted(value)}"
        raise ValueError(explained(key, value, following)) from error
    is_choice = isinstance(override.value(), str) or (override.value() is None and key in ("experiment", "ablation"))
    if key in FOLDERS and override.value_type == ValueType.ELEMENT and not is_choice:
        raise ValueError(f"{word}: {key} is chosen by the name of one of its options, {', '.join(options.listed(key))}")
    if is_text and override.value_type == ValueType.ELEMENT:
        read = override.value()
        is_no_text = isinstance(read, int | float | dict) or (isinstance(read, list) and not LISTS.fullmatch(key))
        if is_no_text and read is not True and read is not False:
            return f"{key}={quoted(value)}"
    return word


def _exists(path: str) -> bool:
    """Whether a path is there. A text that cannot be a path, as too long a one, is none."""
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def quoted(text: str) -> str:
    """A text in the quotes of Hydra's grammar."""
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)  # backslashes count only where they stand before a quotation mark
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f'"{escaped}"'


def explained(key: str, value: str, following: Sequence[str]) -> str:
    """What is wrong with a word that Hydra cannot read, and the word as it should be."""
    if value.endswith(","):
        rest = following[0] if following and "=" not in following[0] else ""
        mended = f"{key}={value}{rest}" if rest else f"{key}={value.rstrip(',')}"
        return (
            f"{key}={value} ends with a comma: values are separated by a comma alone, without a space. Write '{mended}'"
        )
    return (
        f"{key}={value} cannot be read: brackets, braces, =, & and the like belong in quotes. Write "
        f"'{key}={quoted(value)}', with both kinds of quotation marks"
    )


def without_advice(printed: str) -> Iterator[str]:
    """The lines of Hydra's message, less those that help nobody: adding an unknown key with + only hides a mistake."""
    idle = ("To append to your config", "Set the environment variable", "See https", "    full_key", "    object_type")
    for line in printed.splitlines():
        if line.strip() and not line.startswith(idle) and not line.startswith("Key '"):
            yield line
