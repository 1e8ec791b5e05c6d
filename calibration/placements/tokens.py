"""Images and the tokens of attention: channels come last in both.

What a network writes between the two is N x C x H x W -> N x C x HW -> N x HW x C, and back.
Integer convolutions have channels last, on OpenVINO as on ONNX Runtime: each such step costs them a
copy to channels first and one back. With N x H x W x C in the middle they have nothing to copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph

_SWAPPED = [0, 2, 1]
_TO_LAST = [0, 2, 3, 1]
_TO_FIRST = [0, 3, 1, 2]


def channels_between(graph: Graph) -> bool:
    """Puts N x H x W x C between images and tokens; the numbers stay the same.

    Args:
        graph: of any precision; it is changed, and is to be read anew.

    Returns:
        Whether it changed the graph.
    """
    changed = False
    for node in graph.model.graph.node:
        after = graph.only_reader(node.output[0]) if node.output else None
        if after is None:
            continue
        kinds = node.op_type, after.op_type
        if kinds == ("Reshape", "Transpose") and _swaps(after):
            flat = _flattened(graph, node.input[0], node.output[0])
            if flat:
                _transpose(node, _TO_LAST)
                _reshape(graph, after, (flat[2], flat[1]))
                changed = True
        elif kinds == ("Transpose", "Reshape") and _swaps(node):
            image = graph.shape(after.output[0])
            if image and _flattened(graph, after.output[0], node.output[0]):
                _reshape(graph, node, (*image[2:], image[1]))
                _transpose(after, _TO_FIRST)
                changed = True
    return changed


def _flattened(graph: Graph, image: str, flat: str) -> tuple[int, ...] | None:
    """The sides N, C, HW of a tensor, if the other is N x C x H x W; None of others."""
    four, three = graph.shape(image), graph.shape(flat)
    if four is None or three is None or (len(four), len(three)) != (4, 3):
        return None
    return three if four[:2] == three[:2] else None


def _swaps(node: onnx.NodeProto) -> bool:
    """Whether a Transpose swaps the last two of three axes."""
    return [helper.get_attribute_value(one) for one in node.attribute] == [_SWAPPED]


def _transpose(node: onnx.NodeProto, order: list[int]) -> None:
    """Makes a node a Transpose of what it reads first."""
    node.op_type = "Transpose"
    del node.input[1:], node.attribute[:]
    node.attribute.append(helper.make_attribute("perm", order))


def _reshape(graph: Graph, node: onnx.NodeProto, sides: tuple[int, ...]) -> None:
    """Makes a node a Reshape of what it reads first, to these sides behind the batch."""
    node.op_type = "Reshape"
    del node.input[1:], node.attribute[:]
    node.input.append(
        graph.add_constant(f"{node.output[0]}_sides", np.array([0, *sides], np.int64))
    )
