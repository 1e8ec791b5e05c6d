"""A float16 graph in float32 arithmetic, with every float16 value rounded as the file says.

ONNX Runtime and OpenVINO compute float16 files in float32 on most CPUs, and round between nodes
seldom or not at all, so a value that would be infinite on a GPU passes there. This graph rounds
every one. It adds up in float32: what a kernel that adds up in float16 loses is not in it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def rounded(model: onnx.ModelProto) -> bool:
    """Rewrites a float16 graph so that a CPU answers as hardware with float16 would.

    Needs: a sorted graph without subgraphs, as `to_half` leaves it. After it: every tensor is
    float32, and a pair of casts, there and back, rounds each that was float16.

    Returns:
        Whether it changed the model.
    """
    graph = model.graph
    types = onnx.shape_inference.infer_shapes(
        model, strict_mode=True, data_prop=True
    ).graph.value_info
    half = {v.name for v in types if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    constants = [t for t in graph.initializer if t.data_type == TensorProto.FLOAT16]
    if not half and not constants:
        return False
    for tensor in constants:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = []
    for node in graph.node:
        copied = onnx.NodeProto.FromString(node.SerializeToString())
        nodes.append(copied)
        for attribute in copied.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT  # the pair behind it rounds
        for index, name in enumerate(node.output):
            if name in half:
                copied.output[index] = f"{name}_before"
                there, back = f"{name}_half", name
                nodes += [
                    helper.make_node("Cast", [f"{name}_before"], [there], to=TensorProto.FLOAT16),
                    helper.make_node("Cast", [there], [back], to=TensorProto.FLOAT),
                ]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return True
