"""`int8-ort`: what ONNX Runtime's CPU kernels want."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from icnet_deploy.calibration.placements.base import Pairs, Placement
from icnet_deploy.calibration.placements.places import Lowering
from icnet_deploy.calibration.placements.reach import OPERATORS, Reach
from icnet_deploy.calibration.weighted import Weighted

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph


class Int8Ort(Placement):
    """A pair on every tensor between integer kernels, which find 8 bits on both sides.

    ONNX Runtime's integer convolution takes no bias but one of int32.
    """

    name = "int8-ort"
    symmetric = False
    integer_bias = True
    kinds = frozenset({"Conv", "Gemm", "MatMul"})  # it has no integer ConvTranspose
    even = 144  # with all 256 places behind a ReLU; ICNet's has 128
    operators = OPERATORS | {"AveragePool"}

    def pairs(self, graph: Graph, weighted: Sequence[Weighted]) -> Pairs:
        """See `Reach`."""
        return Reach(graph, weighted).pairs()

    def arrange(self, model: onnx.ModelProto, exclude: Collection[str] = ()) -> bool:
        """See `rewrite`."""
        from icnet_deploy.calibration.placements.rewrites import rewrite

        return rewrite(model, self.takes, exclude)

    def finish(self, graph: Graph, nodes: Sequence[onnx.NodeProto]) -> Sequence[onnx.NodeProto]:
        """See `Lowering`."""
        return Lowering(graph, nodes).run()
