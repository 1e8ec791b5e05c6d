"""What is linear and constant into the convolution beside it: batch norms, the input's scale."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from icnet_deploy.export.passes.common import (
    attributes_of,
    constants_of,
    drop_unread_constants,
    makers_of,
    restate,
)

Array = npt.NDArray[Any]

_SHAPES = ("Shape", "Size")
"""They read of a tensor how large it is, whatever is in it."""

_POINTWISE = ("Cast", "Transpose", "Sub", "Add", "Mul", "Div", "Gather")
"""What may lie between the graph's input and a factor or an order of its channels."""


def fold_batch_norms(model: onnx.ModelProto) -> bool:
    """Folds each BatchNormalization into the convolution that it alone reads.

    torch's exporter and onnxsim do so, too, but for a convolution whose size is asked for, as where
    another map is resized to it.

    Needs: a graph without subgraphs. After it: the values are what they were, but for rounding, and
    the graph is sorted.

    Returns:
        Whether it changed the model.
    """
    graph, changed = model.graph, False
    makers, outputs = makers_of(graph), {value.name for value in graph.output}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv, constants = makers.get(norm.input[0]), constants_of(graph)
        needed = [*norm.input[1:], *(conv.input[1:] if conv is not None else ())]
        if conv is None or conv.op_type not in ("Conv", "ConvTranspose"):
            continue
        trained = attributes_of(norm).get("training_mode") or len(norm.output) > 1
        if trained or any(name not in constants for name in needed):
            continue
        made, normed = conv.output[0], norm.output[0]
        others = [n for n in graph.node if made in n.input and n is not norm]
        if made in outputs or any(other.op_type not in _SHAPES for other in others):
            continue
        _fold_norm(graph, conv, [numpy_helper.to_array(constants[n]) for n in norm.input[1:]], norm)
        graph.node.remove(norm)
        conv.output[0] = normed
        makers[normed] = conv
        _read_instead(graph, made, normed)
        changed = True
    if changed:
        drop_unread_constants(graph)
        restate(model)
    return changed


def _fold_norm(
    graph: onnx.GraphProto, conv: onnx.NodeProto, values: list[Array], norm: onnx.NodeProto
) -> None:
    gain, shift, mean, variance = (value.astype(np.float64) for value in values)
    factor = gain / np.sqrt(variance + attributes_of(norm).get("epsilon", 1e-5))
    group = attributes_of(conv).get("group", 1)

    def scaled(weight: Array) -> Array:
        each = [1] * (weight.ndim - 2)  # sides of the kernel
        if conv.op_type == "Conv":  # output x input / group x kernel
            result: Array = weight * factor.reshape(-1, 1, *each)
        else:  # input x output / group x kernel
            split = weight.reshape(group, -1, *weight.shape[1:])
            result = split * factor.reshape(group, 1, -1, *each)
        return result.reshape(weight.shape)

    before = np.zeros(len(factor))
    if len(conv.input) > 2 and conv.input[2]:
        before = numpy_helper.to_array(constants_of(graph)[conv.input[2]]).astype(np.float64)
    bias = (before - mean) * factor + shift
    _set_constant(graph, conv, 1, scaled)
    kind = numpy_helper.to_array(constants_of(graph)[conv.input[1]]).dtype
    name = _fresh(graph, f"{conv.input[1]}_bias")
    graph.initializer.append(numpy_helper.from_array(bias.astype(kind), name))
    conv.input[:] = [*conv.input[:2], name]


def fold_input(model: onnx.ModelProto) -> bool:
    """Folds factors and the order of the image's channels into the convolutions that read it.

    A factor is a Mul or Div by a constant a channel or by one number, an order a Gather that
    permutes the channels; either lies behind the input, the casts, transpositions and constants
    that are subtracted there. Between it and the convolutions there may be what works on each
    channel alone and linearly: Resizes, average pools, and a padding with zeros. A convolution pads
    with zeros, which no factor changes. Where anything else reads the image, both stay.

    The mean is not folded: behind it the padding would be another number than zero.

    Needs: a graph without subgraphs. After it: the values are what they were, but for rounding, and
    the graph is sorted.

    Returns:
        Whether it changed the model.
    """
    graph, changed = model.graph, False
    for node in reversed(list(_behind_the_input(graph))):
        constants = constants_of(graph)
        kernel = _folded_kernel(node, constants)
        if kernel is None:
            continue
        whole = node.op_type == "Gather"
        convolutions = _readers(graph, node.output[0], constants, grouped=not whole)
        if not convolutions:
            continue
        for conv in convolutions:
            _set_constant(graph, conv, 1, partial(kernel, attributes=attributes_of(conv)))
        [source] = [name for name in node.input if name not in constants]
        graph.node.remove(node)
        _read_instead(graph, node.output[0], source)
        changed = True
    if changed:
        drop_unread_constants(graph)
        restate(model)
    return changed


def _behind_the_input(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The Muls, Divs and Gathers of a constant that lie on the way of the image; graph's order."""
    constants = constants_of(graph)
    image = {value.name for value in graph.input if value.name not in constants}
    for node in graph.node:
        read = [name for name in node.input if name not in constants]
        if node.op_type in _POINTWISE and len(read) == 1 and read[0] in image:
            image.update(node.output)
            if node.op_type in ("Mul", "Div", "Gather"):
                yield node


def _folded_kernel(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]
) -> Callable[..., Array] | None:
    """How a kernel of N channels is changed, in place of the node; None where it cannot be."""
    named = [name for name in node.input if name in constants]
    if len(named) != 1 or (node.op_type != "Mul" and node.input[1] != named[0]):
        return None
    value = numpy_helper.to_array(constants[named[0]])
    if node.op_type == "Gather":
        order = value.astype(np.int64)
        if attributes_of(node).get("axis", 0) != 1 or order.ndim != 1:
            return None
        if sorted(order) != list(range(len(order))):
            return None
        return lambda kernel, attributes: kernel[:, np.argsort(order)]
    shape = (1, *value.shape)[-3:]  # C x 1 x 1, whatever stands before it
    channels = shape[0] if len(shape) == 3 else 1
    if value.size != channels or value.dtype.kind != "f":
        return None
    factor = value.reshape(-1).astype(np.float64)
    factor = 1 / factor if node.op_type == "Div" else factor
    if not np.isfinite(factor).all():
        return None

    def scaled(kernel: Array, attributes: dict[str, Any]) -> Array:
        group = attributes.get("group", 1)
        each = np.resize(factor, group * kernel.shape[1]).reshape(group, 1, -1)
        split = kernel.reshape(group, -1, *kernel.shape[1:])
        return (split * each.reshape(*each.shape, *[1] * (kernel.ndim - 2))).reshape(kernel.shape)

    return scaled


def _readers(
    graph: onnx.GraphProto, tensor: str, constants: dict[str, onnx.TensorProto], grouped: bool
) -> list[onnx.NodeProto]:
    """The convolutions that read a tensor; none where anything else reads what is in it."""
    outputs = {value.name for value in graph.output}
    found: list[onnx.NodeProto] = []
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if name in outputs:
            return []
        for node in [n for n in graph.node if name in n.input]:
            data = node.input[0] == name and list(node.input).count(name) == 1
            if node.op_type in _SHAPES:
                continue
            if data and _of_each_channel(node, constants):
                waiting.append(node.output[0])
                continue
            plain = node.op_type == "Conv" and data and node.input[1] in constants
            if not plain or not (grouped or attributes_of(node).get("group", 1) == 1):
                return []
            found.append(node)
    return found


def _of_each_channel(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether it works on each channel alone, linearly, and makes zero of zero."""
    values = attributes_of(node)
    if node.op_type == "Resize":
        return values.get("coordinate_transformation_mode") != b"tf_crop_and_resize"
    if node.op_type == "Pad":
        if values.get("mode", b"constant") != b"constant" or node.input[1] not in constants:
            return False
        if len(node.input) > 3 and node.input[3]:
            return False
        pads = numpy_helper.to_array(constants[node.input[1]])
        sides = pads.reshape(2, -1)
        filled = node.input[2] if len(node.input) > 2 else ""
        zero = not filled or (
            filled in constants and not numpy_helper.to_array(constants[filled]).any()
        )
        return zero and not sides[:, :2].any()
    return node.op_type in ("AveragePool", "GlobalAveragePool")


def _set_constant(
    graph: onnx.GraphProto, node: onnx.NodeProto, index: int, change: Callable[[Array], Array]
) -> None:
    """Changes a constant that a node reads; one that others read, too, is left, and copied."""
    name = node.input[index]
    tensor = constants_of(graph)[name]
    old = numpy_helper.to_array(tensor)
    new = change(old.astype(np.float64)).astype(old.dtype)
    reads = Counter(each for other in graph.node for each in other.input)
    if reads[name] > 1 or name in {value.name for value in graph.output}:
        node.input[index] = _fresh(graph, f"{name}_folded")
        graph.initializer.append(numpy_helper.from_array(new, node.input[index]))
    else:
        tensor.CopyFrom(numpy_helper.from_array(new, name))


def _fresh(graph: onnx.GraphProto, name: str) -> str:
    taken = constants_of(graph).keys() | makers_of(graph).keys()
    while name in taken:
        name += "_"
    return name


def _read_instead(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
