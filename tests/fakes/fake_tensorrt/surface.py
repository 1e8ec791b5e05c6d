"""Reads a recorded surface, and the signatures in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

RELEASES = ("10.16", "11.4")

FOLDER = Path(__file__).parents[1] / "surfaces"


@cache
def load_surface(release):
    """The surface of a release: see surfaces/README.md for its format."""
    return json.loads((FOLDER / f"{release}.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Parameter:
    """One parameter: its type and default as text; a default of None is no default."""

    name: str
    type: str
    default: str | None

    @property
    def positional_only(self):
        """pybind11 writes arg0, arg1 where a parameter was given no name."""
        return re.fullmatch(r"arg\d+", self.name) is not None


@dataclass(frozen=True)
class Signature:
    """One overload; `bound` says that the first parameter was the object itself."""

    text: str
    parameters: tuple[Parameter, ...]
    bound: bool

    def bind(self, args, kwargs):
        """Parameter -> what it is given, or None where counts or names do not fit."""
        if len(args) > len(self.parameters):
            return None
        found = dict(zip(self.parameters, args, strict=False))
        names = {p.name: p for p in self.parameters if not p.positional_only}
        for name, value in kwargs.items():
            if name not in names or names[name] in found:
                return None
            found[names[name]] = value
        missing = [p for p in self.parameters if p not in found and p.default is None]
        return None if missing else found


def split(text):
    """Splits at the commas that are outside of all brackets."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "([<{") - (char in ")]>}" and text[index - 1 : index + 1] != "->")
        if char == "," and not depth:
            parts.append(text[start:index])
            start = index + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


@cache
def parse(text):
    """Reads one line such as `f(self: trt.X, name: str, size: int = 0) -> bool`."""
    static = text.startswith("static ")
    inner = text[text.index("(") + 1 : _closing(text)]
    found = []
    for part in split(inner):
        head, _, default = part.partition(" = ")
        name, _, kind = head.partition(":")
        found.append(Parameter(name.strip(), kind.strip(), default.strip() or None))
    bound = not static and bool(found) and found[0].name in ("self", "this")
    if not bound and not static and found and _names_object(text, found[0]):
        bound = True
    return Signature(text, tuple(found[1:] if bound else found), bound)


def _names_object(text, first):
    """Of `__getitem__(self: ...)` and the like pybind11 may call the object otherwise."""
    return text.startswith("__") and first.name == "arg0" and first.type.startswith("trt.")


def _closing(text):
    depth = 0
    for index in range(text.index("("), len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if not depth:
            return index
    raise ValueError(f"no signature: {text}")
