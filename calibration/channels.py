"""Which channels of a graph's tensors are the same channel to a positive factor.

ReLU, a sum, a resize or a pool treats each channel alone and commutes with a positive factor, so
what such nodes connect must be scaled alike. A convolution mixes its channels, and can undo a
factor of those that it reads and bring about one of those that it makes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.weighted import Floats, Weighted

Places = npt.NDArray[np.int64]

_ALONE = frozenset(
    {
        *("Relu", "LeakyRelu", "PRelu", "Abs", "Neg", "Identity", "Dropout", "Resize", "Upsample"),
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool"),
    }
)
"""Operators that treat each channel of their first input alone, and commute with a factor."""

_SUMS = frozenset({"Add", "Sub", "Sum", "Mean", "Max", "Min"})
_REDUCES = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2"})
_SHAPED = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Use:
    """Weights, or what else is added to channels, with the channels that it makes or reads.

    Attributes:
        constant: its name.
        places: int64 of the channels, in order.
        spread: brings a factor for each of them to the shape of the constant.
        makes: whether they are its output; else what it reads.
        apart: whether it has a grid for each channel.
    """

    constant: str
    places: Places
    spread: Callable[[Floats, tuple[int, ...]], Floats]
    makes: bool
    apart: bool = False


class Channels:
    """The channels of a graph's tensors, each a number; the same where they must be scaled alike.

    Args:
        graph: of float32; it is not changed.

    Attributes:
        tensors: tensor -> int64 of its channels, in the graph's order.
        uses: the constants that make and read them.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.tensors: dict[str, Places] = {}
        self.uses: list[Use] = []
        self._axes: dict[str, int] = {}
        self._parent: list[int] = []
        self._fixed: set[int] = set()  # numbers that stand for others
        self._normalized: set[int] = set()
        for node in graph.model.graph.node:
            self._visit(node)
        for name in graph.outputs:
            self._fix(name)

    def roots(self, places: Places) -> Places:
        """The number that stands for each channel and all that are scaled with it."""
        return np.array([self._root(int(place)) for place in places], np.int64)

    def alive(self, normalized: bool) -> npt.NDArray[np.bool_]:
        """Of each number, whether only weights make and read its channels.

        Args:
            normalized: whether the constants of a LayerNormalization may make them, too.
        """
        fixed = self._fixed if normalized else self._fixed | self._normalized
        mask = np.ones(len(self._parent), bool)
        mask[self.roots(np.array(sorted(fixed), np.int64))] = False
        return mask

    def read_apart(self) -> npt.NDArray[np.bool_]:
        """Of each number, whether all weights that read it have a grid for each channel."""
        mask = np.ones(len(self._parent), bool)
        for use in self.uses:
            if not use.makes and not use.apart:
                mask[self.roots(use.places)] = False
        return mask

    def _root(self, place: int) -> int:
        while self._parent[place] != place:
            self._parent[place] = self._parent[self._parent[place]]
            place = self._parent[place]
        return place

    def _visit(self, node: onnx.NodeProto) -> None:
        """Says what a node does to the channels that it reads, and which it makes."""
        one = self._graph.weighted_node(node)
        if one is not None:
            self._multiply(one)
        elif node.op_type == "LayerNormalization":
            self._normalize(node)
        elif node.op_type == "BatchNormalization":
            self._shift(node)
        elif not self._commutes(node):
            for name in node.input:
                self._fix(name)

    def _commutes(self, node: onnx.NodeProto) -> bool:
        """Whether a node commutes with a factor of its channels; then its output has them."""
        kind = node.op_type
        if kind in _ALONE:
            return self._follow(node, node.input[0], self._axes.get(node.input[0]))
        if kind in _SUMS:
            return self._sum(node)
        if kind in ("Mul", "Div"):
            return self._scale(node)
        for kinds, rule in _RULES:
            if kind in kinds and node.input[0] in self._axes:
                return rule(self, node)
        return False

    def _new(self, name: str, axis: int, count: int) -> Places:
        places = np.arange(len(self._parent), len(self._parent) + count)
        self._parent.extend(range(len(self._parent), len(self._parent) + count))
        self._set(name, axis, places)
        return places

    def _set(self, name: str, axis: int, places: Places) -> None:
        self.tensors[name], self._axes[name] = places, axis

    def _fix(self, name: str) -> None:
        self._fixed.update(self.roots(self.tensors.get(name, np.zeros(0, np.int64))).tolist())

    def _join(self, first: Places, second: Places) -> None:
        for a, b in zip(self.roots(first).tolist(), self.roots(second).tolist(), strict=True):
            a, b = self._root(a), self._root(b)
            self._parent[b] = a
            if b in self._fixed:
                self._fixed.add(a)

    def _rank(self, name: str) -> int:
        shape = self._graph.shape(name)
        return -1 if shape is None else len(shape)

    def _follow(self, node: onnx.NodeProto, given: str, axis: int | None) -> bool:
        """Gives the output the channels of an input, if it has as many along an axis."""
        shape = self._graph.shape(node.output[0])
        if axis is None or shape is None or not 0 <= axis < len(shape):
            return False
        if shape[axis] != self.tensors[given].size:
            return False
        self._set(node.output[0], axis, self.tensors[given])
        return True

    def _multiply(self, one: Weighted) -> None:
        """A weighted node reads channels, and makes others."""
        made = self._graph.shape(one.output)
        read = self._graph.shape(one.data)
        if made is None or read is None:
            self._fix(one.data)
            return
        axis = one.channel_axis % len(read)
        if self._axes.get(one.data) == axis:
            depthwise = one.group > 1 and one.group == self.tensors[one.data].size
            self.uses.append(
                Use(one.weight, self.tensors[one.data], one.of_input, False, depthwise)
            )
        else:
            self._fix(one.data)
        places = self._new(one.output, one.channel_axis % len(made), made[one.channel_axis])
        self.uses.append(Use(one.weight, places, one.of_output, True))
        if one.bias:
            self.uses.append(Use(one.bias, places, _flat, True))

    def _normalize(self, node: onnx.NodeProto) -> None:
        """A LayerNormalization of the last axis scales and shifts what it makes."""
        self._fix(node.input[0])
        shape = self._graph.shape(node.output[0])
        given = [name for name in node.input[1:] if name]
        if shape is None or not all(self._own(name, shape[-1]) for name in given):
            return
        places = self._new(node.output[0], len(shape) - 1, shape[-1])
        self._normalized.update(places.tolist())
        self.uses += [Use(name, places, _flat, True) for name in given]

    def _shift(self, node: onnx.NodeProto) -> None:
        """A BatchNormalization reads channels one by one, and makes others."""
        name, (gamma, beta, mean, _) = node.input[0], node.input[1:5]
        shape = self._graph.shape(name)
        known = shape is not None and all(self._own(n, shape[1]) for n in (gamma, beta, mean))
        if self._axes.get(name) == 1 and known:
            places = self.tensors[name]
            self.uses.append(Use(gamma, places, _flat, False, True))
            self.uses.append(Use(mean, places, _flat, True))
        else:
            self._fix(name)
        if shape is not None and known:
            places = self._new(node.output[0], 1, shape[1])
            self.uses += [Use(n, places, _flat, True) for n in (gamma, beta)]

    def _own(self, name: str, count: int) -> bool:
        """Whether a tensor is a constant of so many numbers that one node alone reads."""
        constant = self._graph.constants.get(name)
        one = constant is not None and prod(constant.dims) == count
        return one and len(self._graph.readers[name]) == 1

    def _sum(self, node: onnx.NodeProto) -> bool:
        """A sum: all that it adds has its channels; constants are made to fit."""
        shape = self._graph.shape(node.output[0])
        parts = [name for name in node.input if name not in self._graph.constants]
        if shape is None or not parts or any(name not in self._axes for name in parts):
            return False
        axes = {self._axes[name] - self._rank(name) for name in parts}
        places = self.tensors[parts[0]]
        if len(axes) > 1 or any(self.tensors[name].size != places.size for name in parts):
            return False
        [axis] = axes
        fitting = []
        for name in set(node.input).difference(parts):
            dims = self._graph.constants[name].dims
            if self._graph.array(name).any():
                if len(dims) < -axis or dims[axis] != places.size:
                    return False
                if len(self._graph.readers[name]) > 1 or node.op_type in ("Max", "Min"):
                    return False
                fitting.append(Use(name, places, _along(axis), True))
        if not self._follow(node, parts[0], len(shape) + axis):
            return False
        for name in parts[1:]:
            self._join(places, self.tensors[name])
        self.uses += fitting
        return True

    def _scale(self, node: onnx.NodeProto) -> bool:
        """A product: its channels are those of one factor; those of the other are left alone."""
        shape = self._graph.shape(node.output[0])
        if shape is None:
            return False
        known = [name for name in node.input if name in self._axes and self._moves(name)]
        if node.op_type == "Div":
            known = [name for name in known[:1] if name == node.input[0]]
        if not known or node.input[0] == node.input[1]:
            return False
        value = known[0]
        if not self._follow(node, value, len(shape) + self._axes[value] - self._rank(value)):
            return False
        for name in node.input:
            if name != value:
                self._fix(name)
        return True

    def _moves(self, name: str) -> bool:
        """Whether a factor of a tensor's channels is possible as far as is known."""
        return self._fixed.isdisjoint(self.roots(self.tensors[name]).tolist())

    def _join_parts(self, node: onnx.NodeProto) -> bool:
        """A Concat: of channels, or of other parts that then share them."""
        axes = {self._axes[name] for name in node.input if name in self._axes}
        if len(axes) != 1:
            return False
        [axis] = axes
        for name in node.input:
            shape = self._graph.shape(name)
            if name not in self._axes and shape is not None:  # the image, or what is made of it
                self._new(name, axis, shape[axis])
                self._fix(name)
        if any(name not in self._axes for name in node.input):
            return False
        parts = [self.tensors[name] for name in node.input]
        if _attribute(node, "axis", 1) % self._rank(node.input[0]) == axis:
            self._set(node.output[0], axis, np.concatenate(parts))
            return True
        if len({part.size for part in parts}) > 1:
            return False
        for part in parts[1:]:
            self._join(parts[0], part)
        return self._follow(node, node.input[0], axis)

    def _split(self, node: onnx.NodeProto) -> bool:
        """A Split: of channels, or of something else, so that all parts have them."""
        axis, places = self._axes[node.input[0]], self.tensors[node.input[0]]
        if _attribute(node, "axis", 0) % self._rank(node.input[0]) != axis:
            for name in node.output:
                self._set(name, axis, places)
            return True
        shapes = [self._graph.shape(name) for name in node.output]
        counts = [shape[axis] for shape in shapes if shape is not None]
        if len(counts) != len(shapes) or sum(counts) != places.size:
            return False
        for name, part in zip(node.output, np.split(places, np.cumsum(counts)[:-1]), strict=True):
            self._set(name, axis, part)
        return True

    def _transpose(self, node: onnx.NodeProto) -> bool:
        rank = self._rank(node.input[0])
        order = _attribute(node, "perm", list(range(rank))[::-1])
        return self._follow(node, node.input[0], list(order).index(self._axes[node.input[0]]))

    def _reshape(self, node: onnx.NodeProto) -> bool:
        """Another shape, if what lies before the channels and behind them is the same."""
        before, after = (self._graph.shape(n) for n in (node.input[0], node.output[0]))
        if before is None or after is None:
            return False
        axis = self._axes[node.input[0]]
        for index, count in enumerate(after):
            if count == before[axis] and prod(after[:index]) == prod(before[:axis]):
                return self._follow(node, node.input[0], index)
        return False

    def _reduce(self, node: onnx.NodeProto) -> bool:
        rank, axis = self._rank(node.input[0]), self._axes[node.input[0]]
        given = _attribute(node, "axes", None)
        if len(node.input) > 1 and node.input[1] in self._graph.constants:
            given = self._graph.array(node.input[1]).astype(int).tolist()
        axes = {int(a) % rank for a in given or range(rank)}
        if axis in axes:
            return False
        kept = _attribute(node, "keepdims", 1)
        return self._follow(
            node, node.input[0], axis - (0 if kept else sum(a < axis for a in axes))
        )

    def _to_space(self, node: onnx.NodeProto) -> bool:
        """DepthToSpace: the channels that become one share their factor."""
        name = node.input[0]
        if self._axes[name] != 1:
            return False
        square, places = _attribute(node, "blocksize", 1) ** 2, self.tensors[name]
        if _attribute(node, "mode", b"DCR") == b"CRD":
            rows = places.reshape(-1, square).T
        else:
            rows = places.reshape(square, -1)
        for row in rows[1:]:
            self._join(rows[0], row)
        self._set(node.output[0], 1, rows[0])
        return True

    def _clip(self, node: onnx.NodeProto) -> bool:
        """Clip from zero on is a ReLU."""
        low, high = ([*node.input[1:], "", ""])[:2]
        relu = low in self._graph.constants and not self._graph.array(low).any() and not high
        return relu and self._follow(node, node.input[0], self._axes[node.input[0]])


_RULES: Sequence[tuple[frozenset[str], Callable[[Channels, onnx.NodeProto], bool]]] = (
    (frozenset({"Concat"}), Channels._join_parts),
    (frozenset({"Split"}), Channels._split),
    (frozenset({"Transpose"}), Channels._transpose),
    (_SHAPED, Channels._reshape),
    (_REDUCES, Channels._reduce),
    (frozenset({"DepthToSpace"}), Channels._to_space),
    (frozenset({"Clip"}), Channels._clip),
)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for one in node.attribute:
        if one.name == name:
            return helper.get_attribute_value(one)
    return default


def _flat(factors: Floats, shape: tuple[int, ...]) -> Floats:
    return factors.reshape(shape)


def _along(axis: int) -> Callable[[Floats, tuple[int, ...]], Floats]:
    """Brings factors to an axis, counted from the last, of a constant."""

    def spread(factors: Floats, shape: tuple[int, ...]) -> Floats:
        at = len(shape) + axis
        return factors.reshape([-1 if index == at else 1 for index in range(len(shape))])

    return spread
