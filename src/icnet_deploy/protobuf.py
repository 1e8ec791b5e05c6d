"""A reader of protobuf's wire format: enough to walk a message, by no schema and no library.

A message is a sequence of fields, each with a tag (its number and its wire type) and a value.
Source: https://protobuf.dev/programming-guides/encoding/
"""

import io
from collections.abc import Container, Iterator
from typing import BinaryIO, NamedTuple

VARINT, BYTES = 0, 2  # wire types; 3 and 4 are groups, long deprecated
_LENGTHS = {1: 8, 5: 4}  # of the wire types of numbers of 64 and 32 bits
_HIGHEST = (1 << 29) - 1


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: 1 or more.
        wire: the type of its value, `VARINT`, `BYTES`, or 1 and 5, numbers of 64 and 32 bits.
        value: of a `VARINT`; 0 for any other type.
        data: of the other types, little-endian where it is a number; empty where it was not kept.
    """

    number: int
    wire: int
    value: int
    data: bytes


def fields(
    file: BinaryIO, end: int, keep: Container[int], highest: int = _HIGHEST
) -> Iterator[Field]:
    """Yields the fields of a message that ends at byte `end` of a file.

    Args:
        file: at the message's first byte.
        end: where the message ends.
        keep: numbers of the fields whose bytes are wanted; others are passed over unread.
        highest: the highest number that the message's schema knows.

    Raises:
        EOFError: the message ends inside a field.
        ValueError: this is no such message.
    """
    while file.tell() < end:
        tag = _varint(file)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number <= highest:
            raise ValueError(f"no field has number {number}")
        if wire == VARINT:
            yield Field(number, wire, _varint(file), b"")
            continue
        if wire != BYTES and wire not in _LENGTHS:
            raise ValueError(f"a field has the wire type {wire}")
        length = _LENGTHS.get(wire) or _varint(file)
        stop = file.tell() + length
        if stop > end:
            raise EOFError(f"field {number} should end at byte {stop}")
        data = file.read(length) if number in keep else b""
        file.seek(stop)
        yield Field(number, wire, 0, data)


def fields_of(message: bytes, keep: Container[int]) -> Iterator[Field]:
    """`fields` of a message in memory."""
    return fields(io.BytesIO(message), len(message), keep)


def varints(packed: bytes) -> list[int]:
    """The numbers of a packed field of varints; raises as `fields` does."""
    file, numbers = io.BytesIO(packed), []
    while file.tell() < len(packed):
        numbers.append(_varint(file))
    return numbers


def varint(value: int) -> bytes:
    """A number of 0 or more as it is written: 7 bits a byte, the lowest first."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def _varint(file: BinaryIO) -> int:
    """Reads a number of 7 bits a byte, the lowest first; raises as `fields` does."""
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte:
            raise EOFError("it ends inside a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
