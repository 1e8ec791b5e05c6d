"""What the passes share: who makes a tensor, the tensors' shapes, and the order of the nodes."""

from typing import Any

import onnx
from onnx import helper


def makers_of(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Tensor -> the node that makes it."""
    return {output: node for node in graph.node for output in node.output}


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The graph's constants by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes: name -> a number, bytes, or a list of them."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Tensor -> its shape, as far as inference finds it; None where a side is free."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
    return shapes


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts every node after those whose outputs it reads, otherwise in the order they have."""
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    ordered: dict[int, None] = {}
    for index in range(len(nodes)):
        waiting = {index: None}  # each reads what the next one makes
        while waiting:
            at = next(reversed(waiting))
            needed = (makers.get(name, at) for name in nodes[at].input)
            before = next((i for i in needed if i not in ordered and i != at), None)
            if before is None:
                ordered[at] = None
                del waiting[at]
            elif before in waiting:
                raise ValueError(f"the graph has a circle at {nodes[at].output[0]}")
            else:
                waiting[before] = None
    del graph.node[:]
    graph.node.extend(nodes[index] for index in ordered)


def drop_unread_constants(graph: onnx.GraphProto) -> None:
    """Takes out the constants that nothing reads any more."""
    read = {name for node in graph.node for name in node.input}
    read.update(value.name for value in graph.output)
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)


def restate(model: onnx.ModelProto) -> None:
    """Sorts the nodes of a graph that was changed, and states the types of its tensors anew."""
    sort_nodes(model.graph)
    del model.graph.value_info[:]
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))
