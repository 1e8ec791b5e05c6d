"""Joining in 8 bits: what is rounded behind a Concat is rounded before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_EACH = frozenset({"Relu", "Clip", "Identity", "Dropout"})
"""Operators that treat each number alone, and may stand between a Concat and what rounds it."""


def join_in_8_bits(
    nodes: Sequence[onnx.NodeProto], outputs: Collection[str]
) -> list[onnx.NodeProto]:
    """Rounds what a Concat joins, each part on the grid of the whole, and joins the 8-bit parts.

    It is the same function as rounding the whole. But the part that a convolution makes is then
    written in 8 bits, and OpenVINO 2026.4 answers wrongly where an int8 pair stands right before or
    behind a Concat: it rounds to whole numbers. Who reads the whole in float still does.

    Args:
        nodes: of a graph with pairs, in any order.
        outputs: the graph's.
    """
    import onnx

    made = {node.output[0]: node for node in nodes}
    waiting = [node for node in nodes if node.op_type == "QuantizeLinear"]
    replaced: list[str] = []
    while waiting:
        chain = [waiting.pop()]
        before = made.get(chain[0].input[0])
        while before is not None and before.op_type in _EACH:
            chain.append(before)
            before = made.get(before.input[0])
        if before is None or before.op_type != "Concat":
            continue
        parts = [_each(chain, name, index) for index, name in enumerate(before.input)]
        made |= {node.output[0]: node for part in parts for node in part}
        waiting += [part[-1] for part in parts]
        whole = onnx.NodeProto(op_type="Concat", attribute=before.attribute)
        whole.name = f"{chain[0].output[0]}_{before.name}"
        whole.input.extend(part[-1].output[0] for part in parts)
        whole.output.append(chain[0].output[0])
        made[chain[0].output[0]] = whole
        replaced += [node.output[0] for node in (*chain[1:], before)]
    readers = Counter(name for node in made.values() for name in node.input)
    unread = set(replaced).difference(outputs)
    while dead := [name for name in unread if not readers[name] and name in made]:
        for name in dead:
            readers.subtract(made.pop(name).input)
    return list(made.values())


def _each(chain: Sequence[onnx.NodeProto], name: str, index: int) -> list[onnx.NodeProto]:
    """What stood behind a Concat, last first, behind one of the tensors that it joins."""
    result = []
    for node in reversed(chain):
        copy = type(node)()
        copy.CopyFrom(node)
        del copy.output[1:]
        copy.input[0] = name
        copy.name = f"{node.name}_{index}"
        name = copy.output[0] = f"{chain[0].output[0]}_{index}"
        if node is not chain[0]:
            name = copy.output[0] = f"{name}_{node.output[0]}"
            copy.name = name
        result.append(copy)
    return result
