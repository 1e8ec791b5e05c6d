"""The image made smaller before its mean is subtracted, by a transposition of its own."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from icnet_deploy.calibration.graph import Graph


def own_layout(model: onnx.ModelProto) -> bool:
    """Subtracts the mean after the image's Resize where another branch reads the whole image, too.

    Bilinear resizes have weights that sum to one, so the mean may be subtracted on either side.
    In `int8` the branch that sees the whole image quantizes it and the other resizes it in float.
    Each then has a transposition that is not the other's, and OpenVINO, which keeps channels last
    inside, can leave both out; of a shared one it writes the image out in the other layout and back
    (8 % of the time of the whole graph).

    Needs: the graph that `icnet export` writes, its mean subtracted before the Transpose. In any
    other nothing is changed. After it: the tensors that were there keep their names and values, but
    for rounding.

    Returns:
        Whether it changed the model.
    """
    graph = Graph(model)
    for transpose in graph.nodes("Transpose"):
        sub = graph.producers.get(transpose.input[0])
        readers = graph.readers[transpose.output[0]]
        resizes = [node for node in readers if node.op_type == "Resize"]
        if sub is None or sub.op_type != "Sub" or sub.input[1] not in graph.constants:
            continue
        rows = graph.array(sub.input[1]).reshape(-1, graph.array(sub.input[1]).shape[-1])
        if len(resizes) != 1 or len(readers) < 2 or not (rows == rows[0]).all():
            continue
        resize = resizes[0]
        made, plain = resize.output[0], f"{transpose.output[0]}_plain"
        mean = graph.add_constant(f"{made}_mean", np.reshape(rows[0], (1, -1, 1, 1)))
        own = helper.make_node("Transpose", [sub.input[0]], [plain], plain, perm=[0, 3, 1, 2])
        resize.input[0], resize.output[0] = plain, f"{made}_plain"
        centred = helper.make_node("Sub", [f"{made}_plain", mean], [made], f"{made}_centred")
        del model.graph.value_info[:]
        at = list(model.graph.node).index(resize)  # the order of all others says what fuses
        nodes = list(model.graph.node)
        graph.sort([*nodes[:at], own, resize, centred, *nodes[at + 1 :]])
        return True
    return False
