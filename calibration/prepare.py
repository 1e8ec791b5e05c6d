"""The graph that is quantized, made of the one that was exported."""

from __future__ import annotations

import onnx

from icnet_deploy.calibration.classify_first import classify_first
from icnet_deploy.calibration.equalize import Factors, equalize

__all__ = ["prepared"]


def prepared(model: onnx.ModelProto, factors: Factors) -> onnx.ModelProto:
    """The float32 graph that is quantized: the same function, its classifier first, scaled."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    classify_first(result)
    equalize(result, factors)
    return result
