"""Nearest resizes in place of copies of rows and columns, which files for ONNX Runtime hold.

Its Resize is slow in 8 bits, so `int8-ort` has two Gathers between two Transposes. OpenVINO 2026.4
copies row by row, turns the axes to and fro, and multiplies in float in a convolution that reads
8 bits so moved; its Interpolate stays in 8 bits.
"""

from typing import Any, NamedTuple

import numpy as np

from icnet_deploy.runtime.backends.openvino.nodes import constant, readers

_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
"""Transpositions to channels last, and back."""

_VALUE = ("Convert", "Subtract", "Multiply")
"""A DequantizeLinear, as it is read from an ONNX file."""


class _Copies(NamedTuple):
    """How a tensor is repeated.

    Attributes:
        source: the port of what is repeated, of 8 bits.
        factors: how often rows and columns are.
        values: the nodes that make float32 of the copies, one for each reader.
    """

    source: Any
    factors: tuple[int, int]
    values: list[list[Any]]


def resize_repeated(model: Any) -> int:
    """Lets an Interpolate repeat rows and columns of what is read in float32; no value changes.

    Args:
        model: as it was read from an ONNX file; it is changed.

    Returns:
        How many tensors are resized so.
    """
    found = [copies for node in model.get_ordered_ops() if (copies := _copies(node)) is not None]
    for one in found:
        for value in one.values:
            _replace(one, value)
    if found:
        model.validate_nodes_and_infer_types()
    return len(found)


def _copies(back: Any) -> _Copies | None:
    """What a node turns back, if it is the last of two Gathers between two Transposes."""
    if not _turns(back, _FIRST):
        return None
    rows = back.input_value(0).get_node()
    columns = rows.input_value(0).get_node()
    factors = _factor(rows, 1), _factor(columns, 2)
    if None in factors or not _turns(columns.input_value(0).get_node(), _LAST):
        return None
    turned = columns.input_value(0).get_node()
    values = [_value(reader) for reader in readers(back)]
    if any(len(readers(node)) != 1 for node in (turned, columns, rows)) or not all(values):
        return None
    known = [each for each in values if each is not None]
    return _Copies(turned.input_value(0), (factors[0] or 1, factors[1] or 1), known)


def _turns(node: Any, order: list[int]) -> bool:
    """Whether a node is this transposition of 8 bits."""
    if node.get_type_name() != "Transpose" or node.get_element_type().size != 1:
        return False
    axes = constant(node.input_value(1))
    return axes is not None and axes.tolist() == order


def _factor(node: Any, axis: int) -> int | None:
    """How often a node repeats what lies along an axis, each thing right behind itself."""
    if node.get_type_name() != "Gather" or node.get_attributes()["batch_dims"]:
        return None
    given = node.input_value(0).get_partial_shape()
    places, along = (constant(node.input_value(index)) for index in (1, 2))
    if places is None or along is None or places.ndim != 1 or along.ravel().tolist() != [axis]:
        return None
    if given.rank.is_dynamic or given[axis].is_dynamic:
        return None
    side = given[axis].get_length()
    factor = len(places) // side
    wanted = np.repeat(np.arange(side), factor)
    return factor if factor and np.array_equal(places, wanted) else None


def _value(convert: Any) -> list[Any] | None:
    """The nodes that make float32 of 8 bits, from this one on; None if it makes something else."""
    chain = [convert]
    for kind in _VALUE[1:]:
        read = readers(chain[-1])
        if len(read) == 1 and read[0].get_type_name() == kind:
            factor = constant(read[0].input_value(1))
            if factor is not None and factor.size == 1:
                chain.append(read[0])
    made = convert.get_type_name() == "Convert" and convert.get_element_type().is_real()
    return chain if made and chain[-1].get_type_name() == "Multiply" else None


def _replace(copies: _Copies, value: list[Any]) -> None:
    """Makes float32 of what is repeated, and then repeats it."""
    from openvino import opset13 as ops

    targets = list(value[-1].output(0).get_target_inputs())
    value[0].input(0).replace_source_output(copies.source)
    resized = ops.interpolate(
        value[-1],
        np.array(copies.factors, np.float32),
        "nearest",
        "scales",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=np.array([2, 3]),
    )
    for reader in targets:
        reader.replace_source_output(resized.output(0))
