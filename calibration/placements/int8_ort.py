"""`int8-ort`: what ONNX Runtime's CPU kernels want."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from icnet_deploy.calibration.placements.base import Pairs, Placement
from icnet_deploy.calibration.weighted import Weighted

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph


class Int8Ort(Placement):
    """A pair on every tensor between 8-bit operators: Conv, Add and ReLU find 8 bits on both sides.

    ONNX Runtime's integer convolution takes no bias but one of int32.
    """

    name = "int8-ort"
    symmetric = False
    integer_bias = True
    kinds = frozenset({"Conv", "Gemm", "MatMul"})  # it has no integer ConvTranspose

    def pairs(self, graph: Graph, weighted: Sequence[Weighted]) -> Pairs:
        """See `Placement`."""
        pairs = Pairs()
        for one in weighted:
            pairs.readers[one.data] = None
            pairs.readers[graph.after_relu(one.output)] = None
        for add in graph.nodes("Add"):
            if all(name in pairs.readers for name in add.input):
                pairs.readers[graph.after_relu(add.output[0])] = None
        for name in list(pairs.readers):
            source = graph.producers.get(name)
            if source is not None and source.op_type == "MaxPool":
                pairs.readers[source.input[0]] = None
                pairs.ranged_as[name] = source.input[0]
        for name in graph.outputs:
            pairs.readers.pop(name, None)
        return pairs

    def finish(self, graph: Graph, nodes: Sequence[onnx.NodeProto]) -> Sequence[onnx.NodeProto]:
        """Leaves out each ReLU that a grid from zero on does the work of.

        ONNX Runtime makes an integer sum only of an Add with a QuantizeLinear right behind it.
        """
        dropped: set[str] = set()
        for node in nodes:
            source = graph.producers.get(node.input[0])
            if node.op_type != "QuantizeLinear" or source is None or source.op_type != "Relu":
                continue
            if graph.array(node.input[2]) == 0:
                node.input[0] = source.input[0]
                dropped.add(source.name)
        return [node for node in nodes if node.name not in dropped]
