"""Casts to float16 and straight back, removed.

ONNX Runtime's converter puts a cast on every side of a node that stays in float32. Between two such
neighbours the value would go through float16 all the same, and become infinite there.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import TensorProto

from icnet_deploy.export.passes.sorting import sort_nodes


def drop_round_trips(model: onnx.ModelProto) -> bool:
    """Hands float32 values on as they are where a cast to float16 is followed by one to float32.

    Needs: a graph without subgraphs, in any order, that states the types of its tensors. After it:
    the graph is sorted, and what passes between two nodes in float32 is float32.

    Returns:
        Whether it removed any.
    """
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    outputs = {value.name for value in graph.output}
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    renamed: dict[str, str] = {}
    gone, shortened = [], False
    for up in graph.node:
        down = makers.get(up.input[0]) if _casts_to(up, TensorProto.FLOAT) else None
        if down is None or not _casts_to(down, TensorProto.FLOAT16):
            continue
        whole, back = down.input[0], up.output[0]
        if types.get(whole) != TensorProto.FLOAT:  # an integer: cast it at once
            up.input[0], shortened = whole, True
            continue
        if back not in outputs:
            renamed[back] = whole
        elif whole in makers and whole not in outputs:
            renamed[whole] = back  # the graph's output keeps its name; what makes it takes it
        else:
            continue
        gone.append(up)
    for node in gone:
        graph.node.remove(node)
    _rename(graph.node, renamed)
    _remove_unused(graph, outputs)
    sort_nodes(graph)
    return shortened or bool(gone)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == kind


def _rename(nodes: Iterable[onnx.NodeProto], renamed: dict[str, str]) -> None:
    def final(name: str) -> str:
        while name in renamed:  # a value may pass several such pairs
            name = renamed[name]
        return name

    for node in nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name in renamed:
                    names[index] = final(name)


def _remove_unused(graph: onnx.GraphProto, outputs: set[str]) -> None:
    """Takes out the nodes that nothing reads, and what the graph says of tensors that are gone."""
    while True:
        read = outputs.union(*(node.input for node in graph.node))
        dead = [node for node in graph.node if not read.intersection(node.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    made = {output for node in graph.node for output in node.output}
    for value in [v for v in graph.value_info if v.name not in made]:
        graph.value_info.remove(value)
