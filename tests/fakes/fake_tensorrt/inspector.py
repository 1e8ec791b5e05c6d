"""What a fake's engine inspector says, in the layout of each release.

Layout: NVIDIA's "Engine Inspector" page (10.16.1), "Migrating IEngineInspector Usage from TensorRT
10.x to 11.x" (11.3.0), and reports that users have published of 10.x engines.
"""

from __future__ import annotations

import onnx

NAMES = {1: "Float", 2: "UInt8", 3: "Int8", 6: "Int32", 7: "Int64", 9: "Bool", 10: "Half"}


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
    layers = [_layer(engine, nodes) for nodes in _fused(engine.graph)]
    if verbosity != "DETAILED":
        layers = [layer["Name"] for layer in layers]
    return {"Layers": layers} | ends


def _fused(graph):
    """Groups of nodes that run as one: a convolution, its Q/DQ before it and the ReLU after it."""
    producers = {name: node for node in graph.node for name in node.output}
    readers = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    groups = []
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Relu"):
            continue
        group = [node]
        if node.op_type == "Conv":
            before = [producers[name] for name in node.input if name in producers]
            group = [n for n in before if n.op_type == "DequantizeLinear"] + group
            after = readers.get(node.output[0], [])
            group += [n for n in after if n.op_type == "Relu"][:1]
        groups.append(group)
    return groups


def _layer(engine, nodes):
    [main] = [n for n in nodes if n.op_type not in ("DequantizeLinear", "Relu")][:1] or nodes[:1]
    kind = NAMES[_type(engine, main, nodes)]
    return {
        "Name": " + ".join(node.name for node in nodes),
        "LayerType": "CaskConvolution" if main.op_type == "Conv" else main.op_type,
        "Inputs": [{"Name": main.input[0], "Format/Datatype": kind}] if main.input else [],
        "Outputs": [{"Name": nodes[-1].output[0], "Format/Datatype": kind}],
        "TacticName": f"fake_{main.op_type.lower()}_{kind.lower()}",
        "Metadata": "\x1f".join(f"[ONNX Layer: {node.name}]" for node in nodes),
    }


def _type(engine, main, nodes):
    if main.name in engine.about["float_layers"]:
        return onnx.TensorProto.FLOAT
    if any(node.op_type == "DequantizeLinear" for node in nodes):
        return onnx.TensorProto.INT8
    types = _types(engine)
    return next((types[n] for n in (*main.input, *main.output) if n in types), 1)


def _types(engine):
    if not hasattr(engine, "types"):
        inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(engine.model)).graph
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        engine.types = {v.name: v.type.tensor_type.elem_type for v in values}
        engine.types |= {t.name: t.data_type for t in inferred.initializer}
    return engine.types
