"""Writes Q/DQ pairs and 8-bit weights into a float32 graph."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.base import Placement, float_layers, image_layers, place
from icnet_deploy.calibration.placements.own_layout import own_layout
from icnet_deploy.calibration.prepare import prepared
from icnet_deploy.calibration.ranges import Range, Ranges, grid
from icnet_deploy.calibration.weights import Float32, Int8, bias_shift, quantized_weights
from icnet_deploy.errors import CheckFailed
from icnet_deploy.finite import require_finite, require_finite_graph


def quantize(
    model: onnx.ModelProto,
    ranges: Ranges,
    placement: str,
    exclude: Collection[str] | None = None,
) -> onnx.ModelProto:
    """Makes the 8-bit graph of a float32 one.

    Args:
        model: a float32 graph as `icnet export` writes it; it is not changed.
        ranges: of every tensor that the placement puts a pair on.
        placement: `int8` or `int8-ort`.
        exclude: layers, blocks or nodes that stay in float; None for `float_layers`.

    Returns:
        A graph with the same inputs and outputs. Its metadata is the float32 graph's.

    Raises:
        InputError: no such placement or block.
        ModelError: a number in the graph or in the ranges is not finite: 8 bits would make some
            other number of it.
        CheckFailed: a number in the 8-bit graph is not finite.
    """
    _require_finite(model, ranges)
    result = prepared(model, ranges.factors)
    if placement == "int8":
        own_layout(result)
    graph = Graph(result)
    kept = float_layers(graph) if exclude is None else exclude
    found = place(graph, placement, kept)
    seeing = image_layers(graph)
    tables = [_pair(graph, name, found, ranges, placement) for name in found.pairs]
    added = [node for pair in tables for node in pair]
    for conv in found.convolutions:
        flat = graph.layer(conv) in seeing
        added += _weights(graph, conv, found, ranges, placement, flat)
    for name, readers in found.pairs.items():
        _reroute(graph, name, readers)
    nodes = [*result.graph.node, *added]
    if placement == "int8-ort":
        nodes = _without_relus(graph, nodes)
    graph.sort(nodes)
    graph.drop_unused_constants()
    del result.graph.value_info[:]
    onnx.checker.check_model(result)
    advice = "its weights are too large: no file is written; export another network"
    require_finite_graph(result.SerializeToString(), f"the {placement} graph", advice, CheckFailed)
    return result


def _require_finite(model: onnx.ModelProto, ranges: Ranges) -> None:
    """Refuses what 8 bits would hide; see `quantize`."""
    advice = "export the network again"
    require_finite_graph(model.SerializeToString(), "the float32 graph", advice)
    found = {
        name: np.array([r.limit, r.low, r.high, *r.means]) for name, r in ranges.tensors.items()
    }
    advice = "remove what is kept of it (calibration.json), and calibrate again"
    require_finite([*found.items(), *ranges.factors.items()], "the calibration", advice)


def _range(name: str, found: Placement, ranges: Ranges) -> Range:
    return ranges.tensors[found.ranged_as.get(name, name)]


def _scale(chosen: Range, placement: str) -> tuple[np.float32, int]:
    """The step of a tensor's grid, and the place of its zero."""
    if placement == "int8":
        return np.float32(chosen.limit / 127), 0
    scale, zero = grid(chosen.low, chosen.high, 255)
    return np.float32(scale), zero


def _pair(
    graph: Graph, name: str, found: Placement, ranges: Ranges, placement: str
) -> list[onnx.NodeProto]:
    scale, zero = _scale(_range(name, found, ranges), placement)
    kind = np.int8 if placement == "int8" else np.uint8
    constants = [
        graph.add_constant(f"{name}_scale", np.array(scale)),
        graph.add_constant(f"{name}_zero", np.array(zero, kind)),
    ]
    return [
        helper.make_node(
            "QuantizeLinear", [name, *constants], [f"{name}_q"], f"{name}_QuantizeLinear"
        ),
        helper.make_node(
            "DequantizeLinear",
            [f"{name}_q", *constants],
            [f"{name}_dq"],
            f"{name}_DequantizeLinear",
        ),
    ]


def _reroute(graph: Graph, name: str, readers: set[str] | None) -> None:
    """Lets nodes read a tensor through its pair; all of them for None."""
    for node in graph.readers[name]:
        if readers is None or node.name in readers:
            for index, given in enumerate(node.input):
                if given == name:
                    node.input[index] = f"{name}_dq"


def _without_relus(graph: Graph, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Leaves out each ReLU that a grid from zero on does the work of.

    ONNX Runtime makes an integer sum only of an Add with a QuantizeLinear right behind it.
    """
    dropped: set[str] = set()
    for node in nodes:
        source = graph.producers.get(node.input[0])
        if node.op_type != "QuantizeLinear" or source is None or source.op_type != "Relu":
            continue
        if numpy_helper.to_array(graph.constants[node.input[2]]) == 0:
            node.input[0] = source.input[0]
            dropped.add(source.name)
    return [node for node in nodes if node.name not in dropped]


def _weights(
    graph: Graph,
    conv: onnx.NodeProto,
    found: Placement,
    ranges: Ranges,
    placement: str,
    flat: bool,
) -> list[onnx.NodeProto]:
    """Replaces a convolution's weights by int8 ones, and corrects its bias."""
    source, name = conv.input[0], conv.input[1]
    weight = graph.array(name)
    places, steps = quantized_weights(weight, flat)
    bias = graph.array(conv.input[2]) if len(conv.input) > 2 else np.zeros(len(weight), np.float32)
    if placement == "int8-ort":
        scale, _ = _scale(_range(source, found, ranges), placement)
        places, steps = _with_room(weight, bias, scale, places, steps)
    corrected = bias + bias_shift(weight, places, steps, ranges.tensors[source].means)
    nodes = [_dequantized(graph, f"{name}_q", places, steps)]
    bias_name = f"{name}_bias_q"
    if placement == "int8":  # TensorRT refuses a bias of int32
        graph.add_constant(bias_name, corrected.astype(np.float32))
    else:  # ONNX Runtime's integer convolution takes no other
        product = scale * steps
        whole = np.clip(np.rint(corrected / product), -(2**31) + 1, 2**31 - 1)
        nodes.append(_dequantized(graph, bias_name, whole.astype(np.int32), product))
        bias_name = nodes[-1].output[0]
    inputs = [source, nodes[0].output[0], bias_name]
    del conv.input[:]
    conv.input.extend(inputs)
    return nodes


def _with_room(
    weight: Float32, bias: Float32, scale: np.float32, places: Int8, steps: Float32
) -> tuple[Int8, Float32]:
    """Coarser steps for filters that are next to nothing beside their bias.

    The bias has the steps of filter and input multiplied, and would be cut off at 31 of its bits.
    """
    least = (np.abs(bias) / scale / 2**30).astype(np.float32)
    coarse = steps < least
    steps = np.where(coarse, least, steps)
    rounded = np.rint(weight[coarse] / steps[coarse, None, None, None])
    places[coarse] = np.clip(rounded, -127, 127).astype(np.int8)
    return places, steps


def _dequantized(graph: Graph, name: str, places: np.ndarray, steps: np.ndarray) -> onnx.NodeProto:
    """A constant of whole numbers with a step for each channel of output."""
    inputs = [
        graph.add_constant(name, places),
        graph.add_constant(f"{name}_scale", steps.astype(np.float32)),
        graph.add_constant(f"{name}_zero", np.zeros(steps.shape, places.dtype)),
    ]
    return helper.make_node(
        "DequantizeLinear", inputs, [f"{name}_dq"], f"{name}_DequantizeLinear", axis=0
    )
