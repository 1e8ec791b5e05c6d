"""The classifier before the last upsampling in place of after it."""

from __future__ import annotations

import onnx

from icnet_deploy.calibration.graph import Graph

__all__ = ["classify_first"]


def classify_first(model: onnx.ModelProto) -> bool:
    """Swaps a Resize and the 1x1 convolution that alone reads it, where the graph ends so.

    Bilinear upsampling is linear with weights that sum to one, so it commutes with a 1x1
    convolution and its bias. The convolution then sees a quarter of the pixels, and a channel a
    class is enlarged in place of the feature's 128: that is what makes a classifier in float cheap.

    Returns:
        Whether it changed the model.
    """
    graph = Graph(model)
    convolutions = graph.nodes("Conv")
    conv = convolutions[-1] if convolutions else None
    resize = graph.producers.get(conv.input[0]) if conv is not None else None
    if conv is None or resize is None or resize.op_type != "Resize":
        return False
    if graph.only_reader(resize.output[0]) is not conv or not _pointwise(graph, conv):
        return False
    features, enlarged, result = resize.input[0], resize.output[0], conv.output[0]
    conv.input[0], conv.output[0] = features, enlarged
    resize.input[0], resize.output[0] = enlarged, result
    del model.graph.value_info[:]
    graph.sort(list(model.graph.node))
    return True


def _pointwise(graph: Graph, conv: onnx.NodeProto) -> bool:
    if conv.input[1] not in graph.constants or graph.constants[conv.input[1]].dims[2:] != [1, 1]:
        return False
    plain = {"strides": 1, "group": 1, "pads": 0}
    for attribute in conv.attribute:
        values = list(attribute.ints) or [attribute.i]
        if attribute.name in plain and set(values) != {plain[attribute.name]}:
            return False
    return True
