"""Each graph pass leaves the graph's answers as they were."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.export.passes import drop_round_trips, simplify, static_resize, to_half
from icnet_deploy.export.passes.common import sort_nodes


def resize_model(side: int, out: int | None, rule: str = "align_corners"):
    """x -> Resize to `out` pixels a side, its size computed from the batch as torch writes it."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, out, out])
    nodes = [
        helper.make_node("Shape", ["x"], ["head"], start=0, end=2),
        helper.make_node("Concat", ["head", "tail"], ["sizes"], axis=0),
        helper.make_node(
            "Resize",
            ["x", "", "", "sizes"],
            ["y"],
            mode="linear",
            coordinate_transformation_mode=rule,
        ),
    ]
    inputs, constants = [x], []
    if out is None:
        inputs.append(helper.make_tensor_value_info("tail", TensorProto.INT64, [2]))
    else:
        constants.append(numpy_helper.from_array(np.array([out, out], np.int64), "tail"))
    graph = helper.make_graph(nodes, "g", inputs, [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("side", "out"), [(33, 65), (7, 13), (3, 200), (64, 33), (255, 256), (129, 128), (5, 5)]
)
@pytest.mark.parametrize("rule", ["align_corners", "half_pixel", "pytorch_half_pixel"])
def test_static_resize_keeps_sizes_and_values(side, out, rule):
    model, x = (
        resize_model(side, out, rule),
        np.random.default_rng(0).normal(size=(3, 2, side, side)),
    )
    before = run(model, x.astype(np.float32))
    assert static_resize(model)
    assert simplify(model)
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node] == ["Resize"]
    after = run(model, x.astype(np.float32))
    assert after.shape == before.shape
    assert np.abs(after - before).max() < (1e-5 if rule == "align_corners" else 1e-4)


def test_static_resize_leaves_what_it_does_not_know():
    model = resize_model(9, None)
    before = model.SerializeToString()
    assert not static_resize(model)
    assert model.SerializeToString() == before


def test_static_resize_is_done_once():
    model = resize_model(9, 17)
    assert static_resize(model)
    assert not static_resize(model)


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize(
    ("axes", "given"),
    [((2, 3), [2.0, 3.0]), ((-1, -2), [3.0, 2.0]), ((-1, 2), [15, 10]), ((3,), [8])],
    ids=str,
)
def test_static_resize_names_no_axes(batch, axes, given):
    """ONNX Runtime takes them for others in 8 bits, and OpenVINO knows none from the last."""
    kind = np.int64 if isinstance(given[0], int) else np.float32
    value = numpy_helper.from_array(np.array(given, kind), "by")
    inputs = ["x", "", "", "by"] if kind is np.int64 else ["x", "", "by"]
    node = helper.make_node("Resize", inputs, ["y"], mode="linear", axes=axes)
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", [batch, 2, 5, 5]), ("y", [batch, 2, "h", "w"]))
    ]
    graph = helper.make_graph([node], "g", *ends, [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    x = np.random.default_rng(0).normal(size=(2, 2, 5, 5)).astype(np.float32)
    before = run(model, x)
    assert static_resize(model)
    onnx.checker.check_model(model, full_check=True)
    assert "axes" not in {attribute.name for attribute in model.graph.node[0].attribute}
    np.testing.assert_allclose(run(model, x), before, atol=1e-6)
    assert not static_resize(model)


def test_simplify_says_when_nothing_changed():
    model = resize_model(9, 17)
    static_resize(model)
    simplify(model)
    assert not simplify(model)


def test_simplify_keeps_the_name_of_weights_that_it_computes_anew():
    random = np.random.default_rng(0)
    values = {
        "scale": (1, 3, 1, 1),
        "a.first.weight": (4, 3, 3, 3),
        "a.second.weight": (2, 4, 1, 1),
    }
    constants = [
        numpy_helper.from_array(random.normal(1, 1, shape).astype(np.float32), name)
        for name, shape in values.items()
    ]
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "a.first.weight"], ["one"], pads=[1] * 4),
        helper.make_node("Conv", ["one", "a.second.weight"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 8, 8])
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    image = random.normal(size=(1, 3, 8, 8)).astype(np.float32)
    before = run(model, image)
    assert simplify(model)
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node] == ["Conv", "Conv"]
    assert [n.input[1] for n in model.graph.node] == ["a.first.weight", "a.second.weight"]
    assert np.abs(run(model, image) - before).max() < 1e-4


def test_half_keeps_the_types_of_inputs_and_outputs():
    model = resize_model(9, 17)
    static_resize(model)
    simplify(model)
    x = np.random.default_rng(0).normal(size=(1, 2, 9, 9)).astype(np.float32)
    before = run(model, x)
    assert to_half(model)
    after = run(model, x)
    assert after.dtype == np.float32
    assert sorted(n.op_type for n in model.graph.node) == ["Cast", "Cast", "Resize"]
    assert np.abs(after - before).max() < 5e-3


def cast_model(kind):
    """x, of that type, -> float16 -> float32 -> Neg -> y, and the nodes in the wrong order."""
    x = helper.make_tensor_value_info("x", kind, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    nodes = [
        helper.make_node("Neg", ["whole"], ["y"]),
        helper.make_node("Cast", ["half"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize(
    ("kind", "left"), [(TensorProto.FLOAT, ["Neg"]), (TensorProto.INT32, ["Cast", "Neg"])]
)
def test_round_trips_are_dropped_and_integers_cast_at_once(kind, left):
    model = cast_model(kind)
    assert drop_round_trips(model)
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node] == left
    x = np.array([100_001, -7], helper.tensor_dtype_to_np_dtype(kind))  # float16 ends before it
    assert run(model, x).tolist() == [-100_001, 7]
    assert not drop_round_trips(model)


def chain_of(count, *, last_first=False):
    """A graph of nodes one behind the other."""
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], f"n{i}") for i in range(count)]
    return helper.make_graph(nodes[::-1] if last_first else nodes, "chain", [], [])


def test_nodes_are_sorted_however_many_they_are():
    graph = chain_of(2000, last_first=True)
    sort_nodes(graph)
    assert graph == chain_of(2000)


def test_a_graph_with_a_circle_is_refused():
    graph = chain_of(3)
    graph.node[0].input[0] = "t2"
    with pytest.raises(ValueError, match="circle"):
        sort_nodes(graph)
