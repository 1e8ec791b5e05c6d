"""A foreign graph's float16 as float32."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from icnet_deploy.export.adopt.nodes import graphs_of, nodes_of


def lift_half(model: onnx.ModelProto) -> bool:
    """Makes every float16 tensor float32, which holds all of its values."""
    graph, half = model.graph, TensorProto.FLOAT16
    changed = False
    for one in graphs_of(graph):
        for tensor in [t for t in one.initializer if t.data_type == half]:
            _lift(tensor)
            changed = True
        for value in (*one.input, *one.output):
            if value.type.tensor_type.elem_type == half:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
                changed = True
        del one.value_info[:]  # what writers say of them is not always so
    for node in nodes_of(graph):
        for attribute in node.attribute:
            if attribute.t.data_type == half:
                _lift(attribute.t)
                changed = True
            casts = node.op_type in _CASTS and attribute.name in ("to", "dtype")
            if casts and attribute.i == half:
                attribute.i = TensorProto.FLOAT
                changed = True
    return changed


_CASTS = ("Cast", "EyeLike", "Range")


def _lift(tensor: Any) -> None:
    values = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
