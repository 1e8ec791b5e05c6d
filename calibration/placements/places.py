"""Operators put together of integer kernels, on the places of a grid, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from icnet_deploy.calibration.placements.reach import (
    CLIPPING,
    GATES,
    MOVING,
    SUMS,
    clip_bounds,
    gate_of,
    pads_zeros,
    slopes_of,
)

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph


@dataclass(frozen=True)
class Grid:
    """A tensor in 8 bits.

    Attributes:
        places: the tensor of uint8.
        scale, zero: the constants of its grid.
    """

    places: str
    scale: str
    zero: str


_SAME = 1e-4  # of a gate's 0..1


def _steps(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """The step of a grid over low..high, which holds zero, and the place of its zero."""
    scale = np.float32((high - low) / 255 or 1.0)
    return scale, np.uint8(np.rint(-low / scale))


class Lowering:
    """Writes the nodes of an 8-bit graph for ONNX Runtime's integer kernels.

    Args:
        graph: of float32, its nodes already reading through pairs.
        nodes: its nodes, and those of the pairs.
    """

    def __init__(self, graph: Graph, nodes: Sequence[onnx.NodeProto]) -> None:
        self.graph = graph
        self.nodes = list(nodes)
        made = {node.output[0] for node in nodes if node.op_type == "QuantizeLinear"}
        self.grids = {
            node.output[0]: Grid(*node.input)
            for node in nodes
            if node.op_type == "DequantizeLinear" and node.input[0] in made
        }
        """Tensor of float32 -> the same in 8 bits."""
        self.rounding: dict[str, onnx.NodeProto] = {}
        """Tensor -> the node that makes places of it."""
        self.dropped: set[int] = set()
        self.added: list[onnx.NodeProto] = []

    def run(self) -> list[onnx.NodeProto]:
        """The nodes, in an order that need not run."""
        rounding = [node for node in self.nodes if node.op_type == "QuantizeLinear"]
        for node in rounding:
            self._absorb(node)
        self.rounding = {node.input[0]: node for node in rounding}
        for node in self.nodes:
            self._lower(node, node.output[0] in self.rounding)
        kept = [node for node in [*self.nodes, *self.added] if id(node) not in self.dropped]
        return self._with_values(kept)

    def _absorb(self, rounding: onnx.NodeProto) -> None:
        """Leaves out a ReLU or Clip that the grid behind it does the work of.

        ONNX Runtime makes an integer sum only of an Add with a QuantizeLinear right behind it.
        Where the grid reaches further, what is cut off are places.
        """
        source = self.graph.producers.get(rounding.input[0])
        bounds = clip_bounds(self.graph, source) if source is not None else None
        if source is None or bounds is None or not bounds[0] <= 0 <= bounds[1]:
            return
        low, high = self._places(bounds, Grid("", *rounding.input[1:]))
        rounding.input[0] = source.input[0]
        self.dropped.add(id(source))
        if low > 0 or high < 255:
            places = rounding.output[0]
            rounding.output[0] = f"{places}_whole"
            self._clip(rounding.output[0], places, low, high)

    def _places(self, bounds: tuple[float, float], grid: Grid) -> tuple[int, int]:
        """Where on a grid two values lie, 0..255."""
        scale, zero = float(self.graph.array(grid.scale)), int(self.graph.array(grid.zero))
        ends = np.clip(np.rint(np.array(bounds) / scale + zero), 0, 255)
        return int(ends[0]), int(ends[1])

    def _clip(self, given: str, made: str, low: int, high: int) -> None:
        ends = [
            self.graph.add_constant(f"{made}_{name}", np.array(value, np.uint8))
            for name, value in (("lowest", low), ("highest", high))
        ]
        self._add("Clip", [given, *ends], made)

    def _lower(self, node: onnx.NodeProto, rounded: bool) -> None:
        """Writes a node for integer kernels.

        Args:
            node: of the float32 graph, or of a pair, which is left as it is.
            rounded: whether its output becomes places.
        """
        grid = self.grids.get(node.input[0]) if node.input else None
        kind = node.op_type
        if kind in SUMS | {"Concat"}:
            if rounded:
                self._round_constants(node)
        elif grid is None or id(node) in self.dropped:
            return
        elif kind in MOVING and pads_zeros(self.graph, node):
            self._move(node, grid)
        elif kind in CLIPPING and (bounds := clip_bounds(self.graph, node)):
            self.dropped.add(id(node))
            low, high = self._places(bounds, grid)
            self._clip(grid.places, self._keep(node.output[0], grid), low, high)
        elif rounded and (slopes := slopes_of(self.graph, node)) is not None:
            self._prelu(node, grid, slopes)
        elif kind in GATES and rounded:
            self._gate(node, grid)

    def _keep(self, tensor: str, grid: Grid) -> str:
        """Lets a tensor be on a grid; returns the name of its places."""
        self.grids[tensor] = Grid(f"{tensor}_q", grid.scale, grid.zero)
        return f"{tensor}_q"

    def _move(self, node: onnx.NodeProto, grid: Grid) -> None:
        """Lets a node move places."""
        node.input[0] = grid.places
        if node.op_type == "Pad":
            node.input[:] = [*node.input[:2], grid.zero, *node.input[3:]]
        for index, name in enumerate(node.output):
            if name:
                node.output[index] = self._keep(name, grid)

    def _gate(self, node: onnx.NodeProto, grid: Grid) -> None:
        """A gate as a sum whose grid ends where the gate does; HardSwish multiplies by it."""
        name, add = node.output[0], self.graph.add_constant
        self.dropped.add(id(node))
        if node.op_type == "HardSigmoid":
            self._add("Add", self._line(node, grid), name)
            return
        slope, shift = gate_of(node)
        scale, zero = float(self.graph.array(grid.scale)), int(self.graph.array(grid.zero))
        if abs(zero * scale * slope - shift) < _SAME:
            # It begins where the grid does, and ends at twice its zero: on the same places.
            steps = [
                add(f"{name}_gate_scale", np.array(scale * slope, np.float32)),
                add(f"{name}_gate_zero", np.array(0, np.uint8)),
            ]
            places = grid.places
            if 2 * zero < 255:
                places = f"{name}_gate_q"
                self._clip(grid.places, places, 0, 2 * zero)
        else:
            steps = [
                add(f"{name}_gate_scale", np.array(1 / 255, np.float32)),
                add(f"{name}_gate_zero", np.array(0, np.uint8)),
            ]
            line = self._add("Add", self._line(node, grid), f"{name}_line")
            places = self._add("QuantizeLinear", [line, *steps], f"{name}_gate_q")
        self._add("Mul", [node.input[0], self._value(Grid(places, *steps), f"{name}_gate")], name)

    def _line(self, node: onnx.NodeProto, grid: Grid) -> list[str]:
        """What a gate adds before it cuts off: its slope times its input, and its shift."""
        slope, shift = gate_of(node)
        name, steps = node.output[0], self.graph.array(grid.scale) * np.float32(slope)
        scale = self.graph.add_constant(f"{name}_slope", steps.astype(np.float32))
        steep = self._value(Grid(grid.places, scale, grid.zero), f"{name}_steep")
        return [steep, self._constant(f"{name}_shift", np.array(shift, np.float32))]

    def _prelu(self, node: onnx.NodeProto, grid: Grid, slopes: np.ndarray) -> None:
        """With slopes of 0..1 the larger of a value and its product; else a sum of two parts.

        Both on the grid of the output, so that each is rounded once: their places are compared.
        Of the sum, x + (slope - 1) * min(x, 0), the product is on a grid of its own.
        """
        given, name, add = node.input[0], node.output[0], self.graph.add_constant
        self.dropped.add(id(node))
        if slopes.min() >= 0 and slopes.max() <= 1:
            rounding = self.rounding[name]
            self.dropped.add(id(rounding))
            parts = []
            for what, value in (("value", np.ones((), np.float32)), ("product", slopes)):
                factor = self._constant(f"{name}_{what}_factor", value)
                part = self._add("Mul", [given, factor], f"{name}_{what}")
                steps = [part, *rounding.input[1:]]
                parts.append(self._add("QuantizeLinear", steps, f"{part}_q"))
            self._add("Max", parts, rounding.output[0])
            return
        zero = int(self.graph.array(grid.zero))
        self._clip(grid.places, f"{name}_below_q", 0, zero)
        below = self._value(Grid(f"{name}_below_q", grid.scale, grid.zero), f"{name}_below")
        factor = self._constant(f"{name}_slopes", slopes - 1)
        product = self._add("Mul", [below, factor], f"{name}_product")
        lowest = -zero * float(self.graph.array(grid.scale))
        ends = lowest * (slopes.min() - 1), lowest * (slopes.max() - 1)
        values = zip(("scale", "zero"), _steps(min(*ends, 0.0), max(*ends, 0.0)), strict=True)
        steps = [add(f"{product}_{what}", np.array(value)) for what, value in values]
        places = self._add("QuantizeLinear", [product, *steps], f"{product}_q")
        shift = self._value(Grid(places, *steps), f"{product}_dq")
        self._add("Add", [given, shift], name)

    def _round_constants(self, node: onnx.NodeProto) -> None:
        """Gives the constants among the operands of an integer kernel a grid each."""
        if not any(name in self.grids for name in node.input):
            return
        for index, name in enumerate(node.input):
            if name in self.graph.constants:
                value = self.graph.array(name)
                node.input[index] = self._constant(f"{node.output[0]}_operand{index}", value)

    def _constant(self, name: str, value: np.ndarray) -> str:
        """A constant of float32, read from uint8 on a grid of its own; returns the tensor."""
        scale, zero = _steps(min(float(value.min()), 0.0), max(float(value.max()), 0.0))
        places = np.clip(np.rint(value / scale) + zero, 0, 255).astype(np.uint8)
        add = self.graph.add_constant
        grid = Grid(
            add(f"{name}_q", places),
            add(f"{name}_scale", np.array(scale)),
            add(f"{name}_zero", np.array(zero)),
        )
        return self._value(grid, name)

    def _value(self, grid: Grid, tensor: str) -> str:
        return self._add("DequantizeLinear", [grid.places, grid.scale, grid.zero], tensor)

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.added.append(
            helper.make_node(kind, list(inputs), [output], f"{output}_{kind}", **attributes)
        )
        return output

    def _with_values(self, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Adds what makes float32 of places where that is read, and leaves out where it is not."""
        kept = list(nodes)
        read = {name for node in kept for name in node.input} | self.graph.outputs
        made = {name for node in kept for name in node.output}
        self.added = []
        for tensor, grid in self.grids.items():
            if tensor in read and tensor not in made:
                self._value(grid, tensor)
        dead = self.grids.keys() - read
        return [node for node in kept if node.output[0] not in dead] + self.added
