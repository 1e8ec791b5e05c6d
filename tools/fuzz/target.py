"""What a target of the fuzz is: a kind of input, inputs to begin with, and what reads them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

Run = Callable[[bytes], Iterable[str]]
"""Gives an input to the product; yields or returns the names of what came of it, for the counts."""


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        name: of it.
        what: it is, in words, for the table.
        seeds: makes inputs to begin with, most of them right ones.
        change: makes another input of one.
        prepare: is given a folder of its own; returns what gives an input to the product.
        goal: how many inputs are to be tried in all.
        may_fail: a runtime may say that it failed (`BackendError`), as graphs can that load and
            contradict themselves.
        seconds: of processor time that an input may take, at most.
        megabytes: of memory that an input may take, at most.
    """

    name: str
    what: str
    seeds: Callable[[], list[bytes]]
    change: Callable[[bytes, Random], bytes]
    prepare: Callable[[Path], Run]
    goal: int
    may_fail: bool = False
    seconds: float = 20
    megabytes: int = 1024
