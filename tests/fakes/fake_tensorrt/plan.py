"""The plan that a fake builder writes, and what an inspector says of it.

A plan is TensorRT's own header, then what the fake needs. The header is as
`trtexec --getPlanVersionOnly` reads it: "ftrt", a version of the layout, and at byte 24 the version
of TensorRT in four bytes.

The inspector's layout, of each release: NVIDIA's "Engine Inspector" page (10.16.1), "Migrating
IEngineInspector Usage from TensorRT 10.x to 11.x" (11.3.0), and reports that users have published
of 10.x engines.
"""

import json
import struct

import onnx

from fake_tensorrt.operators import types_of

MAGIC = b"ftrt"
NAMES = {1: "Float", 2: "UInt8", 3: "Int8", 6: "Int32", 7: "Int64", 9: "Bool", 10: "Half"}
_HEADER = struct.Struct("<4sI16x4B4xQ")


def numbers(version):
    """`10.16.1.11` as the four bytes of a header."""
    return tuple(int(part) & 0xFF for part in version.split("."))


def write_plan(version, about, model):
    """The bytes of a plan; `about` is JSON, `model` an ONNX file."""
    text = json.dumps(about).encode()
    return _HEADER.pack(MAGIC, 0, *numbers(version), len(text)) + text + model


def read_plan(data):
    """(version in four numbers, about, ONNX file); ValueError where it is no whole plan."""
    data = bytes(data)
    if len(data) < _HEADER.size or data[:4] != MAGIC:
        raise ValueError("Magic tag does not match")
    _, _, *version, length = _HEADER.unpack_from(data)
    if len(data) < _HEADER.size + length:
        raise ValueError("the plan is cut off")
    text = data[_HEADER.size : _HEADER.size + length]
    return tuple(version), json.loads(text), data[_HEADER.size + length :]


def information(fake, engine):
    """The report on an engine: layers in words or in full, and its inputs and outputs."""
    verbosity = engine.about["profiling_verbosity"]
    tensors = [*engine.inputs, *engine.outputs]
    eleven = fake.module.__version__.startswith("11.")
    ends = (
        {"I/O Tensors": [{"Name": name} for name in tensors]} if eleven else {"Bindings": tensors}
    )
    if verbosity == "NONE":
        return {"Layers": []} | ends
    types = types_of(onnx.load_from_string(engine.model))
    layers = [_layer(engine, types, nodes) for nodes in _fused(engine.graph)]
    if verbosity != "DETAILED":
        layers = [layer["Name"] for layer in layers]
    return {"Layers": layers} | ends


def _fused(graph):
    """Groups of nodes that run as one: a convolution, its Q/DQ before it and the ReLU after it."""
    producers = {name: node for node in graph.node for name in node.output}
    groups = []
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Relu"):
            continue
        group = [node]
        if node.op_type == "Conv":
            before = [producers[name] for name in node.input if name in producers]
            group = [n for n in before if n.op_type == "DequantizeLinear"] + group
            after = [n for n in graph.node if node.output[0] in n.input]
            group += [n for n in after if n.op_type == "Relu"][:1]
        groups.append(group)
    return groups


def _layer(engine, types, nodes):
    [main] = [n for n in nodes if n.op_type not in ("DequantizeLinear", "Relu")][:1] or nodes[:1]
    kind = NAMES[_type(engine, types, main, nodes)]
    return {
        "Name": " + ".join(node.name for node in nodes),
        "LayerType": "CaskConvolution" if main.op_type == "Conv" else main.op_type,
        "Inputs": [{"Name": main.input[0], "Format/Datatype": kind}] if main.input else [],
        "Outputs": [{"Name": nodes[-1].output[0], "Format/Datatype": kind}],
        "TacticName": f"fake_{main.op_type.lower()}_{kind.lower()}",
        "Metadata": "\x1f".join(f"[ONNX Layer: {node.name}]" for node in nodes),
    }


def _type(engine, types, main, nodes):
    if main.name in engine.about["float_layers"]:
        return onnx.TensorProto.FLOAT
    if any(node.op_type == "DequantizeLinear" for node in nodes):
        return onnx.TensorProto.INT8
    return next((types[n] for n in (*main.input, *main.output) if n in types), 1)
