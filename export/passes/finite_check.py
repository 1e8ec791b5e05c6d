"""The nodes that look whether a graph's small logits are finite, for whoever changes all others."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

_LEAST_LIMIT = 1e38  # of the comparison; no other node compares with a number near float32's end


def finite_check(model: onnx.ModelProto) -> tuple[str, ...]:
    """The names of the nodes of the check that a `labels` head has; see `Deployed`.

    They are a ReduceSum, an Abs and a Less, in this order; none in a graph without the check. Their
    sum is beyond float16 of any network's logits, so they stay in float32 whatever the others do.
    """
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for less in graph.node:
        limit = constants.get(less.input[1]) if less.op_type == "Less" else None
        if limit is None or not (numpy_helper.to_array(limit) > _LEAST_LIMIT).all():
            continue
        absolute = makers[less.input[0]]
        return makers[absolute.input[0]].name, absolute.name, less.name
    return ()
