"""Cost, on a graph small enough to count by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.benchmarks.paper.networks import cost, for_one_image
from icnet_deploy.errors import ModelError


def tiny(batch="N"):
    """x (2 channels, 4x4) -> conv to 8 -> relu -> conv to 8 -> sum with the relu -> conv to 1."""
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in (("w1", (8, 2, 3, 3)), ("w2", (8, 8, 1, 1)), ("w3", (1, 8, 1, 1)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("Conv", ["d", "w3"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 1, 4, 4])
    graph = helper.make_graph(nodes, "tiny", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])


def test_the_cost_of_a_small_graph():
    found = cost(for_one_image(tiny()))
    pixels, item = 16, 4
    assert found.gmac == pytest.approx(pixels * (8 * 2 * 9 + 8 * 8 + 8) / 1e9)
    # a, c, d and y: the ReLU works in place.
    assert found.kept_bytes == pixels * item * (8 + 8 + 8 + 1)
    # The most is b and c; the sum then takes the place of one of them.
    assert found.live_bytes == pixels * item * (8 + 8)


def test_the_batch_becomes_one_and_the_given_model_stays_as_it_is():
    model = tiny()
    fixed = for_one_image(model)
    assert fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert {v.name for v in fixed.graph.value_info} == {"a", "b", "c", "d"}
    onnx.checker.check_model(fixed, full_check=True)


def test_a_graph_of_unknown_shapes_is_refused():
    with pytest.raises(ModelError, match="tensor a is not known"):
        cost(onnx.shape_inference.infer_shapes(tiny()))
