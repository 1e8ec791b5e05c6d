"""From a module to an ONNX graph that every runtime reads."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch

from icnet_deploy.export.deployed import Deployed
from icnet_deploy.export.passes import (
    centre_first,
    pointwise_first,
    simplify,
    static_resize,
)

OPSET = 19
"""The lowest that knows float16 scales of Q/DQ; TensorRT 10 and 11, ONNX Runtime from 1.16 and
OpenVINO from 2024 read it."""

LARGEST = 8192
"""The longest side in pixels that a free-size graph takes."""

_SMALLEST = 64
_IR = 9  # what opset 19 came with


def trace(module: Deployed, size: tuple[int, int], free_size: bool = False) -> onnx.ModelProto:
    """Exports with torch's dynamo exporter, then simplifies and rewrites; see docs/graph.md.

    Args:
        module: what to export.
        size: (height, width) in pixels; for a free-size graph, of the example only.
        free_size: leave height and width free from 64 to 8192 pixels.

    Returns:
        The model, checked; the batch is free.
    """
    dim = torch.export.Dim
    axes: dict[int, Any] = {0: dim("N", min=1, max=64)}
    if free_size:
        axes |= {1: dim("H", min=_SMALLEST, max=LARGEST), 2: dim("W", min=_SMALLEST, max=LARGEST)}
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
            opset_version=OPSET,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model: onnx.ModelProto = program.model_proto
    model.ir_version = _IR
    _drop_notes(model)
    static_resize(model)
    simplify(model)
    pointwise_first(model)
    centre_first(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _drop_notes(model: onnx.ModelProto) -> None:
    """Takes out the exporter's notes: stack traces with paths of the machine that exported."""
    del model.metadata_props[:]
    model.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.graph.metadata_props[:]


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
