"""Changes of protobuf messages by their fields, as they lie in the file."""

import io
from random import Random

from icnet_deploy.protobuf import BYTES, VARINT, Field, fields, varint
from tools.fuzz.mutate.raw import changed_bytes

_DEEPEST = 8
_NUMBERS = (0, 1, 2, 7, 127, 128, 255, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
_NESTED = (10, 100, 1000, 5000)


class _Everything:
    """All field numbers are kept."""

    def __contains__(self, number: object) -> bool:
        return True


def fields_in(message: bytes) -> list[Field] | None:
    """A message's fields; None if it is none."""
    try:
        return list(fields(io.BytesIO(message), len(message), _Everything()))
    except (EOFError, ValueError):
        return None


def written(found: list[Field]) -> bytes:
    """A message of these fields."""
    parts = []
    for one in found:
        parts.append(varint(one.number << 3 | one.wire))
        if one.wire == VARINT:
            parts.append(varint(one.value))
        else:
            parts.append((varint(len(one.data)) if one.wire == BYTES else b"") + one.data)
    return b"".join(parts)


def changed_message(message: bytes, rng: Random, depth: int = 0) -> bytes:
    """A message with one of its fields, or of the messages in it, changed."""
    found = fields_in(message)
    if not found or (depth == 0 and rng.random() < 0.05):
        return changed_bytes(message, rng)
    at = rng.randrange(len(found))
    one = found[at]
    inner = one.wire == BYTES and depth < _DEEPEST and len(one.data) > 1
    if inner and rng.random() < 0.75:
        found[at] = one._replace(data=changed_message(one.data, rng, depth + 1))
        return written(found)
    way = rng.randrange(7)
    if way == 0:
        del found[at]
    elif way == 1:
        found[at:at] = [one] * rng.choice((1, 1, 2, 50))
    elif way == 2:
        other = rng.randrange(len(found))
        found[at], found[other] = found[other], found[at]
    elif way == 3:
        found[at] = one._replace(number=rng.choice((1, 2, 5, 7, 14, 20, 99, 100, one.number + 1)))
    elif way == 4 and one.wire == BYTES:
        found[at] = one._replace(data=_nested(one, rng))
    elif way == 5 and one.wire == BYTES:
        found[at] = one._replace(data=rng.choice((b"", rng.choice(found).data, b"\xff" * 9)))
    elif one.wire == VARINT:
        found[at] = one._replace(value=rng.choice((*_NUMBERS, one.value + 1, rng.getrandbits(64))))
    else:
        found[at] = one._replace(data=changed_bytes(one.data, rng)[: len(one.data)] or one.data)
    content = written(found)
    # Sometimes a length is a lie.
    return changed_bytes(content, rng) if rng.random() < 0.03 else content


def _nested(one: Field, rng: Random) -> bytes:
    """The field within itself, many times over."""
    data = one.data[:64]
    for _ in range(rng.choice(_NESTED)):
        data = varint(one.number << 3 | BYTES) + varint(len(data)) + data
    return data
