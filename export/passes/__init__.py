"""Graph passes: functions that change an ONNX model and say whether they did, one a file."""

from icnet_deploy.export.passes.half import to_half
from icnet_deploy.export.passes.simplify import simplify
from icnet_deploy.export.passes.static_resize import static_resize

__all__ = ["simplify", "static_resize", "to_half"]
