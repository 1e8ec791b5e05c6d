"""From a checkpoint to ONNX files. Needs torch and onnx, once something is exported."""

from icnet_deploy.export.to_onnx import export

__all__ = ["export"]
