"""Resizes that repeat pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph

_ROUNDED = ("round_prefer_floor", "round_prefer_ceil")
_FLOORED = {"asymmetric": ("floor",), "half_pixel": _ROUNDED, "pytorch_half_pixel": _ROUNDED}
"""Coordinates -> the ways to round them with which pixel i is a copy of pixel i // factor."""


def repeats(
    graph: Graph, node: onnx.NodeProto, shapes: Mapping[str, tuple[int | None, ...]]
) -> tuple[int, int] | None:
    """How often a Resize repeats rows and columns; None if it does something else.

    Args:
        graph: it is of.
        node: a Resize.
        shapes: of the graph's tensors.
    """
    from onnx import helper

    values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    text = {key: value.decode() for key, value in values.items() if isinstance(value, bytes)}
    coordinates = text.get("coordinate_transformation_mode", "half_pixel")
    rounding = text.get("nearest_mode", "round_prefer_floor")
    nearest = text.get("mode", "nearest") == "nearest" and "axes" not in values
    if not nearest or rounding not in _FLOORED.get(coordinates, ()):
        return None
    shape = shapes.get(node.input[0], ())
    scales, sizes = ([*node.input, "", ""][at] for at in (2, 3))
    if len(shape) != 4 or None in shape[1:]:
        return None
    if sizes in graph.constants:
        after = graph.array(sizes).astype(np.float64)[1:]
        factors = after / np.array(shape[1:], np.float64)
    elif scales in graph.constants:
        factors = graph.array(scales).astype(np.float64)[1:]
    else:
        return None
    whole = factors.astype(int)
    if len(whole) != 3 or (whole != factors).any() or whole[0] != 1 or whole.min() < 1:
        return None
    return int(whole[1]), int(whole[2])
