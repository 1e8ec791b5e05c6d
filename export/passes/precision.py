"""Float16: weights and activations in half precision, and what a GPU would make of such a file."""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.export.passes.common import (
    attributes_of,
    constants_of,
    makers_of,
    sort_nodes,
)

_LEAST_LIMIT = 1e38  # of the comparison; no other node compares with a number near float32's end


def to_half(model: onnx.ModelProto, keep: Collection[str] = ()) -> bool:
    """Makes every float32 tensor inside the graph float16; inputs and outputs keep their types.

    onnxconverter-common's function of the same name writes an invalid graph here: it fails on the
    cast that follows the uint8 input.

    Needs: a float32 graph that onnxsim has been over. After it: no value between two nodes in
    float32 passes through float16, the check of the logits is in float32, and the graph is sorted.

    Args:
        model: changed in place.
        keep: names of nodes that stay in float32; see `icnet_deploy.export.headroom`.

    Returns:
        Whether it changed the model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    kept = [*keep, *finite_check(model)]
    half = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    drop_round_trips(half)
    model.CopyFrom(half)
    return True


def finite_check(model: onnx.ModelProto) -> tuple[str, ...]:
    """The names of the nodes that look whether a graph's small logits are finite; see `Deployed`.

    They are a ReduceSum, an Abs and a Less, in this order; none in a graph without the check, which
    only a `labels` head has. Their sum is beyond float16 of any network's logits, so they stay in
    float32 whatever the others do.
    """
    makers, constants = makers_of(model.graph), constants_of(model.graph)
    for less in model.graph.node:
        limit = constants.get(less.input[1]) if less.op_type == "Less" else None
        if limit is None or not (numpy_helper.to_array(limit) > _LEAST_LIMIT).all():
            continue
        absolute = makers[less.input[0]]
        return makers[absolute.input[0]].name, absolute.name, less.name
    return ()


def rounded(model: onnx.ModelProto) -> bool:
    """Rewrites a float16 graph so that a CPU answers as hardware with float16 would.

    ONNX Runtime and OpenVINO compute float16 files in float32 on most CPUs, and round between nodes
    seldom or not at all, so a value that would be infinite on a GPU passes there. This graph rounds
    every one. It adds up in float32: what a kernel that adds up in float16 loses is not in it.

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


def drop_round_trips(model: onnx.ModelProto) -> bool:
    """Hands float32 values on as they are where a cast to float16 is followed by one to float32.

    ONNX Runtime's converter puts a cast on every side of a node that stays in float32. Between two
    such neighbours the value would go through float16 all the same, and become infinite there.

    Needs: a graph without subgraphs, in any order, that states the types of its tensors. After it:
    the graph is sorted, and what passes between two nodes in float32 is float32.

    Returns:
        Whether it removed any.
    """
    graph, makers = model.graph, makers_of(model.graph)
    outputs = {value.name for value in graph.output}
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    changed = False
    for up in list(graph.node):
        down = makers.get(up.input[0]) if _casts_to(up, TensorProto.FLOAT) else None
        if down is None or not _casts_to(down, TensorProto.FLOAT16):
            continue
        whole, back = down.input[0], up.output[0]
        if types.get(whole) != TensorProto.FLOAT:  # an integer: cast it at once
            up.input[0] = whole
        elif back not in outputs:
            graph.node.remove(up)
            _rename(graph, back, whole)
        elif whole in makers and whole not in outputs:
            graph.node.remove(up)
            _rename(graph, whole, back)  # the graph's output keeps its name; what makes it takes it
        else:
            continue
        changed = True
    sort_nodes(graph)
    _remove_unread(graph, outputs)
    return changed


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and attributes_of(node)["to"] == kind


def _rename(graph: onnx.GraphProto, tensor: str, name: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index in [i for i, each in enumerate(names) if each == tensor]:
                names[index] = name


def _remove_unread(graph: onnx.GraphProto, outputs: set[str]) -> None:
    """Takes out the nodes that nothing reads, and what the graph says of tensors that are gone.

    The graph is sorted.
    """
    read = set(outputs)
    for node in reversed(list(graph.node)):
        if read.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            read.update(node.input)
    made = makers_of(graph)
    for value in [v for v in graph.value_info if v.name not in made]:
        graph.value_info.remove(value)
