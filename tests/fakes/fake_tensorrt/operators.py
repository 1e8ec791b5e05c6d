"""What TensorRT's ONNX parser takes of the operators in ICNet's graphs: types and attributes.

Sources: docs/operators.md of onnx-tensorrt. For TensorRT 10.15 (opsets 9 to 24): ArgMax, Cast,
pooling, Concat, Transpose, Reshape, Resize, Q/DQ, and what it says of uint8 (with NVIDIA/TensorRT
issue 3985 and the `DataType` docstring, the same in 10.16 and 11.4). For the rest the table of 8.5,
with INT64 wherever it has INT32, since 10.0 knows INT64, and BF16 wherever it has FP16.
An operator that is not here is in none of the kit's graphs: it is refused until it is looked up.
"""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

OPSETS = range(9, 25)

ONNX_DTYPES = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF"}

FLOATS = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16))
NUMBERS = FLOATS | {TensorProto.INT32, TensorProto.INT64}
BOOL = frozenset((TensorProto.BOOL,))
UINT8 = frozenset((TensorProto.UINT8,))

# Operator -> types of its first input. INT8 is nowhere but between Q and DQ.
TYPES = {
    "Abs": NUMBERS,
    "Add": NUMBERS,
    "And": BOOL,
    "AveragePool": FLOATS,
    "Cast": NUMBERS | BOOL | UINT8,
    "Concat": NUMBERS | BOOL,
    "Conv": FLOATS,
    "DequantizeLinear": frozenset((TensorProto.INT8,)),
    "Div": NUMBERS,
    "Equal": NUMBERS | BOOL,
    "GreaterOrEqual": NUMBERS,
    "Less": NUMBERS,
    "MatMul": FLOATS,
    "Max": NUMBERS,
    "MaxPool": FLOATS,
    "Min": NUMBERS,
    "Mul": NUMBERS,
    "QuantizeLinear": FLOATS,
    "Range": NUMBERS,
    "ReduceMax": NUMBERS,
    "ReduceMean": NUMBERS,
    "ReduceMin": NUMBERS,
    "ReduceSum": NUMBERS,
    "Relu": NUMBERS,
    "Reshape": NUMBERS | BOOL,
    "Resize": FLOATS,
    "Shape": NUMBERS | BOOL | UINT8,  # uint8: TensorRT-RTX takes it, no table says so
    "Squeeze": NUMBERS | BOOL,
    "Sub": NUMBERS,
    "Transpose": NUMBERS | BOOL,
    "Unsqueeze": NUMBERS | BOOL,
    "Where": BOOL,  # its condition
}

RESIZE_COORDINATES = {
    "half_pixel",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "asymmetric",
    "align_corners",
}


def refusals(model):
    """Yields (index, node, why) of every node that the parser would refuse."""
    [opset] = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    graph = _Graph(model)
    for index, node in enumerate(model.graph.node):
        if opset not in OPSETS:
            yield index, node, f"opset {opset} is not in {OPSETS.start} to {OPSETS.stop - 1}"
        elif node.domain not in ("", "ai.onnx"):
            yield index, node, f"no plugin for {node.domain}.{node.op_type}"
        elif node.op_type not in TYPES:
            yield index, node, f"the operator {node.op_type} is not in the table"
        else:
            why = _refused(graph, node)
            if why:
                yield index, node, why


def ends(graph):
    """The inputs of an ONNX graph that are no constants, and its outputs."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants], graph.output


def describe(value):
    """(dtype's name, shape with -1 where free) of an ONNX graph's input or output."""
    tensor = value.type.tensor_type
    sides = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
    return ONNX_DTYPES[tensor.elem_type], tuple(sides)


def types_of(model):
    """Tensor -> its ONNX type, of all whose type is known."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    return types | {t.name: t.data_type for t in model.graph.initializer}


class _Graph:
    """The types of all tensors, the constants, and the outputs."""

    def __init__(self, model):
        self.types = types_of(model)
        self.constants = {t.name: t for t in model.graph.initializer}
        self.outputs = {v.name for v in model.graph.output}


def _refused(graph, node):
    """Why the parser refuses a node of an operator that it knows."""
    kind = graph.types.get(node.input[0]) if node.input else None
    if kind is not None and kind not in TYPES[node.op_type]:
        return f"the first input has type {TensorProto.DataType.Name(kind)}"
    for name in node.output:
        if graph.types.get(name) == TensorProto.UINT8 and name not in graph.outputs:
            return "TensorRT does not support UINT8 types for intermediate tensors"
    check = CHECKS.get(node.op_type)
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return check(graph, node, attributes) if check else None


def _first(*checks):
    """The words of the first (refused, words) that is refused; None where none is."""
    return next((words for refused, words in checks if refused), None)


def _cast(graph, node, attributes):
    kinds = {graph.types.get(node.input[0]), attributes["to"]}
    narrow = TensorProto.UINT8 in kinds and not kinds & FLOATS
    return _first((narrow, "uint8 converts to and from float32 and float16 only"))


def _quantized(graph, node, attributes):
    if len(node.input) > 2 and node.input[2]:
        zero = graph.constants.get(node.input[2])
        if zero is None or np.any(numpy_helper.to_array(zero)):
            return "Non-zero zero point is not supported"
        if zero.data_type != TensorProto.INT8:
            return f"quantizes to {TensorProto.DataType.Name(zero.data_type)}, not INT8"
    if node.input[1] not in graph.constants:
        return "the scale must be a constant"
    return None


def _conv(graph, node, attributes):
    sides = len(attributes.get("kernel_shape", (1, 1)))
    return _first((sides not in (2, 3), "2D or 3D convolutions only"))


def _pool(graph, node, attributes):
    return _first(
        (len(attributes["kernel_shape"]) not in (2, 3), "2D or 3D pooling only"),
        (set(attributes.get("dilations", (1,))) != {1}, "pooling takes no dilations"),
        (any(node.output[1:]), "the Indices output is not supported"),
    )


def _resize(graph, node, attributes):
    mode = attributes.get("mode", b"nearest").decode()
    how = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    policy = attributes.get("keep_aspect_ratio_policy", b"stretch")
    more = attributes.get("antialias") or policy not in (b"", b"stretch")
    return _first(
        (mode not in ("nearest", "linear"), f"resize mode {mode} is not supported"),
        (how not in RESIZE_COORDINATES, f"coordinate transformation {how} is not supported"),
        (more, "antialiasing and aspect ratio policies are not supported"),
    )


CHECKS = {
    "AveragePool": _pool,
    "Cast": _cast,
    "Conv": _conv,
    "DequantizeLinear": _quantized,
    "MaxPool": _pool,
    "QuantizeLinear": _quantized,
    "Resize": _resize,
}
