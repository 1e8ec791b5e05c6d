"""Changes of bytes, whatever they hold."""

from collections.abc import Callable
from random import Random

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_MOST = 1 << 20


def _flipped(data: bytearray, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _numbered(data: bytearray, rng: Random) -> None:
    """A number that is large, or at an edge, in one to eight bytes."""
    width = rng.choice((1, 2, 4, 8))
    at = rng.randrange(len(data))
    order = "little" if rng.random() < 0.5 else "big"
    number = rng.choice((*_NUMBERS, rng.getrandbits(8 * width))) & ((1 << 8 * width) - 1)
    data[at : at + width] = number.to_bytes(width, order)  # type: ignore[arg-type]


def _cut(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data)) :]


def _removed(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + _length(data, rng)]


def _repeated(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    part = data[at : at + _length(data, rng)]
    place = rng.choice((at, rng.randrange(len(data) + 1), len(data)))
    data[place:place] = part * rng.choice((1, 1, 1, 2, 10))


def _overwritten(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    length = len(data[at : at + _length(data, rng)])
    data[at : at + length] = rng.randbytes(length) if rng.random() < 0.5 else bytes(length)


def _joined(data: bytearray, rng: Random) -> None:
    data += rng.randbytes(rng.choice((1, 2, 16, 256)))


def _length(data: bytearray, rng: Random) -> int:
    return rng.choice((1, 2, 4, 8, 16, 64, 1 + rng.randrange(len(data))))


_CHANGES: tuple[Callable[[bytearray, Random], None], ...] = (
    _flipped,
    _flipped,
    _numbered,
    _numbered,
    _cut,
    _removed,
    _repeated,
    _overwritten,
    _joined,
)


def changed_bytes(data: bytes, rng: Random) -> bytes:
    """The bytes with one to three changes: bits, numbers, what is missing, moved or twice there."""
    new = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not new:
            new += rng.randbytes(rng.choice((0, 1, 8, 64)))
            continue
        rng.choice(_CHANGES)(new, rng)
    return bytes(new[:_MOST])
