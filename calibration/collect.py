"""Runs the float32 graph on the calibration images and keeps what its tensors did."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.histogram import TensorStatistics
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.errors import ImageError, MissingPackage

UInt8 = npt.NDArray[np.uint8]


def tensors_of(model: onnx.ModelProto) -> list[str]:
    """The tensors that a placement puts a pair on, in the graph's order."""
    graph = Graph(model)
    convolutions = graph.convolutions()
    # the inputs' means are wanted even where the range is another tensor's
    wanted = {conv.input[0] for conv in convolutions}
    for placement in PLACEMENTS.values():
        pairs = placement.pairs(graph, convolutions)
        wanted |= {pairs.ranged_as.get(name, name) for name in pairs.readers}
    return [name for node in model.graph.node for name in node.output if name in wanted]


def collect(
    model: onnx.ModelProto,
    images: Iterable[UInt8],
) -> dict[str, TensorStatistics]:
    """Takes the statistics of every tensor that may be quantized, in one pass.

    One image and its activations are in memory at a time.

    Args:
        model: a float32 graph of a fixed size.
        images: uint8 H x W x 3, RGB, of the graph's size.

    Returns:
        Tensor name -> what it did.

    Raises:
        ImageError: there is no image.
        MissingPackage: ONNX Runtime is not installed.
        BackendError: the graph computes values that are not finite.
    """
    names = tensors_of(model)
    session = open_session(model, names)
    found: dict[str, TensorStatistics] = {}
    for image in images:
        values = session.run(names, {"image": image[None]})
        for name, value in zip(names, values, strict=True):
            if name not in found:
                found[name] = TensorStatistics(value.shape[1])
            found[name].add(value)
    if not found:
        raise ImageError("there is no image to calibrate on: give at least one")
    return found


def open_session(model: onnx.ModelProto, tensors: Iterable[str] = ()) -> Any:
    """A session of ONNX Runtime on the CPU that can return these tensors besides the outputs."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage("onnxruntime", extra="cpu", purpose="calibration") from error
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    have = {value.name for value in shown.graph.output}
    shown.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in tensors
        if name not in have
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
