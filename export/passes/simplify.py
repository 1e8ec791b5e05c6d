"""Constants folded and dead nodes removed, by onnxsim."""

from __future__ import annotations

import onnx


def simplify(model: onnx.ModelProto) -> bool:
    """Runs onnxsim and takes its result where it is the same graph from the outside.

    Needs: a model that fits in one file. After it: inputs and outputs have the names, types and
    shapes that they had.

    Returns:
        Whether it changed the model.
    """
    import onnxsim

    smaller, ok = onnxsim.simplify(model)
    same = list(smaller.graph.input) == list(model.graph.input) and list(
        smaller.graph.output
    ) == list(model.graph.output)
    if not ok or not same or len(smaller.graph.node) >= len(model.graph.node):
        return False
    del smaller.metadata_props[:]  # what onnxsim says of its own settings
    smaller.metadata_props.extend(model.metadata_props)
    model.CopyFrom(smaller)
    return True
