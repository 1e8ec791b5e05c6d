"""Where the blocks of a graph hand on to one another, and graphs that show that or are given it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, helper

from icnet_deploy.calibration.calibrate import open_session
from icnet_deploy.calibration.graph import Graph, shapes_of
from icnet_deploy.calibration.placements.base import Placement
from icnet_deploy.calibration.sensitivity.search import Block, blocks_of

_FLOAT = "tensor(float)"


@dataclass(frozen=True)
class Handover:
    """What a block takes from other blocks, and what it hands on.

    Attributes:
        block: which.
        layers: the names of its layers, in the graph's order.
        taken: float32 tensors of other blocks that it reads, in the graph's order.
        made: float32 tensors of its own that other blocks read, or that the graph returns; of a
            block without any, the output of its last layer.
    """

    block: Block
    layers: tuple[str, ...]
    taken: tuple[str, ...]
    made: tuple[str, ...]


class Handovers:
    """The blocks of a float32 graph.

    A node is of the block of its layer. One without weights is of the block of that layer before it
    which is the last in the graph's order: the sum and the ReLU behind a convolution are of the
    convolution's block. What lies before all layers is of none.

    Args:
        model: of float32, its nodes in an order that runs; it is not changed.
        network: its description, as the metadata have it; see `blocks_of`.
        placement: of the 8-bit graph that it is compared with; None of a float one.

    Attributes:
        blocks: each with what it takes and makes, in the order in which they end in the graph.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        network: Mapping[str, Any],
        placement: Placement | None = None,
    ) -> None:
        self._model = model
        graph = Graph(model)
        layers = {one.output: graph.layer(one.node) for one in graph.weighted()}
        kept = graph.float_layers() if placement is None else placement.float_layers(graph)
        blocks = blocks_of(list(layers.values()), kept, network)
        self._owners = owners = _owners(model.graph.node, layers, blocks)
        read: dict[str, set[Block]] = {}
        for node in model.graph.node:
            reader = owners.get(node.output[0])
            for name in node.input:
                if reader is not None and owners.get(name, reader) is not reader:
                    read.setdefault(name, set()).add(reader)
        handed = [name for name in owners if name in read or name in graph.outputs]
        last = {owners[name]: name for name in layers}
        floats = _floats(model, [*handed, *last.values()])
        self.blocks: list[Handover] = []
        for block in blocks:
            made = [name for name in handed if owners[name] is block and name in floats]
            taken = [name for name in handed if block in read.get(name, ()) and name in floats]
            own = [layer for name, layer in layers.items() if owners[name] is block]
            made = made or [last[block]]
            self.blocks.append(Handover(block, tuple(own), tuple(taken), tuple(made)))

    def owner(self, tensor: str) -> Block | None:
        """The block that makes a tensor; None of one that lies before all, or is none."""
        return self._owners.get(tensor)

    def apart(self, given: Collection[str]) -> onnx.ModelProto:
        """A copy of the graph that runs each block on what its caller gives it.

        Args:
            given: tensors that a block takes from its caller in place of the block that makes them.
                Each is an input, named as `given_as` says, unless no other block reads it.

        Returns:
            The graph, which returns what every block makes.
        """
        copy = shown(self._model, [name for block in self.blocks for name in block.made])
        inputs: dict[str, None] = {}
        for node in copy.graph.node:
            reader = self._owners.get(node.output[0])
            for index, name in enumerate(node.input):
                if name in given and reader is not None and self._owners[name] is not reader:
                    node.input[index] = given_as(name)
                    inputs[given_as(name)] = None
        copy.graph.input.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs
        )
        return copy


def given_as(tensor: str) -> str:
    """The input of `Handovers.apart` that stands for a tensor."""
    return f"{tensor}_given"


def _owners(
    nodes: Sequence[onnx.NodeProto], layers: Mapping[str, str], blocks: Sequence[Block]
) -> dict[str, Block]:
    """Tensor -> the block that makes it, in the graph's order."""
    from icnet_deploy.networks.blocks import scopes_of

    named = {module: block for block in blocks for module in block.modules}
    owners: dict[str, tuple[int, Block]] = {}
    for index, node in enumerate(nodes):
        before = [owners[name] for name in node.input if name in owners]
        if node.output[0] in layers:
            scopes = scopes_of(layers[node.output[0]])
            owner = (index, next(named[scope] for scope in scopes if scope in named))
        elif before:
            owner = max(before, key=lambda one: one[0])
        else:
            continue
        owners.update(dict.fromkeys(node.output, owner))
    return {name: block for name, (_, block) in owners.items()}


def shown(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """A copy of a graph that returns these tensors, too, of whatever type they are."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {value.name for value in copy.graph.output}
    more = dict.fromkeys(name for name in tensors if name not in have)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
    return copy


def _floats(model: onnx.ModelProto, tensors: Iterable[str]) -> set[str]:
    """Those of these tensors that are float32, which ONNX Runtime knows."""
    outputs = open_session(shown(model, tensors)).get_outputs()
    return {value.name for value in outputs if value.type == _FLOAT}


def places(model: onnx.ModelProto, tensors: Iterable[str]) -> dict[str, str]:
    """Where an artefact has the tensors of the float32 graph that it was made from.

    That is what the pair on a tensor makes of it, if there is one: so the runtime fuses as it does
    in the file itself, and the rounding of a block's output is the block's.

    Args:
        model: of any precision.
        tensors: of the float32 graph.

    Returns:
        Tensor of the float32 graph -> tensor of this one; without those that it has not.
    """
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    found = {}
    for name in tensors:
        pair = f"{name}_dq"
        if made.get(pair) == "DequantizeLinear":
            found[name] = pair
        elif name in made:
            found[name] = name
    return found


def of_one_form(
    found: Mapping[str, str], reference: onnx.ModelProto, model: onnx.ModelProto
) -> dict[str, str]:
    """Those of the tensors that `places` finds which have as many axes as the float32 graph's.

    An 8-bit graph may keep channels last between images and tokens, where the float32 graph has
    three axes.

    Args:
        found: tensor of the float32 graph -> tensor of the other.
        reference: the float32 graph.
        model: the other.
    """
    wanted, own = shapes_of(reference), shapes_of(model)
    return {
        name: other
        for name, other in found.items()
        if not (name in wanted and other in own and len(wanted[name]) != len(own[other]))
    }
