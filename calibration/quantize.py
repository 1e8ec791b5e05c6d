"""Writes Q/DQ pairs and 8-bit weights into a float32 graph, where a placement wants them."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from icnet_deploy.calibration.equalize import equalized
from icnet_deploy.calibration.graph import Graph, plain
from icnet_deploy.calibration.placements.base import Pairs, Placement
from icnet_deploy.calibration.placements.permutations import count_from_last
from icnet_deploy.calibration.placements.registry import placement_of
from icnet_deploy.calibration.placements.tokens import channels_between
from icnet_deploy.calibration.ranges import Range, Ranges
from icnet_deploy.calibration.weighted import Weighted
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.integrity import require_finite, require_finite_graph

Float32 = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]

_LITTLE = 1.5  # times as wide costs half a bit
_FRACTIONS = np.linspace(0.6, 1.0, 41)
_NEARLY = 0.5  # of the way to a bound: a range that reaches further is taken to reach it


def quantize(
    model: onnx.ModelProto,
    ranges: Ranges,
    placement: str,
    exclude: Collection[str] | None = None,
    learned: Mapping[str, Int8] | None = None,
) -> onnx.ModelProto:
    """Makes the 8-bit graph of a float32 one.

    Args:
        model: a float32 graph as `icnet export` writes it; it is not changed.
        ranges: of every tensor that the placement puts a pair on.
        placement: a key of `PLACEMENTS`.
        exclude: layers, blocks or nodes that stay in float; None for those of the placement.
        learned: constant of the graph -> int8 in its own layout: the places of its weights, where
            they are not the nearest; each is the one below or above.

    Returns:
        A graph with the same inputs and outputs. Its metadata is the float32 graph's.

    Raises:
        InputError: no such placement or block.
        ModelError: a number in the graph or in the ranges is not finite: 8 bits would make some
            other number of it.
        CheckFailed: a number in the 8-bit graph is not finite.
    """
    chosen = placement_of(placement)
    _require_finite(model, ranges)
    result = equalized(plain(model), ranges.factors)
    whole = Graph(result)
    count_from_last(whole)
    kept = chosen.float_layers(whole) if exclude is None else exclude
    chosen.arrange(result, kept)
    graph = Graph(result)
    graph.keep_shapes()
    weighted = [one for one in graph.weighted(kept) if chosen.takes(one)]
    pairs = chosen.pairs(graph, weighted)
    seeing = graph.image_layers()
    added: list[onnx.NodeProto] = []
    for name in pairs.readers:
        added += _pair(graph, name, chosen, _range(name, pairs, ranges))
    for one in weighted:
        places = (learned or {}).get(one.weight)
        flat = graph.layer(one.node) in seeing
        added += _weights(graph, one, pairs, ranges, chosen, flat, places)
    for name, readers in pairs.readers.items():
        _reroute(graph, name, readers)
    graph.sort(chosen.finish(graph, [*result.graph.node, *added]))
    channels_between(Graph(result))
    del result.graph.value_info[:]
    onnx.checker.check_model(result)
    advice = "its weights are too large, and no file is written: export another network"
    require_finite_graph(result.SerializeToString(), f"the {placement} graph", advice, CheckFailed)
    return result


def _require_finite(model: onnx.ModelProto, ranges: Ranges) -> None:
    """Refuses what 8 bits would hide; see `quantize`."""
    advice = "export the network again"
    require_finite_graph(model.SerializeToString(), "the float32 graph", advice)
    numbers = {
        name: np.array([r.limit, r.low, r.high, *r.means]) for name, r in ranges.tensors.items()
    }
    advice = "remove its file (MODEL.calibration.json), and quantize again"
    require_finite([*numbers.items(), *ranges.factors.items()], "the calibration", advice)


def _range(name: str, pairs: Pairs, ranges: Ranges) -> Range:
    """What the grid of a tensor covers; InputError if the calibration does not know it."""
    source = pairs.ranged_as.get(name, name)
    if source not in ranges.tensors:
        raise InputError(
            f"the calibration has no range for {source!r}: an earlier release wrote it; remove its "
            "file (MODEL.calibration.json), and quantize again"
        )
    found = ranges.tensors[source]
    near = ranges.tensors.get(pairs.near.get(source, source), found)
    if found.limit / _LITTLE <= near.limit <= _LITTLE * found.limit:
        found = near
    if source not in pairs.within:
        return found
    low, high = pairs.within[source]
    high = min(found.high, high)
    if found.low > _NEARLY * low or high <= 0:
        low = found.low
        return replace(found, high=high, limit=max(-low, high)) if low < high else found
    if places := int(255 * -low / (high - low)):
        high = low - low * 255 / places
    return replace(found, low=low, high=high, limit=max(-low, high))


def _pair(graph: Graph, name: str, placement: Placement, its_range: Range) -> list[onnx.NodeProto]:
    scale, zero = placement.grid(its_range)
    constants = [
        graph.add_constant(f"{name}_scale", np.array(scale)),
        graph.add_constant(f"{name}_zero", np.array(zero)),
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


def _weights(
    graph: Graph,
    one: Weighted,
    pairs: Pairs,
    ranges: Ranges,
    placement: Placement,
    flat: bool,
    learned: Int8 | None,
) -> list[onnx.NodeProto]:
    """Replaces a node's weights by int8 ones, and corrects its bias."""
    name, weight = one.weight, graph.array(one.weight)
    places, steps = quantized_weights(weight, flat and one.kind == "Conv", one.axis)
    places = places if learned is None else learned
    means = ranges.tensors[one.data].means
    if means.size != one.inputs(weight.shape):  # of another axis, which other nodes read
        means = np.zeros(one.inputs(weight.shape))
    bias = graph.array(one.bias) if one.bias else np.zeros(1, np.float32)
    scale, _ = placement.grid(_range(one.data, pairs, ranges))
    whole_bias = placement.integer_bias and one.takes_bias
    if one.takes_bias:
        places, steps = _with_room(one, weight, bias, scale, places, steps)
    shift = bias_shift(one, weight, places, steps, means)
    corrected = bias + shift
    nodes = [_dequantized(graph, f"{name}_q", places, steps, one.axis)]
    inputs = [one.data, nodes[0].output[0]]
    bias_name = f"{name}_bias_q"
    if whole_bias:
        product = scale * steps
        whole = np.clip(np.rint(corrected / product), -(2**31) + 1, 2**31 - 1)
        nodes.append(_dequantized(graph, bias_name, whole.astype(np.int32), product))
        inputs.append(nodes[-1].output[0])
    elif one.takes_bias:
        inputs.append(graph.add_constant(bias_name, corrected.astype(np.float32)))
    else:
        _shift_sum(graph, one, shift)
    del one.node.input[:]
    one.node.input.extend(inputs)
    return nodes


def _shift_sum(graph: Graph, one: Weighted, shift: Float) -> None:
    """Corrects the constant that is added to what a node without a bias makes, if there is one."""
    add = graph.only_reader(one.output)
    if add is None or add.op_type != "Add":
        return
    for index, name in enumerate(add.input):
        if name in graph.constants and graph.constants[name].dims[-1:] in ([1], [len(shift)]):
            corrected = (graph.array(name) + shift).astype(np.float32)
            add.input[index] = graph.add_constant(f"{one.weight}_bias_q", corrected)


def _with_room(
    one: Weighted,
    weight: Float32,
    bias: Float32,
    scale: np.float32,
    places: Int8,
    steps: Float32,
) -> tuple[Int8, Float32]:
    """Coarser steps for filters that are next to nothing beside their bias.

    The bias has the steps of filter and input multiplied, and would be cut off at 31 of its bits:
    where it is float32, ONNX Runtime makes such a bias of it.
    """
    least = (np.abs(bias) / scale / 2**30).astype(np.float32)
    coarse = steps < least
    steps = np.where(coarse, least, steps)
    wide = one.along(steps, weight.ndim)
    rounded = np.clip(np.rint(weight / wide), -127, 127).astype(np.int8)
    return np.where(one.along(coarse, weight.ndim), rounded, places), steps


def _dequantized(
    graph: Graph, name: str, places: np.ndarray, steps: np.ndarray, axis: int = 0
) -> onnx.NodeProto:
    """A constant of whole numbers with a step for each place along an axis."""
    inputs = [
        graph.add_constant(name, places),
        graph.add_constant(f"{name}_scale", steps.astype(np.float32)),
        graph.add_constant(f"{name}_zero", np.zeros(steps.shape, places.dtype)),
    ]
    return helper.make_node(
        "DequantizeLinear", inputs, [f"{name}_dq"], f"{name}_DequantizeLinear", axis=axis
    )


def quantized_weights(weight: Float32, flat: bool = False, axis: int = 0) -> tuple[Int8, Float32]:
    """Rounds weights to symmetric grids of -127..127, one a channel of output.

    Each grid's step is the one of least squared error, which may clip a channel's largest weights.

    Args:
        weight: float32, of any shape with N along `axis`, e.g. O x I x kh x kw.
        flat: for the input of a convolution that is much the same in all channels and over a whole
            kernel, as an image is in its sky. There the errors of a filter's weights add up, so
            each is carried into the rounding of the next, and their sum stays below half a step.
        axis: along which there is a step each.

    Returns:
        int8 of the same shape, and the steps, float32 of N: weight is about int8 * step.
    """
    moved = np.moveaxis(weight, axis, 0)
    rows = moved.reshape(len(moved), -1).astype(np.float64)
    highest = np.maximum(np.abs(rows).max(axis=1), 1e-12)
    best = np.full(rows.shape[0], np.inf)
    steps = highest / 127
    for fraction in _FRACTIONS:
        tried = (highest * fraction / 127)[:, None]
        error = np.square(np.clip(np.rint(rows / tried), -127, 127) * tried - rows).sum(axis=1)
        steps = np.where(error < best, tried[:, 0], steps)
        best = np.minimum(error, best)
    steps32 = steps.astype(np.float32)
    wanted = rows / steps32[:, None]
    places = np.clip(np.rint(wanted), -127, 127)
    if flat:
        # Tap by tap, and of each tap channel by channel: those are the most alike.
        order = np.arange(rows.shape[1]).reshape(weight.shape[1], -1).T.ravel()
        carried = np.zeros(len(rows))
        for column in order:
            carried = carried + wanted[:, column]
            places[:, column] = np.clip(np.rint(carried), -127, 127)
            carried = carried - places[:, column]
    whole = places.astype(np.int8).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(whole, 0, axis)), steps32


def bias_shift(one: Weighted, weight: Float32, places: Int8, steps: Float32, means: Float) -> Float:
    """What rounding the weights takes from the mean of each channel of output, to be given back.

    The error of a mean is the errors of the weights times the mean of the input, which after a
    ReLU is not zero: M. Nagel et al., "Data-free quantization through weight equalization and bias
    correction", ICCV 2019, section 4.2, with means that were measured.

    Args:
        one: the node.
        weight: float32, in its own layout.
        places, steps: what `quantized_weights` made of it.
        means: float64 of I, the mean of each channel of input.

    Returns:
        float64 of O.
    """
    wide = one.along(steps.astype(np.float64), weight.ndim)
    error = weight.astype(np.float64) - places * wide
    return np.asarray(one.mean_of_output(error, means), np.float64)
