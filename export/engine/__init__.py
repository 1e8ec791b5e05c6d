"""From an ONNX file to a TensorRT engine, with one code path for TensorRT 10, 11 and RTX."""

from icnet_deploy.export.engine.builder import Built, build
from icnet_deploy.export.engine.options import BuildOptions

__all__ = ["BuildOptions", "Built", "build"]
