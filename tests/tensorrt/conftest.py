"""Small graphs with the contract's input, and a fake TensorRT of either release."""

from __future__ import annotations

import numpy as np
import pytest
from fake_tensorrt import RELEASES, Machine, make_fake

onnx = pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture(scope="session", params=RELEASES)
def release(request):
    """A fake `tensorrt` of each recorded release, made once."""
    return make_fake(request.param)


@pytest.fixture
def trt(release):
    """The same on a machine of the test's own."""
    release.machine = Machine()
    return release


def small_model(batch="N", nodes=(), output=("logits", 1)):
    """image -> Cast -> Transpose -> Conv -> logits, at 8 x 16 pixels, 4 channels out."""
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = np.arange(12, dtype=np.float32).reshape(4, 3, 1, 1) / 12
    body = nodes or [
        helper.make_node("Cast", ["image"], ["f"], "cast", to=kinds.FLOAT),
        helper.make_node("Transpose", ["f"], ["x"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w"], ["logits"], "conv"),
    ]
    graph = helper.make_graph(
        list(body),
        "small",
        [helper.make_tensor_value_info("image", kinds.UINT8, [batch, 8, 16, 3])],
        [helper.make_tensor_value_info(output[0], output[1], None)],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    model.ir_version = 9
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture
def model():
    """Makes the small graph; see `small_model`."""
    return small_model
