"""Operators that have no fast integer kernel on ONNX Runtime, as others that have one."""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx
from onnx import helper

from icnet_deploy.calibration.graph import Graph, shapes_of
from icnet_deploy.calibration.placements.channelwise import (
    as_depthwise,
    counts_border,
    is_depthwise,
)
from icnet_deploy.calibration.placements.nearest import repeats
from icnet_deploy.calibration.placements.reach import SUMS, Reach, slopes_of
from icnet_deploy.calibration.placements.shuffle import (
    as_convolution,
    clip_after,
    pixels,
    repeated,
    sides_of,
)
from icnet_deploy.calibration.weighted import Weighted

Shapes = Mapping[str, tuple[int, ...]]

_MANY = 256
"""Channels of a pixel that are a long stretch by themselves."""


def rewrite(
    model: onnx.ModelProto, takes: Callable[[Weighted], bool], exclude: Collection[str] = ()
) -> bool:
    """Rewrites what 8 bits reach, to the same function; tensors that were there keep their names.

    Args:
        model: of float32; it is changed.
        takes: whether a node's weights become int8.
        exclude: the layers that stay in float.

    Returns:
        Whether it changed the model.
    """
    graph, shapes = Graph(model), shapes_of(model)
    changed = _means(graph, shapes) | _pads(graph, shapes)
    rewriter = _Rewriter(graph, shapes, graph.weighted(exclude), takes)
    changed |= rewriter.spread_constants()
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        made = rewriter.nodes(node)
        nodes += [node] if made is None else made
        changed |= made is not None
    if changed:
        del model.graph.value_info[:]
        graph.sort([node for node in nodes if id(node) not in rewriter.dropped])
    return changed


class _Rewriter:
    """Says what nodes stand for one."""

    def __init__(
        self,
        graph: Graph,
        shapes: Shapes,
        weighted: list[Weighted],
        takes: Callable[[Weighted], bool],
    ) -> None:
        self.graph, self.shapes = graph, shapes
        self.transposed = {id(one.node): one for one in weighted if sides_of(graph, one, shapes)}
        known = [one for one in weighted if takes(one) or id(one.node) in self.transposed]
        self.depthwise = {
            id(node)
            for node in graph.model.graph.node
            if is_depthwise(graph, node, shapes.get(node.output[0], ()))
        }
        self.reach = Reach(graph, known, self.depthwise)
        self.dropped: set[int] = set()

    def _shape(self, node: onnx.NodeProto) -> tuple[int, ...]:
        return self.shapes.get(node.input[0], ()) if node.input else ()

    def spread_constants(self) -> bool:
        """Writes constants of a number a channel out along a row of pixels.

        With channels last, what is multiplied by them then lies in long stretches.
        """
        changed = False
        for node in self.graph.model.graph.node:
            shape = self.shapes.get(node.output[0], ())
            if node.op_type not in SUMS | {"PRelu"} or len(shape) != 4:
                continue
            channels, width = shape[1], shape[3]
            for index, name in enumerate(node.input):
                value = self.graph.array(name) if name in self.graph.constants else None
                if value is None or value.ndim > 4 or channels >= _MANY:
                    continue
                full = (1,) * (4 - value.ndim) + value.shape
                if full == (1, channels, 1, 1) and channels > 1 and width > 1:
                    wide = np.broadcast_to(value.reshape(full), (1, channels, 1, width))
                    node.input[index] = self.graph.add_constant(
                        f"{node.output[0]}_row_of_{index}", wide
                    )
                    changed = True
        return changed

    def _is_convolution(self, node: onnx.NodeProto) -> bool:
        """Whether a depthwise convolution is to stand for a node."""
        if id(node) not in self.depthwise:
            return False
        if counts_border(self.graph, node):  # whatever it reads, and whatever reads it
            return True
        return node.input[0] in self.reach.base and self.reach.leads(node)

    def nodes(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """The nodes that compute what one does; None where it stays."""
        if id(node) in self.transposed:
            one = self.transposed[id(node)]
            clip = clip_after(self.graph, one)
            self.dropped |= {id(clip)} if clip is not None else set()
            return as_convolution(self.graph, one, self.shapes)
        shape = self._shape(node)
        if self._is_convolution(node):
            return [as_depthwise(self.graph, node, self.shapes[node.output[0]][1])]
        if not node.input or node.input[0] not in self.reach.base:
            return None
        if len(shape) != 4:
            return None
        if node.op_type == "Resize" and (factors := repeats(self.graph, node, self.shapes)):
            return repeated(self.graph, node, factors, shape)
        if node.op_type == "DepthToSpace":
            return pixels(self.graph, node, shape)
        slopes = slopes_of(self.graph, node)
        if slopes is not None and len(set(slopes.ravel())) == 1:
            return [
                helper.make_node(
                    "LeakyRelu", node.input[:1], node.output, node.name, alpha=float(slopes.flat[0])
                )
            ]
        return None


def _means(graph: Graph, shapes: Shapes) -> bool:
    """Makes means over all pixels pools, which have an integer kernel."""
    changed = False
    for node in graph.nodes("ReduceMean"):
        values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        axes = values.get("axes")
        if len(node.input) > 1 and node.input[1] in graph.constants:
            axes = graph.array(node.input[1]).astype(int)
        images = values.get("keepdims", 1) == 1 and len(shapes.get(node.input[0], ())) == 4
        if images and axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]:
            node.op_type = "GlobalAveragePool"
            del node.attribute[:], node.input[1:]
            changed = True
    return changed


def _pads(graph: Graph, shapes: Shapes) -> bool:
    """Lets a Pad that names some axes say how much it pads each.

    ONNX Runtime 1.32 takes the axes for others where integer convolutions have theirs last.
    """
    changed = False
    for node in graph.nodes("Pad"):
        rank = len(shapes.get(node.input[0], ()))
        named = list(node.input[3:4])
        if not rank or not named or not graph.constants.keys() >= {node.input[1], *named}:
            continue
        by = np.zeros((2, rank), np.int64)
        axes = graph.array(named[0]).astype(int)
        by[:, axes] = graph.array(node.input[1]).reshape(2, -1)
        node.input[1] = graph.add_constant(f"{node.output[0]}_by", by.ravel())
        del node.input[3:]
        changed = True
    return changed
