"""The shapes of a graph's tensors."""

from __future__ import annotations

import onnx


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Tensor -> its shape, as far as inference finds it; None where a side is free."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        found[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
    return found
