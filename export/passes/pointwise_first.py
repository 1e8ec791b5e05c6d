"""1x1 convolutions before the resizes, pools and sums that they follow, in place of after them.

A 1x1 convolution mixes the channels of each pixel alike; bilinear resizes and average pools mix the
pixels of each channel alike. Both are linear, so they may change places. Two are worth it: a
classifier that follows an upsampling sees the pixels before it, and what is enlarged has a channel
a class; the 1x1 that follows pyramid pooling sees the features once, and what is pooled, enlarged
and summed has as many channels as it makes.
"""

import math
from collections import Counter

import onnx
from onnx import numpy_helper

from icnet_deploy.export.passes.common import (
    attributes_of,
    constants_of,
    makers_of,
    restate,
    shapes_of,
)


def pointwise_first(model: onnx.ModelProto) -> bool:
    """Moves 1x1 convolutions with fewer outputs than inputs to where what they read branches off.

    The nodes between must be Resizes, AveragePools without padding, and Adds, all of them made of
    one tensor, and read by one another and by the convolution only. Each Resize and pool keeps what
    is the same everywhere as it is (its weights sum to one), so a bias comes out once for each way
    through the sums; it is divided by their number.

    Needs: a graph without subgraphs. After it: the outputs' names and shapes are as they were, and
    so are the values, but for rounding; the graph is sorted and states its tensors' types.

    Returns:
        Whether it changed the model.
    """
    shapes, constants = shapes_of(model), constants_of(model.graph)
    moved = [
        _move(model.graph, conv, constants, shapes)
        for conv in [node for node in model.graph.node if node.op_type == "Conv"]
    ]
    if not any(moved):
        return False
    restate(model)
    return True


def _move(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    constants: dict[str, onnx.TensorProto],
    shapes: dict[str, tuple[int | None, ...]],
) -> bool:
    if not _narrowing(conv, constants):
        return False
    makers = makers_of(graph)
    region, ways = _region(conv.input[0], makers)
    if len(ways) != 1 or not region:
        return False
    [(source, count)] = ways.items()
    shrinks = _shrinks(shapes.get(source), shapes.get(conv.output[0]))
    if shrinks or not _apart(graph, region, conv, makers):
        return False
    for tensor in conv.input[2:]:
        bias = numpy_helper.to_array(constants[tensor])
        divided = (bias / float(count)).astype(bias.dtype)
        constants[tensor].CopyFrom(numpy_helper.from_array(divided, tensor))
    made, last = conv.output[0], makers[conv.input[0]]
    early = f"{made}_early"
    for name in region:
        # Where sizes are free, a Resize is told the channels of what it reads, too.
        for reader in (makers[name], *_sized_by(makers[name], makers)):
            for index, given in enumerate(reader.input):
                if given == source:
                    reader.input[index] = early
    last.output[0], conv.input[0], conv.output[0] = made, source, early
    return True


def _narrowing(conv: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether it is a plain 1x1 with constants of its own that makes fewer channels than it reads.

    Others would be wrong to move, or more work for what follows.
    """
    if any(name not in constants for name in conv.input[1:]):
        return False
    cout, cin, *kernel = constants[conv.input[1]].dims
    values = attributes_of(conv)
    stepping = {*values.get("strides", ()), values.get("group", 1)} != {1}
    plain = kernel == [1, 1] and not stepping and not any(values.get("pads", ()))
    return plain and bool(cout < cin)


def _region(name: str, makers: dict[str, onnx.NodeProto]) -> tuple[set[str], dict[str, int]]:
    """The tensors that only resizes, pools and sums lie before, and what all is made of.

    Returns:
        Their names, and each tensor that they are made of -> in how many ways.
    """
    given: dict[str, list[str]] = {}  # tensor -> those that it is made of; none at the end
    waiting = [name]
    while waiting:
        tensor = waiting.pop()
        if tensor in given:
            continue
        node = makers.get(tensor)
        given[tensor] = []
        if node is not None and _spatial(node, makers):
            given[tensor] += node.input if node.op_type == "Add" else node.input[:1]
        waiting += given[tensor]
    left = Counter(one for each in given.values() for one in each)
    ways = Counter({name: 1})
    ready = [name]
    while ready:  # all that read it were counted
        tensor = ready.pop()
        for one in given[tensor]:
            ways[one] += ways[tensor]
            left[one] -= 1
            if not left[one]:
                ready.append(one)
    ends = {tensor: ways[tensor] for tensor, each in given.items() if not each}
    return given.keys() - ends.keys(), ends


def _spatial(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """Whether each channel of its output adds up the same channels' pixels; see the pass."""
    values = attributes_of(node)
    if node.op_type == "AveragePool":
        padded = any(values.get("pads", ())) or values.get("auto_pad", b"NOTSET") != b"NOTSET"
        return not padded and not values.get("ceil_mode")
    if node.op_type == "Resize":
        cropped = values.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
        return not cropped and (len(node.input) < 4 or bool(_sized_by(node, makers)))
    return node.op_type == "Add"


def _sized_by(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The Shape that a Resize with free `sizes` takes the batch and the channels of its input from.

    torch's exporter writes Concat(Shape(x)[:2], height, width).
    """
    sizes = makers.get(node.input[3]) if node.op_type == "Resize" and len(node.input) > 3 else None
    shape = makers.get(sizes.input[0]) if sizes is not None and sizes.op_type == "Concat" else None
    if shape is None or shape.op_type != "Shape" or shape.input[0] != node.input[0]:
        return []
    return [shape]


def _shrinks(before: tuple[int | None, ...] | None, after: tuple[int | None, ...] | None) -> bool:
    """Whether there are known to be fewer pixels after than before: then the later, the cheaper."""
    pixels = [math.prod(s or 0 for s in shape[2:]) if shape else 0 for shape in (before, after)]
    return 0 < pixels[1] < pixels[0]


def _apart(
    graph: onnx.GraphProto,
    region: set[str],
    conv: onnx.NodeProto,
    makers: dict[str, onnx.NodeProto],
) -> bool:
    """Whether nothing else reads the region, what tells it its sizes, or the convolution's bias."""
    resizes = [makers[name] for name in region if makers[name].op_type == "Resize"]
    sizes = {node.input[3] for node in resizes if len(node.input) > 3}
    shapes = [shape for node in resizes for shape in _sized_by(node, makers)]
    own = region.union(sizes, *(shape.output for shape in shapes))
    theirs = own.union(conv.input[2:])
    others = [n for n in graph.node if n is not conv and not own.intersection(n.output)]
    outputs = {value.name for value in graph.output}
    return not any(theirs.intersection(node.input) for node in others) and not own & outputs
