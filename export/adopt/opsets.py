"""A foreign graph in the opset that this product writes."""

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper, version_converter

from icnet_deploy.errors import ModelError
from icnet_deploy.export.adopt.foreign_file import brief, counted, opset_of
from icnet_deploy.export.adopt.nodes import nodes_of
from icnet_deploy.export.graph import IR, OPSET
from icnet_deploy.export.passes.common import attributes_of

_PLACED = 11
"""The first opset whose Resize says where its pixels lie."""


def to_opset(model: onnx.ModelProto, name: str) -> None:
    """Says a graph in the operators of opset 19.

    Args:
        model: of opset 7 or a later one; changed in place.
        name: of its file, for the message.

    Raises:
        ModelError: an operator of it has no form in that opset.
    """
    model.ir_version = IR
    _say_plainly(model)
    now = opset_of(model)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", now))
    if now == OPSET:
        return
    if now < _PLACED:
        _convert(model, _PLACED, name)
        _place_resizes(model)
    if now > OPSET:
        _inline_newer(model)
    _convert(model, OPSET, name)


def _convert(model: onnx.ModelProto, opset: int, name: str) -> None:
    try:
        model.CopyFrom(version_converter.convert_version(model, opset))
    except Exception as error:  # of the converter's own kinds
        if not _relabel(model, opset):
            kinds = [node.op_type for node in _newer(model, opset)]
            which = f" ({counted(kinds)})" if kinds else ""
            raise ModelError(
                f"{name} has opset {opset_of(model)} and cannot be converted to opset {opset}"
                f"{which}: {brief(error)}; export it with an opset of {OPSET} or lower"
            ) from error


def _relabel(model: onnx.ModelProto, opset: int) -> bool:
    """Calls a graph one of another opset, where that is a graph, too.

    The converter lacks the step back of some operators that only took on more types since. What a
    graph computes then is held against the file by the check of the artefact.
    """
    other = onnx.ModelProto()
    other.CopyFrom(model)
    del other.opset_import[:]
    other.opset_import.append(helper.make_opsetid("", opset))
    for node in nodes_of(other.graph):
        for attribute in node.attribute:
            if node.op_type == "GridSample" and attribute.s in _GRID_MODES:
                attribute.s = _GRID_MODES[attribute.s]
    try:
        onnx.checker.check_model(other, full_check=True)
    except Exception:  # the checker's own, and shape inference's
        return False
    model.CopyFrom(other)
    return True


_GRID_MODES = {b"linear": b"bilinear", b"cubic": b"bicubic"}
"""Of GridSample from opset 20 on -> before."""


def _newer(model: onnx.ModelProto, opset: int) -> list[onnx.NodeProto]:
    """The nodes whose operators are of a later opset, in that form."""
    now = opset_of(model)
    return [
        node
        for node in nodes_of(model.graph)
        if onnx.defs.has(node.op_type)
        and onnx.defs.get_schema(node.op_type, now, "").since_version > opset
    ]


def _inline_newer(model: onnx.ModelProto) -> None:
    """Says operators that opset 19 lacks, or has in another form, by what they are made of."""
    lacking = {
        node.op_type
        for node in _newer(model, OPSET)
        if node.op_type in _REDEFINED or not _exists(node.op_type, OPSET)
    }
    if lacking:
        ids = [("", kind) for kind in sorted(lacking)]
        typed = onnx.shape_inference.infer_shapes(model)
        typed.graph.value_info.extend(  # the inliner asks for the types of constants, too
            helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in typed.graph.initializer
        )
        inlined = onnx.inliner.inline_selected_functions(typed, ids, inline_schema_functions=True)
        model.CopyFrom(inlined)
        _plain_casts(model)
        del model.graph.value_info[:]


def _plain_casts(model: onnx.ModelProto) -> None:
    """Casts to a type, where a function's body casts to that of another tensor; nothing folds that.

    After inlining; and what is summed of two tensors is added.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for node in model.graph.node:
        if node.op_type == "CastLike" and types.get(node.input[1]):
            node.op_type = "Cast"
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("to", types[node.input.pop()]))
        elif node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"


_REDEFINED = ("GroupNormalization",)
"""Operators whose inputs mean another thing than in opset 19."""


def _exists(kind: str, opset: int) -> bool:
    try:
        onnx.defs.get_schema(kind, opset, "")
    except onnx.defs.SchemaError:
        return False
    return True


def _place_resizes(model: onnx.ModelProto) -> None:
    """Says where the pixels of a Resize lie that was an Upsample, or a Resize of opset 10.

    The converter leaves it out, so that the default of opset 11, half-pixel centres, would be read:
    another picture. They lie at `x / scale`, and the nearest is the one below.
    """
    constants = {t.name: t for t in model.graph.initializer}
    for node in nodes_of(model.graph):
        if node.op_type != "Resize" or "coordinate_transformation_mode" in attributes_of(node):
            continue
        scales = constants.get(node.input[2]) if len(node.input) > 2 else None
        smaller = scales is not None and bool((numpy_helper.to_array(scales) < 1).any())
        values = {
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "ceil" if smaller else "floor",
        }
        node.attribute.extend(helper.make_attribute(k, v) for k, v in values.items())


def _say_plainly(model: onnx.ModelProto) -> None:
    """Says the nearest pixel of TensorFlow 1 by coordinates that opset 13 and later have.

    Its `floor((x + 0.5) / scale)` is `(x + 0.5) / scale - 0.5`, half-pixel centres, rounded, of two
    equally near ones to the latter.
    """
    for node in nodes_of(model.graph):
        values = attributes_of(node)
        old = values.get("coordinate_transformation_mode") == b"tf_half_pixel_for_nn"
        if node.op_type == "Resize" and old and values.get("nearest_mode") == b"floor":
            for attribute in node.attribute:
                attribute.s = _PLAINLY.get(attribute.name, attribute.s)


_PLAINLY = {"coordinate_transformation_mode": b"half_pixel", "nearest_mode": b"round_prefer_ceil"}


def constants_as_initializers(model: onnx.ModelProto) -> None:
    """Makes the constants that are nodes initializers, as the passes look for them."""
    graph = model.graph
    for node in [n for n in graph.node if n.op_type == "Constant" and len(n.attribute) == 1]:
        value = helper.get_attribute_value(node.attribute[0])
        kind = node.attribute[0].name
        if kind == "value":
            tensor = onnx.TensorProto.FromString(value.SerializeToString())
            tensor.name = node.output[0]
        elif kind in _PLAIN:
            tensor = numpy_helper.from_array(np.array(value, _PLAIN[kind]), node.output[0])
        else:
            continue
        graph.initializer.append(tensor)
        graph.node.remove(node)


_PLAIN = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}
