"""Learned rounding: patches are what convolutions multiply, and no output moves further."""

import numpy as np
import onnx
import placement_contract as small
import pytest
from onnx import helper, numpy_helper

from icnet_deploy.calibration.calibrate import open_session
from icnet_deploy.calibration.equalize import equalized
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.ladder import rounding
from icnet_deploy.calibration.ladder.moments import Moments
from icnet_deploy.calibration.ladder.patches import Patches, as_weight, matrices
from icnet_deploy.calibration.ladder.rounding import learn_rounding, learned_places
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.quantize import bias_shift, quantize, quantized_weights
from icnet_deploy.calibration.selection import choose
from icnet_deploy.calibration.weighted import weighted_of
from icnet_deploy.data import image_files

CASES = {
    "convolution": ("Conv", (6, 4, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    "in groups": ("Conv", (6, 2, 3, 2), {"group": 2, "pads": [1] * 4}),
    "depthwise": ("Conv", (4, 1, 5, 5), {"group": 4, "pads": [4] * 4, "dilations": [2, 2]}),
    "padded to the same": ("Conv", (6, 4, 3, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "pointwise": ("Conv", (9, 4, 1, 1), {}),
    "transposed": ("ConvTranspose", (4, 6, 3, 4), {"strides": [2, 3], "pads": [1, 0, 0, 1]}),
    "transposed in groups": ("ConvTranspose", (4, 3, 2, 2), {"group": 2, "strides": [2, 2]}),
    "transposed, padded": ("ConvTranspose", (4, 6, 3, 3), {"strides": [2, 2], "auto_pad": "VALID"}),
    "matrix": ("MatMul", (4, 6), {}),
    "gemm turned": ("Gemm", (6, 4), {"transB": 1}),
}


@pytest.fixture(params=CASES)
def case(request):
    """A node, its weights, and an input of like channels."""
    kind, shape, attributes = CASES[request.param]
    random = np.random.default_rng(0)
    weight = random.normal(size=shape).astype(np.float32)
    node = helper.make_node(kind, ["x", "w"], ["y"], request.param, **attributes)
    images = kind in ("Conv", "ConvTranspose")
    alike = random.normal(2, 1, (1, 1, 9, 10) if images else (90, 1))
    x = (alike + 0.3 * random.normal(size=(1, 4, 9, 10) if images else (90, 4))).astype(np.float32)
    one = weighted_of(node, {"w": numpy_helper.from_array(weight, "w")})
    assert one is not None
    return one, weight, x


def answer(one, weight, x):
    graph = helper.make_graph(
        [one.node],
        "one",
        [helper.make_tensor_value_info("x", 1, x.shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(weight, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return open_session(model).run(None, {"x": x})[0]


def test_the_output_is_weights_times_patches(case):
    one, weight, x = case
    rows = matrices(one, weight)
    np.testing.assert_array_equal(as_weight(one, rows, weight.shape), weight)
    patches = Patches(one, weight.shape, x.shape)
    made = rows @ patches.take(x, np.arange(patches.places)).transpose(0, 2, 1)
    exact = np.moveaxis(answer(one, weight, x), one.channel_axis, 0)
    np.testing.assert_allclose(made.ravel(), exact.ravel(), rtol=1e-4, atol=1e-4)


def test_the_output_moves_less_than_with_the_nearest_places(case):
    one, weight, x = case
    rows = matrices(one, weight)
    patches = Patches(one, weight.shape, x.shape)
    moments = Moments(
        np.zeros((len(rows), rows.shape[2])), np.zeros((len(rows), *rows.shape[2:] * 2))
    )
    moments.add(patches.take(x, np.arange(patches.places)))
    nearest, steps = quantized_weights(weight, axis=one.axis)
    wide = one.along(steps, weight.ndim)
    learned = learned_places(one, weight, moments)
    assert (np.abs(learned * wide - weight)[np.abs(learned) < 127].max()) < steps.max()
    before, after = (
        moments.change(matrices(one, p * wide - weight).astype(float)) for p in (nearest, learned)
    )
    assert (after <= before * (1 + 1e-9)).all()
    assert after.sum() < 0.8 * before.sum()
    exact = answer(one, weight, x)
    measured = np.square(answer(one, learned * wide, x) - exact).mean()
    np.testing.assert_allclose(measured, after.mean(), rtol=1e-3)


def test_places_that_say_nothing_leave_the_nearest():
    one = weighted_of(
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        {"w": numpy_helper.from_array(np.ones((4, 6), np.float32), "w")},
    )
    weight = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    nothing = Moments(np.zeros((1, 4)), np.zeros((1, 4, 4)), 100)
    nearest, _ = quantized_weights(weight, axis=1)
    np.testing.assert_array_equal(learned_places(one, weight, nothing), nearest)


@pytest.fixture(scope="module")
def chosen(dataset):
    """Calibration images of the small network's size, and others to look at."""
    files = image_files(dataset / "leftImg8bit" / "train")
    return choose(files[:8], small.SIZE), [choose(files, small.SIZE).read(f) for f in files[8:]]


def in_float(model, ranges, learned=None):
    """The graph with rounded weights and corrected biases, and everything else in float32."""
    result = equalized(model, ranges.factors)
    graph = Graph(result)
    for one in graph.weighted():
        weight = graph.array(one.weight)
        places, steps = quantized_weights(weight, axis=one.axis)
        places = places if learned is None else learned[one.weight]
        shift = bias_shift(one, weight, places, steps, ranges.tensors[one.data].means)
        graph.add_constant(one.weight, places * one.along(steps, weight.ndim))
        graph.add_constant(one.bias, (graph.array(one.bias) + shift).astype(np.float32))
    return result


def test_the_logits_of_a_graph_are_nearer(chosen, monkeypatch):
    images, others = chosen
    model = onnx.ModelProto.FromString(small.network().SerializeToString())
    ranges = small.calibration().ranges()
    learned = learn_rounding(model, ranges, images)
    monkeypatch.setattr(rounding, "_BYTES", 1)  # every node on its own
    again = learn_rounding(model, ranges, images)
    assert all(np.array_equal(learned[name], again[name]) for name in learned)
    exact = open_session(model)

    def error(rounded):
        session, feeds = open_session(rounded), [{"image": image[None]} for image in others]
        apart = [session.run(None, f)[0] - exact.run(None, f)[0] for f in feeds]
        return np.square(apart).mean()

    assert error(in_float(model, ranges, learned)) < 0.8 * error(in_float(model, ranges))
    for placement in PLACEMENTS:
        plain = error(quantize(model, ranges, placement))
        assert error(quantize(model, ranges, placement, learned=learned)) < plain
