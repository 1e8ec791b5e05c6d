"""What float16 would do to a graph, before it is done: which nodes stay in float32, and why.

The largest values that flow through the graph are measured by running it on images. Whole
activations are never kept: the graph is copied with reductions beside every tensor, and only their
scalars come out.

float16 ends at 65504, keeps 11 bits from 2^-14 (6.1e-05) on, fewer and fewer below, and nothing
below 2^-24 (6e-08), where ONNX Runtime's converter writes 6e-08 in place of zero. (IEEE 754,
binary16.)
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tqdm import tqdm

from icnet_deploy.errors import CheckFailed
from icnet_deploy.export.check import open_session
from icnet_deploy.export.passes import finite_check
from icnet_deploy.export.passes.common import attributes_of, constants_of

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_LIMIT = 65504.0
_SMALLEST_NORMAL = 2.0**-14
_SMALLEST = 2.0**-24

_MARGIN = 4.0
"""How far below `_LIMIT` what was measured must stay. An image that was not measured may reach
higher: from one image to another the peaks of the shipped network differ by up to 2.5 times."""

_LOSS = 0.01
"""The share of its norm that a layer's kernel may lose to rounding; of normal numbers it loses
0.0002 to 0.0004."""

_OVER_THE_MAP = ("GlobalAveragePool", "ReduceMean", "ReduceSum")
"""What they read besides the tensor are axes."""

_ADDING_UP = ("AveragePool", "Conv", "ConvTranspose", "Gemm", "MatMul", *_OVER_THE_MAP)
"""A LayerNormalization adds up in float32 whatever its tensors are; ONNX says so."""


class Probe:
    """A graph that reports the largest values inside it.

    Args:
        model: a float32 graph with one input, `image`, uint8 N x H x W x 3; not changed.
        largest_area: pixels of the largest image that a free-size graph is to serve: a mean over
            the whole map adds up so many more values there. None for a graph of fixed size.

    Attributes:
        images: how many it has seen.
        sizes: each (height, width) of them.
        largest: float tensor -> its largest absolute value so far.
        sums: float tensor -> the largest sum of absolute values of all that is added up for one
            element of it. No partial sum is larger, in whatever order a kernel adds.
    """

    def __init__(self, model: onnx.ModelProto, largest_area: int | None = None) -> None:
        self.images = 0
        self.sizes: set[tuple[int, int]] = set()
        self.largest: dict[str, float] = {}
        self.sums: dict[str, float] = {}
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
            peak, into = abs(float(value)), self.largest
            if not np.isfinite(peak):
                raise CheckFailed(
                    f"{tensor} is not finite even in float32: the checkpoint is broken; give "
                    "another one"
                )
            if kind == "all":
                continue
            if kind == "sum":
                peak *= self._scale.get(tensor, 1.0) * (growth if tensor in self._means else 1.0)
                into = self.sums
            into[tensor] = max(into.get(tensor, 0.0), peak)
        self.images += 1
        self.sizes.add((height, width))

    def _instrumented(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The graph with no outputs but the reductions of its float tensors."""
        copied = copy.deepcopy(model)
        graph = copied.graph
        typed = onnx.shape_inference.infer_shapes(model).graph
        values = (*typed.value_info, *typed.output)
        floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        constants = constants_of(graph)
        del graph.output[:]

        @cache
        def magnitude(name: str) -> str:
            if name in constants:
                values = np.abs(numpy_helper.to_array(constants[name]))
                graph.initializer.append(numpy_helper.from_array(values, f"abs:{name}"))
            else:
                graph.node.append(helper.make_node("Abs", [name], [f"abs:{name}"]))
            return f"abs:{name}"

        axes = numpy_helper.from_array(np.array([2, 3], np.int64), _SPATIAL)
        graph.initializer.append(axes)
        check = finite_check(model)  # of the logits; what it sums up is beyond any float16
        for node in (node for node in model.graph.node if node.name not in check):
            for tensor in floats.intersection(node.output):
                # A maximum may drop what is not a number; a sum does not.
                for reduction, kind in (("Max", "max"), ("Min", "min"), ("Sum", "all")):
                    _watch(graph, f"Reduce{reduction}", tensor, f"{kind}:{tensor}")
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
        for index, name in enumerate(
            node.input[:1] if node.op_type in _OVER_THE_MAP else node.input
        ):
            if name:
                twin.input[index] = magnitude(name)
        if node.op_type in _OVER_THE_MAP:
            twin.op_type = "ReduceSum"
            self._means.add(tensor)
        if node.op_type == "GlobalAveragePool":
            twin.input.append(_SPATIAL)
        if node.op_type == "AveragePool":
            self._scale[tensor] = float(np.prod(attributes_of(node)["kernel_shape"]))
        return twin


_SPATIAL = "twin:axes"


def _watch(graph: onnx.GraphProto, reduction: str, tensor: str, name: str) -> None:
    graph.node.append(helper.make_node(reduction, [tensor], [name], keepdims=0))
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))


@dataclass(frozen=True)
class _Weights:
    """What rounding to float16 does to a node's constants.

    Attributes:
        count: how many numbers there are.
        largest: the largest absolute value.
        subnormal: how many are below 2^-14 and not zero: they keep fewer than 11 bits.
        vanishing: how many of those are below 2^-24: they keep none.
        lost: norm of the rounding error, as a share of the norm.
        worst_kernel: the output channel that loses most of its own norm.
        worst_lost: that share.
    """

    count: int
    largest: float
    subnormal: int
    vanishing: int
    lost: float
    worst_kernel: int
    worst_lost: float


@dataclass(frozen=True)
class _NodeReport:
    """One node that would become float16.

    Attributes:
        node, op: its name and operator.
        layer: the layer whose weights it has, or the last one before it.
        largest: the largest absolute value of its output.
        largest_sum: see `Probe.sums`; None for a node that adds nothing up.
        weights: of its constants; None if it has none.
        reasons: why it stays in float32, in words; none if it does not.
    """

    node: str
    op: str
    layer: str
    largest: float
    largest_sum: float | None
    weights: _Weights | None
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return self.layer if self.weights else f"{self.op} after {self.layer}"


@dataclass(frozen=True)
class Headroom:
    """The report of a whole graph.

    Attributes:
        images: how many images were measured.
        sizes: each (height, width) of them.
        nodes: in the order of the graph.
    """

    images: int
    sizes: tuple[tuple[int, int], ...]
    nodes: tuple[_NodeReport, ...]

    @property
    def kept(self) -> tuple[_NodeReport, ...]:
        """The nodes that stay in float32."""
        return tuple(node for node in self.nodes if node.reasons)

    def __str__(self) -> str:
        sizes = ", ".join(f"{h}x{w}" for h, w in self.sizes)
        top = max(self.nodes, key=lambda n: n.largest)
        lines = [
            f"FP16 headroom, {self.images} images at {sizes}; float16 ends at {_LIMIT:g}, and "
            f"values above 1/{_MARGIN:g} of it stay in float32",
            f"  largest activation  {_room(top.largest)}: {top}",
        ]
        sums = [n for n in self.nodes if n.largest_sum is not None]
        if sums:
            heaviest = max(sums, key=lambda n: n.largest_sum or 0)
            lines.append(f"  largest inner sum   {_room(heaviest.largest_sum or 0)}: {heaviest}")
        if any(n.weights for n in self.nodes):
            lines.append(f"  weights             {_weights_in_words(self.nodes)}")
        lines.append(f"  kept in float32     {len(self.kept) or 'none'}")
        lines += [f"    {node}: {'; '.join(node.reasons)}" for node in self.kept]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: every node, with what was measured and why it is kept."""
        return {
            "schema": 1,
            "kind": "fp16-headroom",
            "limit": _LIMIT,
            "margin": _MARGIN,
            "images": self.images,
            "sizes": [list(size) for size in self.sizes],
            "kept": [node.node for node in self.kept],
            "nodes": [asdict(node) | {"reasons": list(node.reasons)} for node in self.nodes],
        }


def measure(
    model: onnx.ModelProto, batches: Iterable[Iterable[UInt8]], largest_side: int | None = None
) -> Headroom:
    """Runs a float32 graph on images and says what float16 would do to it.

    Args:
        model: see `Probe`.
        batches: images, uint8 H x W x 3, RGB.
        largest_side: in pixels, of the images that a free-size graph is to serve.
    """
    probe = Probe(model, largest_side and largest_side**2)
    for batch in tqdm(batches, desc="headroom", unit="batch", disable=None):
        for image in batch:
            probe.look(image)
    return examine(model, probe)


def examine(model: onnx.ModelProto, probe: Probe) -> Headroom:
    """Decides for every node that computes in float32 whether float16 is safe.

    A node stays in float32 if what it puts out or takes in, or what it adds up inside, comes
    within `_MARGIN` of the largest float16; if a tensor or its kernel is so small that float16
    loses it; or if the converter does not convert its operator.

    Args:
        model: the float32 graph.
        probe: of the same graph, with what it saw.
    """
    constants = {
        t.name: numpy_helper.to_array(t)
        for t in model.graph.initializer
        if t.data_type == TensorProto.FLOAT
    }
    layers: dict[str, tuple[int, str]] = {}
    nodes = []
    for order, node in enumerate(model.graph.node):
        own = [n for n in node.input if n in constants and node.op_type != "Resize"]
        before = max((layers[n] for n in node.input if n in layers), default=(-1, "the input"))
        # What comes after a layer is called by its name; a bare constant, as the mean's, is none.
        kernels = [n for n in own if constants[n].ndim > 1 and n.endswith(".weight")]
        here = (order, _layer(kernels[0])) if kernels else before
        layers.update(dict.fromkeys(node.output, here))
        output = next((o for o in node.output if o in probe.largest), None)
        if output is None:
            continue
        weights = _weights([constants[n] for n in own]) if kernels else None
        nodes.append(
            _NodeReport(
                node.name,
                node.op_type,
                here[1],
                probe.largest[output],
                probe.sums.get(output),
                weights,
                tuple(_reasons(node, output, probe, [constants[n] for n in own], weights)),
            )
        )
    return Headroom(probe.images, tuple(sorted(probe.sizes)), tuple(nodes))


def _reasons(
    node: onnx.NodeProto,
    output: str,
    probe: Probe,
    constants: Sequence[Float32],
    weights: _Weights | None,
) -> Iterator[str]:
    """Why a node stays in float32; nothing where it need not."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    inputs = [("its input", name) for name in dict.fromkeys(node.input)]
    for which, name in [("its output", output), *inputs]:
        largest = probe.largest.get(name, 0.0)
        if largest > _LIMIT / _MARGIN:
            yield f"{which} reaches {_room(largest)}"
        elif 0 < largest < _SMALLEST_NORMAL:
            yield f"{which} reaches only {largest:.2g}, where float16 loses digits"
    if (total := probe.sums.get(output, 0.0)) > _LIMIT / _MARGIN:
        yield f"its inner sum reaches {_room(total)}"
    constant = max((float(np.abs(c).max(initial=0)) for c in constants), default=0.0)
    if constant > _LIMIT:
        yield f"a constant is {constant:.3g}, which float16 cannot hold"
    elif weights is not None and weights.lost > _LOSS:
        yield f"its kernel loses {100 * weights.lost:.2g} % of its norm"
    if node.op_type in DEFAULT_OP_BLOCK_LIST:
        yield "ONNX Runtime does not convert this operator"


def _weights(constants: Sequence[Float32]) -> _Weights:
    """Of a kernel, whose first axis is the output channels, and its bias."""
    from onnxruntime.transformers.float16 import convert_np_to_float16

    kernel = constants[0].reshape(len(constants[0]), -1).astype(np.float64)
    error = convert_np_to_float16(constants[0]).astype(np.float64).reshape(kernel.shape) - kernel
    norms = np.linalg.norm(kernel, axis=1)
    lost = np.linalg.norm(error, axis=1) / np.where(norms > 0, norms, 1)
    size = np.abs(np.concatenate([c.ravel() for c in constants]))
    return _Weights(
        count=size.size,
        largest=float(size.max(initial=0)),
        subnormal=int(np.count_nonzero((size > 0) & (size < _SMALLEST_NORMAL))),
        vanishing=int(np.count_nonzero((size > 0) & (size < _SMALLEST))),
        lost=float(np.linalg.norm(error) / (np.linalg.norm(kernel) or 1)),
        worst_kernel=int(lost.argmax()),
        worst_lost=float(lost.max()),
    )


def _layer(weight: str) -> str:
    return weight.removeprefix("network.").removesuffix(".weight").removesuffix(".conv")


def _room(largest: float) -> str:
    """A value, and how far it is from the end of float16."""
    if largest > _LIMIT:
        return f"{largest:.4g}, {largest / _LIMIT:.3g} times the end of float16"
    return f"{largest:.4g}, {_LIMIT / max(largest, 1e-30):.3g} times below the end"


def _weights_in_words(nodes: Sequence[_NodeReport]) -> str:
    pairs = [(n, n.weights) for n in nodes if n.weights is not None]
    worst, its = max(pairs, key=lambda pair: pair[1].worst_lost)
    return (
        f"{sum(w.count for _, w in pairs):,}, of them "
        f"{sum(w.subnormal for _, w in pairs):,} below 6.1e-05 (fewer digits) and "
        f"{sum(w.vanishing for _, w in pairs):,} below 6e-08 (lost); the "
        f"kernel that loses most, {100 * its.worst_lost:.2g} % of its norm, is number "
        f"{its.worst_kernel} of {worst.layer}"
    )
