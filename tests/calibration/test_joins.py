"""What is rounded behind a Concat is joined in 8 bits: the same answers, on OpenVINO, too."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.joins import join_in_8_bits

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(0, 1, (1, 4, 16, 16)).astype(np.float32)

_SIDES = ([1, 2, 8, 16, 16], [1, 16, 16, 16])
"""Before and after the channels of two groups are turned."""


def joined(relu=False, nested=False, shared=False, norm=False, shuffled=False, turns=0, selves=0):
    """Two convolutions in 8 bits, joined, rounded, and read by a third."""
    nodes, constants = [], {}

    def constant(name, value):
        constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def node(kind, name, *inputs, **attributes):
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def pair(name, step):
        grid = [constant(f"{name}_scale", np.float32(step)), constant(f"{name}_zero", np.int8(0))]
        return node(
            "DequantizeLinear",
            f"{name}_dq",
            node("QuantizeLinear", f"{name}_q", name, *grid),
            *grid,
        )

    def conv(name, image, inputs, outputs):
        whole = RANDOM.integers(-60, 60, (outputs, inputs, 3, 3)).astype(np.int8)
        grid = (np.full(outputs, 0.01, np.float32), np.zeros(outputs, np.int8))
        grid = [constant(f"{name}_{i}", value) for i, value in enumerate(grid)]
        weight = node(
            "DequantizeLinear", f"{name}_w", constant(f"{name}_whole", whole), *grid, axis=0
        )
        return node("Conv", name, image, weight, pads=[1] * 4)

    image = pair("image", 0.03)
    parts = [conv("a", image, 4, 8), node("Relu", "b_relu", conv("b", image, 4, 8))]
    if nested:
        parts[1] = node("Concat", "inner", "b_relu", conv("c", image, 4, 4), axis=1)
    whole = node("Concat", "whole", *parts, axis=1)
    behind = node("Relu", "relu", whole) if relu else whole
    if norm:
        gain = constant("gain", RANDOM.uniform(0.5, 2, (16, 1, 1)).astype(np.float32))
        moved = node(
            "Add", "moved", node("Mul", "scaled", behind, gain), constant("by", np.float32(1))
        )
        given = [
            constant(f"norm_{i}", RANDOM.uniform(0.5, 2, 16).astype(np.float32)) for i in range(4)
        ]
        behind = node("BatchNormalization", "norm", moved, *given)
    if shuffled:  # as ShuffleNet does it
        sides = [constant(f"sides_{i}", np.array(v)) for i, v in enumerate(_SIDES)]
        split = node("Reshape", "split", behind, sides[0])
        turned = node("Transpose", "turned", split, perm=[0, 2, 1, 3, 4])
        spread = node("Expand", "spread", node("Reshape", "shuffled", turned, sides[1]), sides[1])
        behind = node("Reshape", "again", spread, sides[1])
    for index in range(turns):
        behind = node("Transpose", f"turn_{index}", behind, perm=[0, 1, 3, 2])
        behind = node("Relu", f"cut_{index}", behind) if relu else behind
    for index in range(selves):
        both = node("Concat", f"both_{index}", node("Relu", f"c_{index}", behind), behind, axis=1)
        places = constant(f"half_{index}", np.arange(0, 32, 2))
        behind = node("Gather", f"some_{index}", both, places, axis=1)
    if shared and relu:
        node("Neg", "negative", behind)
    conv("out", pair(behind, 0.05), 20 if nested else 16, 8)
    outputs = ["out", *(["negative" if relu else "whole"] if shared else [])]
    graph = helper.make_graph(
        nodes,
        "joined",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, "NCHW") for name in outputs],
        list(constants.values()),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def moved(model):
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    graph = Graph(copy)
    graph.sort(join_in_8_bits(graph, list(copy.graph.node)))
    onnx.checker.check_model(copy, full_check=True)
    return copy


def on_onnxruntime(model):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(["out"], {"image": IMAGE})[0]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"relu": True},
        {"shuffled": True},
        {"shuffled": True, "relu": True},
        {"nested": True},
        {"relu": True, "nested": True},
        {"norm": True},
    ],
)
def test_it_is_the_same_function(form):
    model = joined(**form)
    after = moved(model)
    for node in Graph(after).nodes("Concat"):
        readers = Graph(after).readers[node.output[0]]
        assert [n.op_type for n in readers] in (["DequantizeLinear"], ["Concat"], ["Reshape"])
    np.testing.assert_array_equal(on_onnxruntime(after), on_onnxruntime(model))


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"relu": True},
        {"shuffled": True},
        {"shuffled": True, "relu": True},
        {"nested": True},
        {"shared": True},
        {"relu": True, "shared": True},
        {"relu": True, "norm": True},
    ],
)
def test_openvino_answers_alike(form):
    openvino = pytest.importorskip("openvino")
    model = joined(**form)
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(moved(model).SerializeToString()), "CPU", options)
    exact = on_onnxruntime(model)
    # a value between two places of the grid may go either way
    assert np.linalg.norm(compiled(IMAGE)["out"] - exact) < 0.01 * np.linalg.norm(exact)


def test_what_another_node_reads_in_float_is_there_for_it():
    model = joined(shared=True)
    graph = Graph(moved(model))
    assert [len(graph.readers[n.output[0]]) for n in graph.nodes("Concat")] == [0, 1]
    assert len(graph.nodes("QuantizeLinear")) == 3


@pytest.mark.parametrize("relu", [False, True])
def test_names_behind_a_row_of_nodes_that_move_values_stay_short(relu):
    """Each name was twice as long as the one before: of 18 nodes the graph was 61 MB."""
    model = joined(relu, turns=14)
    after = moved(model)
    assert max(len(node.name) for node in after.graph.node) < 60
    assert "Transpose" not in {Graph(after).producers[n.input[0]].op_type for n in roundings(after)}
    np.testing.assert_array_equal(on_onnxruntime(after), on_onnxruntime(model))


def roundings(model):
    """What rounds in a graph, but for the image."""
    return [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] != "image"]


def test_joins_of_a_tensor_and_itself_are_gone_through_once():
    """One level more was twice as many nodes: 17,416 of 10."""
    model = joined(relu=True, selves=10)
    after = moved(model)
    assert len(after.graph.node) < 400
    np.testing.assert_array_equal(on_onnxruntime(after), on_onnxruntime(model))
