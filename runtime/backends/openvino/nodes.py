"""What is asked of the nodes of a model that OpenVINO read."""

from typing import Any

import numpy as np

from icnet_deploy.runtime.backends.base import Array


def readers(node: Any) -> list[Any]:
    """The nodes that read its first output; one that reads it twice is there twice."""
    return [port.get_node() for port in node.output(0).get_target_inputs()]


def constant(port: Any) -> Array | None:
    """A constant's value in the shape that the port has, if it is one, perhaps of another type."""
    node, shape = port.get_node(), port.get_partial_shape()
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or shape.is_dynamic:
        return None
    return np.asarray(node.data).reshape(shape.to_shape())
