"""The mean subtracted while the channels are still last, in place of after the transposition.

Subtracting one number a channel says the same in either layout. OpenVINO computes with channels
last, as the image comes: with nothing between the transposition and the convolutions it leaves the
transposition out. Three numbers repeated over a row of the image are one long row to a kernel;
as three they would be a loop of three (ONNX Runtime is slower so).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from icnet_deploy.export.passes.shapes import shapes_of
from icnet_deploy.export.passes.sorting import sort_nodes

_CHANNELS_FIRST = [0, 3, 1, 2]


def centre_first(model: onnx.ModelProto) -> bool:
    """Swaps the Transpose to channels first and the Sub of a number a channel that reads it alone.

    Needs: a graph without subgraphs. A Transpose whose width is free is left. After it: the values
    are bit for bit what they were; the Sub's constant is 1 x 1 x W x C; the graph is sorted.

    Returns:
        Whether it changed the model.
    """
    graph = model.graph
    shapes = shapes_of(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    changed = False
    for sub in [node for node in graph.node if node.op_type == "Sub"]:
        transpose, mean = makers.get(sub.input[0]), constants.get(sub.input[1])
        if transpose is None or transpose.op_type != "Transpose" or mean is None:
            continue
        *_, width, channels = shapes.get(transpose.input[0], (None, None))
        alone = [node for node in graph.node if sub.input[0] in node.input] == [sub]
        if list(transpose.attribute[0].ints) != _CHANNELS_FIRST or not width or not alone:
            continue
        if list(mean.dims) != [1, channels, 1, 1]:
            continue
        row = np.tile(numpy_helper.to_array(mean).reshape(1, 1, 1, -1), (1, 1, width, 1))
        wide = numpy_helper.from_array(row, f"{mean.name}_row")
        graph.initializer.append(wide)
        image, centred, result = transpose.input[0], transpose.output[0], sub.output[0]
        sub.input[0], sub.input[1], sub.output[0] = image, wide.name, centred
        transpose.input[0], transpose.output[0] = centred, result
        changed = True
    if changed:
        _drop_unread(graph)
        sort_nodes(graph)
        del graph.value_info[:]
        model.CopyFrom(onnx.shape_inference.infer_shapes(model))
    return changed


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)
