"""Operators that have no fast integer kernel on ONNX Runtime, as others that have one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import onnx
from onnx import helper

from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.nearest import repeats
from icnet_deploy.calibration.placements.reach import Reach
from icnet_deploy.calibration.weighted import Weighted

Shape = tuple[int | None, ...]


def rewrite(model: onnx.ModelProto, takes: Callable[[Weighted], bool]) -> bool:
    """Rewrites what can be, to the same function; tensors that were there keep their names.

    Args:
        model: of float32; it is changed.
        takes: whether a node's weights become int8.

    Returns:
        Whether it changed the model.
    """
    graph, shapes = Graph(model), shapes_of(model)
    changed = _means(graph, shapes)
    base = Reach(graph, [one for one in graph.weighted() if takes(one)]).base
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        factors = repeats(graph, node, shapes) if node.op_type == "Resize" else None
        shape = shapes.get(node.input[0], ()) if node.input else ()
        if factors is not None and node.input[0] in base and None not in shape[2:]:
            nodes += _repeated(graph, node, factors, shape)
            changed = True
        else:
            nodes.append(node)
    if changed:
        del model.graph.value_info[:]
        graph.sort(nodes)
    return changed


def shapes_of(model: onnx.ModelProto) -> dict[str, Shape]:
    """The shapes of tensors, as far as they can be inferred; None is a side that is not known."""
    with suppress(onnx.shape_inference.InferenceError, ValueError):  # else few are known
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = model.graph
    return {
        value.name: tuple(
            side.dim_value if side.HasField("dim_value") else None
            for side in value.type.tensor_type.shape.dim
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def _means(graph: Graph, shapes: dict[str, Shape]) -> bool:
    """Makes means over all pixels pools, which have an integer kernel."""
    changed = False
    for node in graph.nodes("ReduceMean"):
        values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        axes = values.get("axes")
        if len(node.input) > 1 and node.input[1] in graph.constants:
            axes = graph.array(node.input[1]).astype(int)
        images = values.get("keepdims", 1) == 1 and len(shapes.get(node.input[0], ())) == 4
        if images and axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]:
            node.op_type = "GlobalAveragePool"
            del node.attribute[:], node.input[1:]
            changed = True
    return changed


def _repeated(
    graph: Graph, node: onnx.NodeProto, factors: tuple[int, int], shape: Sequence[int | None]
) -> list[onnx.NodeProto]:
    """Repeats pixels whose channels come last: all that a pixel has is copied at once.

    ONNX Runtime's integer convolutions want channels last, and its Resize of uint8 takes 2 ns a
    value there; this takes a tenth of that.
    """
    name = node.output[0]
    steps = [(node.input[0], f"{name}_last"), (f"{name}_last", f"{name}_columns")]
    steps += [(f"{name}_columns", f"{name}_rows"), (f"{name}_rows", name)]
    made = []
    for (given, output), axis in zip(steps, (None, 2, 1, None), strict=True):
        if axis is None:
            perm = [0, 3, 1, 2] if output == name else [0, 2, 3, 1]
            made.append(helper.make_node("Transpose", [given], [output], output, perm=perm))
        else:
            index = np.repeat(np.arange(shape[axis + 1] or 0), factors[axis - 1])
            constant = graph.add_constant(f"{output}_from", index.astype(np.int64))
            made.append(helper.make_node("Gather", [given, constant], [output], output, axis=axis))
    return made
