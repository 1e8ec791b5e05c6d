"""The networks of the ICNet paper's tables, what the paper says of them, and what each costs.

The cost is that of its ONNX graph for one image, whatever runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icnet_deploy.errors import InputError, ModelError

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.networks.base import SegmentationNetwork
    from icnet_deploy.networks.checkpoint import Checkpoint

_IN_PLACE = frozenset({"Relu", "Add", "Sub"})

SEED = 0
"""Of the weights where no checkpoint is given."""


@dataclass(frozen=True)
class _Figures:
    """What the paper reports: Cityscapes val, one TitanX, Caffe, 1024x2048, batch 1.

    Attributes:
        miou_percent: of the 19 classes.
        milliseconds: an image.
        memory_gb: of the GPU; None where the paper gives none.
    """

    miou_percent: float
    milliseconds: float
    memory_gb: float | None = None


@dataclass(frozen=True)
class PaperNetwork:
    """One network of the tables.

    Attributes:
        title: what tables call it.
        description: what `build_network` takes.
        paper: what the paper reports.
    """

    title: str
    description: dict[str, Any]
    paper: _Figures


@dataclass(frozen=True)
class PaperTable:
    """One table; the speed-up of its rows is over the row `baseline`.

    Attributes:
        numbers: the paper's numbers that `--table` takes for it.
        title: what it compares.
        rows: names in `NETWORKS`, in order.
        baseline: one of them.
    """

    numbers: tuple[int, ...]
    title: str
    rows: tuple[str, ...]
    baseline: str


def _pspnet(width: float, downsampling: int) -> dict[str, Any]:
    return {
        "architecture": "pspnet",
        "num_classes": 19,
        "width": width,
        "downsampling": downsampling,
    }


def _icnet(stages: str) -> dict[str, Any]:
    return {"architecture": "icnet", "num_classes": 19, "width": 0.5, "stages": stages}


BASELINE, ICNET = "pspnet50-half", "sub124"
"""The two networks that the paper sets against one another."""

NETWORKS = {
    "sub4": PaperNetwork("sub4", _icnet("sub4"), _Figures(59.6, 18, 0.6)),
    "sub24": PaperNetwork("sub24", _icnet("sub24"), _Figures(66.5, 25, 1.1)),
    "sub124": PaperNetwork("sub124 = ICNet", _icnet("sub124"), _Figures(67.7, 33, 1.6)),
    "pspnet50-half": PaperNetwork(
        "PSPNet50, half the kernels", _pspnet(0.5, 8), _Figures(67.9, 170, 9.2)
    ),
    "pspnet50-quarter": PaperNetwork(
        "PSPNet50, a quarter of the kernels", _pspnet(0.25, 8), _Figures(59.4, 72)
    ),
    "pspnet50": PaperNetwork("PSPNet50, downsampling 8", _pspnet(1.0, 8), _Figures(71.7, 446)),
    "pspnet50-16": PaperNetwork("PSPNet50, downsampling 16", _pspnet(1.0, 16), _Figures(70.2, 177)),
    "pspnet50-32": PaperNetwork("PSPNet50, downsampling 32", _pspnet(1.0, 32), _Figures(67.1, 131)),
}

TABLES = (
    PaperTable(
        (1,),
        "Table 1: PSPNet50 by the downsampling of its features",
        ("pspnet50", "pspnet50-16", "pspnet50-32"),
        "pspnet50",
    ),
    PaperTable(
        (2,),
        "Table 2: PSPNet50 by the share of its kernels that is kept",
        ("pspnet50", "pspnet50-half", "pspnet50-quarter"),
        "pspnet50",
    ),
    PaperTable(
        (3, 4),
        "Tables 3 and 4: the cascade, branch by branch, against the half PSPNet50",
        ("pspnet50-half", "sub4", "sub24", "sub124"),
        "pspnet50-half",
    ),
)


def tables_of(numbers: list[int]) -> list[PaperTable]:
    """The tables of these numbers in the paper, each once.

    Raises:
        InputError: the paper's tables of that number is not one of these.
    """
    known = sorted(n for table in TABLES for n in table.numbers)
    for number in numbers:
        if number not in known:
            raise InputError(f"there is no table {number}; known: {', '.join(map(str, known))}")
    return [table for table in TABLES if set(table.numbers) & set(numbers)]


def networks_of(tables: list[PaperTable]) -> list[str]:
    """The names of all their networks, each once, in the order of `NETWORKS`."""
    wanted = {name for table in tables for name in table.rows}
    return [name for name in NETWORKS if name in wanted]


def build(name: str) -> SegmentationNetwork:
    """The network of that name with random weights, the same every time, in eval mode.

    They are drawn as for training (He et al.), which keeps activations near the input's scale: no
    run meets the denormal numbers that slow a processor down.
    """
    import torch

    from icnet_deploy.networks.registry import build_network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build_network(NETWORKS[name].description).eval()


def random_checkpoint(name: str) -> Checkpoint:
    """The network of that name with random weights, as if read from a file."""
    from icnet_deploy.labels import CITYSCAPES
    from icnet_deploy.networks.checkpoint import Checkpoint
    from icnet_deploy.networks.preprocessing import STREET

    return Checkpoint(Path(name), build(name), CITYSCAPES, STREET, {}, "")


def fitting_checkpoint(name: str, path: Path) -> Checkpoint:
    """Reads a checkpoint for one of the networks.

    The number of classes may differ, and so may the width of a network that was pruned, which
    has the width of the one that it was made from.

    Raises:
        ModelError: it cannot be read, or holds another network.
    """
    from icnet_deploy.networks.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    wanted, held = NETWORKS[name].description, checkpoint.network.description()
    free = {"num_classes"} | ({"width"} if held.get("channels") else set())
    wrong = [k for k, value in wanted.items() if k not in free and held.get(k) != value]
    if wrong:
        differences = "; ".join(f"{k} {held.get(k)}, expected {wanted[k]}" for k in wrong)
        raise ModelError(f"the checkpoint {path} does not hold the network {name}: {differences}")
    return checkpoint


@dataclass(frozen=True)
class Cost:
    """What one image costs by the graph alone, whatever runs it.

    Attributes:
        gmac: multiply-adds of the convolutions, in 10^9.
        kept_bytes: all layers' outputs together; a ReLU works in place. What a framework holds
            that keeps every layer's output, as Caffe does.
        live_bytes: the most that is needed at one time when the nodes run in order, a tensor is
            freed after its last use, and sums and ReLUs work in place. About the least that a
            runtime can do with.
    """

    gmac: float
    kept_bytes: int
    live_bytes: int


def write_graph(network: SegmentationNetwork, size: tuple[int, int], head: str, path: Path) -> Cost:
    """Exports a network with random weights, without running it, and returns its cost.

    Args:
        network: in eval mode.
        size: (height, width) in pixels.
        head: `logits` or `labels`.
        path: the ONNX file, for a batch of one.
    """
    import onnx

    from icnet_deploy.export.deployed import Deployed
    from icnet_deploy.export.graph import trace
    from icnet_deploy.networks.preprocessing import STREET

    model = for_one_image(trace(Deployed(network, STREET, head), size).model)
    onnx.save(model, path)
    return cost(model)


def for_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its batch fixed to one, and the shape of every tensor noted in it.

    Runtimes can plan a fixed graph when they load it; with a free batch they pack weights in the
    first run, which would be taken for activations.
    """
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del fixed.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)


def cost(model: onnx.ModelProto) -> Cost:
    """Counts what `Cost` says on a graph whose every tensor has a known shape.

    Raises:
        ModelError: a tensor's shape is not known.
    """
    import onnx

    graph = model.graph
    sizes, numbers = {}, {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        numbers[value.name] = prod(d.dim_value for d in kind.shape.dim)
        item = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        sizes[value.name] = numbers[value.name] * item
    unknown = [o for node in graph.node for o in node.output if o and not sizes.get(o)]
    if unknown:
        raise ModelError(f"the shape of the tensor {unknown[0]} is not known: fix the graph's size")
    weights = {tensor.name: tensor for tensor in graph.initializer}
    multiply_adds = kept = 0
    for node in graph.node:
        if node.op_type == "Conv":
            multiply_adds += numbers[node.output[0]] * prod(weights[node.input[1]].dims[1:])
        if node.op_type != "Relu":
            kept += sum(sizes[o] for o in node.output if o)
    return Cost(multiply_adds / 1e9, kept, _live(graph, sizes))


def _live(graph: onnx.GraphProto, sizes: dict[str, int]) -> int:
    """The peak of live tensors, the graph's inputs and outputs among them."""
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    last |= {value.name: len(graph.node) for value in graph.output}
    alive = {value.name: sizes[value.name] for value in graph.input}
    peak = sum(alive.values())
    for index, node in enumerate(graph.node):
        dying = {name for name in node.input if name in alive and last[name] == index}
        fresh = {o: sizes[o] for o in node.output if o}
        reused = 0
        if node.op_type in _IN_PLACE:
            reused = next((alive[n] for n in dying if alive[n] == sum(fresh.values())), 0)
        peak = max(peak, sum(alive.values()) + sum(fresh.values()) - reused)
        for name in dying:
            del alive[name]
        alive |= {o: size for o, size in fresh.items() if o in last}
    return peak
