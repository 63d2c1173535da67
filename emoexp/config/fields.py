"""Typed fields: what a value may be is written in its field's type, `lr: Positive`, and checked by one function."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

Node = dict[str, Any]


@dataclass(frozen=True)
class Range:
    """The numbers that a field may hold, from `least` or above `above`, to `most` or to below `below`."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        low = (
            f"from {self.least:g}"
            if self.least is not None
            else f"above {self.above:g}"
            if self.above is not None
            else ""
        )
        if self.most is None and self.below is None:
            return f"{low} on" if self.least is not None else low
        high = f"to {self.most:g}" if self.most is not None else f"to below {_power(self.below)}"
        return f"{low} {high}"


def _power(number: float | None) -> str:
    return "2^63" if number == 2**63 else f"{number:g}"


@dataclass(frozen=True)
class Length:
    """How many entries a list, or characters a text, may have."""

    least: int
    most: int | None = None

    def holds(self, value: list[Any] | str) -> bool:
        """Whether there are so many."""
        return self.least <= len(value) and (self.most is None or len(value) <= self.most)

    def __str__(self) -> str:
        if self.most is None:
            return f"{self.least} or more"
        return str(self.least) if self.most == self.least else f"{self.least} to {self.most}"


Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
BelowOne = Annotated[float, Range(least=0, below=1)]
InsideShare = Annotated[float, Range(above=0, below=1)]  # a share that leaves something on either side
Exponent = Annotated[float, Range(least=-4, most=4)]  # of class counts; beyond, powers grow out of all bounds
Count = Annotated[int, Range(least=1)]
Width = Annotated[int, Range(least=1, most=65536)]  # channels or features of a layer
ImageSize = Annotated[int, Range(least=8, most=4096)]  # pixels a side
Seed = Annotated[int, Range(least=0, below=2**63)]
Name = Annotated[str, Length(1, 60)]
ContentHash = Annotated[str, Length(12, 12)]  # hexadecimal digits


def accepted(key: str, kind: Any, value: Any) -> Any:
    """A value that its field's type allows.

    Raises:
        ValueError: it does not; names the key, what is allowed and what came.
    """
    if not fits(kind, value):
        raise ValueError(f"{key} is {described(kind)}; it is {shown(value)}")
    return value


def fits(kind: Any, value: Any) -> bool:
    """Whether a value is of a kind: a type of bool, int, float, str, list, None, a Literal, an Annotated or a union."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return fits(inner[0], value) and all(mark.holds(value) for mark in inner[1:])
    if origin in (Union, UnionType):
        return any(fits(one, value) for one in inner)
    if origin is Literal:
        return any(type(value) is type(word) and value == word for word in inner)
    if origin is list:
        return isinstance(value, list) and all(fits(inner[0], entry) for entry in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if kind in (None, type(None)) else isinstance(value, kind)


_WORDS = {float: ("a number", "numbers"), int: ("a whole number", "whole numbers"), str: ("text", "texts")}


def described(kind: Any, *, several: bool = False) -> str:
    """What a kind allows, in words: "a number above 0, or null"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        if get_origin(inner[0]) is list:
            return f"a list of {inner[1]} {described(get_args(inner[0])[0], several=True)}"
        if inner[0] is str:
            return f"text of {inner[1]} characters"
        return f"{_WORDS[inner[0]][several]} {inner[1]}"
    if origin in (Union, UnionType):
        return ", or ".join(described(one) for one in inner)
    if origin is Literal:
        words = ", ".join(map(str, inner))
        return f"words among {words}" if several else f"one of {words}" if len(inner) > 1 else words
    if origin is list:
        return f"a list of {described(inner[0], several=True)}"
    if kind is bool:
        return "true or false"
    return _WORDS[kind][several] if kind in _WORDS else "null"


def shown(value: Any) -> str:
    """A value as it stands in a YAML file."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"a node of {', '.join(map(str, value)) or 'nothing'}"
    return str(value) or "''"


def kinds(of: Any) -> dict[str, Any]:
    """The fields of a dataclass with their types."""
    return _kinds(of)


@cache
def _kinds(of: Any) -> dict[str, Any]:
    hints = get_type_hints(of, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(of)}


def check_keys(where: str, what: str, node: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse keys that are none of the known ones."""
    known = list(known)
    for key in node:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            there = f"there are {', '.join(known)}" if known else "there is none"
            raise ValueError(f"{where}{key} is no key of {what}; {there}{hint}")
