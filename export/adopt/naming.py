"""What a foreign network's layers are called: dotted paths, as those of PyTorch."""

import re

import onnx

from icnet_deploy.export.adopt.nodes import nodes_of

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
"""A path of modules already, such as `backbone.layer1.0.conv1.weight`."""

_TURNED = re.compile(r"(\w+)\.w_\d+")
"""What Paddle calls the weights of a layer: `conv2d_0.w_0`."""

_MADE = re.compile(r"(auto|helper|p2o)\.[\w.]+")
"""What paddle2onnx calls constants that it computed; then its nodes are `ConvTranspose.0`."""

_OPERATORS = re.compile(
    r"(Conv|Conv2D|conv2d|convolution|depthwise|separable_conv2d|conv2d_transpose|MatMul|matmul|"
    r"Gemm|BiasAdd|Tensordot|ReadVariableOp)(_?_?\d+)?(:\d+)?"
)
"""The last part of a node's or weights' name, which says the operator and not the module."""


def name_layers(graph: onnx.GraphProto) -> None:
    """Gives weights whose names say no path of modules the path that their nodes or they are of.

    TensorFlow and Paddle write paths with slashes, or none: `model/block1/conv/Conv2D` becomes
    `model.block1.conv.weight`, so that blocks and layers can be named as in any other artefact.
    What PyTorch wrote stays as it is.
    """
    sources = _sources(graph)
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    renamed: dict[str, str] = {}
    for node in graph.node:
        weights = str(node.input[1]) if len(node.input) > 1 else ""
        if node.op_type not in _WEIGHTED or weights not in sources or weights in renamed:
            continue
        path = _path(sources[weights], node.name)
        name = f"{path}.weight"
        if not path or name == weights:
            continue
        count = 1
        while name in taken:
            count += 1
            name = f"{path}.{count}.weight"
        taken.add(name)
        renamed[weights] = name
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for node in nodes_of(graph):
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]


_MOVED = ("Identity", "Cast", "Transpose", "Reshape", "Unsqueeze")
"""What weights may go through before a layer reads them."""


def _sources(graph: onnx.GraphProto) -> dict[str, str]:
    """Constants, and what is made of one alone -> the name of that constant."""
    sources = {tensor.name: tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in _MOVED and node.input[0] in sources:
            sources |= dict.fromkeys(node.output, sources[node.input[0]])
    return sources


def _path(weights: str, node: str) -> str:
    """The module of a layer, as a dotted path; empty where neither name says one."""
    if (turned := _TURNED.fullmatch(weights)) is not None:
        return turned[1]
    if _MADE.fullmatch(weights):
        return node
    if _DOTTED.fullmatch(weights):
        return ""
    if "/" in weights and not weights.startswith(("/", "const_fold", "onnx::")):
        return _dotted(weights)
    if "/" in node and not node.startswith("/"):  # with it in front it is PyTorch's
        return _dotted(node)
    return ""


def _dotted(name: str) -> str:
    parts = [part for part in name.split("/") if part]
    while len(parts) > 1 and _OPERATORS.fullmatch(parts[-1]):
        parts.pop()
    return ".".join(re.sub(r"[^\w-]", "_", part) for part in parts)
