"""Where Q/DQ pairs stand: the two placements of the contract.

`int8` is what TensorRT fuses: a pair before each convolution and on the skip input of each sum
that a convolution feeds, none between Conv, Add and ReLU. Of a sum of two convolutions (the
projections of bottlenecks, the CFFs) the one that runs first is the skip.

`int8-ort` is what ONNX Runtime's CPU kernels want: every tensor between 8-bit operators has a pair
of its own, so that Conv, Add and ReLU each find 8 bits on both sides.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import onnx

from icnet_deploy.calibration.graph import Graph
from icnet_deploy.errors import InputError

__all__ = ["PLACEMENTS", "Placement", "float_layers", "place"]

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
    """The layers that stay in float unless others are named: those at the graph's two ends.

    The convolutions that see the image: it is bright or dark as a whole, so the roundings of a
    filter's weights add up over it, to most of the noise of the whole net; and with three channels
    they are no faster in 8 bits. The classifier: nothing after it evens its noise out.
    """
    found: dict[str, None] = {}
    for start, step in (
        ([v.name for v in graph.model.graph.input], _readers),
        (sorted(graph.outputs), _producer),
    ):
        waiting, seen = list(start), set(start)
        while waiting:
            for node in step(graph, waiting.pop()):
                if node.op_type == "Conv":
                    found[graph.layer(node)] = None
                    continue
                names = node.output if step is _readers else node.input
                waiting += [name for name in names if name not in seen]
                seen.update(names)
    return tuple(found)


def _readers(graph: Graph, tensor: str) -> list[onnx.NodeProto]:
    return graph.readers.get(tensor, [])


def _producer(graph: Graph, tensor: str) -> list[onnx.NodeProto]:
    return [graph.producers[tensor]] if tensor in graph.producers else []


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
