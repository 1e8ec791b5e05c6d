"""The nodes of a graph with graphs inside, and the names of its tensors."""

from collections.abc import Iterator

import onnx


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph, and of the graphs in their attributes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_of(inner)


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Calls a tensor by another name, wherever it stands."""
    for node in nodes_of(graph):
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = new if value.name == old else value.name
