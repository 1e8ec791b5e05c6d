"""The nodes of a graph with graphs inside, and the names of its tensors."""

from collections.abc import Iterator
from typing import Any

import onnx
from onnx import numpy_helper


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


def require_whole(model: onnx.ModelProto) -> None:
    """Raises a ValueError where a text is no UTF-8, or a constant has no value or not all of it."""
    _require_texts(model)
    for graph in graphs_of(model.graph):
        for tensor in graph.initializer:
            numpy_helper.to_array(tensor)
        for node in graph.node:
            if node.op_type == "Constant" and not (node.output and len(node.attribute) == 1):
                raise ValueError(f"the constant {node.name!r} has no value")
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    numpy_helper.to_array(attribute.t)


def _require_texts(message: Any) -> None:
    """protobuf gives bytes for a text that is no UTF-8."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        alone = isinstance(value, str | bytes) or hasattr(value, "ListFields")
        for one in [value] if alone else value:
            if isinstance(one, bytes):
                raise ValueError(f"its {field.name} is not UTF-8: {one[:60]!r}")
            if not isinstance(one, str):
                _require_texts(one)
