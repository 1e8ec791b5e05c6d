"""8-bit graphs: the same network, pairs where the contract wants them, and what it costs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from icnet_deploy.calibration.calibrate import collect, open_session
from icnet_deploy.calibration.equalize import equalized
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.quantize import bias_shift, quantize, quantized_weights
from icnet_deploy.calibration.ranges import set_ranges
from icnet_deploy.calibration.weighted import Weighted
from icnet_deploy.errors import InputError


def answers(model, images):
    session = open_session(model)
    return [session.run(None, {"image": image[None]})[0] for image in images]


def test_every_image_given_is_used(shipped, images, calibration):
    assert {found.images for found in calibration.statistics.values()} == {12}
    one = collect(onnx.load(shipped), list(images)[:1])
    assert {found.images for found in one.values()} == {1}


def test_the_scaled_graph_is_the_same_function(shipped, images, calibration):
    model = onnx.load(shipped)
    assert len(calibration.factors) > 40
    changed = equalized(model, calibration.factors)
    for ours, theirs in zip(answers(changed, images), answers(model, images), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_labels_are_nearly_those_of_float32(placement, shipped, images, quantized):
    model = onnx.load(shipped)
    same = [
        (a.argmax(1) == b.argmax(1)).mean()
        for a, b in zip(answers(quantized(placement), images), answers(model, images), strict=True)
    ]
    assert 0.98 < np.mean(same) < 1  # 1 would say that nothing was quantized


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_ends_of_the_graph_stay_in_float(placement, shipped, quantized):
    model = quantized(placement)
    graph = Graph(model)
    kept = Graph(onnx.load(shipped)).float_layers()
    assert kept == ("conv1_1_3x3_s2", "conv6_cls")
    assert sorted(graph.layer(c.node) for c in graph.weighted()) == sorted(kept)
    assert model.ByteSize() < 0.3 * shipped.stat().st_size


def test_a_block_can_stay_in_float(shipped, calibration):
    model, ranges = onnx.load(shipped), calibration.ranges()
    graph = Graph(quantize(model, ranges, "int8", ["conv5_1", "conv_sub4"]))
    names = {graph.layer(c.node) for c in graph.weighted()}
    assert names == {
        "conv_sub4",
        "conv5_1._1x1_reduce",
        "conv5_1._3x3",
        "conv5_1._1x1_increase",
        "conv5_1._1x1_proj",
    }
    with pytest.raises(InputError, match=r"no layer or block 'conv9'; blocks: conv1_1_3x3_s2, "):
        quantize(model, ranges, "int8", ["conv9"])
    with pytest.raises(InputError, match="unknown placement 'int4'"):
        quantize(model, ranges, "int4")


def test_a_weight_comes_back_within_half_a_step_or_clipped_for_a_gain():
    weight = np.random.default_rng(0).normal(0, 1, (6, 500, 3, 3)).astype(np.float32)
    weight[0, 0, 0, 0] = 8
    places, steps = quantized_weights(weight)
    error = np.abs(places * steps[:, None, None, None] - weight)
    inside = np.abs(places) < 127
    assert (error <= 0.5001 * steps[:, None, None, None])[inside].all()
    plain = np.abs(weight).reshape(6, -1).max(1) / 127
    rounded = np.rint(weight / plain[:, None, None, None]) * plain[:, None, None, None]
    assert np.square(error).sum() < np.square(rounded - weight).sum()


def test_over_a_flat_image_the_errors_of_a_filter_cancel():
    weight = np.random.default_rng(0).normal(0, 1, (32, 3, 3, 3)).astype(np.float32)

    def sums(flat):
        places, steps = quantized_weights(weight, flat)
        error = places * steps[:, None, None, None] - weight
        return np.abs(error.sum((1, 2, 3))) / steps

    assert sums(True).max() < 0.51
    assert sums(False).max() > 1


def test_the_bias_gives_back_what_rounding_took_from_the_mean():
    random = np.random.default_rng(0)
    weight = random.normal(0, 1, (4, 3, 1, 1)).astype(np.float32)
    x = random.uniform(0, 9, (3, 1000))
    places, steps = quantized_weights(weight)
    exact = weight[:, :, 0, 0] @ x
    coarse = (places * steps[:, None, None, None])[:, :, 0, 0] @ x
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    shift = bias_shift(Weighted(node), weight, places, steps, x.mean(1))
    np.testing.assert_allclose((coarse + shift[:, None]).mean(1), exact.mean(1), rtol=1e-5)
    assert np.abs(coarse.mean(1) - exact.mean(1)).max() > 1e-4


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_tensorrt_takes_int8_and_refuses_int8_ort(placement, quantized):
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    parsed = parser.parse(quantized(placement).SerializeToString())
    if placement == "int8-ort":
        assert not parsed
        return
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("image", (1, 97, 161, 3), (1, 97, 161, 3), (2, 97, 161, 3))
    assert config.add_optimization_profile(profile) >= 0
    assert bytes(builder.build_serialized_network(network, config))[:4] == b"vtrt"


def test_of_a_matrix_the_constant_that_is_added_after_it_gives_the_mean_back():
    random = np.random.default_rng(0)
    weight = random.normal(0, 1, (6, 4)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["x"], "cast", to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
        onnx.helper.make_node("Add", ["bias", "y"], ["z"], "sum"),
    ]
    constants = {"w": weight, "bias": random.normal(0, 1, 4).astype(np.float32)}
    graph = onnx.helper.make_graph(
        nodes,
        "matrix",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, 8, 9, 6])],
        [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 8, 9, 4])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", 19)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    images = [random.integers(100, 255, (8, 9, 6), np.uint8) for _ in range(4)]
    ranges = set_ranges(collect(model, images), "minmax", {})
    errors = []
    for exact, coarse in zip(
        answers(model, images), answers(quantize(model, ranges, "int8", []), images), strict=True
    ):
        errors.append((coarse - exact).mean((0, 1, 2)))
    places, steps = quantized_weights(weight, axis=1)
    lost = (weight - places * steps).T @ np.mean(images, axis=(0, 1, 2))
    assert np.abs(np.mean(errors, axis=0)).max() < 0.1 * np.abs(lost).max()
