"""Reading and rewiring an ONNX graph: who makes a tensor, who reads it, what a layer is called."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from icnet_deploy.calibration.weighted import KINDS, Weighted, weighted_of
from icnet_deploy.errors import InputError

Array = npt.NDArray[np.float32]

_NUMBERED = re.compile(r"(onnx::\w+_|_v_|val_|lifted_tensor_)?\d+")
"""What exporters call a constant that they made, such as weights with a batch norm folded in."""

_FEW = 5
"""A network of fewer parts at the first level is known better by those below."""

_MOVING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""They move numbers and change none."""

_CHANNELS_LAST = frozenset({"Gemm", "MatMul", "LayerNormalization"})


class Graph:
    """A view of a model's graph; changes go to the model.

    Args:
        model: a float32 graph as `icnet export` writes it, nodes in an order that runs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.constants = {t.name: t for t in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self.producers: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.output:
                self.producers[name] = node
            for name in node.input:
                self.readers[name].append(node)

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """The sides of a tensor, for one image; None where they cannot be inferred.

        They are those of the graph as it is when this or `keep_shapes` is first called.
        """
        self.keep_shapes()
        return (self._shapes or {}).get(tensor)

    def keep_shapes(self) -> None:
        """Infers the shapes, for whoever asks for them when the graph is changed."""
        if self._shapes is None:
            self._shapes = shapes_of(self.model)

    def nodes(self, kind: str) -> list[onnx.NodeProto]:
        """The nodes of an operator, in order."""
        return [node for node in self.model.graph.node if node.op_type == kind]

    def array(self, name: str) -> Array:
        """A constant's value, float32."""
        return np.asarray(numpy_helper.to_array(self.constants[name]), np.float32)

    def only_reader(self, tensor: str) -> onnx.NodeProto | None:
        """The node that reads a tensor, if it is one alone and the tensor is no output."""
        readers = self.readers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def after_relu(self, tensor: str) -> str:
        """The output of the ReLU that alone reads a tensor; else the tensor itself."""
        reader = self.only_reader(tensor)
        return str(reader.output[0]) if reader is not None and reader.op_type == "Relu" else tensor

    def layer(self, node: onnx.NodeProto) -> str:
        """A weighted node's name in the network, e.g. `conv2_1._3x3` or `backbone.layer1.0.conv1`.

        It is that of its weights, without what an export wraps a network in. Weights that an
        exporter made and has numbered have none: then it is that of its bias, or the node's scope,
        where there is one, and else the node's name.
        """
        weights = str(node.input[1])
        name = weights.removesuffix(".weight")
        if _NUMBERED.fullmatch(weights):
            bias = str(node.input[2]) if len(node.input) > 2 else ""
            name = bias.removesuffix(".bias") if bias.endswith(".bias") else ""
            name = name or _scope(str(node.name)) or str(node.name) or weights
        return name.removeprefix("network.").removeprefix("module.").removesuffix(".conv")

    def weighted_node(self, node: onnx.NodeProto) -> Weighted | None:
        """A node that multiplies by constants that no other node reads; None of any other."""
        one = weighted_of(node, self.constants)
        alone = all(len(self.readers[name]) == 1 for name in node.input[1:] if name)
        return one if alone else None

    def weighted(self, exclude: Collection[str] = ()) -> list[Weighted]:
        """The nodes whose weights can be quantized, but for those of the excluded blocks.

        Args:
            exclude: names of layers, of nodes, or of what layers are in: `conv2_1` is all of
                `conv2_1._3x3`, ..., `backbone.layer1` all of `backbone.layer1.0.conv1`, ...

        Raises:
            InputError: a name is none of the graph's.
        """
        found = [one for one in map(self.weighted_node, self.model.graph.node) if one is not None]
        unknown = sorted(set(exclude).difference(*(self._names(one.node) for one in found)))
        if unknown:
            known = self._known(one.node for one in found)
            raise InputError(
                f"the graph has no layer or block {unknown[0]!r}; blocks: {', '.join(known)}"
            )
        return [one for one in found if self._names(one.node).isdisjoint(exclude)]

    def named(self, name: str) -> list[Weighted]:
        """The weighted nodes of a layer, a node or what layers are in; none where it is unknown."""
        return [one for one in self.weighted() if name in self._names(one.node)]

    def channel_axis(self, tensor: str) -> int:
        """Along which axis the channels of a tensor lie: 1, or -1 where matrices are multiplied."""
        source = self.producers.get(tensor)
        nodes = [*self.readers.get(tensor, []), *([source] if source is not None else [])]
        return -1 if any(node.op_type in _CHANNELS_LAST for node in nodes) else 1

    def _names(self, node: onnx.NodeProto) -> set[str]:
        from icnet_deploy.networks.blocks import scopes_of

        return {str(node.name), *scopes_of(self.layer(node))}

    def _known(self, nodes: Iterable[onnx.NodeProto]) -> list[str]:
        """What a user may name, at the first level, and below it where that holds everything."""
        from icnet_deploy.networks.blocks import scopes_of

        chains = [scopes_of(self.layer(node)) for node in nodes]
        known = dict.fromkeys(chain[0] for chain in chains)
        if len(known) < _FEW:
            known |= dict.fromkeys(chain[min(1, len(chain) - 1)] for chain in chains)
        return list(known)

    def image_layers(self) -> dict[str, bool]:
        """The layers that see the image itself, and whether a Resize made it smaller."""
        layers: dict[str, bool] = {}
        waiting = [(value.name, False) for value in self.model.graph.input]
        seen: set[tuple[str, bool]] = set()
        while waiting:
            tensor, small = waiting.pop()
            if (tensor, small) in seen:
                continue
            seen.add((tensor, small))
            for node in self.readers.get(tensor, []):
                if self._multiplies(node):
                    layers[self.layer(node)] = small
                else:
                    waiting += [(name, small or node.op_type == "Resize") for name in node.output]
        return layers

    def float_layers(self) -> tuple[str, ...]:
        """The layers that stay in float unless others are named.

        The classifier: nothing after it evens its noise out, and it is cheap before the upsampling.
        Convolutions that see the image made smaller: all that follows rests on them, and they are
        less than a hundredth of the products. What sees all of it is faster in 8 bits.
        """
        kept = dict.fromkeys(name for name, small in self.image_layers().items() if small)
        waiting, seen = sorted(self.outputs), set[str]()
        while waiting:
            name = waiting.pop()
            node = None if name in seen else self.producers.get(name)
            seen.add(name)
            if node is not None and self._multiplies(node):
                kept[self.layer(node)] = None
            elif node is not None:
                waiting += node.input
        known = {self.layer(one.node) for one in self.weighted()}
        return tuple(name for name in kept if name in known)

    def others_than(self, operators: Collection[str]) -> Counter[str]:
        """How many nodes between weighted ones are of none of these operators, by operator.

        A node of `KINDS` whose weights cannot be quantized is one of them; one that only computes
        the sizes of tensors is not.
        """
        sizes = self._sizes()
        nodes = [node for node in self.model.graph.node if sizes.isdisjoint(node.output)]
        before: set[str] = set()
        after: set[str] = set()
        for node in nodes:
            if node.op_type in KINDS or after.intersection(node.input):
                after.update(node.output)
        for node in reversed(nodes):
            if node.op_type in KINDS or before.intersection(node.output):
                before.update(node.input)
        return Counter(
            node.op_type
            for node in nodes
            if after.intersection(node.output)
            and (before.intersection(node.output) or node.op_type in KINDS)
            and not (
                self.weighted_node(node) if node.op_type in KINDS else node.op_type in operators
            )
        )

    def _sizes(self) -> set[str]:
        """The tensors that are computed of tensors' sizes and constants alone."""
        sizes: set[str] = set()
        for node in self.model.graph.node:
            given = [name for name in node.input if name and name not in self.constants]
            if node.op_type in ("Shape", "Size") or sizes.issuperset(given):
                sizes.update(node.output)
        return sizes

    def _multiplies(self, node: onnx.NodeProto) -> bool:
        """Whether it multiplies by constants, whoever else reads them."""
        return node.op_type in KINDS and any(name in self.constants for name in node.input)

    def add_constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        """Adds a constant, or replaces the one of that name; returns the name."""
        tensor = numpy_helper.from_array(np.array(value, order="C"), name)
        if name in self.constants:
            self.constants[name].CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
            self.constants[name] = self.model.graph.initializer[-1]
        return name

    def sort(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Takes these nodes for the graph's, each after those that make its inputs.

        Constants that none of them reads go.
        """
        waiting = list(nodes)
        graph = self.model.graph
        made = {value.name for value in graph.input} | set(self.constants) | {""}
        ordered: list[onnx.NodeProto] = []
        while waiting:
            late = []
            for node in waiting:
                if made.issuperset(node.input):
                    ordered.append(node)
                    made.update(node.output)
                else:
                    late.append(node)
            if len(late) == len(waiting):
                raise ValueError(f"the graph has a circle at {late[0].name}")
            waiting = late
        used = {name for node in ordered for name in node.input}
        _replace(graph.node, ordered)
        _replace(graph.initializer, [one for one in graph.initializer if one.name in used])


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in the form that a `Graph` wants; a copy if it has another.

    Every node has a name of its own; what is computed of constants alone by moving their numbers is
    a constant; and of weights that several nodes multiply by, each has a copy: `a.2.weight` beside
    `a.weight`, so that `a` still names all.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    changed = _name_nodes(result) | _fold(result) | _copy_shared(result)
    return result if changed else model


def _name_nodes(model: onnx.ModelProto) -> bool:
    names = Counter(node.name for node in model.graph.node)
    taken = set(names)
    changed = False
    for node in model.graph.node:
        if node.name and names[node.name] == 1:
            continue
        names[node.name] -= 1
        name = stem = f"{node.op_type}_{next(filter(None, node.output), '')}"
        while name in taken:
            name = f"{stem}_{len(taken)}"
        node.name, changed = name, True
        taken.add(name)
    return changed


def _fold(model: onnx.ModelProto) -> bool:
    """Constants in place of nodes that only move constant numbers."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    kept = []
    for node in model.graph.node:
        constant = node.op_type == "Constant" or (
            node.op_type in _MOVING and constants.keys() >= set(filter(None, node.input))
        )
        if not constant or outputs.intersection(node.output):
            kept.append(node)
            continue
        given = {name: numpy_helper.to_array(constants[name]) for name in node.input if name}
        [value] = ReferenceEvaluator(node).run(None, given)
        tensor = numpy_helper.from_array(np.asarray(value), node.output[0])
        model.graph.initializer.append(tensor)
        constants[tensor.name] = tensor
    changed = len(kept) < len(model.graph.node)
    if changed:
        _replace(model.graph.node, kept)
        used = {name for node in kept for name in node.input} | outputs
        _replace(model.graph.initializer, [t for t in constants.values() if t.name in used])
    return changed


def _copy_shared(model: onnx.ModelProto) -> bool:
    """A copy of weights and biases for each node that multiplies by them, but the first."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input)
    seen: Counter[str] = Counter()
    changed = False
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if node.op_type not in KINDS or not index or readers[name] < 2 or name not in constants:
                continue
            seen[name] += 1
            if seen[name] == 1 and all(n.op_type in KINDS for n in _readers(model, name)):
                continue
            copy = onnx.TensorProto()
            copy.CopyFrom(constants[name])
            stem, dot, last = name.rpartition(".")
            copy.name = f"{stem}.{seen[name]}{dot}{last}" if dot else f"{name}.{seen[name]}"
            model.graph.initializer.append(copy)
            node.input[index], changed = copy.name, True
    return changed


def _readers(model: onnx.ModelProto, name: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if name in node.input]


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Tensor -> its sides for one image, as far as they can be inferred."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    constants = {tensor.name for tensor in copy.graph.initializer}
    for given in copy.graph.input:
        dims = given.type.tensor_type.shape.dim
        if dims and given.name not in constants:
            dims[0].dim_value = 1
    for value in copy.graph.output:  # with the symbol of a free batch
        value.type.tensor_type.ClearField("shape")
    with suppress(onnx.shape_inference.InferenceError, ValueError):  # else they are not known
        copy = onnx.shape_inference.infer_shapes(copy, data_prop=True)
    found = {tensor.name: tuple(tensor.dims) for tensor in copy.graph.initializer}
    for value in (*copy.graph.input, *copy.graph.value_info, *copy.graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            found[value.name] = tuple(d.dim_value for d in kind.shape.dim)
    return found


def _scope(node: str) -> str:
    """The module that a node is of: `a.0.conv` of `/a/a.0/conv/Conv`; empty where it says none."""
    scope, before = [], ""
    for part in node.split("/")[:-1]:
        if part:
            scope.append(part.removeprefix(f"{before}.") if before else part)
            before = part
    return ".".join(scope)


def _replace(repeated: Any, kept: Iterable[onnx.NodeProto | onnx.TensorProto]) -> None:
    """Makes these members of a repeated field all of it."""
    copies = [type(one).FromString(one.SerializeToString()) for one in kept]
    del repeated[:]
    repeated.extend(copies)
