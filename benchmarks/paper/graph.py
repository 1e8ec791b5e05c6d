"""A network of the tables as an ONNX graph for one image, and what the graph says of its cost."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from icnet_deploy.errors import ModelError

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.networks.base import SegmentationNetwork

_IN_PLACE = frozenset({"Relu", "Add", "Sub"})


@dataclass(frozen=True)
class Cost:
    """What one image costs by the graph alone, whatever runs it.

    Attributes:
        gmac: multiply-adds of the convolutions, in 10^9.
        kept_bytes: all layers' outputs together; a ReLU works in place. What a framework holds
            that keeps every layer's output, as Caffe does.
        live_bytes: the most that is needed at one time when the nodes run in order, a tensor is
            freed after its last use, and sums and ReLUs work in place. About the least that a
            runtime can do with.
    """

    gmac: float
    kept_bytes: int
    live_bytes: int


def write_graph(network: SegmentationNetwork, size: tuple[int, int], head: str, path: Path) -> Cost:
    """Exports a network with random weights, without running it, and returns its cost.

    Args:
        network: in eval mode.
        size: (height, width) in pixels.
        head: `logits` or `labels`.
        path: the ONNX file, for a batch of one.
    """
    import onnx

    from icnet_deploy.export.deployed import Deployed
    from icnet_deploy.export.graph import trace
    from icnet_deploy.networks.preprocessing import STREET

    model = for_one_image(trace(Deployed(network, STREET, head), size))
    onnx.save(model, path)
    return cost(model)


def for_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its batch fixed to one, and the shape of every tensor noted in it.

    Runtimes can plan a fixed graph when they load it; with a free batch they pack weights in the
    first run, which would be taken for activations.
    """
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del fixed.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)


def cost(model: onnx.ModelProto) -> Cost:
    """Counts what `Cost` says on a graph whose every tensor has a known shape.

    Raises:
        ModelError: a tensor's shape is not known.
    """
    import onnx

    graph = model.graph
    sizes, numbers = {}, {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        numbers[value.name] = prod(d.dim_value for d in kind.shape.dim)
        item = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        sizes[value.name] = numbers[value.name] * item
    unknown = [o for node in graph.node for o in node.output if o and not sizes.get(o)]
    if unknown:
        raise ModelError(f"the shape of the tensor {unknown[0]} is not known: fix the graph's size")
    weights = {tensor.name: tensor for tensor in graph.initializer}
    multiply_adds = kept = 0
    for node in graph.node:
        if node.op_type == "Conv":
            multiply_adds += numbers[node.output[0]] * prod(weights[node.input[1]].dims[1:])
        if node.op_type != "Relu":
            kept += sum(sizes[o] for o in node.output if o)
    return Cost(multiply_adds / 1e9, kept, _live(graph, sizes))


def _live(graph: onnx.GraphProto, sizes: dict[str, int]) -> int:
    """The peak of live tensors, the graph's inputs and outputs among them."""
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    last |= {value.name: len(graph.node) for value in graph.output}
    alive = {value.name: sizes[value.name] for value in graph.input}
    peak = sum(alive.values())
    for index, node in enumerate(graph.node):
        dying = {name for name in node.input if name in alive and last[name] == index}
        fresh = {o: sizes[o] for o in node.output if o}
        reused = 0
        if node.op_type in _IN_PLACE:
            reused = next((alive[n] for n in dying if alive[n] == sum(fresh.values())), 0)
        peak = max(peak, sum(alive.values()) + sum(fresh.values()) - reused)
        for name in dying:
            del alive[name]
        alive |= {o: size for o, size in fresh.items() if o in last}
    return peak
