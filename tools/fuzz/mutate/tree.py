"""Changes of documents by their structure: wrong types, huge numbers, what is missing or twice."""

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

from icnet_deploy.documents import parse, sealed
from icnet_deploy.precisions import PRECISIONS
from tools.fuzz.mutate.raw import changed_bytes


class Raw(str):
    """Text that is written into a document as it is, such as `NaN`."""


class Twice(dict[str, Any]):
    """An object that is written with its first field twice."""


_DEEP = (5, 50, 70, 300)
_HUGE = (3000, 100_000, 1_000_000)

_TEXTS = (
    *("", "a", " ", "\0", "a\nb", "\x1b[31m", "\ufeff", "é" * 3, "😀", "x" * 300, "0" * 64),
    *("../../a", "/", "..", "a/b", "true", "null", "1", "nan", "cityscapes", "camvid", "voc"),
    *(*PRECISIONS, "labels", "letterbox", "none", "openvino", "(", "[a-z", "(a+)+$", "%s{0}"),
)
_NUMBERS = (
    *(0, 1, -1, 2, 3, 19, 64, 254, 255, 256, 4096, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63),
    *(-(2**63) - 1, 2**64, 10**30, 0.5, -0.0, 1e-300, 5e-324, 1e308, -1e308, 1.0, 1e15),
)
_RAW = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "1" + "0" * 400),
    *('"\\ud800"', '"\\udfff\\ud800"', "01", "1.", "'a'", "undefined", ""),
)


def junk(rng: Random) -> Any:
    """A value that nobody expects."""
    return rng.choice(
        (
            lambda: None,
            lambda: rng.random() < 0.5,
            lambda: rng.choice(_NUMBERS),
            lambda: rng.choice(_NUMBERS),
            lambda: rng.choice(_TEXTS),
            lambda: rng.choice(_TEXTS),
            lambda: Raw(rng.choice(_RAW)),
            lambda: [junk(rng) for _ in range(rng.choice((0, 1, 2, 3, 5)))],
            lambda: {rng.choice(_TEXTS): junk(rng) for _ in range(rng.choice((0, 1, 2)))},
            lambda: [rng.choice(_NUMBERS)] * rng.choice((3, 20, 300)),
            lambda: Raw(_nested(_size(rng, _DEEP), rng)),
            lambda: Raw(json.dumps("x" * _size(rng, (201, 5000)))),
        )
    )()


def _size(rng: Random, usual: tuple[int, ...]) -> int:
    """Mostly a usual one; huge ones take long."""
    return rng.choice(usual if rng.random() < 0.97 else _HUGE)


def _nested(depth: int, rng: Random) -> str:
    return "[" * depth + "]" * depth if rng.random() < 0.5 else '{"a":' * depth + "1" + "}" * depth


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a value."""
    keys: Any = ()
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(min(len(value), 40))
    for key in keys:
        yield value, key
        yield from _places(value[key])


def changed_tree(value: Any, rng: Random) -> Any:
    """A value like that with one to three of its parts changed."""
    box = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(box))
        if not places:  # all of it was left out
            break
        holder, key = rng.choice(places)
        _change(holder, key, places, rng)
    return box[0] if box else None


def _change(holder: Any, key: Any, places: list[tuple[Any, Any]], rng: Random) -> None:
    old = holder[key]
    way = rng.randrange(8)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[rng.choice(_TEXTS)] = holder.pop(key)
    elif way == 1 and isinstance(holder, list):
        holder[key:key] = [copy.deepcopy(old)] * rng.choice((1, 2, 300))
    elif way == 2 and isinstance(old, dict) and old:
        holder[key] = Twice(old)
    elif way == 3:
        other, place = rng.choice(places)
        holder[key] = copy.deepcopy(other[place])
    elif way == 4 and isinstance(old, int | float) and not isinstance(old, bool):
        holder[key] = rng.choice((old + 1, -old, old * 2, old - 1, float(old), old * 1000))
    elif way == 4 and isinstance(old, str) and not isinstance(old, Raw):
        cut = rng.randrange(len(old) + 1)
        holder[key] = old[:cut] + rng.choice(_TEXTS) + old[cut + rng.choice((0, 0, 1)) :]
    elif way == 5 and isinstance(old, dict):
        old[rng.choice(_TEXTS)] = junk(rng)
    else:
        holder[key] = junk(rng)


def dumps(value: Any) -> str:
    """JSON, `Raw` as it is, and `Twice` with a field twice."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        pairs = [f"{json.dumps(str(k))}: {dumps(v)}" for k, v in value.items()]
        if isinstance(value, Twice):
            pairs += pairs[:1]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(dumps, value)) + "]"
    return json.dumps(value)


def loads(data: bytes) -> Any:
    """A document's value; ValueError if it is none."""
    return parse(data.decode("utf-8-sig"), strict=False)


def changed_json(data: bytes, rng: Random, seal: bool = False) -> bytes:
    """A JSON document with other values; sometimes only its bytes are changed.

    Args:
        data: the document.
        rng: draws the changes.
        seal: the product seals such documents: mostly this one is sealed anew.
    """
    if rng.random() < 0.1:
        return changed_bytes(data, rng)
    try:
        value = loads(data)
    except (ValueError, RecursionError):
        return changed_bytes(data, rng)
    text = dumps(changed_tree(value, rng))
    if seal and rng.random() < 0.9:
        text = _sealed(text)
    encoded = text.encode("utf-8", "surrogatepass")
    around = rng.random()
    if around < 0.02:
        return b"\xef\xbb\xbf" + encoded
    return text.encode("utf-16", "surrogatepass") if around < 0.03 else encoded


def _sealed(text: str) -> str:
    try:
        value = loads(text.encode("utf-8", "surrogatepass"))
        return json.dumps(sealed(value)) if isinstance(value, dict) else text
    except (ValueError, RecursionError):
        return text


def changed_lines(data: bytes, rng: Random) -> bytes:
    """JSON Lines with a line changed, missing or twice."""
    lines = data.splitlines()
    if not lines or rng.random() < 0.1:
        return changed_bytes(data, rng)
    at = rng.randrange(len(lines))
    way = rng.randrange(6)
    if way == 0:
        del lines[at]
    elif way == 1:
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    else:
        lines[at] = changed_json(lines[at], rng)
    return b"\n".join(lines) + b"\n" * rng.randrange(2)


def to_toml(value: Any, prefix: str = "") -> str:
    """TOML of an object: its tables behind its other fields, as TOML wants them."""
    rows, tables = [], []
    for key, one in value.items():
        name = json.dumps(str(key))
        if isinstance(one, dict) and not isinstance(one, Twice):
            tables.append(f"[{prefix}{name}]\n{to_toml(one, f'{prefix}{name}.')}")
        else:
            rows.append(f"{name} = {_toml_value(one)}\n")
    return "".join(rows + tables)


def _toml_value(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value).replace("Infinity", "inf").replace("NaN", "nan")
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(k)} = {_toml_value(v)}" for k, v in value.items()) + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return '""' if value is None else json.dumps(value)
