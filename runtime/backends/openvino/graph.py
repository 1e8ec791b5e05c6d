"""What is changed in a graph for OpenVINO's CPU plugin before it is compiled, all of it exact.

None of it touches the file: other runtimes are as fast, or faster, with the graph as exported.
What each gains is in docs/reference/results/graph.md.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.runtime.backends.openvino.repeats import resize_repeated
from icnet_deploy.runtime.backends.openvino.unsigned import unsigned_where_positive

PREPARED = 3
"""Raised with every change of what `for_one` and `prepare` make, since what is compiled is kept."""

Float32 = npt.NDArray[np.float32]


def prepare(model: Any) -> tuple[Any, list[int]]:
    """The model as it is compiled, and which outputs have their channels last."""
    model = model.clone()
    halve_in_pairs(model)
    resize_repeated(model)
    unsigned_where_positive(model)
    return channels_last(model)


def for_one(model: Any) -> Any:
    """A model that was read, with a batch of one, if that is all that is free and of one input.

    Returns:
        None for any other model, and for one with an output that is not an image's alone.
    """
    if len(model.inputs) != 1 or not all(_has_free_batch(port) for port in model.outputs):
        return None
    shape = model.inputs[0].partial_shape
    if not shape.rank.is_static or not len(shape):
        return None
    batch, *sides = shape
    if not batch.is_dynamic or any(side.is_dynamic for side in sides):
        return None
    single = model.clone()
    single.reshape([1, *(side.get_length() for side in sides)])
    return single


def _has_free_batch(port: Any) -> bool:
    shape = port.partial_shape
    return bool(shape.rank.is_static and len(shape) and shape[0].is_dynamic)


def channels_last(model: Any) -> tuple[Any, list[int]]:
    """The model with its float outputs of four sides given as N x H x W x C.

    So they lie inside, where convolutions keep channels last; otherwise the plugin writes them out
    again in the other order. Shapes are ONNX's for whoever turns the axes back.

    Returns:
        A model, and the indices of the outputs that were turned.
    """
    from openvino import Layout
    from openvino.preprocess import PrePostProcessor

    turned = [
        index
        for index, port in enumerate(model.outputs)
        if port.partial_shape.rank.is_static
        and len(port.partial_shape) == 4
        and port.element_type.is_real()
    ]
    if not turned:
        return model, turned
    steps = PrePostProcessor(model)
    for index in turned:
        steps.output(index).model().set_layout(Layout("NCHW"))
        steps.output(index).tensor().set_layout(Layout("NHWC"))
    return steps.build(), turned


def halve_in_pairs(model: Any) -> bool:
    """Halves the image without the plugin's Interpolate, which fills 3 of 16 lanes of a register.

    With aligned corners pixel k of n lies at k (2n - 1) / (n - 1) = 2k + k / (n - 1) of 2n: between
    the two of pair k, and k / (n - 1) of the way. So rows are taken in pairs and blended; each pair
    of columns, which lies together as 6 channels, is only weighted, and the convolution that
    follows sums it, its weights given twice. The weights are exact, where Interpolate's scale is
    rounded.

    Needs: an Interpolate with aligned corners that halves both sides of a uint8 image N x H x W x
    3, with nothing between but a cast, a transposition and the subtraction of a mean, and after it
    nothing but such a subtraction and one convolution with constant weights. Other models are left
    as they are.

    Returns:
        Whether it changed the model.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Interpolate":
            image = _image_of(node)
            if image is not None and _replace(node, *image):
                model.validate_nodes_and_infer_types()
                return True
    return False


def _image_of(resize: Any) -> tuple[Any, Float32] | None:
    """The image that it halves, and the mean (3) that is subtracted before; None if it does not."""
    if resize.get_attributes()["coordinate_transformation_mode"] != "align_corners":
        return None
    mean: Float32 = np.zeros(3, np.float32)
    source = resize.input_value(0)
    transpositions = 0
    while (kind := source.get_node().get_type_name()) != "Parameter":
        node = source.get_node()
        if kind == "Subtract":
            subtracted = _by_channel(node, -1 if transpositions else 1)
            if subtracted is None:
                return None
            mean = mean + subtracted
        elif kind == "Transpose":
            order = node.input_value(1).get_node()
            if order.get_type_name() != "Constant" or order.data.tolist() != [0, 3, 1, 2]:
                return None
            transpositions += 1
        elif kind != "Convert":
            return None
        source = node.input_value(0)
    image, small = source.get_partial_shape(), resize.get_output_partial_shape(0)
    if transpositions != 1 or source.get_element_type().to_string() != "u8":
        return None
    if any(side.is_dynamic for side in [*list(image)[1:], *list(small)[1:]]):
        return None
    height, width, channels = (side.get_length() for side in list(image)[1:])
    halved = [channels, height / 2, width / 2]
    fits = [side.get_length() for side in list(small)[1:]] == halved and min(height, width) >= 4
    return (source, mean) if channels == 3 and fits else None


def _by_channel(subtract: Any, axis: int) -> Float32 | None:
    """What a Subtract takes from each of 3 channels, if it is a constant that says no more."""
    node = subtract.input_value(1).get_node()
    if node.get_type_name() != "Constant" or not 1 <= node.data.ndim <= 4:
        return None
    values = node.data.reshape((1,) * (4 - node.data.ndim) + node.data.shape)
    if values.shape[axis] not in (1, 3):
        return None
    values = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
    if not (values == values[0]).all():
        return None
    return np.broadcast_to(values[0], 3).astype(np.float32)


def _replace(resize: Any, image: Any, mean: Float32) -> bool:
    """Puts the pairs, their weights and a convolution of them in the place of what followed."""
    from openvino import opset13 as ops

    readers = [port.get_node() for port in resize.output(0).get_target_inputs()]
    if len(readers) == 1 and readers[0].get_type_name() == "Subtract":
        subtracted = _by_channel(readers[0], 1)
        if subtracted is None:
            return False
        mean = mean + subtracted
        readers = [port.get_node() for port in readers[0].output(0).get_target_inputs()]
    if len(readers) != 1 or readers[0].get_type_name() != "Convolution":
        return False
    convolution = readers[0]
    weights = convolution.input_value(1).get_node()
    if weights.get_type_name() != "Constant" or weights.data.dtype != np.float32:
        return False
    rows, columns = (side.get_length() // 2 for side in list(image.get_partial_shape())[1:3])
    pairs = ops.reshape(image, np.array([-1, rows, 2 * columns, 6]), False)
    upper, lower = (
        ops.convert(
            ops.strided_slice(
                pairs,
                np.array([0, 0, half * columns, 0]),
                np.array([0, 0, (half + 1) * columns, 0]),
                np.array([1, 1, 1, 1]),
                [1, 1, 0, 1],
                [1, 1, 0, 1],
            ),
            "f32",
        )
        for half in (0, 1)
    )
    down = _far_weights(rows).reshape(1, -1, 1, 1)
    blended = ops.add(upper, ops.multiply(ops.subtract(lower, upper), ops.constant(down)))
    right = _far_weights(columns)[:, None].repeat(3, 1)
    across = np.concatenate([1 - right, right], 1).reshape(1, 1, columns, 6)
    # The pair's sum is the pixel: the mean is taken from its first half.
    off = np.concatenate([mean, np.zeros(3, np.float32)]).reshape(1, 1, 1, 6)
    weighted = ops.subtract(ops.multiply(blended, ops.constant(across)), ops.constant(off))
    attributes = convolution.get_attributes()
    replacement = ops.convolution(
        ops.transpose(weighted, np.array([0, 3, 1, 2])),
        ops.constant(np.concatenate([weights.data] * 2, 1)),
        attributes["strides"],
        attributes["pads_begin"],
        attributes["pads_end"],
        attributes["dilations"],
        attributes["auto_pad"],
    )
    replacement.set_friendly_name(convolution.get_friendly_name())
    convolution.output(0).replace(replacement.output(0))
    return True


def _far_weights(count: int) -> Float32:
    """How far each of `count` pixels lies from its pair's first to its second: 0 to 1."""
    return (np.arange(count) / (count - 1)).astype(np.float32)
