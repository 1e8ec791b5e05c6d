"""Joining in 8 bits: what is rounded behind a Concat is rounded before it."""

from collections import Counter
from collections.abc import Collection, Sequence

import onnx
from onnx import helper


def join_in_8_bits(
    nodes: Sequence[onnx.NodeProto], outputs: Collection[str]
) -> list[onnx.NodeProto]:
    """Rounds what a Concat joins, each part on the grid of the whole, and joins the 8-bit parts.

    It is the same function as rounding the whole. But the part that a convolution makes is then
    written in 8 bits, and OpenVINO 2026.4 answers wrongly where an int8 pair stands right before or
    behind a Concat: it rounds to whole numbers.

    Args:
        nodes: of a graph with pairs, in any order.
        outputs: the graph's.
    """
    made = {node.output[0]: node for node in nodes}
    readers = Counter(name for node in nodes for name in node.input)
    waiting = [node for node in nodes if node.op_type == "QuantizeLinear"]
    while waiting:
        chain = [waiting.pop()]
        before = made.get(chain[0].input[0])
        if before is not None and before.op_type == "Relu":
            chain.append(before)
        join = made.get(chain[-1].input[0])
        if join is None or join.op_type != "Concat":
            continue
        if any(readers[n.input[0]] > 1 or n.input[0] in outputs for n in chain):
            continue
        for node in (*chain, join):
            del made[node.output[0]]
        parts = [_each(chain, name, index) for index, name in enumerate(join.input)]
        made |= {node.output[0]: node for part in parts for node in part}
        waiting += [part[-1] for part in parts]
        whole = onnx.NodeProto(op_type="Concat", name=join.name, attribute=join.attribute)
        whole.input.extend(part[-1].output[0] for part in parts)
        whole.output.append(chain[0].output[0])
        made[chain[0].output[0]] = whole
    return list(made.values())


def _each(chain: Sequence[onnx.NodeProto], name: str, index: int) -> list[onnx.NodeProto]:
    """What stood behind a Concat, last first, behind one of the tensors that it joins."""
    result = []
    for node in reversed(chain):
        copy = helper.make_node(
            node.op_type, [name, *node.input[1:]], [f"{node.output[0]}_{index}"]
        )
        copy.name = f"{node.name}_{index}"
        name = copy.output[0]
        result.append(copy)
    return result
