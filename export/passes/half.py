"""Weights and activations in half precision, by ONNX Runtime's converter."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from icnet_deploy.export.passes.finite_check import finite_check
from icnet_deploy.export.passes.round_trips import drop_round_trips


def to_half(model: onnx.ModelProto, keep: Collection[str] = ()) -> bool:
    """Makes every float32 tensor inside the graph float16; inputs and outputs keep their types.

    onnxconverter-common's function of the same name writes an invalid graph here: it fails on the
    cast that follows the uint8 input.

    Needs: a float32 graph that onnxsim has been over. After it: no value between two nodes in
    float32 passes through float16, the check of the logits is in float32, and the graph is sorted.

    Args:
        model: changed in place.
        keep: names of nodes that stay in float32; see `icnet_deploy.export.headroom`.

    Returns:
        Whether it changed the model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    kept = [*keep, *finite_check(model)]
    half = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    drop_round_trips(half)
    model.CopyFrom(half)
    return True
