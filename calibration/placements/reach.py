"""How far 8 bits reach in a graph, between the nodes whose weights are int8, on ONNX Runtime.

A tensor is in 8 bits where an integer kernel makes it, or where one reads it. What makes it may
be an operator with a kernel of its own for 8 bits (`INTEGER`), or one that only moves values
(`MOVING`), or picks among them: rounding may then come before it as well, and it works on a
quarter of the bytes, on the grid of what it reads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from icnet_deploy.calibration.placements.base import Pairs
from icnet_deploy.calibration.weighted import Weighted

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph

MOVING = frozenset(
    {
        *("Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split"),
        *("Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""They move values and change none; the first input is what they move."""

SUMS = frozenset({"Add", "Mul"})
"""Integer kernels of two inputs, each on its own grid; one may be a constant."""

_UNARY = frozenset({"GlobalAveragePool", "HardSigmoid", "HardSwish", "LeakyRelu", "Sigmoid"})
"""Integer kernels of one input, or what integer kernels can be put together to."""

GATES = frozenset({"HardSigmoid", "HardSwish"})
"""They tell values apart between two bounds alone."""

CLIPPING = frozenset({"Clip", "Relu"})
"""They cut values off: on a grid, its places."""

OPERATORS = MOVING | SUMS | _UNARY | CLIPPING | {"Concat", "MaxPool", "PRelu", "Resize"}
"""The operators that the placement knows."""

_SATURATED = 7.0
"""From here on a sigmoid is 1 but for half a step of 255."""

PHASES = "::phases"
"""In the names of tensors whose values are those of the tensor that is named before it."""


class Reach:
    """What of a graph is in 8 bits.

    Args:
        graph: of float32.
        weighted: the nodes whose weights become int8.
        others: nodes that are to be rewritten as such, by their `id`.
    """

    def __init__(
        self, graph: Graph, weighted: Sequence[Weighted], others: Collection[int] = ()
    ) -> None:
        self.graph, self.others = graph, others
        self.weighted = {id(one.node): one for one in weighted}
        self.nodes = list(graph.model.graph.node)
        self.possible = self._possible()
        self.wanted = self._wanted()
        self.base: dict[str, str] = {}
        """Tensor in 8 bits -> the tensor with the pair whose grid it is on."""
        self._fill()

    def _possible(self) -> set[str]:
        """The tensors that integer kernels may make."""
        found: set[str] = set()
        for node in self.nodes:
            operands = self.operands(node)
            known = [name for name in operands if name in found]
            if id(node) in self.weighted:
                fits = True
            elif node.op_type == "Concat":
                fits = bool(known)  # the others are rounded for it
            else:
                fits = self.knows(node) and known == operands != []
            if fits:
                found.update(outputs(node))
        return found

    def _wanted(self) -> set[str]:
        """The tensors that an integer kernel reads, at once or by way of what moves them."""
        found: set[str] = set()
        for node in reversed(self.nodes):
            if id(node) in self.weighted:
                found.add(self.weighted[id(node)].data)
            elif not found.isdisjoint(node.output) and self._passes(node):
                found.update(self.operands(node))
        return found

    def _passes(self, node: onnx.NodeProto) -> bool:
        """Whether what is to be in 8 bits behind a node is to be so before it, too."""
        if node.op_type == "Concat":
            return not self.possible.isdisjoint(node.input)
        if node.op_type in ("Flatten", "MaxPool", "Reshape", "Squeeze", "Unsqueeze"):
            return not is_filled(self.graph, node)
        return self.knows(node) and self.possible.issuperset(self.operands(node))

    def knows(self, node: onnx.NodeProto) -> bool:
        """Whether it is an operator of these, in a form that it knows."""
        if node.op_type in CLIPPING:
            return clip_bounds(self.graph, node) is not None
        if node.op_type == "PRelu":
            return slopes_of(self.graph, node) is not None
        if node.op_type in GATES:
            return gate_of(node)[0] > 0
        if not pads_zeros(self.graph, node):
            return False
        return node.op_type in OPERATORS or id(node) in self.others

    def leads(self, node: onnx.NodeProto) -> bool:
        """Whether an integer kernel reads what a node makes."""
        return any(_absorbed(self.graph, name) in self.wanted for name in node.output)

    def operands(self, node: onnx.NodeProto) -> list[str]:
        """The tensors that a node computes with; constants and what says how are none."""
        several = node.op_type in SUMS or node.op_type == "Concat"
        names = node.input if several else node.input[:1]
        return [name for name in names if name and name not in self.graph.constants]

    def _fill(self) -> None:
        ends: set[str] = set()  # what a grid makes of the output of a node before
        for node in self.nodes:
            how = self._made(node)
            for name in outputs(node):
                if name in ends:
                    continue
                moved = how != "own" or node.op_type == "MaxPool"
                end = name if moved else _absorbed(self.graph, name)
                if how == "same":
                    self.base[name] = self.base[node.input[0]]
                elif (how == "own" or name in self.wanted) and end not in self.graph.outputs:
                    self.base[end] = end
                    ends.add(end)

    def _made(self, node: onnx.NodeProto) -> str:
        """How a node makes its output: on a grid of its `own`, on the `same` as its input, or not.

        A convolution has no kernel that makes float32 of 8 bits.
        """
        operands = self.operands(node)
        wanted = self.leads(node)
        if id(node) in self.weighted:
            matrix = self.weighted[id(node)].channel_axis < 0
            return "own" if wanted or not matrix else ""
        if not self.knows(node) or not operands or not self.base.keys() >= set(operands):
            return ""
        if node.op_type in MOVING | CLIPPING:
            return "same"
        if node.op_type in SUMS | {"MaxPool", "PRelu"}:
            return "own"
        gains = node.op_type in _UNARY | {"Concat"} or id(node) in self.others
        return "own" if wanted and gains else ""

    def pairs(self) -> Pairs:
        """The pairs, in the order of the nodes with weights, of their sums, and of all others."""
        graph, pairs = self.graph, Pairs()
        first = []
        for one in self.weighted.values():
            first += [one.data, _absorbed(graph, one.output)]
        first += [_absorbed(graph, add.output[0]) for add in graph.nodes("Add")]
        pools = [graph.producers.get(name) for name in first]
        first += [one.input[0] for one in pools if one is not None and one.op_type == "MaxPool"]
        for name in [*first, *self.base]:
            if self.base.get(name) == name:
                pairs.readers[name] = None
        pairs.spare = self.wanted & self.base.keys()
        self._share(pairs)
        return pairs

    def _share(self, pairs: Pairs) -> None:
        """Says which tensors have the range of another, or one that what reads them bounds."""
        for name, base in self.base.items():
            known = base.partition(PHASES)[0]
            if name != known:
                pairs.ranged_as[name] = known
        for node in self.nodes:
            bounds = clip_bounds(self.graph, node)
            source = self._source_for(node, node.input[0]) if bounds and node.input else ""
            if bounds and source in pairs.readers:
                pairs.within[source] = min(bounds[0], 0.0), max(bounds[1], 0.0)
        for node in self.nodes[::-1]:
            name, end = node.input[0] if node.input else "", _absorbed(self.graph, node.output[0])
            if end not in pairs.readers:
                continue
            if node.op_type == "MaxPool":
                if not is_filled(self.graph, node):
                    pairs.ranged_as[end] = name
            elif node.op_type == "Concat":
                for one in {self._source_for(node, one) for one in node.input}:
                    if one in pairs.readers and one not in pairs.ranged_as:
                        pairs.ranged_as[one] = end
            elif name in pairs.readers and self.graph.only_reader(name) == node:
                low, high = _bounds_of_gate(node)
                if low <= 0 <= high and (low, high) != (-np.inf, np.inf):
                    pairs.within[name] = low, high
        for name, other in pairs.ranged_as.items():
            while other in pairs.ranged_as:
                other = pairs.ranged_as[other]
            pairs.ranged_as[name] = other

    def _source_for(self, reader: onnx.NodeProto, name: str) -> str:
        """The tensor with the pair that a node reads, if nothing else is made of it; else ""."""
        base = self.base.get(name, "")
        while self.graph.only_reader(name) is reader and name != base and base:
            reader = self.graph.producers[name]
            if len(outputs(reader)) > 1:  # the other parts of a Split go elsewhere
                return ""
            name = reader.input[0]
        return base if self.graph.only_reader(name) is reader else ""


def outputs(node: onnx.NodeProto) -> list[str]:
    """What a node makes of the values that it reads; no places of theirs."""
    return [name for name in node.output[: None if node.op_type == "Split" else 1] if name]


def _absorbed(graph: Graph, tensor: str) -> str:
    """The output of the ReLU or Clip that alone reads a tensor, which its grid does the work of.

    Else the tensor itself. A grid ends where the values end, and each holds zero: so zero must be
    between the bounds of the Clip.
    """
    reader = graph.only_reader(tensor)
    if reader is None or reader.op_type not in CLIPPING:
        return tensor
    bounds = clip_bounds(graph, reader)
    return str(reader.output[0]) if bounds and bounds[0] <= 0 <= bounds[1] else tensor


def clip_bounds(graph: Graph, node: onnx.NodeProto) -> tuple[float, float] | None:
    """Where a ReLU or Clip cuts values off; None where that is not constant, or of others."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    names = [*node.input[1:], "", ""][:2]
    if node.op_type != "Clip" or any(name and name not in graph.constants for name in names):
        return None
    low, high = (graph.array(name).item() if name else None for name in names)
    return (-np.inf if low is None else low), (np.inf if high is None else high)


def slopes_of(graph: Graph, node: onnx.NodeProto) -> np.ndarray | None:
    """By what a PRelu multiplies values below zero; None where that is not constant."""
    if node.op_type != "PRelu" or node.input[1] not in graph.constants:
        return None
    return graph.array(node.input[1])


def pads_zeros(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node adds nothing to a tensor but zeros, and what is in it already."""
    value = [*node.input, "", ""][2] if node.op_type == "Pad" else ""
    return not value or (value in graph.constants and not graph.array(value).any())


def is_filled(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node is a max pool of what a Pad puts a value around, such as -1e9.

    No grid holds both that value and those that the pool lets through, so what it reads is not
    rounded.
    """
    waiting, seen = [node] if node.op_type == "MaxPool" else [], set[int]()
    while waiting:
        source = waiting.pop()
        if id(source) in seen or source.op_type not in MOVING | {"Concat", "Dropout", "MaxPool"}:
            continue
        if not pads_zeros(graph, source):
            return True
        seen.add(id(source))
        names = source.input if source.op_type == "Concat" else source.input[:1]
        waiting += [graph.producers[name] for name in names if name in graph.producers]
    return False


def _bounds_of_gate(node: onnx.NodeProto) -> tuple[float, float]:
    """Between which of its inputs a gate makes a difference in 8 bits; all of another operator."""
    if node.op_type == "Sigmoid":
        return -_SATURATED, _SATURATED
    if node.op_type not in GATES:
        return -np.inf, np.inf
    slope, shift = gate_of(node)
    if slope <= 0:  # the placement does not know such
        return -np.inf, np.inf
    high = np.inf if node.op_type == "HardSwish" else (1 - shift) / slope
    return -shift / slope, high


def gate_of(node: onnx.NodeProto) -> tuple[float, float]:
    """Slope and shift of a HardSigmoid, or of the one in a HardSwish."""
    if node.op_type == "HardSwish":
        return 1 / 6, 0.5
    values = {one.name: one.f for one in node.attribute}
    return values.get("alpha", 0.2), values.get("beta", 0.5)
