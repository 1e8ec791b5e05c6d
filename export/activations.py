"""The largest values that flow through a graph, measured by running it on images.

Whole activations are never kept: the graph is copied with reductions beside every tensor, and only
their scalars come out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.errors import CheckFailed
from icnet_deploy.export.check import open_session
from icnet_deploy.export.passes import finite_check
from icnet_deploy.export.passes.common import attributes_of, constants_of

UInt8 = npt.NDArray[np.uint8]

_ADDING_UP = ("AveragePool", "Conv", "MatMul", "ReduceMean")


@dataclass
class Peaks:
    """What a `Probe` has seen so far.

    Attributes:
        images: how many.
        sizes: each (height, width) of them.
        largest: float tensor -> its largest absolute value.
        sums: float tensor -> the largest sum of absolute values of all that is added up for one
            element of it. No partial sum is larger, in whatever order a kernel adds.
    """

    images: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)
    largest: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)


class Probe:
    """A graph that reports the largest values inside it.

    Args:
        model: a float32 graph with one input, `image`, uint8 N x H x W x 3; not changed.
        largest_area: pixels of the largest image that a free-size graph is to serve: a mean over
            the whole map adds up so many more values there. None for a graph of fixed size.
    """

    def __init__(self, model: onnx.ModelProto, largest_area: int | None = None) -> None:
        self.peaks = Peaks()
        self._area = largest_area
        self._scale: dict[str, float] = {}
        self._means: set[str] = set()
        watched = self._instrumented(model)
        self._session = open_session(watched.SerializeToString())
        self._names = [output.name for output in watched.graph.output]

    def look(self, image: UInt8) -> None:
        """Runs one image, uint8 H x W x 3, RGB, of a size that the graph takes.

        Raises:
            CheckFailed: a value is not finite in float32 already.
        """
        height, width = image.shape[:2]
        growth = max(1.0, self._area / (height * width)) if self._area else 1.0
        values = self._session.run(self._names, {"image": image[None]})
        for name, value in zip(self._names, values, strict=True):
            kind, tensor = name.split(":", 1)
            found, into = abs(float(value)), self.peaks.largest
            if not np.isfinite(found):
                raise CheckFailed(
                    f"{tensor} is not finite in float32 already: the checkpoint is broken, and "
                    "no precision mends it"
                )
            if kind == "all":
                continue
            if kind == "sum":
                found *= self._scale.get(tensor, 1.0) * (growth if tensor in self._means else 1.0)
                into = self.peaks.sums
            into[tensor] = max(into.get(tensor, 0.0), found)
        self.peaks.images += 1
        self.peaks.sizes.add((height, width))

    def _instrumented(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The graph with no outputs but the reductions of its float tensors."""
        copied = copy.deepcopy(model)
        graph = copied.graph
        floats = _floats(onnx.shape_inference.infer_shapes(model))
        constants = constants_of(graph)
        del graph.output[:]
        magnitudes: dict[str, str] = {}

        def magnitude(name: str) -> str:
            if name not in magnitudes and name in constants:
                values = np.abs(numpy_helper.to_array(constants[name]))
                graph.initializer.append(numpy_helper.from_array(values, f"abs:{name}"))
                magnitudes[name] = f"abs:{name}"
            elif name not in magnitudes:
                graph.node.append(helper.make_node("Abs", [name], [f"abs:{name}"]))
                magnitudes[name] = f"abs:{name}"
            return magnitudes[name]

        check = finite_check(model)  # of the logits; what it sums up is beyond any float16
        for node in (node for node in model.graph.node if node.name not in check):
            for tensor in floats.intersection(node.output):
                _watch(graph, "ReduceMax", tensor, f"max:{tensor}")
                _watch(graph, "ReduceMin", tensor, f"min:{tensor}")
                # A maximum may drop what is not a number; a sum does not.
                _watch(graph, "ReduceSum", tensor, f"all:{tensor}")
                if node.op_type in _ADDING_UP:
                    graph.node.append(self._twin(node, tensor, magnitude))
                    _watch(graph, "ReduceMax", f"twin:{tensor}", f"sum:{tensor}")
        return copied

    def _twin(
        self, node: onnx.NodeProto, tensor: str, magnitude: Callable[[str], str]
    ) -> onnx.NodeProto:
        """The same node over absolute values; it gives the sums, but for a scale."""
        twin = copy.deepcopy(node)
        twin.name = twin.output[0] = f"twin:{tensor}"
        summed = 1 if node.op_type == "ReduceMean" else len(node.input)  # then come the axes
        for index in range(summed):
            twin.input[index] = magnitude(node.input[index])
        if node.op_type == "ReduceMean":
            twin.op_type = "ReduceSum"
            self._means.add(tensor)
        if node.op_type == "AveragePool":
            self._scale[tensor] = float(np.prod(attributes_of(node)["kernel_shape"]))
        return twin


def _watch(graph: onnx.GraphProto, reduction: str, tensor: str, name: str) -> None:
    graph.node.append(helper.make_node(reduction, [tensor], [name], keepdims=0))
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))


def _floats(model: onnx.ModelProto) -> set[str]:
    """The names of all float32 tensors that nodes make."""
    values: Iterable[onnx.ValueInfoProto] = (*model.graph.value_info, *model.graph.output)
    return {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
