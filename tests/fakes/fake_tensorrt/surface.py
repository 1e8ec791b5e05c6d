"""Reads a recorded surface, and the signatures in it."""

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
        """Parameter -> what it is given; TypeError where counts or names do not fit."""
        given = dict(zip(self.parameters, args, strict=False))
        free = {p.name: p for p in self.parameters if p not in given and not p.positional_only}
        if len(args) > len(self.parameters) or not kwargs.keys() <= free.keys():
            raise TypeError(f"too many arguments for {self.text}")
        given |= {free[name]: value for name, value in kwargs.items()}
        if any(p not in given and p.default is None for p in self.parameters):
            raise TypeError(f"too few arguments for {self.text}")
        return given


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
    inner = re.fullmatch(r"[^(]*\((.*)\)(?: -> .*|  # python)", text)[1]
    found = []
    for part in split(inner):
        head, _, default = part.partition(" = ")
        name, _, kind = head.partition(":")
        found.append(Parameter(name.strip(), kind.strip(), default.strip() or None))
    # Of `__getitem__(self: ...)` and the like pybind11 may call the object `arg0`.
    of_object = r"\w+\((?:self|this)\b|__\w+\(arg0: trt\."
    bound = re.match(of_object, text) is not None
    return Signature(text, tuple(found[bound:]), bound)
