"""From a network to ONNX files. Needs torch and onnx, once something is exported."""

from icnet_deploy.export.to_onnx import export, export_network

__all__ = ["export", "export_network"]
