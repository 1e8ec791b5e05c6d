"""Unsigned 8 bits in place of signed ones, where nothing is below zero.

OpenVINO 2026.4 keeps a symmetric int8 tensor that a convolution reads as uint8 with its zero at
128, and takes that zero's share out of every sum again; uint8 with its zero at 0 has none.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from icnet_deploy.runtime.backends.openvino.nodes import constant, readers

_ABOVE_ZERO = frozenset({"HardSigmoid", "HSigmoid", "Relu", "Sigmoid", "Softmax"})
"""What makes no number below zero."""

_KEEPS = frozenset(
    {
        *("AvgPool", "Broadcast", "MaxPool", "ReduceMean", "Reshape", "Squeeze", "Transpose"),
        "Unsqueeze",
    }
)
"""What makes none of numbers that are not; they are its first input."""

_OF_ALL = frozenset({"Add", "Concat", "Multiply"})
"""What makes none where none of its inputs holds any."""

_MOVES = frozenset({"Broadcast", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""What moves whole numbers, of whichever type."""

_WITHIN = frozenset({"linear", "linear_onnx", "nearest"})
"""The resizes that make nothing below the least of what they read."""

_LOWEST, _HIGHEST, _PLACES = -128, 127, 255

_OFF = 1e-3  # of a place of a grid


def unsigned_where_positive(model: Any) -> int:
    """Rounds to uint8 where a symmetric int8 grid's lower half is empty; every value stays.

    Int8 cuts off at 127 steps, where uint8 goes on to 255: so what is rounded is cut off there
    before, in place of at zero alone where a ReLU did that. Each node is looked at once.

    Args:
        model: as it was read from an ONNX file; it is changed.

    Returns:
        How many tensors became unsigned.
    """
    nodes = model.get_ordered_ops()
    sources = {
        _name(node): rounding.input_value(0).get_node()
        for node in nodes
        if (rounding := _rounding(node)) is not None
    }
    positive = _positive(nodes, list(sources.values()))
    fitting = {name for name, source in sources.items() if _name(source) in positive}
    unsigned = _free(nodes, fitting)
    for node in nodes:
        if _name(node) in unsigned:
            _replace(node)
    if unsigned:
        model.validate_nodes_and_infer_types()
    return len(unsigned)


def _name(node: Any) -> str:
    """Of a node, whatever its friendly name."""
    return str(node.get_name())


def _rounding(convert: Any) -> Any:
    """The FakeQuantize whose whole numbers a node makes int8 of; None of any other.

    That is how a QuantizeLinear is read: of one grid for all of a tensor, and of whole numbers.
    """
    if convert.get_type_name() != "Convert" or convert.get_element_type().to_string() != "i8":
        return None
    node = convert.input_value(0).get_node()
    if node.get_type_name() != "FakeQuantize" or len(readers(node)) != 1:
        return None
    whole = _ends(node)[2:] == [_LOWEST, _HIGHEST] and _levels(node) == _PLACES + 1
    return node if whole and _zero_stays(node) else None


def _ends(rounding: Any) -> list[float]:
    """The ends of a FakeQuantize's input and of its output; none where channels have their own."""
    values = [constant(rounding.input_value(index)) for index in (1, 2, 3, 4)]
    return [float(each.item()) for each in values if each is not None and each.size == 1]


def _levels(rounding: Any) -> int:
    return int(rounding.get_attributes()["levels"])


def _zero_stays(rounding: Any) -> bool:
    """Whether a FakeQuantize makes zero of zero, and nothing below it of what is above."""
    ends = _ends(rounding)
    if len(ends) != 4 or not ends[0] < ends[1] or not ends[2] < ends[3]:
        return False
    place = -ends[0] / (ends[1] - ends[0]) * (_levels(rounding) - 1)
    there = abs(place - round(place)) < _OFF
    return there and bool(np.isclose(ends[0] * ends[3], ends[1] * ends[2], atol=0))


def _positive(nodes: Sequence[Any], asked: Sequence[Any]) -> set[str]:
    """The names of nodes that make nothing below zero, whatever the image.

    Args:
        nodes: of a model, in the order of their computing.
        asked: those that are asked for; no others are looked at than what these rest on.
    """
    resting: dict[str, list[str] | None] = {}
    waiting = list(asked)
    while waiting:
        node = waiting.pop()
        if _name(node) in resting:
            continue
        given = _rests_on(node)
        resting[_name(node)] = given and [_name(one) for one in given]
        waiting += given or []
    positive: set[str] = set()
    for name in map(_name, nodes):
        given_names = resting.get(name)
        if given_names is not None and positive.issuperset(given_names):
            positive.add(name)
    return positive


def _rests_on(node: Any) -> list[Any] | None:
    """The nodes of which one makes a number below zero if this one does; None: it may by itself."""
    kind = node.get_type_name()
    if kind in _ABOVE_ZERO:
        return []
    if kind == "Clamp":
        return [] if node.get_attributes()["min"] >= 0 else None
    if kind == "Constant":
        return None if (node.data < 0).any() else []
    if kind in _OF_ALL:
        return [port.get_node() for port in node.input_values()]
    if kind == "Interpolate":
        fits = node.get_attributes()["mode"] in _WITHIN
    elif kind == "FakeQuantize":
        fits = _zero_stays(node)
    elif kind == "Subtract":  # the zero of a DequantizeLinear
        taken = constant(node.input_value(1))
        fits = taken is not None and not taken.any()
    elif kind == "Convert":  # a signed type may have no place for a large number
        made = node.get_element_type()
        fits = made.is_real() or made.to_string() == "u8" or _rounding(node) is not None
    else:
        fits = kind in _KEEPS
    return [node.input_value(0).get_node()] if fits else None


def _free(nodes: Sequence[Any], made: Collection[str]) -> set[str]:
    """Those whose whole numbers may be unsigned, together, for all that reads them.

    What is moved and joined has one type: where one of the parts stays signed, all do.

    Args:
        nodes: of a model, in the order of their computing.
        made: the names of nodes that make int8.
    """
    whole = {_name(node): node for node in nodes if _name(node) in made}
    beside: dict[str, list[str]] = defaultdict(list)
    signed: list[str] = []
    for node in nodes:
        kind, name = node.get_type_name(), _name(node)
        if kind != "Concat" and kind not in _MOVES:
            continue
        ports = node.input_values() if kind == "Concat" else [node.input_value(0)]
        given = [_name(port.get_node()) for port in ports]
        if whole.keys().isdisjoint(given):
            continue
        whole[name] = node
        for one in given:
            beside[one].append(name)
            beside[name].append(one)
            if one not in whole:
                signed.append(name)
    for name, node in whole.items():
        others = [one for one in readers(node) if one.get_type_name() != "Convert"]
        if not whole.keys() >= set(map(_name, others)):
            signed.append(name)
    while signed:
        name = signed.pop()
        if whole.pop(name, None) is not None:
            signed += beside[name]
    return whole.keys() & set(made)


def _replace(convert: Any) -> None:
    """Rounds to uint8 in place of int8."""
    from openvino import opset13 as ops

    rounding = convert.input_value(0).get_node()
    given = rounding.input_value(0)
    source = given.get_node()
    high = _ends(rounding)[1]
    if source.get_type_name() == "Relu" and len(readers(source)) == 1:
        given = source.input_value(0)
    ends = [np.float32(end) for end in (0, high / _HIGHEST * _PLACES, 0, _PLACES)]
    cut = ops.clamp(given, 0.0, high)
    rounded = ops.fake_quantize(cut, *map(ops.constant, ends), _PLACES + 1)
    whole = ops.convert(rounded, "u8")
    for new, old in ((rounded, rounding), (whole, convert)):
        new.set_friendly_name(old.get_friendly_name())
    convert.output(0).replace(whole.output(0))
