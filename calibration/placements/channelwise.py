"""What treats each channel alone, as a depthwise convolution, which has a fast integer kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from icnet_deploy.calibration.placements.reach import pads_zeros
from icnet_deploy.calibration.weighted import KINDS, Floats

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph

_LARGEST = 25
"""Taps of the largest pool: ONNX Runtime's pool of uint8 takes 0.7 ns a tap, its integer
convolution a tenth of that."""

_SIZES = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")

_FEWEST = 36
"""Pixels that a pyramid's pools make at most: of so few no time is gained."""


def as_depthwise(graph: Graph, node: onnx.NodeProto, channels: int) -> onnx.NodeProto:
    """The convolution that computes what an average pool or a batch normalization does.

    Args:
        graph: it is of; the constants of the convolution are added to it.
        node: one that `is_depthwise`.
        channels: of its input and output.
    """
    from onnx import helper

    values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    size: dict[str, Any] = {"kernel_shape": [1, 1]}
    if node.op_type == "BatchNormalization":
        weight, bias = _normalization(graph, node, values.get("epsilon", 1e-5))
        name = node.input[1]
    else:
        size = {key: values[key] for key in _SIZES if key in values}
        kernel = size["kernel_shape"]
        weight = np.full((channels, 1, *kernel), 1 / np.prod(kernel), np.float32)
        bias = np.zeros(channels, np.float32)
        name = f"{node.output[0]}.weight"
    constants = [graph.add_constant(name, weight), graph.add_constant(f"{name}_bias", bias)]
    inputs = [node.input[0], *constants]
    return helper.make_node("Conv", inputs, node.output[:1], node.name, group=channels, **size)


def is_depthwise(graph: Graph, node: onnx.NodeProto, made: tuple[int, ...]) -> bool:
    """Whether a node is a batch normalization, or an average pool that is better a convolution.

    That is one that takes its time, counts its border, or has dilations, which ONNX Runtime has no
    integer pool for. It may be along rows alone, or in three directions.

    Args:
        graph: it is of.
        node: of any operator.
        made: the shape of its output.
    """
    from onnx import helper

    if len(made) < 3:
        return False
    image = len(made) == 4
    values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if node.op_type == "BatchNormalization":
        alone = all(len(graph.readers[name]) == 1 for name in node.input[1:])
        return (
            image
            and alone
            and not values.get("training_mode")
            and set(node.input[1:]) <= set(graph.constants)
        )
    if node.op_type != "AveragePool" or values.get("ceil_mode"):
        return False
    if counts_border(graph, node):
        return True
    plain = not any(values.get("pads", [0])) and _padding(values) in ("NOTSET", "VALID")
    slow = image and made[2] * made[3] > _FEWEST and np.prod(values["kernel_shape"]) <= _LARGEST
    return bool(plain and (slow or not _dense(values)))


def counts_border(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node is an average pool that counts zeros around the image, its own or a Pad's.

    OpenVINO 2026.4 takes such a pool on uint8 places before their zero is subtracted: the zeros
    outside become the lowest value of the grid. Places may be those of a pair, or the pixels of the
    image, whose mean is subtracted.
    """
    from onnx import helper

    if node.op_type != "AveragePool":
        return False
    values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    pads = any(values.get("pads", [0])) or _padding(values).startswith("SAME")
    source = graph.producers.get(node.input[0])
    while source is not None and source.op_type in ("Dropout", "Identity"):
        source = graph.producers.get(source.input[0])
    if source is not None and source.op_type == "Pad" and not pads:
        return pads_zeros(graph, source)
    return pads and bool(values.get("count_include_pad"))


def convolve_shifted_pools(graph: Graph) -> bool:
    """Makes convolutions of pools that count the border of what a constant was added to.

    That is the image, or what a batch norm or sum makes that is no part of a convolution: OpenVINO
    2026.4 adds the constant behind the pool, outside of the border, too.

    Returns:
        Whether it changed the graph.
    """
    nodes: list[onnx.NodeProto] = []
    shifted = {value.name for value in graph.model.graph.input}
    changed = False
    for node in graph.model.graph.node:
        made = graph.shape(node.output[0]) or ()
        if node.op_type not in KINDS and (_shifts(graph, node) or shifted.intersection(node.input)):
            shifted.update(node.output)
            if counts_border(graph, node) and is_depthwise(graph, node, made):
                nodes.append(as_depthwise(graph, node, made[1]))
                changed = True
                continue
        nodes.append(node)
    if changed:
        del graph.model.graph.value_info[:]
        graph.sort(nodes)
    return changed


def _shifts(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node adds constants."""
    constant = not graph.constants.keys().isdisjoint(node.input)
    return node.op_type == "BatchNormalization" or (node.op_type in ("Add", "Sub") and constant)


def _padding(values: Mapping[str, Any]) -> str:
    """How a node says that it pads by itself."""
    return str(values.get("auto_pad", b"NOTSET").decode())


def _dense(values: Mapping[str, Any]) -> bool:
    return set(values.get("dilations", [1])) == {1}


def _normalization(graph: Graph, node: onnx.NodeProto, epsilon: float) -> tuple[Floats, Floats]:
    """A batch normalization as the weights and biases of a depthwise convolution."""
    scale, shift, mean, variance = (graph.array(name).astype(np.float64) for name in node.input[1:])
    factor = scale / np.sqrt(variance + epsilon)
    weight = factor.astype(np.float32).reshape(-1, 1, 1, 1)
    return weight, (shift - mean * factor).astype(np.float32)
