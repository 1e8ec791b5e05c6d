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
from collections.abc import Collection, Mapping

import numpy as np
import onnx

from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.histogram import Float, TensorStatistics

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
        for name, shape, makes in constants:
            by = (1 / scale if makes else scale).reshape(shape)
            graph.add_constant(name, (graph.array(name) * by).astype(np.float32))
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
        if node.op_type == "Conv":
            root(node.input[0])
            root(node.output[0])
        elif node.op_type in _CHANNEL_WISE:
            for name in node.input if node.op_type == "Add" else node.input[:1]:
                parent[root(node.output[0])] = root(name)
    groups = defaultdict(list)
    for name in parent:
        groups[root(name)].append(name)
    return {tensors[0]: tensors for tensors in groups.values()}


def _constants(
    graph: Graph, tensors: Collection[str]
) -> list[tuple[str, tuple[int, ...], bool]] | None:
    """The weights and biases that make and read a group; None where something else does, too.

    Returns:
        Of each its name, the shape of a factor for each channel of the group beside it, and
        whether it makes the group.
    """
    constants: list[tuple[str, tuple[int, ...], bool]] = []
    for name in tensors:
        source = graph.producers.get(name)
        if source is None or name in graph.outputs:
            return None
        if graph.is_plain(source):
            constants.append((source.input[1], (-1, 1, 1, 1), True))
            constants += [(bias, (-1,), True) for bias in source.input[2:]]
        elif source.op_type not in _CHANNEL_WISE:
            return None
        for node in graph.readers[name]:
            if graph.is_plain(node):
                constants.append((node.input[1], (1, -1, 1, 1), False))
            elif node.op_type not in _CHANNEL_WISE:
                return None
    return constants
