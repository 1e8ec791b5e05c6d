"""OpenVINO 2026.4 folds permutations of channels wrongly, in float32, too: not in this form."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.export.passes import count_from_last

openvino = pytest.importorskip("openvino")

IMAGE = np.random.default_rng(0).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)


def network(count, *nodes, **constants):
    """A convolution of `count` channels, these nodes from `a` to `b`, and another."""
    random = np.random.default_rng(1)
    values = {
        "w1": random.normal(0, 1, (count, 4, 3, 3)),
        "w2": random.normal(0, 1, (5, count, 3, 3)),
        "slopes": random.uniform(0, 1, (count, 1, 1)),
    }
    tensors = {name: value.astype(np.float32) for name, value in values.items()} | constants
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1] * 4),
            *nodes,
            helper.make_node("PRelu", ["b", "slopes"], ["c"]),
            helper.make_node("Conv", ["c", "w2"], ["y"], pads=[1] * 4),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *IMAGE.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def gathered(*order):
    gather = helper.make_node("Gather", ["a", "order"], ["b"], axis=1)
    return network(len(order), gather, order=np.int64(order))


def rejoined(count):
    split = helper.make_node("Split", ["a"], ["p", "q", "r"], axis=1, num_outputs=3)
    return network(count, split, helper.make_node("Concat", ["q", "r", "p"], ["b"], axis=1))


def on_openvino(model):
    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(model.SerializeToString()), "CPU", exact)([IMAGE])[0]


@pytest.mark.parametrize(
    "model", [gathered(2, 0, 3, 1, 4), gathered(1, 2, 0), rejoined(3), rejoined(6)]
)
def test_it_is_the_same_function_on_openvino(model):
    exact = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": IMAGE})[0]
    assert count_from_last(model)
    assert not count_from_last(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(on_openvino(model), exact, atol=1e-3)


def test_a_change_of_two_colours_stays():
    model = gathered(2, 1, 0)
    before = model.SerializeToString()
    assert not count_from_last(model)
    assert model.SerializeToString() == before
