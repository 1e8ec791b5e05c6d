"""From a module to an ONNX graph that every runtime reads."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
import torch

from icnet_deploy.export.deployed import Deployed
from icnet_deploy.export.passes import centre_first, pointwise_first, simplify, static_resize

_OPSET = 19
"""The lowest that knows float16 scales of Q/DQ; TensorRT 10 and 11, ONNX Runtime from 1.16 and
OpenVINO from 2024 read it."""

LARGEST = 8192
"""The longest side in pixels that a free-size graph takes."""

_REWRITES = (pointwise_first, centre_first)
"""What makes the graph run faster; see docs/graph.md."""

_IR = 9  # what opset 19 came with


def trace(
    module: Deployed,
    size: tuple[int, int],
    free_size: bool = False,
    rewrites: Sequence[Callable[[onnx.ModelProto], bool]] = _REWRITES,
) -> onnx.ModelProto:
    """Exports with torch's dynamo exporter, then simplifies and rewrites.

    Args:
        module: what to export.
        size: (height, width) in pixels; for a free-size graph, of the example only.
        free_size: leave height and width free, from the network's shortest side to 8192 pixels.
        rewrites: passes over the simplified graph, in this order.

    Returns:
        The model, checked; the batch is free.
    """
    dim = torch.export.Dim
    axes: dict[int, Any] = {0: dim("N", min=1, max=64)}
    if free_size:
        least = module.network.min_side
        axes |= {1: dim("H", min=least, max=LARGEST), 2: dim("W", min=least, max=LARGEST)}
    example = torch.zeros((2, *size, 3), dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            external_data=False,
            input_names=["image"],
            output_names=[module.head],
            dynamic_shapes=(axes,),
            opset_version=_OPSET,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model: onnx.ModelProto = program.model_proto
    model.ir_version = _IR
    _drop_notes(model)
    static_resize(model)
    simplify(model)
    for rewrite in rewrites:
        rewrite(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _drop_notes(model: onnx.ModelProto) -> None:
    """Takes out the exporter's notes: stack traces with paths of the machine that exported."""
    graph = model.graph
    values = (*graph.value_info, *graph.input, *graph.output)
    for part in (model, graph, *graph.node, *values, *graph.initializer):
        del part.metadata_props[:]
    for part in (model, *graph.node):
        part.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports progress on stdout and optional packages as warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
