"""Whether each node of an ONNX file has the inputs that its operator needs.

OpenVINO's reader does not ask: at a Pad without its second input it ends the process.
"""

from collections.abc import Iterator
from pathlib import Path

from icnet_deploy.errors import ModelError
from icnet_deploy.files import open_file
from icnet_deploy.protobuf import BYTES, fields, fields_of

# Messages of onnx.proto: field -> what it holds.
_MODEL = {7: "graph", 25: "function"}
_INSIDE = {
    "graph": {1: "node"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {6: "graph", 11: "graph"},
}
_INPUT, _NAME, _KIND, _DOMAIN = 1, 3, 4, 7
_DEEPEST = 200
"""Messages in one another; protobuf's own readers take 100."""

_BY_COUNT = {
    2: "Add AffineGrid And BitShift BitwiseAnd BitwiseOr BitwiseXor CastLike CausalConvWithState "
    "CenterCropPad Compress Conv ConvInteger ConvTranspose CumProd CumSum DequantizeLinear "
    "Div Equal Expand Gather GatherElements GatherND Gemm Greater GreaterOrEqual GridSample "
    "LayerNormalization Less LessOrEqual MatMul MatMulInteger MaxRoiPool MaxUnpool Mod Mul "
    "NegativeLogLikelihoodLoss NonMaxSuppression Or PRelu Pad Pow QuantizeLinear "
    "RMSNormalization Reshape ReverseSequence STFT SequenceAt SequenceInsert "
    "SoftmaxCrossEntropyLoss StringConcat Sub SwiGLU TensorScatter Tile TopK Unsqueeze "
    "Upsample Xor",
    3: "Attention Col2Im DeformConv GRU GroupNormalization InstanceNormalization LSTM "
    "LinearAttention OneHot RNN Range RoiAlign RotaryEmbedding Scatter ScatterElements "
    "ScatterND Slice Where",
    5: "BatchNormalization MelWeightMatrix",
    8: "QLinearConv QLinearMatMul",
}
_BOUND = "Clip"
"""Needs a bound besides in OpenVINO's reader, which else ends the process where the node before it
is one that it cannot read; a Clip without a bound changes nothing."""
NEEDED = {name: count for count, names in _BY_COUNT.items() for name in names.split()}
"""Operator of ONNX -> how many inputs it needs, of those that need more than one.

Of the operators since opset 13: https://onnx.ai/onnx/operators; the tests compare it with the
schemas of the package onnx.
"""
_NONE = {
    *("Constant", "Loop", "Optional", "OptionalHasElement"),
    *("RandomNormal", "RandomUniform", "SequenceEmpty"),
}
"""Operators that need none; any other needs one."""


def require_inputs(path: Path) -> None:
    """Raises where a node lacks an input.

    Raises:
        ModelError: it does, or the file is no ONNX file.
    """
    try:
        with open_file(path) as file:
            file.seek(0, 2)
            end = file.tell()
            file.seek(0)
            for field in fields(file, end, _MODEL):
                if field.wire == BYTES and field.number in _MODEL:
                    for node in _nodes(field.data, _MODEL[field.number]):
                        _require(node, path)
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror or error}") from error
    except (EOFError, ValueError) as error:
        raise ModelError(f"{path} is not a whole ONNX file ({error}): copy it again") from error


def _nodes(message: bytes, kind: str, depth: int = 0) -> Iterator[bytes]:
    """The nodes in a message, and in the graphs of their attributes."""
    if depth > _DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    if kind == "node":
        yield message
    inside = _INSIDE[kind]
    for field in fields_of(message, inside):
        if field.wire == BYTES and field.number in inside:
            yield from _nodes(field.data, inside[field.number], depth + 1)


def _require(node: bytes, path: Path) -> None:
    known = [f for f in fields_of(node, (_INPUT, _NAME, _KIND, _DOMAIN)) if f.wire == BYTES]
    text = {f.number: f.data.decode("utf-8", "replace") for f in known}
    kind = text.get(_KIND, "")
    if text.get(_DOMAIN, "") not in ("", "ai.onnx") or kind in _NONE:
        return
    needed = NEEDED.get(kind, 1)
    inputs = [f.data for f in known if f.number == _INPUT]
    if kind == _BOUND and inputs and not any(inputs[1:]):
        raise ModelError(
            f"OpenVINO cannot run {path}: its node {text.get(_NAME, '')!r} (Clip) has no bound; "
            "remove the node, and export the model again"
        )
    given = inputs[:needed]
    if len(given) < needed or not all(given):
        raise ModelError(
            f"{path} cannot be run: its node {text.get(_NAME, '')!r} ({kind}) has "
            f"{sum(map(bool, given))} of the {needed} inputs that it needs: export it again"
        )
