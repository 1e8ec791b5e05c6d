"""What float16 would do to a graph, before it is done: which nodes stay in float32, and why.

float16 ends at 65504, keeps 11 bits from 2^-14 (6.1e-05) on, fewer and fewer below, and nothing
below 2^-24 (6e-08), where ONNX Runtime's converter writes 6e-08 in place of zero. (IEEE 754,
binary16.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from icnet_deploy.export.activations import Peaks

Float32 = npt.NDArray[np.float32]

LIMIT = 65504.0
SMALLEST_NORMAL = 2.0**-14
SMALLEST = 2.0**-24

MARGIN = 4.0
"""How far below `LIMIT` what was measured must stay. An image that was not measured may reach
higher: from one image to another the peaks of the shipped network differ by up to 2.5 times."""

LOSS = 0.01
"""The share of its norm that a layer's kernel may lose to rounding; of normal numbers it loses
0.0002 to 0.0004."""


@dataclass(frozen=True)
class Weights:
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
class NodeReport:
    """One node that would become float16.

    Attributes:
        node, op: its name and operator.
        layer: the layer whose weights it has, or the last one before it.
        largest: the largest absolute value of its output.
        largest_sum: see `Peaks.sums`; None for a node that adds nothing up.
        weights: of its constants; None if it has none.
        reasons: why it stays in float32, in words; none if it does not.
    """

    node: str
    op: str
    layer: str
    largest: float
    largest_sum: float | None
    weights: Weights | None
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
    nodes: tuple[NodeReport, ...]

    @property
    def kept(self) -> tuple[NodeReport, ...]:
        """The nodes that stay in float32."""
        return tuple(node for node in self.nodes if node.reasons)

    def __str__(self) -> str:
        sizes = ", ".join(f"{h}x{w}" for h, w in self.sizes)
        top = max(self.nodes, key=lambda n: n.largest)
        weights = [n for n in self.nodes if n.weights]
        lines = [
            f"FP16 headroom, {self.images} images at {sizes}; float16 ends at {LIMIT:g}, what came "
            f"within {MARGIN:g} times of it stays in float32",
            f"  largest activation  {_room(top.largest)}: {top}",
        ]
        sums = [n for n in self.nodes if n.largest_sum is not None]
        if sums:
            heaviest = max(sums, key=lambda n: n.largest_sum or 0)
            lines.append(f"  largest inner sum   {_room(heaviest.largest_sum or 0)}: {heaviest}")
        if weights:
            lines.append(f"  weights             {_weights_in_words(weights)}")
        lines.append(f"  kept in float32     {len(self.kept) or 'none'}")
        lines += [f"    {node}: {'; '.join(node.reasons)}" for node in self.kept]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: every node, with what was measured and why it is kept."""
        return {
            "schema": 1,
            "kind": "fp16-headroom",
            "limit": LIMIT,
            "margin": MARGIN,
            "images": self.images,
            "sizes": [list(size) for size in self.sizes],
            "kept": [node.node for node in self.kept],
            "nodes": [asdict(node) | {"reasons": list(node.reasons)} for node in self.nodes],
        }


def examine(model: onnx.ModelProto, peaks: Peaks) -> Headroom:
    """Decides for every node that computes in float32 whether float16 is safe.

    A node stays in float32 if what it puts out or takes in, or what it adds up inside, comes
    within `MARGIN` of the largest float16; if a tensor or its kernel is so small that float16
    loses it; or if the converter does not convert its operator.

    Args:
        model: the float32 graph.
        peaks: what a `Probe` saw of the same graph.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    constants = {
        t.name: numpy_helper.to_array(t)
        for t in model.graph.initializer
        if t.data_type == TensorProto.FLOAT
    }
    layers: dict[str, tuple[int, str]] = {}
    found = []
    for order, node in enumerate(model.graph.node):
        own = [n for n in node.input if n in constants and node.op_type != "Resize"]
        before = max((layers[n] for n in node.input if n in layers), default=(-1, "the input"))
        # What comes after a layer is told by its name; a bare constant, as the mean's, is none.
        kernels = [n for n in own if constants[n].ndim > 1 and n.endswith(".weight")]
        here = (order, _layer(kernels[0])) if kernels else before
        layers.update(dict.fromkeys(node.output, here))
        output = next((o for o in node.output if o in peaks.largest), None)
        if output is None:
            continue
        weights = _weights([constants[n] for n in own]) if kernels else None
        reasons = [
            *_of_tensor("its output", peaks.largest[output]),
            *(
                reason
                for name in dict.fromkeys(node.input)
                if name in peaks.largest
                for reason in _of_tensor("its input", peaks.largest[name])
            ),
            *_of_sum(peaks.sums.get(output)),
            *_of_weights([constants[n] for n in own], weights),
        ]
        if node.op_type in DEFAULT_OP_BLOCK_LIST:
            reasons.append("ONNX Runtime's converter leaves this operator alone")
        found.append(
            NodeReport(
                node.name,
                node.op_type,
                here[1],
                peaks.largest[output],
                peaks.sums.get(output),
                weights,
                tuple(reasons),
            )
        )
    return Headroom(peaks.images, tuple(sorted(peaks.sizes)), tuple(found))


def _of_tensor(which: str, largest: float) -> list[str]:
    if largest > LIMIT / MARGIN:
        return [f"{which} reaches {_room(largest)}"]
    if 0 < largest < SMALLEST_NORMAL:
        return [f"{which} reaches no more than {largest:.2g}, where float16 loses digits"]
    return []


def _of_sum(largest: float | None) -> list[str]:
    if largest is None or largest <= LIMIT / MARGIN:
        return []
    return [f"what it adds up reaches {_room(largest)}"]


def _of_weights(constants: Sequence[Float32], weights: Weights | None) -> list[str]:
    largest = max((float(np.abs(c).max(initial=0)) for c in constants), default=0.0)
    if largest > LIMIT:
        return [f"a constant is {largest:.3g}, which float16 cannot hold"]
    if weights is not None and weights.lost > LOSS:
        return [f"its kernel loses {100 * weights.lost:.2g} % of its norm"]
    return []


def _weights(constants: Sequence[Float32]) -> Weights:
    """Of a kernel, whose first axis is the output channels, and its bias."""
    from onnxruntime.transformers.float16 import convert_np_to_float16

    kernel = constants[0].reshape(len(constants[0]), -1).astype(np.float64)
    error = convert_np_to_float16(constants[0]).astype(np.float64).reshape(kernel.shape) - kernel
    norms = np.linalg.norm(kernel, axis=1)
    lost = np.linalg.norm(error, axis=1) / np.where(norms > 0, norms, 1)
    size = np.abs(np.concatenate([c.ravel() for c in constants]))
    return Weights(
        count=size.size,
        largest=float(size.max(initial=0)),
        subnormal=int(np.count_nonzero((size > 0) & (size < SMALLEST_NORMAL))),
        vanishing=int(np.count_nonzero((size > 0) & (size < SMALLEST))),
        lost=float(np.linalg.norm(error) / (np.linalg.norm(kernel) or 1)),
        worst_kernel=int(lost.argmax()),
        worst_lost=float(lost.max()),
    )


def _layer(weight: str) -> str:
    return weight.removeprefix("network.").removesuffix(".weight").removesuffix(".conv")


def _room(largest: float) -> str:
    """A value, and how far it is from the end of float16."""
    if largest > LIMIT:
        return f"{largest:.4g}, {largest / LIMIT:.3g} times what float16 holds"
    return f"{largest:.4g}, {LIMIT / max(largest, 1e-30):.3g} times below the end"


def _weights_in_words(nodes: Sequence[NodeReport]) -> str:
    told = [(n, n.weights) for n in nodes if n.weights is not None]
    worst, its = max(told, key=lambda pair: pair[1].worst_lost)
    return (
        f"{sum(w.count for _, w in told):,}, of them {sum(w.subnormal for _, w in told):,} below "
        f"6.1e-05 (fewer digits) and {sum(w.vanishing for _, w in told):,} below 6e-08 (lost); the "
        f"kernel that loses most, {100 * its.worst_lost:.2g} % of its norm, is number "
        f"{its.worst_kernel} of {worst.layer}"
    )
