"""Each kind of weighted node: its rows, and what a factor or a mean does to it."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from icnet_deploy.calibration.calibrate import open_session
from icnet_deploy.calibration.weighted import weighted_of

RANDOM = np.random.default_rng(0)
CASES = {
    "conv": ("Conv", (6, 4, 3, 3), {"pads": [1] * 4}),
    "grouped": ("Conv", (6, 2, 3, 3), {"group": 2, "pads": [1] * 4}),
    "depthwise": ("Conv", (4, 1, 3, 3), {"group": 4, "pads": [2] * 4, "dilations": [2, 2]}),
    "transposed": ("ConvTranspose", (4, 6, 2, 2), {"strides": [2, 2]}),
    "transposed in groups": ("ConvTranspose", (4, 3, 2, 2), {"group": 2, "strides": [2, 2]}),
    "transposed depthwise": ("ConvTranspose", (4, 1, 2, 2), {"group": 4, "strides": [2, 2]}),
    "matrix": ("MatMul", (4, 6), {}),
    "gemm": ("Gemm", (4, 6), {}),
    "gemm turned": ("Gemm", (6, 4), {"transB": 1}),
}


def case(name):
    """A node of a name, its weights, and an input of 4 channels."""
    kind, shape, attributes = CASES[name]
    weight = RANDOM.normal(size=shape).astype(np.float32)
    node = helper.make_node(kind, ["x", "w"], ["y"], name, **attributes)
    images = kind in ("Conv", "ConvTranspose")
    x = RANDOM.normal(1, 1, (1, 4, 8, 8) if images else (40, 4)).astype(np.float32)
    one = weighted_of(node, {"w": numpy_helper.from_array(weight, "w")})
    assert one is not None
    return one, weight, x


def run(one, weight, x):
    graph = helper.make_graph(
        [one.node],
        "one",
        [helper.make_tensor_value_info("x", 1, x.shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(weight, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return open_session(model).run(None, {"x": x})[0]


@pytest.mark.parametrize("name", CASES)
def test_rows_are_undone(name):
    one, weight, _ = case(name)
    rows = one.rows(weight)
    assert len(rows) == weight.shape[one.axis]
    np.testing.assert_array_equal(one.as_weight(rows, weight.shape), weight)


@pytest.mark.parametrize("name", CASES)
def test_a_number_of_the_output_is_the_sum_of_so_many_terms(name):
    one, weight, x = case(name)
    assert run(one, np.ones_like(weight), np.ones_like(x)).max() == one.terms(weight.shape)


@pytest.mark.parametrize("name", CASES)
def test_factors_reach_their_channels(name):
    one, weight, x = case(name)
    before = run(one, weight, x)
    outputs = before.shape[one.channel_axis]
    after, within = RANDOM.uniform(0.5, 2, outputs), RANDOM.uniform(0.5, 2, 4)
    images = before.ndim == 4
    made = run(one, weight * one.of_output(after, weight.shape), x)
    np.testing.assert_allclose(
        made, before * (after.reshape(1, -1, 1, 1) if images else after), rtol=1e-4, atol=1e-4
    )
    read = run(one, weight * one.of_input(within, weight.shape), x)
    scaled = (x * (within.reshape(1, -1, 1, 1) if images else within)).astype(np.float32)
    np.testing.assert_allclose(read, run(one, weight, scaled), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_the_mean_of_the_output_follows_from_that_of_the_input(name):
    one, weight, x = case(name)
    images = x.ndim == 4
    means = RANDOM.normal(size=4)
    flat = np.ones_like(x) * (means.reshape(1, -1, 1, 1) if images else means)
    made = run(one, weight, flat.astype(np.float32))
    inner = made[:, :, 2:-2, 2:-2].mean((0, 2, 3)) if images else made.mean(0)
    np.testing.assert_allclose(one.mean_of_output(weight, means), inner, rtol=1e-3, atol=1e-4)


def test_what_has_another_form_is_none():
    weight = {"w": numpy_helper.from_array(np.zeros((4, 4), np.float32), "w")}
    for node in (
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("MatMul", ["w", "x"], ["y"]),
        helper.make_node("MatMul", ["x", "z"], ["y"]),
        helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5),
        helper.make_node("Gemm", ["x", "w"], ["y"], transA=1),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ):
        assert weighted_of(node, weight) is None, onnx.helper.printable_node(node)
