"""Graph passes: functions that change an ONNX model and say whether they did."""

from icnet_deploy.export.passes.folding import fold_batch_norms, fold_input
from icnet_deploy.export.passes.permutations import count_from_last
from icnet_deploy.export.passes.pointwise_first import pointwise_first
from icnet_deploy.export.passes.precision import drop_round_trips, finite_check, rounded, to_half
from icnet_deploy.export.passes.rewrites import (
    centre_first,
    simplify,
    static_resize,
    transpose_first,
)

__all__ = [
    "centre_first",
    "count_from_last",
    "drop_round_trips",
    "finite_check",
    "fold_batch_norms",
    "fold_input",
    "pointwise_first",
    "rounded",
    "simplify",
    "static_resize",
    "to_half",
    "transpose_first",
]
