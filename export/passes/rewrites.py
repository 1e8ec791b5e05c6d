"""Small rewrites: constants folded, resizes told their scales, the mean taken before the turn."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from icnet_deploy.export.passes.common import (
    attributes_of,
    constants_of,
    drop_unread_constants,
    makers_of,
    restate,
    shapes_of,
)

_CHANNELS_FIRST = [0, 3, 1, 2]


def simplify(model: onnx.ModelProto) -> bool:
    """Folds constants and removes dead nodes by onnxsim, where that leaves the outside as it is.

    Needs: a model that fits in one file. After it: inputs and outputs have the names, types and
    shapes that they had, and a convolution's weights the name that they had.

    Returns:
        Whether it changed the model.
    """
    import onnxsim

    smaller, ok = onnxsim.simplify(model)
    same = list(smaller.graph.input) == list(model.graph.input) and list(
        smaller.graph.output
    ) == list(model.graph.output)
    if not ok or not same or len(smaller.graph.node) >= len(model.graph.node):
        return False
    del smaller.metadata_props[:]  # what onnxsim says of its own settings
    smaller.metadata_props.extend(model.metadata_props)
    _keep_names(model.graph, smaller.graph)
    model.CopyFrom(smaller)
    return True


def _keep_names(before: onnx.GraphProto, after: onnx.GraphProto) -> None:
    """Gives weights that were computed anew, as by a scale, the names of what they were before.

    A number says nothing of the module that they are of. Where the convolutions are not the same
    ones in the same order, nothing is done.
    """
    pairs = [
        (str(old.input[1]), str(new.input[1]))
        for old, new in zip(_convolutions(before), _convolutions(after), strict=False)
    ]
    known = {tensor.name for tensor in before.initializer}
    same = len(_convolutions(before)) == len(_convolutions(after)) and all(
        old == new or new not in known for old, new in pairs
    )
    constants = {tensor.name: tensor for tensor in after.initializer}
    renamed = {
        new: old for old, new in pairs if same and old != new and new in constants and old in known
    }
    for new, old in renamed.items():
        if old not in constants and list(renamed.values()).count(old) == 1:
            constants[new].name = old
            for node in after.node:
                node.input[:] = [old if name == new else name for name in node.input]


def _convolutions(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == "Conv"]


def static_resize(model: onnx.ModelProto) -> bool:
    """Replaces the `sizes` of each Resize whose heights and widths are known by `scales`.

    With a free batch the exporter writes the size of every Resize as Concat(Shape(x), height x
    width): work for each run, and nodes that a plain net would not have. The `axes` attribute of
    opset 18 would say it best, but TensorRT's parser refuses it when the batch is free. Scales are
    read by all.

    After it: no Resize whose sizes are known has `sizes`, but for those that scales would not say
    as exactly; what computed them is left for `simplify` to remove. None names `axes`, as far as
    the others are known: ONNX Runtime 1.32 takes them for others where 8 bits have channels last,
    and OpenVINO 2026.4 knows none from the last.

    Returns:
        Whether it changed the model.
    """
    shapes = shapes_of(model)
    changed = False
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Resize":
            continue
        changed |= _of_all_axes(model.graph, node, shapes.get(node.input[0]) or ())
        if len(node.input) < 4:
            continue
        before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
        if not before or not after or None in (*before[2:], *after[2:]):
            continue
        if (
            len(before) != len(after)
            or before[1] != after[1]
            or not _scales_say_it(node, before[2:], after[2:])
        ):
            continue
        aligned = attributes_of(node).get("coordinate_transformation_mode") == b"align_corners"
        sides = zip(after[2:], before[2:], strict=True)
        scales = [1.0, 1.0, *(_scale(o, i, aligned) for o, i in sides if o and i)]
        name = f"{node.output[0]}_scales_{index}"
        model.graph.initializer.append(numpy_helper.from_array(np.array(scales, np.float32), name))
        node.input[:] = [node.input[0], "", name]
        _drop_axes(node)
        changed = True
    return changed


def _of_all_axes(graph: onnx.GraphProto, node: onnx.NodeProto, sides: Sequence[int | None]) -> bool:
    """Lets a Resize that names some axes give the scales or sizes of all; whether it did."""
    axes, constants = attributes_of(node).get("axes", ()), constants_of(graph)
    slot = 2 if len(node.input) == 3 else 3
    if not axes or not sides or not _is_plain(node) or node.input[slot] not in constants:
        return False
    given = numpy_helper.to_array(constants[node.input[slot]])
    whole = list(sides) if slot == 3 else [1.0] * len(sides)
    for axis, value in zip(axes, given.tolist(), strict=True):
        whole[axis] = value
    if None in whole:
        return False
    name = f"{node.output[0]}_of_all_axes"
    graph.initializer.append(numpy_helper.from_array(np.array(whole, given.dtype), name))
    node.input[slot] = name
    _drop_axes(node)
    return True


def _drop_axes(node: onnx.NodeProto) -> None:
    for attribute in [one for one in node.attribute if one.name == "axes"]:
        node.attribute.remove(attribute)


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether a Resize takes the whole image, each side by itself."""
    values = attributes_of(node)
    whole = values.get("coordinate_transformation_mode") != b"tf_crop_and_resize"
    return whole and values.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"


def _scales_say_it(
    node: onnx.NodeProto, before: tuple[int | None, ...], after: tuple[int | None, ...]
) -> bool:
    """Whether a Resize does the same by scales as by these sizes.

    Where the nearest pixel is taken, the last bit of a scale may choose another one: there only a
    quotient does that is rounded to a float32 which gives the size, as a runtime makes it of sizes.
    """
    values = attributes_of(node)
    if not _is_plain(node):
        return False
    sides = [(b, a) for b, a in zip(before, after, strict=True) if b and a]
    same = all(_scale(a, b, False) == np.float32(a / b) for b, a in sides)
    return values.get("mode", b"nearest") != b"nearest" or same


def _scale(output: int, side: int, aligned: bool) -> float:
    """The float32 that gives `output` pixels of `side`, as floor(side * scale).

    With aligned corners the interpolation depends on the sizes alone, so a quarter of a pixel is
    added before dividing: neither rounding of the quotient nor of the product can then reach
    another whole number. By any other rule the scale says where a pixel lies, so it is the least
    one that is not below the quotient.
    """
    if aligned:
        return (output + 0.25) / side
    scale = np.float32(output / side)
    return float(scale if side * float(scale) >= output else np.nextafter(scale, np.float32(2e9)))


def centre_first(model: onnx.ModelProto) -> bool:
    """Swaps the Transpose to channels first and the Sub of a number a channel that reads it alone.

    Subtracting one number a channel says the same in either layout. OpenVINO computes with channels
    last, as the image comes: with nothing between the transposition and the convolutions it leaves
    the transposition out. Three numbers repeated over a row of the image are one long row to a
    kernel; as three they would be a loop of three (ONNX Runtime is slower so).

    Needs: a graph without subgraphs. A Transpose whose width is free is left. After it: the values
    are bit for bit what they were; the Sub's constant is 1 x 1 x W x C; the graph is sorted.

    Returns:
        Whether it changed the model.
    """
    graph = model.graph
    shapes, constants, makers = shapes_of(model), constants_of(graph), makers_of(graph)
    changed = False
    for sub in [node for node in graph.node if node.op_type == "Sub"]:
        transpose, mean = makers.get(sub.input[0]), constants.get(sub.input[1])
        if transpose is None or transpose.op_type != "Transpose" or mean is None:
            continue
        *_, width, channels = shapes.get(transpose.input[0], (None, None))
        alone = [node for node in graph.node if sub.input[0] in node.input] == [sub]
        turned = attributes_of(transpose).get("perm") == _CHANNELS_FIRST
        if not (turned and width and alone and list(mean.dims) == [1, channels, 1, 1]):
            continue
        row = np.tile(numpy_helper.to_array(mean).reshape(1, 1, 1, -1), (1, 1, width, 1))
        wide = numpy_helper.from_array(row, f"{mean.name}_row")
        graph.initializer.append(wide)
        image, centred, result = transpose.input[0], transpose.output[0], sub.output[0]
        sub.input[0], sub.input[1], sub.output[0] = image, wide.name, centred
        transpose.input[0], transpose.output[0] = centred, result
        changed = True
    if changed:
        drop_unread_constants(graph)
        restate(model)
    return changed


def transpose_first(model: onnx.ModelProto) -> bool:
    """Puts a transpose that leaves the last axis before the layer norm over that axis.

    A layer norm, a transpose and a product with a matrix, as attention has them, end ONNX Runtime
    1.32 with a crash on the CPU while it loads the graph in float16. Not so in this order.

    After it: no product reads such a transpose of a layer norm. Every value is what it was, to the
    bit. A layer norm that others read, too, is there twice.

    Returns:
        Whether it changed the model.
    """
    graph = model.graph
    makers = makers_of(graph)
    multiplied = {name for node in graph.node if node.op_type == "MatMul" for name in node.input}
    outputs = {value.name for value in graph.output}
    changed = False
    for turn in [node for node in graph.node if node.op_type == "Transpose"]:
        norm = makers.get(turn.input[0])
        if norm is None or norm.op_type != "LayerNormalization" or len(norm.output) > 1:
            continue
        order, axis = attributes_of(turn).get("perm", [0]), attributes_of(norm).get("axis", -1)
        last = len(order) - 1
        if axis not in (-1, last) or order[-1] != last or turn.output[0] not in multiplied:
            continue
        turned = f"{turn.output[0]}_before_norm"
        others = [n for n in graph.node if n is not turn and norm.output[0] in n.input]
        twin = helper.make_node(
            "LayerNormalization",
            [turned, *norm.input[1:]],
            [turn.output[0]],
            name=f"{norm.name}_turned" if others or norm.output[0] in outputs else norm.name,
        )
        twin.attribute.extend(norm.attribute)
        turn.input[0], turn.output[0] = norm.input[0], turned
        if not others and norm.output[0] not in outputs:
            graph.node.remove(norm)
        graph.node.append(twin)
        makers = makers_of(graph)
        changed = True
    if changed:
        restate(model)
    return changed
