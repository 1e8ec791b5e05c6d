"""Graph passes: functions that change an ONNX model and say whether they did, one a file."""

from icnet_deploy.export.passes.centre_first import centre_first
from icnet_deploy.export.passes.finite_check import finite_check
from icnet_deploy.export.passes.half import to_half
from icnet_deploy.export.passes.pointwise_first import pointwise_first
from icnet_deploy.export.passes.round_trips import drop_round_trips
from icnet_deploy.export.passes.rounded import rounded
from icnet_deploy.export.passes.simplify import simplify
from icnet_deploy.export.passes.static_resize import static_resize

__all__ = [
    "centre_first",
    "drop_round_trips",
    "finite_check",
    "pointwise_first",
    "rounded",
    "simplify",
    "static_resize",
    "to_half",
]
