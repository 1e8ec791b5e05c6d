"""Permutations of channels in a form that OpenVINO answers rightly."""

import numpy as np
import onnx
from onnx import numpy_helper

from icnet_deploy.export.passes.common import attributes_of, constants_of, makers_of, shapes_of

_PARTS = 3
"""Parts of a Split that OpenVINO takes for the colours of an image where a Concat joins them."""


def count_from_last(model: onnx.ModelProto) -> bool:
    """Counts the axis of permutations from the last.

    OpenVINO 2026.4 folds a Gather by a constant order into the weights and constants behind it, by
    that order and not by its inverse: one that is not its own inverse is answered wrongly. Three
    parts of a Split, joined in any order, it folds alike, or refuses the graph. It leaves both
    alone where the axis is counted from the last, which other runtimes do not tell apart.

    Needs: a graph without subgraphs. After it: the function is the same, on every runtime.

    Returns:
        Whether it changed the model.
    """
    graph, changed = model.graph, False
    nodes = [node for node in graph.node if node.op_type in ("Gather", "Concat")]
    if not nodes:
        return False
    shapes, constants, makers = shapes_of(model), constants_of(graph), makers_of(graph)
    for node in nodes:
        shape = shapes.get(node.input[0], ())
        sources = {id(makers.get(name)) for name in node.input}
        split = len(sources) == 1 and len(node.input) == _PARTS and node.input[0] in makers
        if node.op_type == "Gather":
            found = _reorders(node, shape, constants)
        else:
            found = split and makers[node.input[0]].op_type == "Split"
        for attribute in node.attribute:
            if found and shape and attribute.name == "axis" and attribute.i >= 0:
                attribute.i -= len(shape)
                changed = True
    return changed


def _reorders(
    node: onnx.NodeProto, shape: tuple[int | None, ...], constants: dict[str, onnx.TensorProto]
) -> bool:
    """Whether a Gather permutes an axis by a constant order that is not its own inverse."""
    if node.input[1] not in constants or not shape:
        return False
    count = shape[attributes_of(node).get("axis", 0)]
    order = numpy_helper.to_array(constants[node.input[1]])
    if not count or order.shape != (count,):
        return False
    order = order % count
    places = np.arange(count)
    return bool((np.sort(order) == places).all() and (order[order] != places).any())
