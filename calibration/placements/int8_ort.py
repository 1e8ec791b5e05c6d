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


_COSTLY = 0.01
"""A classifier of a larger share of the multiply-adds is worth its 8 bits."""


class Int8Ort(Placement):
    """A pair on every tensor between integer kernels, which find 8 bits on both sides.

    ONNX Runtime's integer convolution takes no bias but one of int32.
    """

    name = "int8-ort"
    symmetric = False
    integer_bias = True
    kinds = frozenset({"Conv", "Gemm", "MatMul"})  # it has no integer ConvTranspose
    operators = OPERATORS | {"AveragePool"}

    def float_layers(self, graph: Graph) -> tuple[str, ...]:
        """Those of `Graph.float_layers`, but for a classifier that would take long in float.

        That is one of several pixels that takes more than a hundredth of all multiply-adds: of a
        U-Net, at the size of the image, it is 1.4 % of them and in float a tenth of the time.
        """
        from icnet_deploy.calibration.products import products

        counted = products(graph.model)
        kept = set(graph.float_layers()).difference(graph.image_layers())
        wide = {
            graph.layer(one.node)
            for one in graph.weighted()
            if any(side > 1 for side in graph.constants[one.weight].dims[2:])
        }
        costly = {
            each.layer for each in counted.nodes if each.count > _COSTLY * counted.total
        }.intersection(kept, wide)
        return tuple(name for name in graph.float_layers() if name not in costly)

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
