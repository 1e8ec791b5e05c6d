"""Which tensor of a released file is which parameter of ICNet.

Layers are matched by name: a module's path without its dots is the released name, and the batch
norm of `NAME` is `NAME/bn`. Where a file has its batch norms merged into the convolutions, a layer
has a bias in place of a `/bn`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from icnet_deploy.networks.icnet import ICNet, Stages
from icnet_deploy.networks.layers import BN_EPS, ConvBN
from icnet_deploy.networks.released.layer import Array, Layer


class _Role(NamedTuple):
    """What a tensor is in its layer, as Caffe's form and as NumPy's form call it."""

    caffe: str
    numpy: str


_WEIGHT, _BIAS = _Role("0", "weights"), _Role("1", "biases")
_SLOPE, _SHIFT = _Role("0", "scale"), _Role("1", "offset")
_MEAN, _VARIANCE = _Role("2", "mean"), _Role("3", "variance")

_HEADS: dict[Stages, str] = {"sub4": "conv6_sub4", "sub24": "conv6_sub2", "sub124": "conv6_cls"}
_CLASSES = 19  # to speak of, where a file has no classifier
_WIDTH = 0.5


class Row(NamedTuple):
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


@dataclass(frozen=True)
class Match:
    """A file's tensors, sorted into a network.

    Attributes:
        rows: one for each tensor of the file, in its order.
        problems: what is missing, misshapen or no number, one sentence each; where there are any,
            `tensors` are not whole.
        num_classes: of the file's classifier.
        width: 1.0 for the uncompressed net, 0.5 for the released one.
        tensors: the network's state, float32, by the network's own names.
        scale: the input's three factors, in the order blue, green, red.
        batch_norm: `merged`, `kept`, or `mixed`.
    """

    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    num_classes: int
    width: float
    tensors: dict[str, Tensor]
    scale: tuple[float, float, float]
    batch_norm: str


class _Target(NamedTuple):
    """A convolution: its path, its kernel's name and shape, and whether batch norm follows."""

    path: str
    kernel: str
    shape: tuple[int, ...]
    bn: bool


def match(layers: Sequence[Layer], stages: Stages = "sub124") -> Match:
    """Sorts a file's tensors into an ICNet, whose width and classes it reads off their shapes."""
    ledger = _Ledger(layers)
    num_classes, width = _classes(ledger, _HEADS[stages]), _width(ledger)
    known = _targets(num_classes, width, "sub124", guidance=True)
    needed = _targets(num_classes, width, stages)
    tensors: dict[str, Tensor] = {}
    merged = []
    for name, target in needed.items():
        tensors |= ledger.take(name, _WEIGHT, target.shape, target.kernel)
        if not target.bn:
            tensors |= ledger.take(name, _BIAS, target.shape[:1], f"{target.path}.bias")
        else:
            merged.append(not ledger.has(f"{name}/bn"))
            tensors |= (_merged if merged[-1] else _kept)(ledger, name, target)
    for name in known.keys() - needed.keys():
        guidance = name in _HEADS.values() and stages == "sub124"
        for layer in (name, f"{name}/bn"):
            why = "guidance head, for training only" if guidance else f"not a part of {stages}"
            ledger.leave_out(layer, why)
    scale = (1.0, 1.0, 1.0)
    if ledger.has("data_sub1"):
        for factors in ledger.take("data_sub1", _SLOPE, (3,), "preprocessing's scale").values():
            scale = (float(factors[0]), float(factors[1]), float(factors[2]))
    rows = ledger.close()
    batch_norm = "merged" if all(merged) else "mixed" if any(merged) else "kept"
    return Match(rows, tuple(ledger.problems), num_classes, width, tensors, scale, batch_norm)


def _targets(
    num_classes: int, width: float, stages: Stages, guidance: bool = False
) -> dict[str, _Target]:
    """The convolutions of a network by their released names."""
    with torch.device("meta"):
        network = ICNet(num_classes, width, stages, guidance)
    found = {}
    for path, module in network.named_modules():
        if isinstance(module, ConvBN):
            shape = tuple(module.conv.weight.shape)
            found[path.replace(".", "")] = _Target(path, f"{path}.conv.weight", shape, True)
        elif isinstance(module, nn.Conv2d) and not path.endswith(".conv"):
            found[path] = _Target(path, f"{path}.weight", tuple(module.weight.shape), False)
    return found


def _width(ledger: _Ledger) -> float:
    """The width that most convolutions have; those that have another are misshapen."""
    widths: Counter[float] = Counter()
    for name, target in _targets(_CLASSES, 1.0, "sub124").items():
        weight = ledger.look(name, _WEIGHT)
        if target.bn and weight is not None and weight.ndim == 4 and weight.shape[0]:
            widths[weight.shape[0] / target.shape[0]] += 1
    return widths.most_common(1)[0][0] if widths else _WIDTH


def _classes(ledger: _Ledger, head: str) -> int:
    weight = ledger.look(head, _WEIGHT)
    return weight.shape[0] or _CLASSES if weight is not None and weight.ndim == 4 else _CLASSES


def _kept(ledger: _Ledger, name: str, target: _Target) -> dict[str, Tensor]:
    """A batch norm; a bias of the convolution before it is taken off its mean."""
    channels, bn = target.shape[:1], f"{target.path}.bn"
    found = ledger.take(f"{name}/bn", _SLOPE, channels, f"{bn}.weight")
    found |= ledger.take(f"{name}/bn", _SHIFT, channels, f"{bn}.bias")
    found |= ledger.take(f"{name}/bn", _MEAN, channels, f"{bn}.running_mean")
    found |= ledger.take(f"{name}/bn", _VARIANCE, channels, f"{bn}.running_var")
    if ledger.has(name, _BIAS):
        for bias in ledger.take(name, _BIAS, channels, f"{bn}.running_mean, subtracted").values():
            if f"{bn}.running_mean" in found:
                found[f"{bn}.running_mean"] -= bias
    return found


def _merged(ledger: _Ledger, name: str, target: _Target) -> dict[str, Tensor]:
    """A convolution's bias as a batch norm that adds it and does nothing else.

    Its variance and the network's eps sum to 1 in float32, so that it multiplies by 1 exactly.
    """
    channels, bn = target.shape[:1], f"{target.path}.bn"
    bias = ledger.take(name, _BIAS, channels, f"{bn}.bias", instead=f"{name}/bn")
    still = {
        f"{bn}.weight": torch.ones(channels),
        f"{bn}.running_mean": torch.zeros(channels),
        f"{bn}.running_var": torch.full(channels, 1 - BN_EPS),
    }
    return bias | still


class _Ledger:
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
                self.problems.append(f"two layers are called {layer.name}")
            self._by_key[_key(layer.name)] = layer

    def has(self, name: str, role: _Role | None = None) -> bool:
        """Whether the file holds a layer, or a tensor of it."""
        layer = self._by_key.get(_key(name))
        return layer is not None and (role is None or any(label in layer.blobs for label in role))

    def look(self, name: str, role: _Role) -> Array | None:
        """A tensor as it stands in the file; None if it is not there or is not numbers."""
        blobs = self._by_key[_key(name)].blobs if self.has(name) else {}
        return next((blobs[label] for label in role if label in blobs), None)

    def take(
        self, name: str, role: _Role, shape: tuple[int, ...], where: str, instead: str = ""
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
                    where = "WRONG: an unexpected tensor"
                    self.problems.append(
                        f"{layer.name}, blob {blob}: an unexpected tensor, {shape}"
                    )
                rows.append(Row(layer.name, blob, shape, where))
        return tuple(rows)

    def _note(self, name: str, role: _Role, where: str) -> None:
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
