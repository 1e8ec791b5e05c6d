"""`int8`: what TensorRT fuses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from icnet_deploy.calibration.placements.base import Pairs, Placement
from icnet_deploy.calibration.placements.channelwise import convolve_shifted_pools
from icnet_deploy.calibration.placements.joins import join_in_8_bits
from icnet_deploy.calibration.placements.reach import is_filled
from icnet_deploy.calibration.weighted import Weighted

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph


_FLOWING = frozenset(
    {
        *("Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Sigmoid"),
        *("Mul", "Concat", "DepthToSpace", "GlobalAveragePool", "ReduceMean"),
        *("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""What runs in float beside the products, mostly as a part of them."""


class Int8(Placement):
    """A pair before all that multiplies by weights and before max pools, and on skips of sums.

    A skip is the input of a convolution's sum that another node makes; of a sum of two convolutions
    (the projections of bottlenecks, cascade feature fusion), what the one that runs first makes.
    None stands between a convolution and its sum, ReLU, hard-swish, PReLU or gate, which runtimes
    make one kernel of, nor around the products of two activations. TensorRT refuses a bias of
    int32.
    """

    name = "int8"
    operators = Placement.operators | _FLOWING

    def pairs(self, graph: Graph, weighted: Sequence[Weighted]) -> Pairs:
        """See `Placement`."""
        pairs = Pairs()
        for one in weighted:
            pairs.read_by(one.data, one.node)
        made = [one.output for one in weighted if graph.only_reader(one.output) is not None]
        for add in graph.nodes("Add"):
            branches = [name for name in made if name in add.input]
            for name in add.input:
                # The convolution that runs last is fused with the sum, if nothing else reads it.
                if branches and name != branches[-1] and name in graph.producers:
                    pairs.read_by(name, add)
        for name in list(pairs.readers):
            source = graph.producers.get(name)
            if source is not None and source.op_type == "MaxPool" and not is_filled(graph, source):
                # The largest of rounded values is the largest value rounded, on the same grid:
                # nothing changes but that the pool and what makes its input work in 8 bits.
                pairs.read_by(source.input[0], source)
                pairs.ranged_as[source.input[0]] = name
        for name in list(pairs.readers):
            source = graph.producers.get(name)
            if source is not None and source.op_type == "Concat":
                # On one grid for all that reads it, a part is written in 8 bits and once.
                for part in source.input:
                    if part in pairs.readers:
                        pairs.near[pairs.ranged_as.get(part, part)] = name
            for node in [source, *_joined(graph, source)]:
                if node is not None and _moves(node) and node.input[0] not in pairs.readers:
                    pairs.read_by(node.input[0], node)
                    pairs.ranged_as[node.input[0]] = name
        return pairs

    def takes(self, one: Weighted) -> bool:
        """See `Placement`; OpenVINO multiplies in float in a ConvTranspose in groups."""
        return super().takes(one) and (one.kind != "ConvTranspose" or one.group == 1)

    def finish(self, graph: Graph, nodes: Sequence[onnx.NodeProto]) -> Sequence[onnx.NodeProto]:
        """Joins in 8 bits what is joined and then rounded."""
        return join_in_8_bits(graph, nodes)

    def arrange(self, model: onnx.ModelProto, exclude: Collection[str] = ()) -> bool:
        """See `_own_layout` and `convolve_shifted_pools`."""
        from icnet_deploy.calibration.graph import Graph

        changed = _own_layout(Graph(model))
        return convolve_shifted_pools(Graph(model)) or changed


def _moves(node: onnx.NodeProto) -> bool:
    """Whether a node moves values and changes none, so that rounding may come before it."""
    if node.op_type == "Resize":
        return any(one.name == "mode" and one.s == b"nearest" for one in node.attribute)
    return node.op_type == "DepthToSpace"


def _joined(graph: Graph, node: onnx.NodeProto | None) -> list[onnx.NodeProto]:
    """The nodes that make what a Concat joins."""
    if node is None or node.op_type != "Concat":
        return []
    return [graph.producers[name] for name in node.input if name in graph.producers]


def _own_layout(graph: Graph) -> bool:
    """Subtracts the mean after the image's Resize where another branch reads the whole image, too.

    Bilinear resizes have weights that sum to one, so the mean may be subtracted on either side.
    In `int8` the branch that sees the whole image quantizes it and the other resizes it in float.
    Each then has a transposition that is not the other's, and OpenVINO, which keeps channels last
    inside, can leave both out; of a shared one it writes the image out in the other layout and back
    (8 % of the time of the whole graph).

    Needs: the graph that `icnet export` writes, its mean subtracted before the Transpose. In any
    other nothing is changed. After it: the tensors that were there keep their names and values, but
    for rounding.

    Returns:
        Whether it changed the model.
    """
    from onnx import helper

    model = graph.model
    for transpose in graph.nodes("Transpose"):
        sub = graph.producers.get(transpose.input[0])
        readers = graph.readers[transpose.output[0]]
        resizes = [node for node in readers if node.op_type == "Resize"]
        if sub is None or sub.op_type != "Sub" or sub.input[1] not in graph.constants:
            continue
        mean_of_all = np.atleast_1d(graph.array(sub.input[1]))
        rows = mean_of_all.reshape(-1, mean_of_all.shape[-1])
        if len(resizes) != 1 or len(readers) < 2 or not (rows == rows[0]).all():
            continue
        resize = resizes[0]
        made, plain = resize.output[0], f"{transpose.output[0]}_plain"
        mean = graph.add_constant(f"{made}_mean", np.reshape(rows[0], (1, -1, 1, 1)))
        own = helper.make_node("Transpose", [sub.input[0]], [plain], plain, perm=[0, 3, 1, 2])
        resize.input[0], resize.output[0] = plain, f"{made}_plain"
        centred = helper.make_node("Sub", [f"{made}_plain", mean], [made], f"{made}_centred")
        del model.graph.value_info[:]
        nodes = list(model.graph.node)
        at = nodes.index(resize)  # the order of all others says what fuses
        graph.sort([*nodes[:at], own, resize, centred, *nodes[at + 1 :]])
        return True
    return False
