"""Joining in 8 bits: what is rounded behind a Concat is rounded before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph

_EACH = frozenset({"Relu", "Clip", "Identity", "Dropout"})
_BY_CHANNEL = {"BatchNormalization": 0, "Mul": -3, "Div": -3, "Add": -3, "Sub": -3}
"""Operators -> the axis of their constants along which the channels lie."""

_MOVES = frozenset({"Expand", "Flatten", "Gather", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that move values and change none: 8 bits are moved as well."""

_FIRST = "_first_"
"""In the names of tensors that are made before the values are moved."""


class _Part(NamedTuple):
    """One of the tensors that a Concat joins, and which of its channels it makes."""

    name: str
    place: int
    first: int
    last: int


def join_in_8_bits(graph: Graph, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Rounds what a Concat joins, each part on the grid of the whole, and joins the 8-bit parts.

    It is the same function as rounding the whole. But the part that a convolution makes is then
    written in 8 bits, and OpenVINO 2026.4 answers wrongly where an int8 pair stands right before or
    behind a Concat, or behind what it takes into the pair, such as a ReLU or a batch norm: it
    rounds to whole numbers. Who reads the whole in float still does.

    Args:
        graph: of float32, before there were pairs; parts of constants are added to it.
        nodes: with pairs, in any order.
    """
    import onnx

    made = {node.output[0]: node for node in nodes}
    waiting = [node for node in nodes if node.op_type == "QuantizeLinear"]
    sizes: dict[str, int] = {}
    replaced: set[str] = set()
    first: dict[bytes, str] = {}
    twins: dict[str, str] = {}
    while waiting:
        chain = [waiting.pop()]
        before = made.get(chain[0].input[0])
        while before is not None and (before.op_type in _EACH or before.op_type in _BY_CHANNEL):
            chain.append(before)
            before = made.get(before.input[0])
        moves = before is not None and _moves_joined(made, chain, before)
        if moves or (before is not None and before.op_type == "Concat"):
            rounded = str(chain[0].output[0])
            twin = first.setdefault(_what(chain), rounded)
            if twin != rounded:
                twins[rounded] = twin
                replaced.update(node.output[0] for node in chain[1:])
                del made[rounded]
                continue
        if before is not None and moves:
            waiting.append(_rounded_first(made, chain, before))
            replaced.update(node.output[0] for node in (*chain[1:], before))
            continue
        if before is None or before.op_type != "Concat":
            continue
        parts = _parts(graph, before, sizes)
        if not all(_splits(graph, node, parts) for node in chain[1:]):
            continue
        copies = [_there(graph, made, chain, p) or _each(graph, chain, p) for p in parts]
        made |= {node.output[0]: node for part in copies for node in part}
        waiting += [part[-1] for part in copies]
        whole = onnx.NodeProto(op_type="Concat", attribute=before.attribute)
        whole.name = f"{chain[0].output[0]}_{before.name}"
        whole.input.extend(part[-1].output[0] for part in copies)
        whole.output.append(chain[0].output[0])
        made[chain[0].output[0]] = whole
        replaced.update(node.output[0] for node in (*chain[1:], before))
    for node in made.values() if twins else ():
        node.input[:] = [twins.get(name, name) for name in node.input]
    readers = Counter(name for node in made.values() for name in node.input)
    unread = replaced.difference(graph.outputs)
    while dead := [name for name in unread if not readers[name] and name in made]:
        for name in dead:
            readers.subtract(made.pop(name).input)
    return list(made.values())


def _what(chain: Sequence[onnx.NodeProto]) -> bytes:
    """What is rounded, and how: the same of two that are the same tensor of 8 bits.

    Without it each join of a tensor and itself would double what is to be gone through.
    """
    names = [chain[-1].input[0]]
    for node in chain:
        names += [node.op_type, *node.input[1:]]
        names += [str(one.SerializeToString(deterministic=True)) for one in node.attribute]
    return "\n".join(names).encode()


def _moves_joined(
    made: Mapping[str, onnx.NodeProto], chain: Sequence[onnx.NodeProto], node: onnx.NodeProto
) -> bool:
    """Whether a node moves what a Concat joined, and what is behind it knows no channels."""
    if node.op_type not in _MOVES or any(one.op_type not in _EACH for one in chain[1:]):
        return False
    source: onnx.NodeProto | None = node
    while source is not None and source.op_type in _MOVES | _EACH | _BY_CHANNEL.keys():
        source = made.get(source.input[0])
    return source is not None and source.op_type == "Concat"


def _rounded_first(
    made: dict[str, onnx.NodeProto], chain: Sequence[onnx.NodeProto], mover: onnx.NodeProto
) -> onnx.NodeProto:
    """Puts what stands behind a node that moves values before it; returns what rounds.

    The copies are numbered: along a row of such nodes, names that are made of names are twice as
    long each time.
    """
    name, last = str(mover.input[0]), str(chain[0].output[0])
    stem, number = last.partition(_FIRST)[0], len(made)
    for node in (*reversed(chain), mover):
        copy = type(node)()
        copy.CopyFrom(node)
        del copy.output[1:]
        copy.input[0] = name
        while (fresh := f"{stem}{_FIRST}{number}") in made:
            number += 1
        copy.name = name = copy.output[0] = fresh
        made[name] = copy
    made[last] = made.pop(name)
    made[last].output[0] = last
    return made[str(made[last].input[0])]


def _parts(graph: Graph, join: onnx.NodeProto, sizes: dict[str, int]) -> list[_Part]:
    """What a Concat joins; of unknown sizes, or where it joins no channels, from 0 to 0."""
    counts = []
    for name in join.input:
        shape = graph.shape(name)
        if shape is not None and len(shape) == 4:
            sizes[name] = shape[1]
        counts.append(sizes.get(name, 0))
    if 0 in counts or [each.i for each in join.attribute if each.name == "axis"] not in ([1], [-3]):
        counts = [0] * len(counts)
    ends = np.cumsum(counts).tolist()
    return [
        _Part(name, index, end - count, end)
        for index, (name, count, end) in enumerate(zip(join.input, counts, ends, strict=True))
    ]


def _splits(graph: Graph, node: onnx.NodeProto, parts: Sequence[_Part]) -> bool:
    """Whether a node between a Concat and its rounding can stand before the Concat."""
    if node.op_type in _EACH:
        return True
    known = all(name in graph.constants for name in node.input[1:])
    return known and parts[-1].last > 0


def _there(
    graph: Graph, made: Mapping[str, onnx.NodeProto], chain: Sequence[onnx.NodeProto], part: _Part
) -> list[onnx.NodeProto]:
    """What rounds a part on the same grid already, if anything does."""
    one = made.get(f"{part.name}_q")
    if len(chain) > 1 or one is None or one.input[0] != part.name:
        return []
    steps = [graph.array(node.input[1]) for node in (one, chain[0])]
    return [one] if steps[0] == steps[1] else []


def _each(graph: Graph, chain: Sequence[onnx.NodeProto], part: _Part) -> list[onnx.NodeProto]:
    """What stood behind a Concat, last first, behind one of the tensors that it joins."""
    import onnx

    result = []
    name, last = part.name, f"{chain[0].output[0]}_{part.place}"
    for node in reversed(chain):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.output[1:]
        copy.input[0] = name
        copy.name = name = copy.output[0] = f"{last}_{node.output[0]}"
        if node.op_type in _BY_CHANNEL:
            for index, constant in enumerate(node.input[1:], 1):
                copy.input[index] = _slice(graph, constant, _BY_CHANNEL[node.op_type], part)
        if node is chain[0]:
            copy.name, copy.output[0] = f"{node.name}_{part.place}", last
        result.append(copy)
    return result


def _slice(graph: Graph, constant: str, axis: int, part: _Part) -> str:
    """The constant of some channels of those that it has a number for."""
    dims = graph.constants[constant].dims
    if len(dims) < max(-axis, 1) or dims[axis] == 1:
        return constant
    places = np.arange(part.first, part.last)
    value = np.take(graph.array(constant), places, axis)
    return graph.add_constant(f"{constant}_{part.first}_{part.last}", value)
