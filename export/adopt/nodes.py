"""The nodes of a graph with graphs inside, and the names of its tensors."""

from collections.abc import Iterator

import onnx


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph, and of the graphs in their attributes."""
    for one in graphs_of(graph):
        yield from one.node


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and those in the attributes of its nodes, and in theirs."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            one = [attribute.g] if attribute.HasField("g") else []
            for inner in (*one, *attribute.graphs):
                yield from graphs_of(inner)


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Calls a tensor by another name, wherever it stands."""
    for node in nodes_of(graph):
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = new if value.name == old else value.name
