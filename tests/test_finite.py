"""Values that are not numbers are found wherever weights are kept."""

from __future__ import annotations

import numpy as np
import pytest

from icnet_deploy.errors import CheckFailed, ModelError
from icnet_deploy.integrity import require_finite, require_finite_graph

onnx = pytest.importorskip("onnx", reason="the graphs of this test are made by onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

NOT_FINITE = (np.nan, np.inf, -np.inf)


def graph(*tensors, nodes=()):
    """An ONNX file's bytes, with these constants."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    made = helper.make_graph([*nodes], "g", [x], [x], tensors)
    return helper.make_model(made).SerializeToString()


def test_the_message_names_the_tensors_how_many_values_and_what_to_do():
    values = {f"layer{i}.weight": np.ones((2, 3), np.float32) for i in range(8)}
    require_finite(values.items(), "net", "train it again")
    for i in range(1, 8):
        values[f"layer{i}.weight"][0, 1:] = np.nan, np.inf
    with pytest.raises(ModelError) as raised:
        require_finite(values.items(), "net", "train it again")
    assert str(raised.value) == (
        "net holds numbers that are infinite or not numbers, in layer1.weight (2 of 6 values), "
        "layer2.weight (2 of 6 values), layer3.weight (2 of 6 values), layer4.weight (2 of 6 "
        "values) and 3 more: train it again"
    )
    with pytest.raises(CheckFailed):
        require_finite(values.items(), "net", "train it again", CheckFailed)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16]
)
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_every_way_in_which_a_tensor_keeps_floats_is_read(value, kind, raw):
    def tensor(last):
        values = np.array([-1.5, 0.25, last], np.float64)
        if not raw:
            return helper.make_tensor("t", kind, [3], values.tolist())
        return numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(kind)), "t")

    require_finite_graph(graph(tensor(2.0)), "net", "stop")
    with pytest.raises(ModelError, match=r"in t \(1 of 3 values\)"):
        require_finite_graph(graph(tensor(value)), "net", "stop")


@pytest.mark.parametrize("value", NOT_FINITE)
def test_constants_in_nodes_and_branches_are_read(value):
    bad = numpy_helper.from_array(np.array([[value]], np.float32), "inner")
    constant = helper.make_node("Constant", [], ["c"], value=bad)
    branch = helper.make_graph([constant], "b", [], [])
    choice = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    for content in (graph(nodes=[constant]), graph(nodes=[choice])):
        with pytest.raises(ModelError, match="inner"):
            require_finite_graph(content, "net", "stop")


def test_whole_numbers_are_not_taken_for_floats():
    bits = np.full(4, -1, np.int32)  # as a float's bits, not a number
    require_finite_graph(graph(numpy_helper.from_array(bits, "whole")), "net", "stop")
    typed = helper.make_tensor("whole", TensorProto.INT8, [3], [-1, -2, 127])
    require_finite_graph(graph(typed), "net", "stop")
