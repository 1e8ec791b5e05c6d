"""Nodes that multiply what they read by constant weights: where the products of a network are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.floating[Any]]

KINDS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators of such nodes."""


@dataclass(frozen=True)
class Weighted:
    """A node and its constant weights.

    Attributes:
        node: a Conv or ConvTranspose of images, of any group and dilation; a Gemm of a matrix that
            is not scaled; or a MatMul by a constant matrix on the right that is no pool.
        group: in how many groups it keeps its channels; 1 of a matrix.
        axis: of the weights, along which they have a step each: the channels of output. Of a
            ConvTranspose in groups, the place in the group, so that the groups share their steps;
            of one that is depthwise, the group.
        phases: how many pixels of output share the taps of a ConvTranspose's kernel between them,
            the product of its strides; 1 of all others.
    """

    node: onnx.NodeProto
    group: int = 1
    axis: int = 0
    phases: int = 1

    @property
    def kind(self) -> str:
        """Its operator, one of `KINDS`."""
        return str(self.node.op_type)

    @property
    def data(self) -> str:
        """The tensor that it multiplies."""
        return str(self.node.input[0])

    @property
    def weight(self) -> str:
        """The constant that it multiplies by."""
        return str(self.node.input[1])

    @property
    def bias(self) -> str:
        """The constant that it adds; empty where it adds none."""
        return str(self.node.input[2]) if len(self.node.input) > 2 else ""

    @property
    def takes_bias(self) -> bool:
        """Whether it can add one."""
        return self.kind != "MatMul"

    @property
    def output(self) -> str:
        """The tensor that it makes."""
        return str(self.node.output[0])

    @property
    def channel_axis(self) -> int:
        """Along which axis of the tensors that it reads and makes their channels lie: 1 or -1."""
        return 1 if self.kind in ("Conv", "ConvTranspose") else -1

    def inputs(self, shape: tuple[int, ...]) -> int:
        """How many channels weights of a shape read."""
        if self.kind == "Conv":
            return shape[1] * self.group
        return shape[0] if self.kind == "ConvTranspose" else shape[1 - self.axis]

    def terms(self, shape: tuple[int, ...]) -> int:
        """How many products with weights of a shape a number of the output is the sum of."""
        taps = int(np.prod(shape[2:])) // self.phases  # 1 where a step is as long as the kernel
        return self.inputs(shape) // self.group * max(taps, 1)

    def rows(self, weight: Floats) -> Floats:
        """The weights with a row for each step, N x K.

        Args:
            weight: in the node's own layout.
        """
        moved = np.moveaxis(weight, self.axis, 0)
        return moved.reshape(moved.shape[0], -1)

    def as_weight(self, rows: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Undoes `rows`: to the node's own layout, of this shape."""
        moved = (shape[self.axis], *(s for i, s in enumerate(shape) if i != self.axis))
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, self.axis))

    def along(self, steps: npt.NDArray[Any], rank: int) -> npt.NDArray[Any]:
        """A value for each step, in a shape that multiplies the weights, of so many axes."""
        return steps.reshape([-1 if axis == self.axis else 1 for axis in range(rank)])

    def of_output(self, factors: Floats, shape: tuple[int, ...]) -> Floats:
        """A factor for each channel of output, in a shape that multiplies weights of `shape`."""
        if self.kind == "ConvTranspose":  # input x output / group x kernel
            each = factors.reshape(self.group, 1, -1)
            wide = np.broadcast_to(each, (self.group, shape[0] // self.group, shape[1]))
            return wide.reshape(*shape[:2], *[1] * (len(shape) - 2))
        return self.along(factors, len(shape))

    def of_input(self, factors: Floats, shape: tuple[int, ...]) -> Floats:
        """A factor for each channel of input, in a shape that multiplies weights of `shape`."""
        ones = [1] * (len(shape) - 2)
        if self.kind == "Conv":  # output x input / group x kernel
            each = factors.reshape(self.group, 1, -1)
            wide = np.broadcast_to(each, (self.group, shape[0] // self.group, shape[1]))
            return wide.reshape(*shape[:2], *ones)
        if self.kind == "ConvTranspose":
            return factors.reshape(-1, 1, *ones)
        return factors.reshape([1 if axis == self.axis else -1 for axis in range(2)])

    def mean_of_output(self, weight: Floats, means: Floats) -> Floats:
        """The mean of each channel of output, its bias left out, given those of the input.

        Args:
            weight: in the node's own layout.
            means: float64 of I, the mean of each channel of input.

        Returns:
            float64 of O. Of a ConvTranspose it is that of all phases, far from the border.
        """
        if self.kind in ("Gemm", "MatMul"):
            return np.asarray(np.moveaxis(weight, self.axis, 0) @ means)
        taps = weight.sum(axis=tuple(range(2, weight.ndim)))
        if self.kind == "Conv":
            if self.group == 1:
                return np.asarray(taps @ means)
            parts = taps.reshape(self.group, -1, taps.shape[1])
            made = np.einsum("goi,gi->go", parts, means.reshape(self.group, -1))
            return np.asarray(made.ravel())
        parts = taps.reshape(self.group, -1, taps.shape[1])
        made = np.einsum("gio,gi->go", parts, means.reshape(self.group, -1))
        return np.asarray(made.ravel() / self.phases)


def weighted_of(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Weighted | None:
    """A node as a `Weighted`; None where it is none, or one of another form.

    Args:
        node: of any operator.
        constants: the graph's, by name.
    """
    from onnx import helper

    if node.op_type not in KINDS or len(node.input) < 2 or node.input[0] in constants:
        return None
    given = [name for name in node.input[1:] if name]
    if any(name not in constants for name in given):
        return None
    shape = tuple(constants[node.input[1]].dims)
    values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if node.op_type == "MatMul":
        matrix = len(shape) == 2 and not _averages(constants[node.input[1]])
        return Weighted(node, axis=1) if matrix else None
    if node.op_type == "Gemm":
        plain = (values.get(n, d) == d for n, d in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)))
        bias = constants[given[1]].dims if len(given) > 1 else ()
        if not all(plain) or len(bias) > 1:
            return None
        return Weighted(node, axis=0 if values.get("transB") else 1)
    group = values.get("group", 1)
    if len(shape) != 4:
        return None
    if node.op_type == "Conv":
        return Weighted(node, group)
    depthwise = group == shape[0] and shape[1] == 1 and group > 1
    return Weighted(node, group, 0 if depthwise else 1, int(np.prod(values.get("strides", (1, 1)))))


def _averages(matrix: onnx.TensorProto) -> bool:
    """Whether each column of a matrix gives shares of one, so that it is a pool along a side."""
    from onnx import numpy_helper

    values = numpy_helper.to_array(matrix)
    return bool((values >= 0).all() and np.allclose(values.sum(0), 1, atol=1e-3))
