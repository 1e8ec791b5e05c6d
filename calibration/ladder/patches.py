"""A weighted node as matrices: what it multiplies, at some places of its output, and its weights.

A convolution is a product of matrices: each place of its output is the weights times a patch of
the input. So whatever is to be told of a node's products is told of matrices alone.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import helper

from icnet_deploy.calibration.weighted import Weighted

Float32 = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]


def matrices(one: Weighted, weight: Array) -> Array:
    """The weights as a matrix for each group of channels, G x O x K.

    Args:
        one: the node.
        weight: in the node's own layout.

    Returns:
        Of each group a row for each of its channels of output; in a row, channel by channel of its
        input, the taps of the kernel.
    """
    if one.kind == "Conv":
        return weight.reshape(one.group, weight.shape[0] // one.group, -1)
    if one.kind == "ConvTranspose":
        inputs, outputs = weight.shape[:2]
        parts = weight.reshape(one.group, inputs // one.group, outputs, -1)
        return np.moveaxis(parts, 2, 1).reshape(one.group, outputs, -1)
    return np.moveaxis(weight, one.axis, 0)[None]


def as_weight(one: Weighted, rows: Array, shape: Sequence[int]) -> Array:
    """Undoes `matrices`: to the node's own layout, of this shape."""
    if one.kind == "Conv":
        return rows.reshape(shape)
    if one.kind == "ConvTranspose":
        inputs, outputs = shape[:2]
        parts = rows.reshape(one.group, outputs, inputs // one.group, -1)
        return np.moveaxis(parts, 1, 2).reshape(shape)
    return np.ascontiguousarray(np.moveaxis(rows[0], 0, one.axis))


class _Axis(NamedTuple):
    """One axis of the images of a convolution.

    Attributes:
        size: of the input.
        kernel, stride, dilation: in pixels of the output where the node is transposed, else of the
            input.
        before: how many pixels are added before the first, or cut off if the node is transposed.
        made: the size of the output.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    made: int


class Patches:
    """Takes from a node's input what each place of its output is made of.

    Args:
        one: the node.
        weight_shape: of its weights.
        input_shape: of its input; of an image 1 x C x H x W.
    """

    def __init__(
        self, one: Weighted, weight_shape: Sequence[int], input_shape: Sequence[int]
    ) -> None:
        self._one = one
        self._axes: list[_Axis] = []
        if one.kind in ("Conv", "ConvTranspose"):
            values = {a.name: helper.get_attribute_value(a) for a in one.node.attribute}
            for index in range(2):
                given = (weight_shape[2 + index], input_shape[2 + index])
                self._axes.append(_axis(one.kind, index, *given, values))
            self.places = self._axes[0].made * self._axes[1].made
        else:
            self.places = int(np.prod(input_shape[:-1]))

    def take(self, values: Float32, places: Indices) -> Float32:
        """The patches at these places of the output, 0..`places`.

        Args:
            values: the node's input, float32.
            places: n of them.

        Returns:
            float32, G x n x K: in a row, channel by channel of the group, the taps of the kernel;
            zero where a tap lies outside of the image, or between two pixels of it.
        """
        if not self._axes:
            return values.reshape(-1, values.shape[-1])[places][None]
        wide = self._axes[1].made
        rows, row_there = self._taps(self._axes[0], places // wide)
        columns, column_there = self._taps(self._axes[1], places % wide)
        there = row_there[:, :, None] & column_there[:, None, :]
        found = values[0][:, rows[:, :, None], columns[:, None, :]] * there
        channels, count = found.shape[:2]
        parts = found.reshape(self._one.group, channels // self._one.group, count, -1)
        return np.ascontiguousarray(parts.transpose(0, 2, 1, 3)).reshape(self._one.group, count, -1)

    def _taps(self, axis: _Axis, at: Indices) -> tuple[Indices, npt.NDArray[np.bool_]]:
        """The pixel under each tap, n x kernel, and whether there is one."""
        taps = np.arange(axis.kernel) * axis.dilation
        if self._one.kind == "Conv":
            pixels = at[:, None] * axis.stride - axis.before + taps
            there = np.ones(pixels.shape, bool)
        else:
            shifted = at[:, None] + axis.before - taps
            pixels, there = shifted // axis.stride, shifted % axis.stride == 0
        there &= (pixels >= 0) & (pixels < axis.size)
        return np.where(there, pixels, 0), there


def _axis(kind: str, index: int, kernel: int, size: int, values: dict[str, Any]) -> _Axis:
    """An axis by the rules of ONNX's Conv and ConvTranspose; `index` is 0 of height."""
    stride = values.get("strides", (1, 1))[index]
    dilation = values.get("dilations", (1, 1))[index]
    pads = values.get("pads", (0, 0, 0, 0))
    before, after = pads[index], pads[2 + index]
    rule = values.get("auto_pad", b"NOTSET")
    reach = (kernel - 1) * dilation + 1
    late = rule == b"SAME_LOWER"
    if kind == "Conv":
        if rule.startswith(b"SAME"):
            added = max((-(-size // stride) - 1) * stride + reach - size, 0)
            before, after = _parted(added, late)
        made = (size + before + after - reach) // stride + 1
        return _Axis(size, kernel, stride, dilation, before, made)
    whole = stride * (size - 1) + values.get("output_padding", (0, 0))[index] + reach
    wanted = values.get("output_shape", (0, 0))[-2:][index]
    if rule.startswith(b"SAME") and not wanted:
        wanted = size * stride
    if wanted:
        before, after = _parted(max(whole - wanted, 0), rule != b"SAME_UPPER")
    return _Axis(size, kernel, stride, dilation, before, whole - before - after)


def _parted(added: int, late: bool) -> tuple[int, int]:
    """Two halves of it; the second is the larger one, or the first for `late`."""
    small, large = added // 2, added - added // 2
    return (large, small) if late else (small, large)
