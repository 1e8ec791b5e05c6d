"""The artefact's graph: preprocessing, the foreign network, and its head, in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.export.adopt.ending import Ending
from icnet_deploy.export.adopt.foreign_file import ForeignFile, brief, counted
from icnet_deploy.export.adopt.naming import name_layers
from icnet_deploy.export.adopt.nodes import nodes_of, rename
from icnet_deploy.export.adopt.opsets import constants_as_initializers, to_opset
from icnet_deploy.export.adopt.tail import with_tail
from icnet_deploy.export.graph import finished
from icnet_deploy.export.passes import simplify, static_resize
from icnet_deploy.export.passes.common import (
    attributes_of,
    constants_of,
    drop_unread_constants,
    shapes_of,
    sort_nodes,
)

if TYPE_CHECKING:
    from icnet_deploy.networks.preprocessing import Preprocessing

_IMAGE = "image"


def assemble(
    file: ForeignFile,
    ending: Ending,
    preprocessing: Preprocessing,
    threshold: float | None,
    size: tuple[int, int] | None,
    batch: str,
) -> onnx.ModelProto:
    """Builds the graph that the artefact is.

    Args:
        file: the network.
        ending: where its logits are.
        preprocessing: what its input expects.
        threshold: of one channel, as `Ending.shift` takes it.
        size: (height, width) in pixels that the graph takes; None: any.
        batch: how the graph takes any number of images: `free`, as the file's own graph does;
            `freed`, simplified for one image, then changed where a constant says one; `one`: it
            does not.

    Returns:
        A graph of opset 19 with the input `image`, uint8 N x H x W x 3, and one output, simplified
        and checked.

    Raises:
        ModelError: it holds what no opset 19 graph without subgraphs can say.
        InputError: the input is uint8, and the preprocessing gives others.
    """
    model = with_tail(file, ending, threshold)
    _drop_dead(model.graph)
    constants_as_initializers(model)
    name_layers(model.graph)
    _put_front(model, file, preprocessing, size)
    to_opset(model, str(file.path))
    constants_as_initializers(model)
    _state_batch(model, "N" if batch == "free" else 1)
    try:
        _reduce(model)
        _require_flat(model, file)
        if batch == "freed":
            _free_batch(model)
        return finished(model)
    except ModelError:
        raise
    except Exception as error:  # the checker's, the simplifier's and protobuf's have no common root
        raise ModelError(
            f"the graph of {file.path} is not valid with preprocessing in front: {brief(error)}; "
            "export the network again, with another opset"
        ) from error


def _require_flat(model: onnx.ModelProto, file: ForeignFile) -> None:
    """ModelError where graphs inside operators are left, which folding did not take out."""
    inside = [n.op_type for n in model.graph.node if any(a.g.node or a.graphs for a in n.attribute)]
    if inside:
        raise ModelError(
            f"{file.path} has {counted(inside)} with inner graphs that depend on the image or its "
            "size, which an artefact cannot have: give --size, or export the network without them "
            "(from PyTorch, with its dynamo exporter)"
        )


def _drop_dead(graph: onnx.GraphProto) -> None:
    """Takes out what the one output does not depend on."""
    read = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not read.isdisjoint(node.output):
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            inner = [name for attribute in node.attribute for name in _read_inside(attribute)]
            read.update([*node.input, *inner])
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)


def _read_inside(attribute: onnx.AttributeProto) -> list[str]:
    graphs = (attribute.g, *attribute.graphs)
    names = [name for graph in graphs for node in nodes_of(graph) for name in node.input]
    return names + [value.name for graph in graphs for value in graph.output]


def _put_front(
    model: onnx.ModelProto,
    file: ForeignFile,
    preprocessing: Preprocessing,
    size: tuple[int, int] | None,
) -> None:
    """Gives the graph the input `image`, and makes of it what the network expects."""
    graph = model.graph
    plain = not any(preprocessing.mean) and all(scale == 1 for scale in preprocessing.scale)
    if file.integers and not plain:
        raise InputError(
            f"the input of {file.path} is uint8, so its preprocessing is inside the file: give a "
            '--preprocessing FILE.json of {"mean": [0, 0, 0], "scale": [1, 1, 1], "channels": '
            '"rgb"} (or "bgr")'
        )
    rename(graph, _IMAGE, f"{_IMAGE}_inside")
    nodes = _front(graph, file.image, file, preprocessing)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *kept])
    sides = size or ("H", "W")
    graph.input.append(helper.make_tensor_value_info(_IMAGE, TensorProto.UINT8, ["N", *sides, 3]))


def _front(
    graph: onnx.GraphProto, pixels: str, file: ForeignFile, preprocessing: Preprocessing
) -> list[onnx.NodeProto]:
    """From `image`, uint8 N x H x W x 3, to `pixels`, as `Deployed` has it."""
    reverse = preprocessing.channels == "bgr"
    nodes = [
        helper.make_node("Cast", [_IMAGE], ["image_float"], "image_float", to=TensorProto.FLOAT),
        helper.make_node(
            "Transpose", ["image_float"], ["image_first"], "image_first", perm=[0, 3, 1, 2]
        ),
    ]
    at = "image_first"
    for kind, name, values, nothing in (
        ("Sub", "mean", preprocessing.mean, 0),
        ("Mul", "scale", preprocessing.scale, 1),
    ):
        if all(value == nothing for value in values):
            continue
        array = np.array(values[::-1] if reverse else values, np.float32).reshape(1, 3, 1, 1)
        graph.initializer.append(numpy_helper.from_array(array, f"image_{name}"))
        made = f"image_by_{name}"
        nodes.append(helper.make_node(kind, [at, f"image_{name}"], [made], made))
        at = made
    if reverse:
        order = numpy_helper.from_array(np.array([2, 1, 0], np.int64), "image_order")
        graph.initializer.append(order)
        nodes.append(
            helper.make_node("Gather", [at, "image_order"], ["image_bgr"], "image_bgr", axis=1)
        )
        at = "image_bgr"
    if file.layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [at], [pixels], pixels, perm=[0, 2, 3, 1]))
    else:
        nodes.append(helper.make_node("Identity", [at], [pixels], pixels))
    return nodes


def _free_batch(model: onnx.ModelProto) -> None:
    """Changes the shapes in constants that say one image, to say as many as there are."""
    static_resize(model)
    graph = model.graph
    constants, shapes = constants_of(graph), shapes_of(model)
    for index, node in enumerate(list(graph.node)):
        slot = {"Reshape": 1, "Resize": 3}.get(node.op_type)
        if slot is None or len(node.input) <= slot or node.input[slot] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[slot]])
        if shape.size < 2 or shape[0] != 1 or "axes" in attributes_of(node):
            continue
        name = f"{node.input[slot]}_of_any_batch_{index}"
        if node.op_type == "Reshape":
            given = shapes.get(node.output[0], ())
            known = len(given) == shape.size and all(given)
            values = np.array([-1, *given[1:]] if known else [0, *shape[1:]], np.int64)
            graph.initializer.append(numpy_helper.from_array(values, name))
        else:
            rest = numpy_helper.from_array(shape[1:].astype(np.int64), f"{name}_sides")
            graph.initializer.append(rest)
            count = f"{name}_count"
            graph.node.append(
                helper.make_node("Shape", [node.input[0]], [count], count, start=0, end=1)
            )
            graph.node.append(helper.make_node("Concat", [count, rest.name], [name], name, axis=0))
        node.input[slot] = name
    drop_unread_constants(graph)
    sort_nodes(graph)
    del graph.value_info[:]
    _state_batch(model, "N")


def _state_batch(model: onnx.ModelProto, count: int | str) -> None:
    """Says how many images the graph takes at a time: a number, or the name of any."""
    for value in (*model.graph.input, *model.graph.output):
        side = value.type.tensor_type.shape.dim[0]
        side.Clear()
        if isinstance(count, int):
            side.dim_value = count
        else:
            side.dim_param = count


def _reduce(model: onnx.ModelProto) -> None:
    """Folds what is constant, and states the output's shape, which is known only then."""
    import onnxsim

    static_resize(model)
    reduced, ok = onnxsim.simplify(model)
    if ok:
        del model.graph.output[:]
        model.graph.output.extend(reduced.graph.output)
        simplify(model)
