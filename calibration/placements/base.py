"""What a placement of Q/DQ pairs is: the quantizer asks it, and compares no names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from icnet_deploy.calibration.ranges import Range, grid
from icnet_deploy.calibration.weighted import KINDS, Weighted

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.graph import Graph


_COSTLY = 0.0015
"""A classifier of a larger share of the multiply-adds takes long in float: SegFormer's is 0.5 % of
them, DeepLabV3+'s 0.18 %."""


@dataclass
class Pairs:
    """Where pairs stand in one graph.

    Attributes:
        readers: tensor -> the nodes that read it through a pair (by name), or None for all.
        ranged_as: tensor -> the tensor whose range it takes, where that is not its own.
        near: tensor -> one whose range it takes in place of its own, if that is nearly as wide.
        within: tensor -> the two values that its range is cut off at, since what reads it does not
            tell apart what lies beyond; zero is between them. The lower one is a place of its grid.
        spare: tensors that may have one where more of the graph stays in float.
    """

    readers: dict[str, set[str] | None] = field(default_factory=dict)
    ranged_as: dict[str, str] = field(default_factory=dict)
    near: dict[str, str] = field(default_factory=dict)
    within: dict[str, tuple[float, float]] = field(default_factory=dict)
    spare: set[str] = field(default_factory=set)

    def read_by(self, tensor: str, node: onnx.NodeProto) -> None:
        """Lets one more node read a tensor through a pair."""
        nodes = self.readers.setdefault(tensor, set())
        if nodes is not None:
            nodes.add(node.name)


class Placement(ABC):
    """One way to place pairs. Weights are symmetric int8 by channel of output in all of them.

    It has a row in `precisions` of the same name, which says what it is for.

    Attributes:
        name: as `--placement` and the metadata have it.
        symmetric: activations are int8 on a grid around zero; else uint8 on one that holds zero.
        integer_bias: biases are int32, their step that of input and filter multiplied; else
            float32.
        operators: those that it knows between weighted nodes; others stay in float, and are named.
        kinds: the operators whose weights it takes.
        even: a classifier of so many terms or more loses little: over them rounding evens out.
    """

    name: ClassVar[str]
    symmetric: ClassVar[bool] = True
    integer_bias: ClassVar[bool] = False
    operators: ClassVar[frozenset[str]] = frozenset(
        {"Relu", "Add", "Resize", "MaxPool", "AveragePool"}
    )

    kinds: ClassVar[frozenset[str]] = frozenset(KINDS)
    even: ClassVar[int] = 256

    @abstractmethod
    def pairs(self, graph: Graph, weighted: Sequence[Weighted]) -> Pairs:
        """Decides where pairs stand.

        Args:
            graph: of float32; it is not changed.
            weighted: the nodes whose weights become int8, of those that it takes.
        """

    def takes(self, one: Weighted) -> bool:
        """Whether the placement's runtimes multiply such a node in 8 bits."""
        return one.kind in self.kinds

    def float_layers(self, graph: Graph) -> tuple[str, ...]:
        """The layers that stay in float unless others are named.

        Those of `Graph.float_layers`, but for a classifier that would take long in float and loses
        little in 8 bits.

        Args:
            graph: of float32.
        """
        from icnet_deploy.calibration.products import products

        counted = products(graph.model)
        costly = {each.layer for each in counted.nodes if each.count > _COSTLY * counted.total}
        costly.difference_update(graph.image_layers())
        for one in graph.weighted():
            if one.terms(tuple(graph.constants[one.weight].dims)) < self.even:
                costly.discard(graph.layer(one.node))
        return tuple(name for name in graph.float_layers() if name not in costly)

    def arrange(self, model: onnx.ModelProto, exclude: Collection[str] = ()) -> bool:
        """Lays out a float32 graph before pairs are placed; its function stays the same.

        Args:
            model: of float32; it is changed.
            exclude: the layers that stay in float, as `Graph.weighted` has them.

        Returns:
            Whether it changed the model.
        """
        return False

    def unknown(
        self, model: onnx.ModelProto, exclude: Collection[str] | None = None
    ) -> Counter[str]:
        """The operators between weighted nodes that it leaves in float, with their number.

        Args:
            model: of float32; it is not changed.
            exclude: the layers that stay in float; None for `float_layers`.
        """
        from icnet_deploy.calibration.graph import Graph, plain

        arranged = type(model).FromString(plain(model).SerializeToString())
        kept = self.float_layers(Graph(arranged)) if exclude is None else exclude
        self.arrange(arranged, kept)
        graph = Graph(arranged)
        others = [one.kind for one in graph.weighted(kept) if not self.takes(one)]
        return graph.others_than(self.operators) + Counter(others)

    def finish(self, graph: Graph, nodes: Sequence[onnx.NodeProto]) -> Sequence[onnx.NodeProto]:
        """The nodes of the 8-bit graph, given those of the float32 one and of the pairs."""
        return nodes

    def span(self, chosen: Range) -> tuple[float, float]:
        """What a tensor's grid covers."""
        return (-chosen.limit, chosen.limit) if self.symmetric else (chosen.low, chosen.high)

    def grid(self, chosen: Range) -> tuple[np.float32, np.int8 | np.uint8]:
        """The step of a tensor's grid, and the place of its zero, of the type of the grid."""
        if self.symmetric:
            return np.float32(chosen.limit / 127), np.int8(0)
        scale, zero = grid(chosen.low, chosen.high, 255)
        return np.float32(scale), np.uint8(zero)
