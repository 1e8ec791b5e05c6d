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


KINDS = onnx.TensorProto


def nodes(half=False, quantized=False):
    """image -> Cast -> Transpose -> Conv -> logits, in one of three precisions."""
    make = onnx.helper.make_node
    weight, activation, before = "w", "x", []
    if quantized:
        weight, activation = "w_dq", "x_dq"
        before = [
            make("QuantizeLinear", ["x", "scale", "zero"], ["x_q"], "x_quantize"),
            make("DequantizeLinear", ["x_q", "scale", "zero"], ["x_dq"], "x_dequantize"),
            make("DequantizeLinear", ["w", "scale", "zero"], ["w_dq"], "w_dequantize"),
        ]
    return [
        make("Cast", ["image"], ["f"], "cast", to=KINDS.FLOAT16 if half else KINDS.FLOAT),
        make("Transpose", ["f"], ["x"], "transpose", perm=[0, 3, 1, 2]),
        *before,
        make("Conv", [activation, weight], ["logits"], "conv"),
    ]


def small_model(batch="N", size=(8, 16), half=False, quantized=False, body=None, channels=4):
    """A model of one convolution; `body` replaces its nodes."""
    helper, kind = onnx.helper, np.float16 if half else np.float32
    weights = np.arange(3 * channels).reshape(channels, 3, 1, 1)
    constants = {"w": weights.astype(np.int8) if quantized else (weights / 12).astype(kind)}
    if quantized:
        constants |= {"scale": np.array(1 / 12, np.float32), "zero": np.array(0, np.int8)}
    output = KINDS.FLOAT16 if half else KINDS.FLOAT
    graph = helper.make_graph(
        nodes(half, quantized) if body is None else body,
        "small",
        [helper.make_tensor_value_info("image", KINDS.UINT8, [batch, *size, 3])],
        [helper.make_tensor_value_info("logits", output, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    model.ir_version = 9
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture
def model():
    """Makes the small model; see `small_model`."""
    return small_model


@pytest.fixture
def artefact(tmp_path):
    """Writes the small model with our metadata; returns its path."""
    from icnet_deploy.integrity import KEY
    from icnet_deploy.labels import CAMVID
    from icnet_deploy.metadata import ArtefactMetadata

    def write(name="icnet.onnx", precision="fp32", metadata=True, **model):
        made = small_model(**model)
        size = model.get("size", (8, 16))
        about = ArtefactMetadata(CAMVID, None if "H" in size else size, "logits", precision)
        if metadata:
            onnx.helper.set_model_props(made, {KEY: about.to_json()})
        onnx.save(made, tmp_path / name)
        return tmp_path / name

    return write
