"""A released file's tensors, and what became of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from icnet_deploy.networks.released.layer import Array, Layer


class Role(NamedTuple):
    """What a tensor is in its layer, as Caffe's form and as NumPy's form call it."""

    caffe: str
    numpy: str


@dataclass(frozen=True)
class Row:
    """What became of one tensor of the file.

    Attributes:
        layer: its layer's name.
        blob: its name in the layer.
        shape: e.g. `32x3x3x3`.
        where: the parameter that it became, or why it became none.
    """

    layer: str
    blob: str
    shape: str
    where: str


class Ledger:
    """Hands out a file's tensors by name, and keeps the books.

    Attributes:
        problems: what is missing, misshapen or no number, one sentence each.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.problems: list[str] = []
        self._layers = layers
        self._by_key: dict[str, Layer] = {}
        self._where: dict[tuple[str, str], str] = {}
        self._known: set[str] = set()
        for layer in layers:
            if _key(layer.name) in self._by_key:
                self.problems.append(f"{layer.name}: two layers have this name")
            self._by_key[_key(layer.name)] = layer

    def has(self, name: str, role: Role | None = None) -> bool:
        """Whether the file holds a layer, or a tensor of it."""
        layer = self._by_key.get(_key(name))
        return layer is not None and (role is None or any(label in layer.blobs for label in role))

    def look(self, name: str, role: Role) -> Array | None:
        """A tensor as it stands in the file; None if it is not there or is not numbers."""
        blobs = self._by_key[_key(name)].blobs if self.has(name) else {}
        return next((blobs[label] for label in role if label in blobs), None)

    def take(
        self, name: str, role: Role, shape: tuple[int, ...], where: str, instead: str = ""
    ) -> dict[str, Tensor]:
        """A tensor that shall become a parameter.

        Vectors may have further axes of length 1, as Caffe's batch norms have.

        Args:
            name: the layer.
            role: which of its tensors.
            shape: what it must be.
            where: the parameter's name.
            instead: a layer that the file could have in its place, for the message.

        Returns:
            The parameter's name and its values, float32; nothing when there was a problem.
        """
        self._known.add(_key(name))
        value = self.look(name, role)
        expected = f"{name}, blob {role.caffe} ({role.numpy}): expected {_text(shape)}"
        if not self.has(name, role):
            other = f", and so is the layer {instead}" if instead else ""
            self.problems.append(f"{expected}, missing{other}")
            return {}
        if value is None:
            word = "not numbers"
        elif not _fits(value.shape, shape):
            word = f"found {_text(value.shape)}"
        elif not np.isfinite(value).all():
            word = "found NaN or infinite numbers"
        elif "running_var" in where and (value < 0).any():
            word = "found a negative variance"
        else:
            self._note(name, role, where)
            return {where: torch.from_numpy(np.ascontiguousarray(value.reshape(shape)))}
        self.problems.append(f"{expected}, {word}")
        self._note(name, role, f"WRONG: {word}, expected {_text(shape)}")
        return {}

    def leave_out(self, name: str, why: str) -> None:
        """Books every tensor of a layer, if there is such a layer, as known and not wanted."""
        if self.has(name):
            layer = self._by_key[_key(name)]
            self._where |= {(layer.name, blob): f"left out: {why}" for blob in layer.blobs}

    def close(self) -> tuple[Row, ...]:
        """The books, in the file's order; a layer that nobody asked for is an unknown one.

        A tensor too many in a layer that is known means that the layer is another: a problem.
        """
        rows = []
        for layer in self._layers:
            for blob, value in layer.blobs.items():
                shape = "-" if value is None else _text(value.shape)
                where = self._where.get((layer.name, blob), "skipped: unknown layer")
                if _key(layer.name) in self._known and (layer.name, blob) not in self._where:
                    where = "WRONG: a tensor too many"
                    self.problems.append(f"{layer.name}, blob {blob}: a tensor too many, {shape}")
                rows.append(Row(layer.name, blob, shape, where))
        return tuple(rows)

    def _note(self, name: str, role: Role, where: str) -> None:
        layer = self._by_key[_key(name)]
        self._where |= {(layer.name, label): where for label in role if label in layer.blobs}


def _key(name: str) -> str:
    """`NAME/bn` and `NAME_bn` are one: TensorFlow allows no slash."""
    return name.replace("/", "_")


def _fits(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    if len(expected) > 1:
        return found == expected
    return math.prod(found) == expected[0] and max(found, default=1) == expected[0]


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
