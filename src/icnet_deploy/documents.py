"""The one reader of our JSON and TOML files: what is not as it was written is refused.

Each kind of file has a `Schema`; all are bounded in size and in depth. Nothing is made to fit: a
text that says "false" is no truth value, and true is no number. What is made to fit says something
that nobody wrote.
"""

import functools
import hashlib
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from icnet_deploy.errors import InputError

_DIGEST = re.compile("[0-9a-f]{64}")
_SEAL, _SEALED = "digest", "stamped"  # two keys: no one damaged key can hide the digest


class Kind(NamedTuple):
    """What a value must be.

    Attributes:
        fits: whether a value is that.
        words: what it is called in a message.
    """

    fits: Callable[[Any], bool]
    words: str


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


TEXT = Kind(lambda value: isinstance(value, str), "a text")
BOOL = Kind(lambda value: isinstance(value, bool), "true or false")
NUMBER = Kind(_is_number, "a finite number")
POSITIVE = Kind(lambda value: _is_number(value) and value > 0, "a number above 0")
FROM_ZERO = Kind(lambda value: _is_number(value) and value >= 0, "a finite number from 0 on")
PERCENT = Kind(lambda value: _is_number(value) and 0 <= value <= 100, "a number in 0 to 100")
PROBABILITY = Kind(lambda value: _is_number(value) and 0 < value < 1, "a number between 0 and 1")
WHOLE = Kind(lambda value: type(value) is int, "a whole number")
COUNT = Kind(lambda value: type(value) is int and value >= 0, "a whole number from 0 on")
FROM_ONE = Kind(lambda value: type(value) is int and value >= 1, "a whole number from 1 on")
OBJECT = Kind(lambda value: isinstance(value, dict), "an object")
SHA256 = Kind(
    lambda value: isinstance(value, str) and _DIGEST.fullmatch(value) is not None,
    "a SHA-256, 64 hex digits",
)


def or_null(kind: Kind) -> Kind:
    """That kind, or null."""
    return Kind(lambda value: value is None or kind.fits(value), f"{kind.words} or null")


def one_of(*values: Any) -> Kind:
    """One of these values."""
    words = f"one of {', '.join(map(str, values))}"
    return Kind(lambda value: any(type(value) is type(v) and value == v for v in values), words)


def list_of(kind: Kind, length: int | None = None) -> Kind:
    """A list, each item of that kind; of so many items, if `length` says how many."""
    items = "" if length is None else f" of {length}"
    return Kind(
        lambda value: (
            isinstance(value, list) and length in (None, len(value)) and all(map(kind.fits, value))
        ),
        f"a list{items}, each item {kind.words}",
    )


def object_of(kind: Kind) -> Kind:
    """An object, each value of that kind."""
    words = f"an object, each value {kind.words}"
    return Kind(
        lambda value: isinstance(value, dict) and all(map(kind.fits, value.values())), words
    )


def object_with(fields: Mapping[str, Kind]) -> Kind:
    """An object that has these fields, each of its kind; it may have others."""
    parts = ", ".join(f"{name} ({kind.words})" for name, kind in fields.items())
    return Kind(
        lambda value: (
            isinstance(value, dict)
            and all(name in value and kind.fits(value[name]) for name, kind in fields.items())
        ),
        f"an object with {parts}",
    )


def take(
    value: Any, fields: Mapping[str, Kind], optional: Collection[str] = (), closed: bool = False
) -> dict[str, Any]:
    """The fields of an object that are known, each of its kind.

    Args:
        value: what should be an object.
        fields: name -> what it must be.
        optional: the names of those that may be missing.
        closed: refuse fields that are not known; else they are left out.

    Raises:
        ValueError: it is no object, a field is missing, or one is of another kind.
    """
    if not isinstance(value, dict):
        raise ValueError(f"it holds {_shown(value)}, expected an object")
    for name, kind in fields.items():
        if name not in value:
            if name not in optional:
                raise ValueError(f"{name} is missing")
        elif not kind.fits(value[name]):
            raise ValueError(f"{name} is {_shown(value[name])}, expected {kind.words}")
    if closed and (unknown := sorted(value.keys() - fields.keys())):
        raise ValueError(f"it holds {', '.join(unknown)}; known: {', '.join(sorted(fields))}")
    return {name: value[name] for name in fields if name in value}


@dataclass(frozen=True)
class Schema:
    """One kind of file.

    Attributes:
        what: it is called in a message, with what writes it.
        fields: name -> what it must be.
        optional: the names of those that may be missing.
        closed: a field that is not known is refused, since what depends on it would be done wrong;
            else it is left out.
        newest: the highest number that its field `schema` may hold, which is a field of all such
            files then; None: they need not have it.
        sealed: its values were `sealed`: one that was changed is refused. One that never was
            sealed passes, as those of version 0.1.
        most_bytes: a larger file is refused before it is parsed.
        error: what is raised for one that is not of this kind.
    """

    what: str
    fields: Mapping[str, Kind]
    optional: Collection[str] = ()
    closed: bool = False
    newest: int | None = None
    sealed: bool = False
    most_bytes: int = 16 << 20
    error: type[InputError] = InputError

    def read(self, path: Path) -> dict[str, Any]:
        """The known fields of a file; TOML if its name says so, else JSON.

        Raises:
            InputError: as `error` says: it cannot be read, is too large, or is of another kind.
        """
        try:
            with open(path, "rb", opener=_open_now) as file:
                content = file.read(self.most_bytes + 1)
        except (OSError, ValueError) as error:  # ValueError: no system has such a path
            why = getattr(error, "strerror", None) or str(error)
            raise self.error(f"cannot read {path}: {why}; expected {self.what}") from error
        return self.parse(content, str(path), toml=path.suffix == ".toml")

    def read_if_there(self, path: Path) -> dict[str, Any] | None:
        """As `read`; None if there is no such file."""
        try:
            return self.read(path)
        except self.error as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def parse(self, content: bytes | str, where: str, toml: bool = False) -> dict[str, Any]:
        """The known fields of a text.

        Args:
            content: UTF-8; a byte order mark before it is left out.
            where: it is from, for the message.
            toml: it is TOML, not JSON.

        Raises:
            InputError: as `error` says: it is too large, or of another kind.
        """
        try:
            if len(content) > self.most_bytes:
                raise ValueError(f"it is larger than {self.most_bytes} bytes")
            text = content if isinstance(content, str) else content.decode("utf-8")
            text = text.removeprefix("\ufeff")
            value = _parsed(text, tomllib.loads) if toml else parse(text)
        except ValueError as error:
            raise self.error(f"{where} is not {self.what}: {error}") from error
        return self.fit(value, where)

    def fit(self, value: Any, where: str) -> dict[str, Any]:
        """The known fields of a value that was read already.

        Raises:
            InputError: as `error` says: it is of another kind, or newer than this reader.
        """
        fields = self.fields
        try:
            if self.newest is not None:
                number = take(value, {"schema": FROM_ONE})["schema"]
                if number > self.newest:
                    raise self.error(
                        f"{where} has schema {number}, this version of icnet-deploy reads up to "
                        f"{self.newest}: upgrade icnet-deploy"
                    )
                fields = {**fields, "schema": FROM_ONE}
                self._require_known(value, fields, where)
            known = take(value, fields, self.optional, self.closed and self.newest is None)
            if self.sealed:
                _check_seal(value)
            return known
        except ValueError as error:
            raise self.error(f"{where} is not {self.what}: {error}") from error

    def _require_known(self, value: Mapping[str, Any], fields: Collection[str], where: str) -> None:
        """Refuses what a later version may have written into a file of this schema."""
        unknown = sorted(value.keys() - set(fields) - ({_SEAL, _SEALED} if self.sealed else set()))
        if self.closed and unknown:
            raise self.error(
                f"{where} holds {', '.join(map(_shown, unknown[:3]))}, which this version of "
                "icnet-deploy does not know, so that it might use the file wrongly: upgrade "
                "icnet-deploy"
            )


def _open_now(path: str, flags: int) -> int:
    """Opens a file, or a pipe that somebody writes to; one that nobody does is empty, not waited
    for."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(descriptor, True)
    return descriptor


DEEPEST = 64
"""Levels of lists and objects in one another that a text may have."""


def parse(text: str | bytes, strict: bool = True) -> Any:
    """JSON, by the letter: no name twice in an object, no NaN, no infinity, not even as 1e999.

    Args:
        text: UTF-8.
        strict: False for what another program wrote, by its own rules.

    Raises:
        ValueError: it is not that, is nested deeper than `DEEPEST`, or holds a whole number beyond
            64 bits or half a character.
    """
    if not strict:
        return _parsed(text, json.loads)
    loads = functools.partial(
        json.loads, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite
    )
    return _parsed(text, loads)


def _parsed(text: Any, loads: Callable[[Any], Any]) -> Any:
    """What a parser makes of a text, if it is not too deep."""
    try:
        value = loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in filter(_require_usual, level)
            for inner in ((*outer, *outer.values()) if isinstance(outer, dict) else outer)
        ]
    if any(map(_require_usual, level)):
        raise ValueError("it is nested too deeply")
    return value


def _require_usual(value: Any) -> bool:
    """Whether a value holds others; ValueError for what no file and no array can hold."""
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        raise ValueError("it holds a whole number that is beyond 64 bits")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"it holds half a character (a surrogate): {value!a:.40}") from error
    return isinstance(value, list | dict)


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a SHA-256 of all else that it holds; see `Schema.sealed`."""
    marked = {**value, _SEALED: True}
    return {**marked, _SEAL: _seal(marked)}


def _check_seal(value: Mapping[str, Any]) -> None:
    """ValueError if a JSON object is not as `sealed` left it; one that never was passes."""
    if _SEAL not in value and _SEALED not in value:
        return
    if value.get(_SEALED) is not True or value.get(_SEAL) != _seal(value):
        raise ValueError("it is not what was written: its SHA-256 is another")


def _seal(value: Mapping[str, Any]) -> str:
    rest = {key: one for key, one in value.items() if key != _SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def as_read(value: Any) -> Any:
    """A JSON value as it is read back: tuples are lists."""
    return json.loads(json.dumps(value))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(text)
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
