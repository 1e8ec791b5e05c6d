"""The table of what TensorRT's parser takes refuses what the real parser refuses.

TensorRT-RTX, its sibling that is here, is asked about every bad graph; the kit's own graphs are
held to the table in tests/export/test_tensorrt_rtx.py.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from fake_tensorrt.operators import refusals
from onnx import TensorProto, helper, numpy_helper

make = helper.make_node

CAST = make("Cast", ["image"], ["f"], "cast", to=TensorProto.FLOAT)
NCHW = make("Transpose", ["f"], ["x"], "nchw", perm=[0, 3, 1, 2])

CONSTANTS = {
    "scale": np.array(0.1, np.float32),
    "zero": np.array(0, np.int8),
    "one": np.array(1, np.int8),
    "zero_u8": np.array(0, np.uint8),
    "three_u8": np.array(3, np.uint8),
    "zero_i32": np.array(0, np.int32),
    "whole": np.ones(4, np.int32),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "w": np.ones((4, 3, 1, 1), np.float32),
}


def graph(*nodes, output=("y", TensorProto.FLOAT), opset=19):
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 16, 3])
    made = helper.make_graph(
        nodes,
        "bad",
        [image],
        [helper.make_tensor_value_info(*output, None)],
        [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=domains)
    model.ir_version = 9
    return onnx.shape_inference.infer_shapes(model)


def pair(zero, source="x"):
    return [
        make("QuantizeLinear", [source, "scale", zero], ["q"], "q"),
        make("DequantizeLinear", ["q", "scale", zero], ["y"], "dq"),
    ]


def resize(**attributes):
    return graph(CAST, NCHW, make("Resize", ["x", "", "scales"], ["y"], "resize", **attributes))


BAD = {
    "a Transpose before the Cast": graph(
        make("Transpose", ["image"], ["t"], "early", perm=[0, 3, 1, 2]),
        make("Cast", ["t"], ["y"], "cast", to=TensorProto.FLOAT),
    ),
    "uint8 inside": graph(
        CAST,
        make("Cast", ["f"], ["u"], "to_u8", to=TensorProto.UINT8),
        make("Cast", ["u"], ["y"], "back", to=TensorProto.FLOAT),
    ),
    "a zero that is not zero": graph(CAST, NCHW, *pair("one")),
    "asymmetric uint8": graph(CAST, NCHW, *pair("three_u8")),
    "an int32 bias": graph(
        CAST,
        NCHW,
        make("DequantizeLinear", ["whole", "scale", "zero_i32"], ["b"], "bias"),
        make("Conv", ["x", "w", "b"], ["y"], "conv"),
    ),
    "an antialiased Resize": resize(mode="linear", antialias=1),
    "a Resize that keeps the aspect": resize(mode="linear", keep_aspect_ratio_policy="not_larger"),
    "an operator of ONNX Runtime": graph(
        CAST, make("FusedConv", ["f", "w"], ["y"], "fused", domain="com.microsoft")
    ),
    "an integer convolution": graph(
        CAST,
        NCHW,
        make("QuantizeLinear", ["x", "scale", "zero_u8"], ["q"], "q"),
        make("ConvInteger", ["q", "w8"], ["i"], "conv"),
        make("Cast", ["i"], ["y"], "end", to=TensorProto.FLOAT),
    ),
    "pooling with holes": graph(
        CAST, NCHW, make("MaxPool", ["x"], ["y"], "pool", kernel_shape=[2, 2], dilations=[2, 2])
    ),
    "Indices of a pooling": graph(
        CAST, NCHW, make("MaxPool", ["x"], ["p", "y"], "pool", kernel_shape=[2, 2]),
        output=("y", TensorProto.INT64),
    ),
}  # fmt: skip

GOOD = {
    "symmetric int8": graph(CAST, NCHW, *pair("zero")),
    "a linear Resize": resize(
        mode="linear", coordinate_transformation_mode="align_corners", nearest_mode="floor"
    ),
    "uint8 out": graph(
        CAST,
        make("Cast", ["f"], ["y"], "to_u8", to=TensorProto.UINT8),
        output=("y", TensorProto.UINT8),
    ),
    "pooling": graph(CAST, NCHW, make("MaxPool", ["x"], ["y"], "pool", kernel_shape=[2, 2])),
}


def taken_by_rtx(model):
    """Whether the real parser takes a graph."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(logger).create_network(
        1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    )
    return trt.OnnxParser(network, logger).parse(model.SerializeToString())


@pytest.mark.parametrize("what", BAD)
def test_what_is_bad_is_refused_by_both(what):
    [first, *_] = refusals(BAD[what])
    assert first[1].name
    assert not taken_by_rtx(BAD[what])


@pytest.mark.parametrize("what", GOOD)
def test_what_is_good_is_taken_by_both(what):
    onnx.checker.check_model(GOOD[what])
    assert list(refusals(GOOD[what])) == []
    assert taken_by_rtx(GOOD[what])


def test_uint8_with_a_zero_of_zero_is_refused_though_rtx_takes_it():
    """TensorRT reads it as int8, with a warning: the wrong range, so the table says no."""
    assert list(refusals(graph(CAST, NCHW, *pair("zero_u8")))) != []


@pytest.mark.parametrize("opset", [8, 25])
def test_an_opset_out_of_range_is_refused(opset):
    assert list(refusals(graph(CAST, output=("f", TensorProto.FLOAT), opset=opset))) != []
