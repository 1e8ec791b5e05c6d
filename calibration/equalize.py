"""Cross-layer equalization: channels of one tensor scaled to like ranges, the function unchanged.

One 8-bit grid serves all channels of a tensor, so a quiet channel beside a loud one is left with
few steps. ReLU, Add, Resize and the pools treat each channel alone and commute with a positive
factor. So the tensors that such operators connect can share one factor a channel: divided by it
where convolutions make them, multiplied by it where convolutions read them.

M. Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV
2019, section 4.1, weigh the weights of two layers against one another; here the ranges are those
that the activations took. Equal ranges would leave the weights that read them as unlike as the
ranges were, and those are rounded, too: so a factor is the square root of what would make ranges
equal.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx

from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.histogram import Float, TensorStatistics
from icnet_deploy.calibration.weighted import KINDS

Factors = Mapping[str, Float]
"""The first tensor of a group -> a positive factor for each of its channels."""

_CHANNEL_WISE = frozenset({"Relu", "Add", "Resize", "MaxPool", "AveragePool"})
_STRENGTH = 0.5
_QUIETEST = 1 / 16  # a channel below this share of the loudest is taken to be this loud


def factors_of(
    model: onnx.ModelProto, statistics: Mapping[str, TensorStatistics]
) -> dict[str, Float]:
    """Chooses the factors of every group of tensors that only convolutions make and read.

    Args:
        model: a float32 graph.
        statistics: what its tensors did; a group without any is left as it is.
    """
    graph = Graph(model)
    factors = {}
    for first, tensors in _groups(graph).items():
        ranges = [statistics[t].highest for t in tensors if t in statistics]
        alike = len({r.size for r in ranges}) == 1
        if not alike or any(r.max() <= 0 for r in ranges) or _constants(graph, tensors) is None:
            continue
        logs = [np.log(np.maximum(r / r.max(), _QUIETEST)) for r in ranges]
        factors[first] = np.exp(_STRENGTH * np.mean(logs, axis=0))
    return factors


def equalized(model: onnx.ModelProto, factors: Factors) -> onnx.ModelProto:
    """A copy with scaled weights and biases, which computes the same."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = Graph(result)
    groups = _groups(graph)
    for first, scale in factors.items():
        constants = _constants(graph, groups[first])
        if constants is None:
            raise ValueError(f"the factors of {first} are those of another graph")
        for name, spread, makes in constants:
            value = graph.array(name)
            by = spread(1 / scale if makes else scale, value.shape)
            graph.add_constant(name, (value * by).astype(np.float32))
    return result


def _groups(graph: Graph) -> dict[str, list[str]]:
    """The tensors that channel-wise operators connect, by the first of them."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for node in graph.model.graph.node:
        if node.op_type in KINDS:
            root(node.input[0])
            root(node.output[0])
        elif node.op_type in _CHANNEL_WISE:
            for name in node.input if node.op_type == "Add" else node.input[:1]:
                parent[root(node.output[0])] = root(name)
    groups = defaultdict(list)
    for name in parent:
        groups[root(name)].append(name)
    return {tensors[0]: tensors for tensors in groups.values()}


_Spread = Callable[[Float, tuple[int, ...]], Float]


def _constants(graph: Graph, tensors: Collection[str]) -> list[tuple[str, _Spread, bool]] | None:
    """The weights and biases that make and read a group; None where something else does, too.

    Returns:
        Of each its name, what brings a factor for each channel of the group to the shape of the
        constant, and whether it makes the group.
    """
    constants: list[tuple[str, _Spread, bool]] = []
    for name in tensors:
        source = graph.producers.get(name)
        if source is None or name in graph.outputs:
            return None
        maker = graph.weighted_node(source)
        if maker is not None:
            constants.append((maker.weight, maker.of_output, True))
            constants += [(bias, _flat, True) for bias in [maker.bias] if bias]
        elif source.op_type not in _CHANNEL_WISE:
            return None
        for node in graph.readers[name]:
            reader = graph.weighted_node(node)
            if reader is not None:
                constants.append((reader.weight, reader.of_input, False))
            elif node.op_type not in _CHANNEL_WISE:
                return None
    return constants


def _flat(factors: Float, shape: tuple[int, ...]) -> Float:
    return factors.reshape(shape)
