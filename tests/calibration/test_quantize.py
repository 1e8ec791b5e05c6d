"""8-bit graphs: the same network, pairs where the contract wants them, and what it costs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from icnet_deploy.calibration.calibrate import collect, open_session
from icnet_deploy.calibration.equalize import equalized
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.quantize import bias_shift, quantize, quantized_weights
from icnet_deploy.errors import InputError

INT8 = PLACEMENTS["int8"]


def answers(model, images):
    session = open_session(model)
    return [session.run(None, {"image": image[None]})[0] for image in images]


def as_written(model, image):
    """Every operator by itself: which are fused decides how sums are rounded."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"image": image[None]})[0]


def test_every_image_given_is_used(float_file, images, calibration):
    assert {found.images for found in calibration.statistics.values()} == {12}
    one = collect(onnx.load(float_file), list(images)[:1])
    assert {found.images for found in one.values()} == {1}


def test_the_scaled_graph_is_the_same_function(float_file, images, calibration):
    model = onnx.load(float_file)
    assert len(calibration.factors) > 40
    changed = equalized(model, calibration.factors)
    for ours, theirs in zip(answers(changed, images), answers(model, images), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_the_mean_is_the_same_after_the_resize(float_file, images):
    model = onnx.load(float_file)
    order = [n.name for n in model.graph.node]
    before = answers(model, images)
    assert INT8.arrange(model)
    onnx.checker.check_model(model, full_check=True)
    assert [n.name for n in model.graph.node if n.name in order] == order  # it says what fuses
    for ours, theirs in zip(answers(model, images), before, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert not INT8.arrange(model)


def test_of_another_layout_the_mean_stays_where_it_is(float_file):
    model = onnx.load(float_file)
    nodes = {n.op_type: n for n in model.graph.node if n.op_type in ("Sub", "Transpose")}
    nodes["Sub"].op_type, nodes["Transpose"].op_type = "Transpose", "Sub"
    assert not INT8.arrange(model)


def test_rounding_before_the_max_pool_changes_no_bit(quantized, images):
    model = onnx.ModelProto.FromString(quantized("int8").SerializeToString())
    graph = Graph(model)
    [pool] = graph.nodes("MaxPool")
    dequantize = graph.producers[pool.input[0]]
    assert dequantize.op_type == "DequantizeLinear"
    image = next(iter(images))
    before = as_written(model, image)
    pool.input[0] = graph.producers[dequantize.input[0]].input[0]
    assert as_written(model, image).tobytes() == before.tobytes()


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_labels_are_nearly_those_of_float32(placement, float_file, images, quantized):
    model = onnx.load(float_file)
    same = [
        (a.argmax(1) == b.argmax(1)).mean()
        for a, b in zip(answers(quantized(placement), images), answers(model, images), strict=True)
    ]
    assert 0.98 < np.mean(same) < 1  # 1 would say that nothing was quantized


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_weights_are_int8_and_the_ends_of_the_graph_float(placement, float_file, quantized):
    model = quantized(placement)
    graph = Graph(model)
    kept = Graph(onnx.load(float_file)).float_layers()
    assert kept == ("conv1_1_3x3_s2", "conv6_cls")
    in_float = [graph.layer(c) for c in graph.convolutions()]
    assert sorted(in_float) == sorted(kept)
    kinds = {n: numpy_helper.to_array(t).dtype for n, t in graph.constants.items()}
    whole = [n for n, kind in kinds.items() if n.endswith("weight_q") and kind == np.int8]
    assert len(whole) == len(graph.nodes("Conv")) - len(kept)
    assert model.ByteSize() < 0.3 * float_file.stat().st_size


def test_int8_is_symmetric_with_pairs_on_inputs_and_skips_only(quantized):
    graph = Graph(quantized("int8"))
    for node in graph.nodes("QuantizeLinear"):
        zero = numpy_helper.to_array(graph.constants[node.input[2]])
        assert zero == 0
        assert zero.dtype == np.int8
    made = {n.output[0] for n in graph.nodes("Conv") if graph.only_reader(n.output[0])}
    sums = [n for n in graph.nodes("Add") if made.intersection(n.input)]
    through = [[name.endswith("_dq") for name in n.input].count(True) for n in sums]
    assert through == [1] * 18  # of 16 bottlenecks and 2 CFFs
    for node in graph.nodes("Conv"):
        assert graph.readers[node.output[0]][0].op_type in (
            "Relu",
            "Add",
            "QuantizeLinear",
            "Resize",  # the classifier
            "AveragePool",  # conv5_4_k1
        )
        assert not node.input[2].endswith("_dq")  # no bias is quantized


def test_int8_ort_finds_integer_kernels_for_all_but_the_ends(quantized, tmp_path):
    """What ONNX Runtime makes of the file: the operators that it runs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(quantized("int8-ort").SerializeToString(), options)
    ran = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert ran.count("QLinearConv") == len(Graph(quantized("int8-ort")).nodes("Conv")) - 2
    assert ran.count("QLinearAdd") == 18


def test_a_block_can_stay_in_float(float_file, calibration):
    model, ranges = onnx.load(float_file), calibration.ranges()
    graph = Graph(quantize(model, ranges, "int8", ["conv5_1", "conv_sub4"]))
    names = {graph.layer(c) for c in graph.convolutions()}
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
    shift = bias_shift(weight, places, steps, x.mean(1))
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
