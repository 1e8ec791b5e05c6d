"""Reads what an engine is built from without the onnx package, which a Jetson need not have.

Field numbers: onnx.proto of ONNX 1.17, unchanged since the first release.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from icnet_deploy.errors import ModelError
from icnet_deploy.files import open_file, read_file
from icnet_deploy.integrity import require_finite_graph
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata
from icnet_deploy.precisions import PRECISIONS, precision_of
from icnet_deploy.protobuf import fields, fields_of

INPUT = "image"
"""The one input of every artefact: uint8, N x H x W x 3, RGB."""

_MODEL_GRAPH, _MODEL_OPSETS = 7, 8
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_INPUT = 1, 5, 11
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_KIND, _NODE_DOMAIN = 1, 2, 3, 4, 7
_TENSOR_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL = 2, 8, 13
_FLOAT16 = 10  # TensorProto.DataType

# ONNX Runtime writes these domains into every file that it has optimized.
_OPTIMIZED = ("com.microsoft.nchwc", "com.ms.internal.nhwc")


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        name: as the graph calls it.
        kind: the operator, with its domain before it where that is not ONNX's own.
        inputs: names of tensors, in order; empty where an optional one is left out.
        outputs: names of tensors, in order.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class SourceGraph:
    """What is known of an ONNX file before it is parsed.

    Attributes:
        path: the file.
        metadata: what it says of itself.
        shape: of the input, N x H x W x 3; None where a side is free.
        nodes: its operators, in order.
        half: names of its float16 constants.
    """

    path: Path
    metadata: ArtefactMetadata
    shape: tuple[int | None, ...]
    nodes: tuple[Node, ...]
    half: frozenset[str]

    def precisions(self) -> dict[str, str]:
        """Convolution -> `int8` or `fp16`, of those that the graph does not leave in float32."""
        makers = {name: node for node in self.nodes for name in node.outputs}
        precisions = {}
        for node in self.nodes:
            if node.kind != "Conv":
                continue
            made = [makers[name] for name in node.inputs[:2] if name in makers]
            if [maker.kind for maker in made] == ["DequantizeLinear"] * 2:
                precisions[node.name] = "int8"
            elif node.inputs[1] in self.half:
                precisions[node.name] = "fp16"
        return precisions


def read_graph(path: Path) -> SourceGraph:
    """Reads an artefact, and refuses what TensorRT would refuse, or would build wrongly.

    Raises:
        ModelError: it is not ONNX or not an artefact of this product; its precision is none of
            TensorRT's; it was optimized by ONNX Runtime; it keeps weights in another file; its
            input does not feed a Cast first; a weight is not finite.
    """
    metadata = read_onnx_metadata(path)
    row = precision_of(metadata.precision)
    if row is not None and (why := row.refusal("tensorrt", "cuda", engines=True)):
        others = (r for r in PRECISIONS.values() if r.calibrated and r.meant_for("tensorrt"))
        raise ModelError(
            f"{path} is an {row.name} artefact: {why}. Quantize the float32 file to "
            f"{' or '.join(f'`{other.name}`' for other in others)} with `icnet quantize` and build "
            "from that"
        )
    with open_file(path) as file:
        keep = (_MODEL_GRAPH, _MODEL_OPSETS)
        model = [f for f in fields(file, path.stat().st_size, keep) if f.number in keep]
    domains = {_text(f.data, 1) for f in model if f.number == _MODEL_OPSETS}
    if domains & set(_OPTIMIZED):
        raise ModelError(
            f"{path} was optimized by ONNX Runtime, which removes the cast that TensorRT "
            "needs before a uint8 output, and may add its own operators: build from the file that "
            "`icnet export` or `icnet quantize` wrote"
        )
    content = next(f.data for f in model if f.number == _MODEL_GRAPH)
    graph = SourceGraph(
        path,
        metadata,
        _input_shape(path, _inside(content, _GRAPH_INPUT)),
        tuple(map(_node, _inside(content, _GRAPH_NODE))),
        frozenset(_half(path, _inside(content, _GRAPH_TENSOR))),
    )
    _check_input(graph)
    require_finite_graph(read_file(path), str(path), "export the network again")
    return graph


def _check_input(graph: SourceGraph) -> None:
    """A uint8 input may feed nothing but a Cast, not even a Transpose or a Shape of data."""
    readers = [node for node in graph.nodes if INPUT in node.inputs]
    wrong = [node for node in readers if node.kind not in ("Cast", "Shape")]
    if wrong or not readers:
        what = f"the {wrong[0].kind} {wrong[0].name!r}" if wrong else "nothing"
        raise ModelError(
            f"{graph.path}: the uint8 input {INPUT!r} feeds {what}; TensorRT takes uint8 only into "
            "a Cast to float. Export the network again with `icnet export`"
        )


def _node(message: bytes) -> Node:
    domain, kind = _text(message, _NODE_DOMAIN), _text(message, _NODE_KIND)
    return Node(
        _text(message, _NODE_NAME),
        kind if domain in ("", "ai.onnx") else f"{domain}.{kind}",
        tuple(name.decode("utf-8", "replace") for name in _inside(message, _NODE_INPUT)),
        tuple(name.decode("utf-8", "replace") for name in _inside(message, _NODE_OUTPUT)),
    )


def _half(path: Path, tensors: Iterable[bytes]) -> Iterator[str]:
    """The names of the float16 constants; refuses one that lies in another file."""
    for message in tensors:
        if _inside(message, _TENSOR_EXTERNAL):
            raise ModelError(
                f"{path} keeps its weights in another file, which its SHA-256 does not cover: "
                "write it as one file, as `icnet export` does"
            )
        if _FLOAT16 in [f.value for f in fields_of(message, ()) if f.number == _TENSOR_TYPE]:
            yield _text(message, _TENSOR_NAME)


def _input_shape(path: Path, inputs: list[bytes]) -> tuple[int | None, ...]:
    """The shape in the graph's one input: ValueInfoProto 2, TypeProto 1, Tensor 2, Shape 1."""
    names = [_text(value, 1) for value in inputs]
    if names != [INPUT]:
        raise ModelError(f"{path} has the inputs {names}, expected one, {INPUT!r}")
    shape = inputs[0]
    for number in (2, 1, 2):
        [shape] = _inside(shape, number)
    sides = [
        [f.value for f in fields_of(dimension, ()) if f.number == 1]
        for dimension in _inside(shape, 1)
    ]
    return tuple(side[0] if side else None for side in sides)


def _inside(message: bytes, number: int) -> list[bytes]:
    """The bytes of all of a message's fields of that number."""
    return [f.data for f in fields_of(message, (number,)) if f.number == number]


def _text(message: bytes, number: int) -> str:
    """The text in a message's field of that number; empty where there is none."""
    return b"".join(_inside(message, number)[-1:]).decode("utf-8", "replace")
