"""The order of a graph's nodes."""

from __future__ import annotations

import onnx


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts every node after those whose outputs it reads, otherwise in the order they have."""
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    makers = {output: index for index, node in enumerate(nodes) for output in node.output}
    ordered: dict[int, None] = {}

    def place(index: int) -> None:
        for name in nodes[index].input:
            if makers.get(name, index) not in ordered and makers.get(name, index) != index:
                place(makers[name])
        ordered[index] = None

    for index in range(len(nodes)):
        if index not in ordered:
            place(index)
    del graph.node[:]
    graph.node.extend(nodes[index] for index in ordered)
