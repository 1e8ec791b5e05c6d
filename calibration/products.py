"""How many multiply-adds a graph takes for one image, and which of them are in 8 bits."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx

from icnet_deploy.calibration.graph import Graph

_SAME_VALUES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""They move numbers and change none, so runtimes take 8 bits through them to what multiplies."""

_UNCOUNTED = frozenset(
    {
        *("Attention", "DeformConv", "Einsum", "GRU", "LSTM", "RNN"),
        *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
    }
)
"""They multiply, too: a share that leaves them out would be wrong."""

_EIGHT_BITS = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8})
_NAMED = 4
_NAMELESS = "0"  # as exporters number what they make: `Graph.layer` goes by the node
_UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))

_Shape = tuple[int, ...]


@dataclass(frozen=True)
class Multiplied:
    """What one node multiplies for one image.

    Attributes:
        layer: its name, as `Graph.layer` gives it.
        operator: `Conv`, `ConvTranspose`, `Gemm` or `MatMul`.
        output: the tensor that it makes.
        count: its multiply-adds.
        in_8_bits: whether all that it multiplies comes from a DequantizeLinear of 8 bits.
    """

    layer: str
    operator: str
    output: str
    count: int
    in_8_bits: bool


@dataclass(frozen=True)
class Products:
    """The multiply-adds of a graph for one image.

    Attributes:
        nodes: what each node multiplies, in the graph's order; none where that is not known.
        unknown: why it is not known; empty where it is.
    """

    nodes: tuple[Multiplied, ...]
    unknown: str = ""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(node.count for node in self.nodes)

    @property
    def in_8_bits(self) -> int:
        """Those in 8 bits."""
        return sum(node.count for node in self.nodes if node.in_8_bits)

    @property
    def share(self) -> float:
        """Those in 8 bits of all, 0..1; 0 where there are none or they are not known."""
        return self.in_8_bits / self.total if self.total else 0.0

    def float_layers(self) -> dict[str, int]:
        """Layer -> its multiply-adds in float, the largest first."""
        return self._in_float(lambda node: node.layer)

    def float_operators(self) -> dict[str, int]:
        """Operator -> its multiply-adds in float, the largest first."""
        return self._in_float(lambda node: node.operator)

    def _in_float(self, key: Callable[[Multiplied], str]) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for node in self.nodes:
            if not node.in_8_bits:
                counts[key(node)] += node.count
        return dict(counts.most_common())

    def __str__(self) -> str:
        """E.g. `97.3 % of 5.2 G multiply-adds in 8 bits; in float: classifier (1.4 %), ...`."""
        if self.unknown:
            return f"the share of multiply-adds in 8 bits is not known: {self.unknown}"
        layers = self.float_layers()
        words = f"{_percent(self.in_8_bits, self.total)} of {_short(self.total)} multiply-adds "
        words += "in 8 bits"
        if not layers or not self.in_8_bits:
            return words
        named = [
            f"{name} ({_percent(count, self.total)})"
            for name, count in list(layers.items())[:_NAMED]
        ]
        rest = list(layers.values())[_NAMED:]
        if rest:
            named.append(f"{len(rest)} others ({_percent(sum(rest), self.total)})")
        return f"{words}; in float: {', '.join(named)}"


def products(model: onnx.ModelProto) -> Products:
    """Counts the multiply-adds of convolutions and matrix products, from the shapes of tensors.

    A convolution takes one for each of its outputs and each weight that reaches it, so those
    with zeros around the image count, too; a transposed one for each of its inputs and each weight
    that it meets.

    Args:
        model: a graph of a fixed size, of float32 or of 8 bits; it is not changed. Whatever batch
            it takes, one image is counted.

    Returns:
        The counts. Where shapes cannot be inferred, or a node multiplies in a way that is not
        counted, there are none, and `unknown` says why.
    """
    uncounted = Counter(n.op_type for n in model.graph.node if n.op_type in _UNCOUNTED)
    if uncounted:
        named = ", ".join(f"{count} {operator}" for operator, count in uncounted.items())
        verb = "is" if uncounted.total() == 1 else "are"
        return Products((), f"the graph holds {named}, which {verb} not counted")
    graph = Graph(model)
    found = []
    for node in model.graph.node:
        if node.op_type in _COUNTS:
            shapes = [graph.shape(name) for name in (*node.input[:2], node.output[0])]
            known = [shape for shape in shapes if shape is not None]
            if len(known) < len(shapes):
                return Products((), f"the shapes around {node.op_type} {node.name!r} are not known")
            count = _COUNTS[node.op_type](node, known)
            exact = all(_from_8_bits(graph, name) for name in node.input[:2])
            found.append(
                Multiplied(_layer(graph, node), node.op_type, node.output[0], count, exact)
            )
    return Products(tuple(found))


def _conv(_: onnx.NodeProto, shapes: Sequence[_Shape]) -> int:
    return prod(shapes[2]) * prod(shapes[1][1:])


def _conv_transpose(_: onnx.NodeProto, shapes: Sequence[_Shape]) -> int:
    return prod(shapes[0]) * prod(shapes[1][1:])


def _gemm(node: onnx.NodeProto, shapes: Sequence[_Shape]) -> int:
    flipped = any(each.name == "transA" and each.i for each in node.attribute)
    return prod(shapes[2]) * shapes[0][0 if flipped else 1]


def _mat_mul(_: onnx.NodeProto, shapes: Sequence[_Shape]) -> int:
    return prod(shapes[2]) * shapes[0][-1]


_COUNTS: Mapping[str, Callable[[onnx.NodeProto, Sequence[_Shape]], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _mat_mul,
}
"""Operator -> multiply-adds of a node, given the shapes of its two factors and of its output."""


def _from_8_bits(graph: Graph, name: str) -> bool:
    """Whether a tensor holds what 8 bits were made into, unchanged."""
    source = graph.producers.get(_origin(graph, name))
    if source is None or source.op_type != "DequantizeLinear":
        return False
    zero = graph.constants.get(source.input[2]) if len(source.input) > 2 else None
    return zero is None or zero.data_type in _EIGHT_BITS  # of uint8 without one


def _origin(graph: Graph, name: str) -> str:
    """The tensor whose numbers a tensor holds, moved or not."""
    node = graph.producers.get(name)
    while node is not None and node.op_type in _SAME_VALUES:
        name = str(node.input[0])
        node = graph.producers.get(name)
    return name


def _layer(graph: Graph, node: onnx.NodeProto) -> str:
    """The name of a node in the network, whatever became of its weights, if it has any."""
    name = _origin(graph, node.input[1])
    source = graph.producers.get(name)
    if source is not None and source.op_type == "DequantizeLinear":
        name = str(source.input[0])
    if name not in graph.constants:
        name = _NAMELESS
    named = onnx.NodeProto(name=node.name, op_type=node.op_type)
    named.input.extend([node.input[0], name.removesuffix("_q"), *node.input[2:]])
    return graph.layer(named)


def _percent(part: int, total: int) -> str:
    """A share in percent; 0 and 100 only where it is exactly that."""
    tenths = round(1000 * part / total) if total else 0
    if 0 < part < total:
        if tenths == 0:
            return "< 0.1 %"
        tenths = min(tenths, 999)
    return f"{tenths / 10:.1f} %"


def _short(count: int) -> str:
    """A number in two digits or more, e.g. `5.2 G` or `142 M`."""
    for unit, letter in _UNITS:
        if count >= unit:
            value = count / unit
            return f"{value:.0f} {letter}" if value >= 100 else f"{value:.1f} {letter}"
    return str(count)
