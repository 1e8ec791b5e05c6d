"""Where Q/DQ pairs stand: the two placements of the contract.

`int8` is what TensorRT fuses: a pair before each convolution and the max pool, and on the skip
input of each sum that a convolution feeds, none between Conv, Add and ReLU. Of a sum of two
convolutions (the projections of bottlenecks, the CFFs) the one that runs first is the skip.

`int8-ort` is what ONNX Runtime's CPU kernels want: every tensor between 8-bit operators has a pair
of its own, so that Conv, Add and ReLU each find 8 bits on both sides.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import onnx

from icnet_deploy.calibration.graph import Graph
from icnet_deploy.errors import InputError

PLACEMENTS = ("int8", "int8-ort")


@dataclass
class Placement:
    """What is to be quantized.

    Attributes:
        convolutions: the nodes whose weights become int8.
        pairs: tensor -> the nodes that read it through a pair (by name), or None for all.
        ranged_as: tensor -> the tensor whose range it takes, where that is not its own.
    """

    convolutions: list[onnx.NodeProto]
    pairs: dict[str, set[str] | None] = field(default_factory=dict)
    ranged_as: dict[str, str] = field(default_factory=dict)

    def read_by(self, tensor: str, node: onnx.NodeProto) -> None:
        """Lets one more node read a tensor through a pair."""
        readers = self.pairs.setdefault(tensor, set())
        if readers is not None:
            readers.add(node.name)


def place(graph: Graph, placement: str, exclude: Collection[str] = ()) -> Placement:
    """Decides where pairs stand.

    Args:
        graph: of float32.
        placement: one of `PLACEMENTS`.
        exclude: layers, blocks or nodes that stay in float.

    Raises:
        InputError: there is no such placement, or nothing of such a name.
    """
    if placement not in PLACEMENTS:
        raise InputError(f"unknown placement {placement!r}; known: {', '.join(PLACEMENTS)}")
    found = Placement(graph.convolutions(exclude))
    if placement == "int8":
        _for_tensorrt(graph, found)
    else:
        _for_onnx_runtime(graph, found)
    return found


def float_layers(graph: Graph) -> tuple[str, ...]:
    """The layers that stay in float unless others are named.

    The classifier: nothing after it evens its noise out, and it is cheap before the upsampling.
    Convolutions that see the image made smaller: all that follows rests on them, and they are less
    than a hundredth of the products. What sees all of it is faster in 8 bits.
    """
    first = [name for name, small in image_layers(graph).items() if small]
    last: dict[str, None] = {}
    waiting = sorted(graph.outputs)
    while waiting:
        node = graph.producers.get(waiting.pop())
        if node is not None and node.op_type == "Conv":
            last[graph.layer(node)] = None
        elif node is not None:
            waiting += node.input
    return (*first, *last)


def image_layers(graph: Graph) -> dict[str, bool]:
    """The convolutions that see the image itself, and whether a Resize made it smaller before."""
    found: dict[str, bool] = {}
    waiting = [(value.name, False) for value in graph.model.graph.input]
    while waiting:
        tensor, small = waiting.pop()
        for node in graph.readers.get(tensor, []):
            if node.op_type == "Conv":
                found[graph.layer(node)] = small
            else:
                waiting += [(name, small or node.op_type == "Resize") for name in node.output]
    return found


def _for_tensorrt(graph: Graph, found: Placement) -> None:
    for conv in found.convolutions:
        found.read_by(conv.input[0], conv)
    made = {conv.output[0] for conv in found.convolutions}
    for add in graph.nodes("Add"):
        # The convolution that runs last is fused with the sum, if nothing else reads it.
        branches = [n for n in add.input if n in made and graph.only_reader(n) is not None]
        if branches:
            branch = max(branches, key=lambda n: graph.order[graph.producers[n].name])
            [skip] = [name for name in add.input if name != branch]
            found.read_by(skip, add)
    for name in list(found.pairs):
        source = graph.producers.get(name)
        if source is not None and source.op_type == "MaxPool":
            # The largest of rounded values is the largest value rounded, on the same grid: nothing
            # changes but that the pool and what makes its input work in 8 bits.
            found.read_by(source.input[0], source)
            found.ranged_as[source.input[0]] = name


def _for_onnx_runtime(graph: Graph, found: Placement) -> None:
    for conv in found.convolutions:
        found.pairs[conv.input[0]] = None
        found.pairs[graph.after_relu(conv.output[0])] = None
    for add in graph.nodes("Add"):
        if all(name in found.pairs for name in add.input):
            found.pairs[graph.after_relu(add.output[0])] = None
    for name in list(found.pairs):
        source = graph.producers.get(name)
        if source is not None and source.op_type == "MaxPool":
            found.pairs[source.input[0]] = None
            found.ranged_as[name] = source.input[0]
    for name in graph.outputs:
        found.pairs.pop(name, None)
