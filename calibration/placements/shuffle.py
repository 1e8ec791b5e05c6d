"""Copies of pixels whose channels come last: transposed convolutions, pixel shuffles, repetition.

ONNX Runtime's integer convolutions want channels last. It has no integer ConvTranspose, its
DepthToSpace goes channel by channel, and its Resize of uint8 takes 2 ns a value there. To copy all
that a pixel has at once takes a tenth of that.

Of a transposed convolution with a stride of s, the pixels whose places leave the same rest when
divided by s are a phase: an ordinary convolution of the input, of a kernel s times smaller. All
phases together are one convolution of s * s times the channels; what is left is to copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from icnet_deploy.calibration.placements.reach import PHASES, clip_bounds
from icnet_deploy.calibration.weighted import Floats, Weighted

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph

Shapes = Mapping[str, tuple[int | None, ...]]


@dataclass(frozen=True)
class _Side:
    """A transposed convolution along rows or columns.

    Attributes:
        kernel, stride: its own.
        given, made: pixels of input and of output.
        cropped: pixels of output that it leaves out before the first.
    """

    kernel: int
    stride: int
    given: int
    made: int
    cropped: int

    @property
    def taps(self) -> int:
        """The kernel of each phase."""
        return -(-self.kernel // self.stride)

    @property
    def skipped(self) -> int:
        """The pixels that each phase does not make, since none of them is kept."""
        return min(self.cropped // self.stride, self.taps - 1)

    @property
    def pads(self) -> tuple[int, int]:
        """The zeros before and after the input of the phases."""
        last = (self.cropped + self.made - 1) // self.stride
        return self.taps - 1 - self.skipped, max(last - self.given + 1, 0)

    @property
    def blocks(self) -> int:
        """The pixels that each phase makes."""
        return self.given + sum(self.pads) - self.taps + 1

    @property
    def first(self) -> int:
        """The first of the pixels that all phases make that is kept."""
        return self.cropped - self.skipped * self.stride


def as_convolution(graph: Graph, one: Weighted, shapes: Shapes) -> list[onnx.NodeProto] | None:
    """The nodes that compute what a transposed convolution does; None if it is of another form.

    A ReLU or Clip that alone reads it stands before the copies: its node is to be left out.

    Args:
        graph: it is of; the constants of the new nodes are added to it.
        one: a ConvTranspose.
        shapes: of the graph's tensors.
    """
    sides = sides_of(graph, one, shapes)
    if sides is None:
        return None
    clip = clip_after(graph, one)
    name = one.output if clip is None else clip.output[0]
    raw, channels = f"{name}{PHASES}", _channels(graph, one)
    nodes = _phases(graph, one, sides, raw if clip is None else f"{raw}_raw")
    if clip is not None:
        moved = type(clip).FromString(clip.SerializeToString())
        moved.input[0], moved.output[0] = f"{raw}_raw", raw
        nodes.append(moved)
    return [*nodes, *_in_place(graph, name, channels, sides)]


def clip_after(graph: Graph, one: Weighted) -> onnx.NodeProto | None:
    """The ReLU or Clip that alone reads what a node makes."""
    reader = graph.only_reader(one.output)
    return reader if reader is not None and clip_bounds(graph, reader) is not None else None


def sides_of(graph: Graph, one: Weighted, shapes: Shapes) -> tuple[_Side, _Side] | None:
    """What a transposed convolution does along rows and columns; None if it is of another form."""
    from onnx import helper

    if one.kind != "ConvTranspose":
        return None
    values = {each.name: helper.get_attribute_value(each) for each in one.node.attribute}
    given, made = (shapes.get(name, ())[2:] for name in (one.data, one.output))
    plain = values.get("auto_pad", b"NOTSET") == b"NOTSET" and "output_shape" not in values
    dense = set(values.get("dilations", [1])) == {1}
    known = len(given) == len(made) == 2 and None not in (*given, *made)
    if not (plain and dense and known):
        return None
    kernel = graph.array(one.weight).shape[2:]
    strides, pads = values.get("strides", [1, 1]), values.get("pads", [0] * 4)
    rows, columns = (
        _Side(kernel[axis], strides[axis], given[axis] or 0, made[axis] or 0, pads[axis])
        for axis in (0, 1)
    )
    return rows, columns


def _channels(graph: Graph, one: Weighted) -> int:
    """The channels of output of a transposed convolution."""
    return one.group * int(graph.array(one.weight).shape[1])


def _phases(
    graph: Graph, one: Weighted, sides: tuple[_Side, _Side], output: str
) -> list[onnx.NodeProto]:
    """Makes N x (phases of rows, phases of columns, channels) x blocks x blocks.

    With groups it is a convolution a phase: of one, what a group makes would lie side by side.
    """
    weights = _weights(graph.array(one.weight), one.group, sides)
    bias = graph.array(one.bias) if one.bias else np.zeros(_channels(graph, one), np.float32)
    rows, columns = (side.pads for side in sides)
    pads = [rows[0], columns[0], rows[1], columns[1]]
    if one.group == 1:
        weight = weights.reshape(-1, *weights.shape[2:])
        bias = np.tile(bias, len(weights))
        conv = _conv(graph, one, (weight, bias), one.weight, output, pads)
        conv.name = one.node.name
        return [conv]
    parts = [f"{output}_{index}" for index in range(len(weights))]
    nodes = [
        _conv(graph, one, (weight, bias), _numbered(one.weight, index), part, pads)
        for index, (weight, part) in enumerate(zip(weights, parts, strict=True))
    ]
    return [*nodes, _node("Concat", parts, output, axis=1)]


def _numbered(weight: str, index: int) -> str:
    """The name of a part of some weights: `up.0.weight` of `up.weight`."""
    return f"{weight.removesuffix('.weight')}.{index}.weight"


def _weights(weight: Floats, group: int, sides: tuple[_Side, _Side]) -> Floats:
    """The filters of each phase.

    Args:
        weight: input x output / group x kernel, as a ConvTranspose has it.
        group: in how many groups.
        sides: along rows and columns.

    Returns:
        phases x output x input / group x taps, as convolutions have them.
    """
    tall, wide = (side.taps * side.stride for side in sides)
    room = np.zeros((*weight.shape[:2], tall, wide), weight.dtype)
    room[:, :, : weight.shape[2], : weight.shape[3]] = weight
    given, made = weight.shape[0] // group, weight.shape[1]
    shape = [side for one in sides for side in (one.taps, one.stride)]
    split = room.reshape(group, given, made, *shape)[:, :, :, ::-1, :, ::-1, :]
    order = split.transpose(4, 6, 0, 2, 1, 3, 5)  # phases, group, made, given, taps
    taps = [side.taps for side in sides]
    return np.ascontiguousarray(order.reshape(-1, group * made, given, *taps))


def _conv(
    graph: Graph,
    one: Weighted,
    constants: tuple[Floats, Floats],
    name: str,
    output: str,
    pads: list[int],
) -> onnx.NodeProto:
    weight, bias = constants
    names = [
        graph.add_constant(name, weight),
        graph.add_constant(f"{name}_bias", bias.astype(np.float32)),
    ]
    size = {"kernel_shape": weight.shape[2:], "pads": pads, "group": one.group}
    return _node("Conv", [one.data, *names], output, **size)


def _in_place(
    graph: Graph, name: str, channels: int, sides: tuple[_Side, _Side]
) -> list[onnx.NodeProto]:
    """Puts the pixels of all phases where they belong, and leaves out those that are not kept."""
    raw = f"{name}{PHASES}"
    (rows, columns), strides = sides, [side.stride for side in sides]
    blocks = [rows.blocks, columns.blocks]
    apart = [0, *blocks, strides[0], strides[1] * channels]
    together = [0, blocks[0] * strides[0], blocks[1] * strides[1], channels]
    nodes = [
        _node("Transpose", [raw], f"{raw}_last", perm=[0, 2, 3, 1]),
        _reshape(graph, f"{raw}_last", f"{raw}_apart", apart),
        _node("Transpose", [f"{raw}_apart"], f"{raw}_rows", perm=[0, 1, 3, 2, 4]),
        _reshape(graph, f"{raw}_rows", f"{raw}_together", together),
    ]
    last = f"{raw}_together"
    ends = [side.first + side.made for side in sides]
    if [rows.first, columns.first, *ends] != [0, 0, *together[1:3]]:
        bounds = ([rows.first, columns.first], ends, [1, 2])
        constants = [
            graph.add_constant(f"{raw}_{what}", np.array(value, np.int64))
            for what, value in zip(("starts", "ends", "axes"), bounds, strict=True)
        ]
        nodes.append(_node("Slice", [last, *constants], f"{raw}_kept"))
        last = f"{raw}_kept"
    return [*nodes, _node("Transpose", [last], name, perm=[0, 3, 1, 2])]


def pixels(
    graph: Graph, node: onnx.NodeProto, shape: tuple[int | None, ...]
) -> list[onnx.NodeProto]:
    """The nodes that compute what a DepthToSpace does.

    Args:
        graph: it is of.
        node: a DepthToSpace.
        shape: of its input, N x C x H x W, all but N known.
    """
    values = {one.name: one for one in node.attribute}
    side, name = values["blocksize"].i, node.output[0]
    _, depth, height, width = (one or 0 for one in shape)
    channels = depth // side**2
    crosswise = "mode" in values and values["mode"].s == b"CRD"
    parts = [channels, side, side] if crosswise else [side, side, channels]
    raw = f"{name}{PHASES}"
    return [
        _node("Transpose", [node.input[0]], f"{raw}_last", perm=[0, 2, 3, 1]),
        _reshape(graph, f"{raw}_last", f"{raw}_apart", [0, height, width, *parts]),
        _node(
            "Transpose",
            [f"{raw}_apart"],
            f"{raw}_rows",
            perm=[0, 1, 4, 2, 5, 3] if crosswise else [0, 1, 3, 2, 4, 5],
        ),
        _reshape(
            graph, f"{raw}_rows", f"{raw}_together", [0, height * side, width * side, channels]
        ),
        _node("Transpose", [f"{raw}_together"], name, perm=[0, 3, 1, 2]),
    ]


def repeated(
    graph: Graph, node: onnx.NodeProto, factors: tuple[int, int], shape: tuple[int | None, ...]
) -> list[onnx.NodeProto]:
    """The nodes that compute what a Resize does that repeats pixels.

    Args:
        graph: it is of.
        node: the Resize.
        factors: how often it repeats rows and columns.
        shape: of its input, N x C x H x W, all but N known.
    """
    name = node.output[0]
    nodes = [_node("Transpose", [node.input[0]], f"{name}_last", perm=[0, 2, 3, 1])]
    for axis, what in ((2, "columns"), (1, "rows")):
        index = np.repeat(np.arange(shape[axis + 1] or 0), factors[axis - 1]).astype(np.int64)
        constant = graph.add_constant(f"{name}_{what}_from", index)
        nodes.append(_node("Gather", [nodes[-1].output[0], constant], f"{name}_{what}", axis=axis))
    return [*nodes, _node("Transpose", [f"{name}_rows"], name, perm=[0, 3, 1, 2])]


def _reshape(graph: Graph, given: str, output: str, shape: list[int]) -> onnx.NodeProto:
    constant = graph.add_constant(f"{output}_shape", np.array(shape, np.int64))
    return _node("Reshape", [given, constant], output)


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    from onnx import helper

    return helper.make_node(kind, inputs, [output], f"{output}_{kind}", **attributes)
