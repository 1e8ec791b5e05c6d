"""An ONNX file that another program wrote: read, and refused with the reason where it cannot be
taken."""

import math
from collections import Counter
from dataclasses import dataclass
from os.path import isdir
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper

from icnet_deploy.errors import IcnetError, InputError, ModelError
from icnet_deploy.export.adopt.half import lift_half
from icnet_deploy.export.adopt.nodes import nodes_of, rename, require_whole
from icnet_deploy.export.adopt.request import LAYOUTS
from icnet_deploy.export.passes.common import sort_nodes
from icnet_deploy.files import open_file
from icnet_deploy.integrity import KEY, artefact_sha256, find_entry, require_finite_graph

_LOWEST = 7
"""The first opset whose operators broadcast as they do today."""

_LARGEST_BYTES = 2**31 - 2**20  # of a message of protobuf, less what is added here

_OUR_NAMES = ("image", "logits", "labels")
"""What an artefact calls its input and its heads: no other tensor of it may be called so."""

_DOMAINS = ("", "ai.onnx")

_QUANTIZED = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
    }
)
_RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class ForeignFile:
    """What was read of a file.

    Attributes:
        path: the file.
        sha256: of it and of its external data; see `integrity.artefact_digest`.
        model: all in one, the calls of its own functions inlined; its float16 tensors float32.
        writer: the program that wrote it, as it says itself.
        image: the name of its one input in `model`.
        layout: of the input, of `LAYOUTS`.
        size: (height, width) in pixels of the input; None of a side that is free.
        batch: images at a time; None where that is free.
        output: the name of the output that is taken.
        half: whether tensors in it are float16.
        integers: whether its input is uint8.
    """

    path: Path
    sha256: str
    model: onnx.ModelProto
    writer: str
    image: str
    layout: str
    size: tuple[int | None, int | None]
    batch: int | None
    output: str
    half: bool
    integers: bool

    @property
    def opset(self) -> int:
        """The version of the operators."""
        return opset_of(self.model)


def read_foreign(path: Path, layout: str | None = None, output: str | None = None) -> ForeignFile:
    """Reads a file, with its external data.

    Args:
        path: the file.
        layout: of its input, of `LAYOUTS`; None: what its shape says.
        output: the name of the output that is meant; None: there is one alone.

    Raises:
        ModelError: there is no such file; it is no ONNX, cut off, an artefact already, or holds
            what cannot be taken; the message names it.
        InputError: its shape does not say the layout; or it has several outputs, or none of that
            name.
    """
    model, digest = _load(path)
    _require_operators(model, path)
    half = lift_half(model)
    advice = "export the network again, from weights that are whole"
    require_finite_weights(model, str(path), advice)
    image = _input(model, path)
    if image.name in _OUR_NAMES:
        rename(model.graph, image.name, f"{image.name}_inside")
    dims = [d.dim_value if d.dim_value > 0 else None for d in image.type.tensor_type.shape.dim]
    layout = _layout(dims, layout, image.name, path)
    sides = dims[2:] if layout == "NCHW" else dims[1:3]
    if (dims[0] or 1) > _MOST_IMAGES:
        raise ModelError(
            f"{path} takes {dims[0]} images at a time; expected up to {_MOST_IMAGES}: export it "
            "for one image, or for any number"
        )
    return ForeignFile(
        path,
        digest,
        model,
        _writer(model),
        image.name,
        layout,
        (sides[0], sides[1]),
        dims[0],
        _output(model, output, path),
        half,
        image.type.tensor_type.elem_type not in _FLOATS,
    )


_MOST_IMAGES = 256
"""At a time; each check of an adoption runs as many."""


def _writer(model: onnx.ModelProto) -> str:
    version = model.producer_version.removesuffix("None").strip()  # tf2onnx says that of its build
    return f"{model.producer_name} {version}".strip() or "an unnamed program"


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the operators that a model is written in."""
    versions = [int(each.version) for each in model.opset_import if each.domain in _DOMAINS]
    return max(versions)


def _load(path: Path) -> tuple[onnx.ModelProto, str]:
    """The model with all its data, and its SHA-256 (ModelError)."""
    if isdir(path):
        raise ModelError(f"cannot read {path}: it is a folder; name an ONNX file")
    try:
        with open_file(path) as file:
            total = path.stat().st_size
            entry = find_entry(file, total)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, ValueError) as error:
        raise ModelError(
            f"{path} is not a whole ONNX file ({total} bytes: {error}): if it was cut off, copy or "
            "export it again; if it is another kind of file, name an ONNX file"
        ) from error
    if entry.text is not None:
        raise ModelError(
            f"{path} is an artefact already (its metadata have {KEY!r}): give it to `icnet verify`,"
            " `quantize` or `predict` as it is"
        )
    if not entry.graph:
        raise ModelError(f"{path} is not an ONNX file: it holds no graph")
    try:
        model = onnx.load(path, load_external_data=False)
        size = _bytes_of(model)
    except Exception as error:  # protobuf's and NumPy's have no common root
        raise ModelError(_unreadable(path, error)) from error
    if size > _LARGEST_BYTES:
        raise ModelError(
            f"{path} holds {size / 1e9:.1f} GB of weights, as float32; an artefact is one file "
            "below 2 GB: export a smaller network"
        )
    digest = artefact_sha256(path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        require_whole(model)
        sort_nodes(model.graph)  # some converters append nodes, and ONNX Runtime sorts them
    except Exception as error:  # protobuf's, the checker's, and NumPy's have no common root
        raise ModelError(_unreadable(path, error)) from error
    return model, digest


def _unreadable(path: Path, error: Exception) -> str:
    return (
        f"{path}, or its external data, cannot be read as ONNX: {brief(error)}: copy both again, "
        "or export them again"
    )


def _bytes_of(model: onnx.ModelProto) -> int:
    """The bytes of all constants, of those outside of the file, too; float16 as float32."""
    inner = (a.t for node in nodes_of(model.graph) for a in node.attribute if a.HasField("t"))
    total = 0
    for tensor in (*model.graph.initializer, *inner):
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        total += math.prod(tensor.dims) * (4 if kind == np.float16 else kind.itemsize)
    return total


def _require_operators(model: onnx.ModelProto, path: Path) -> None:
    """ModelError where an operator is no plain one of ONNX, or the network is quantized."""
    graph = model.graph
    if not any(each.domain in _DOMAINS for each in model.opset_import) or not graph.node:
        raise ModelError(f"{path} is an ONNX file without operators of ONNX, so it has no network")
    nodes = list(nodes_of(graph))
    foreign = [f"{n.domain}.{n.op_type}" for n in nodes if n.domain not in _DOMAINS]
    if foreign:
        raise ModelError(
            f"{path} has operators that do not belong to ONNX, {counted(foreign)}, and other "
            "runtimes do not know them: export the network without them"
        )
    opset = opset_of(model)
    if opset < _LOWEST:
        raise ModelError(f"{path} has opset {opset}; expected {_LOWEST} or later: export it again")
    quantized = [n.op_type for n in nodes if n.op_type in _QUANTIZED]
    if quantized:
        raise ModelError(
            f"{path} is quantized already ({counted(quantized)}); expected a float network: adopt "
            "the one that it was made from, and use `icnet quantize`"
        )
    unknown = [n.op_type for n in nodes if not onnx.defs.has(n.op_type)]
    if unknown:
        raise ModelError(
            f"{path} has operators that ONNX does not know, {counted(unknown)}: export it again"
        )
    chance = [n.op_type for n in nodes if n.op_type in _RANDOM or _trains(n)]
    if chance:
        raise ModelError(
            f"{path} uses random numbers, or was exported in training mode ({counted(chance)}): "
            "export the network in inference mode (in PyTorch, .eval())"
        )


def _trains(node: onnx.NodeProto) -> bool:
    mode = any(a.name == "training_mode" and a.i for a in node.attribute)
    return mode and node.op_type == "BatchNormalization"


def counted(names: list[str]) -> str:
    """Operators with how often they stand there, e.g. `Loop, 2 NonZero`."""
    return ", ".join(
        name if times == 1 else f"{times} {name}" for name, times in Counter(names).items()
    )


def brief(error: Exception) -> str:
    """The text of another program's error, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST = 240  # characters of another program's report


def require_finite_weights(
    model: onnx.ModelProto, whose: str, advice: str, error: type[IcnetError] = ModelError
) -> None:
    """`require_finite_graph` of what layers are made of; a mask may be infinite.

    Args:
        model: its constants are looked at where a convolution, a product or a batch norm reads
            them.
        whose, advice, error: as for `require_finite`.
    """
    read = {name for n in nodes_of(model.graph) if n.op_type in _WEIGHTED for name in n.input}
    weights = onnx.ModelProto()
    weights.graph.initializer.extend(t for t in model.graph.initializer if t.name in read)
    require_finite_graph(weights.SerializeToString(), whose, advice, error)


def _input(model: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    """Its one input, an image (ModelError)."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)
    if len(inputs) != 1:
        listed = "; ".join(_described(value) for value in inputs) or "none"
        raise ModelError(
            f"{path} has {len(inputs)} inputs ({listed}); expected one, an image: export the "
            "network so that it takes the image alone"
        )
    image: onnx.ValueInfoProto = graph.input[0]
    kind = image.type.tensor_type.elem_type
    if kind not in (*_FLOATS, TensorProto.UINT8):
        raise ModelError(
            f"the input of {path} is {_described(image)}; expected an image as float32 or "
            "uint8: export the network with such an input"
        )
    if len(image.type.tensor_type.shape.dim) != 4:
        raise ModelError(
            f"the input of {path} is {_described(image)}; expected images, N x 3 x H x W or N x H "
            "x W x 3"
        )
    return image


def _described(value: onnx.ValueInfoProto) -> str:
    """e.g. `image float32 N x 3 x 64 x 64`."""
    kind = value.type.WhichOneof("value") or "nothing"
    if kind != "tensor_type":
        return f"{value.name}, a {kind.removesuffix('_type')}"
    tensor = value.type.tensor_type
    sides = [str(d.dim_value or d.dim_param or "?") for d in tensor.shape.dim]
    known = tensor.elem_type in TensorProto.DataType.values()
    name = TensorProto.DataType.Name(tensor.elem_type).lower() if known else "of an unknown type"
    return f"{value.name} {_TYPES.get(name, name)} {' x '.join(sides) or '(a number)'}"


_TYPES = {"float": "float32", "double": "float64"}


def _layout(dims: list[int | None], said: str | None, name: str, path: Path) -> str:
    """Of the input: what was said, or what its shape says."""
    shape = " x ".join("?" if d is None else str(d) for d in dims)
    fits = [each for each, axis in zip(LAYOUTS, (1, 3), strict=True) if dims[axis] in (3, None)]
    if not fits:
        raise ModelError(
            f"the input {name} of {path} is {shape}, which is not an image of 3 channels; expected "
            "N x 3 x H x W or N x H x W x 3"
        )
    sure = [each for each in fits if dims[1 if each == "NCHW" else 3] == 3]
    if said is not None and said not in (sure or fits):
        raise InputError(
            f"--layout {said} does not fit the input {name} of {path}, {shape}, whose 3 channels "
            "are in another place: leave it out"
        )
    if said is not None:
        return said
    if len(sure) != 1:
        raise InputError(
            f"the input {name} of {path} is {shape}, which does not show where its 3 channels are: "
            "give --layout NCHW or --layout NHWC"
        )
    return sure[0]


def _output(model: onnx.ModelProto, said: str | None, path: Path) -> str:
    """The name of the output that is taken (InputError, ModelError)."""
    outputs = {value.name: value for value in model.graph.output}
    listed = "; ".join(_described(value) for value in outputs.values())
    if said is not None and said not in outputs:
        raise InputError(f"--output {said}: {path} has no such output; it has {listed}")
    if said is None and len(outputs) != 1:
        raise InputError(
            f"{path} has {len(outputs)} outputs ({listed}): give --output NAME for the one with "
            "the logits or the label map"
        )
    name = said or next(iter(outputs))
    if outputs[name].type.WhichOneof("value") not in ("tensor_type", None):
        raise ModelError(
            f"the output of {path} is {_described(outputs[name])}; expected a tensor of logits or "
            "labels: export the network so that it gives one"
        )
    return name
