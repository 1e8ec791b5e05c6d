"""Permutations of channels in a form that OpenVINO answers rightly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph

_PARTS = 3
"""Parts of a Split that OpenVINO takes for the colours of an image where a Concat joins them."""


def count_from_last(graph: Graph) -> bool:
    """Counts the axis of permutations from the last; their function stays the same.

    OpenVINO 2026.4 folds a Gather by a constant order into the weights and constants behind it, in
    float32, too. It takes the order there and not its inverse, so an order that is not its own
    inverse is answered wrongly. Three parts of a Split, joined in any order, it folds alike, or
    refuses the graph. Where the axis is counted from the last it does neither.

    Args:
        graph: of any precision; it is changed.

    Returns:
        Whether it changed the graph.
    """
    changed = False
    for node in graph.model.graph.node:
        shape = graph.shape(node.input[0]) if node.input else None
        if shape is None or not (_reorders(graph, node, shape) or _joins_parts(graph, node)):
            continue
        for attribute in node.attribute:
            if attribute.name == "axis" and attribute.i >= 0:
                attribute.i -= len(shape)
                changed = True
    return changed


def _reorders(graph: Graph, node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Whether a node permutes an axis by a constant order that is not its own inverse."""
    if node.op_type != "Gather" or node.input[1] not in graph.constants:
        return False
    values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    count = shape[values.get("axis", 0)]
    order = graph.array(node.input[1]).astype(np.int64) % max(count, 1)
    places = np.arange(count)
    return order.shape == (count,) and set(order) == set(places) and (order[order] != places).any()


def _joins_parts(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node joins all parts of one Split, which are three."""
    if node.op_type != "Concat" or len(node.input) != _PARTS:
        return False
    sources = {id(graph.producers.get(name)) for name in node.input}
    source = graph.producers.get(node.input[0])
    return len(sources) == 1 and source is not None and source.op_type == "Split"
