"""FP16 where it holds, float32 where a value or a sum would leave float16, and a report of it."""

from __future__ import annotations

import copy
import json
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.cli import main
from icnet_deploy.errors import CheckFailed
from icnet_deploy.export.check import Samples
from icnet_deploy.export.headroom import Probe, examine
from icnet_deploy.export.passes import finite_check, rounded, to_half
from icnet_deploy.images import write_image
from icnet_deploy.networks.checkpoint import SHIPPED, load_checkpoint, save_checkpoint

SCALE = 2.0**17  # a power of two: the scaled network computes the very same numbers


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def run(model, image):
    (output,) = model.graph.output
    return session(model).run([output.name], {"image": image[None]})[0]


def as_a_gpu(model, image):
    """The answer with every float16 value rounded, which CPUs leave out."""
    model = copy.deepcopy(model)
    assert rounded(model)
    onnx.checker.check_model(model, full_check=True)
    return run(model, image)


def look(model, *images, area=None):
    probe = Probe(model, area)
    for image in images:
        probe.look(image)
    return examine(model, probe)


@pytest.fixture(scope="module")
def loud(artefact):
    """The shipped network with a layer that leaves float16, and the next layer undoing it."""
    model = onnx.load(artefact("logits"))
    name = "network.conv4_2._{}.conv.weight".format
    scales = {name("3x3"): SCALE, name("3x3") + "_bias": SCALE, name("1x1_increase"): 1 / SCALE}
    for tensor in model.graph.initializer:
        if scale := scales.pop(tensor.name, None):
            values = numpy_helper.to_array(tensor) * np.float32(scale)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert not scales
    return model


def test_a_network_that_overflows_is_kept_whole_where_it_does(artefact, loud, scene):
    whole = run(loud, scene)
    assert np.abs(whole - run(onnx.load(artefact("logits")), scene)).max() < 1e-4
    plain = copy.deepcopy(loud)
    to_half(plain)
    assert not np.isfinite(as_a_gpu(plain, scene)).any()

    report = look(loud, scene)
    assert {node.layer for node in report.kept} == {"conv4_2._3x3", "conv4_2._1x1_increase"}
    assert [node.op for node in report.kept] == ["Conv", "Relu", "Conv"]
    assert "its output reaches" in str(report)
    half = copy.deepcopy(loud)
    to_half(half, [node.node for node in report.kept])
    onnx.checker.check_model(half, full_check=True)  # which wants the nodes sorted, too
    answer = as_a_gpu(half, scene)
    assert (answer.argmax(1) == whole.argmax(1)).mean() > 0.99
    assert np.abs(answer - whole).max() < 0.02 * np.abs(whole).max()
    # Three nodes in float32 are one island: one cast in, one cast out, none between.
    casts = [n for n in half.graph.node if n.op_type == "Cast"]
    assert len(casts) == len([n for n in plain.graph.node if n.op_type == "Cast"]) + 2
    assert half.ByteSize() < 0.6 * loud.ByteSize()


def test_tensorrt_rtx_builds_what_is_partly_float32(loud, scene):
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    half = copy.deepcopy(loud)
    to_half(half, [node.node for node in look(loud, scene).kept])
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(half.SerializeToString()), parser.get_error(0)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    shape = (1, *scene.shape)
    profile.set_shape("image", shape, shape, shape)
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


def graph(nodes, constants=(), output="y"):
    """A model from `image` (uint8 1 x H x W x 3) over `x` (float 1 x 3 x H x W) to y."""
    start = [
        helper.make_node("Cast", ["image"], ["cast"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["x"], name="transpose", perm=[0, 3, 1, 2]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "H", "W", 3])
    y = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    arrays = [numpy_helper.from_array(np.asarray(v), k) for k, v in dict(constants).items()]
    made = helper.make_graph([*start, *nodes], "g", [image], [y], arrays)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def bright(height, width):
    return np.full((height, width, 3), 200, np.uint8)


def test_a_pool_is_kept_for_the_sum_inside_it():
    def pool(side):
        return graph([helper.make_node("AveragePool", ["x"], ["y"], "pool", kernel_shape=side)])

    (kept,) = look(pool([33, 65]), bright(33, 65)).kept  # a mean of 200, a sum of 429,000
    assert (kept.node, kept.largest) == ("pool", pytest.approx(200))
    assert kept.largest_sum == pytest.approx(33 * 65 * 200)
    assert "its inner sum reaches 4.29e+05" in kept.reasons[0]
    assert look(pool([8, 8]), bright(33, 65)).kept == ()


def test_a_convolution_is_kept_for_sums_that_cancel():
    weight = np.array([[[[100.0]], [[-100.0]], [[0.0]]]], np.float32)
    model = graph(
        [helper.make_node("Conv", ["x", "a.weight"], ["y"], "conv")], {"a.weight": weight}
    )
    (kept,) = look(model, bright(8, 8)).kept
    assert (kept.largest, kept.largest_sum, kept.layer) == (0, 40000, "a")


def test_a_mean_is_judged_at_the_largest_size():
    axes = {"axes": np.array([2, 3], np.int64)}
    model = graph([helper.make_node("ReduceMean", ["x", "axes"], ["y"], "mean")], axes)
    image = bright(8, 8)
    assert look(model, image).kept == ()  # 12,800
    assert [n.node for n in look(model, image, area=16 * 8).kept] == ["mean"]  # 25,600 of 16,376


SUMMED = {
    "GlobalAveragePool": (["x"], {}, 200 * 64),
    "ReduceSum": (["x", "axes"], {"axes": np.array([2, 3])}, 200 * 64),
    "ConvTranspose": (["x", "a.weight"], {"a.weight": np.full((3, 1, 1, 1), 50, "f4")}, 30_000),
}


@pytest.mark.parametrize("kind", SUMMED)
def test_each_operator_that_adds_up_is_measured_inside(kind):
    inputs, constants, total = SUMMED[kind]
    model = graph([helper.make_node(kind, inputs, ["y"], "node")], constants)
    report = look(model, bright(8, 8))
    assert report.nodes[-1].largest_sum == pytest.approx(total)
    assert ["node"] * (total > 65504 / 4) == [node.node for node in report.kept]


def test_the_largest_image_counts():
    model = graph([helper.make_node("Mul", ["x", "s"], ["y"], "mul")], {"s": np.float32([300])})
    dark = np.ones((8, 8, 3), np.uint8)
    assert look(model, dark).kept == ()
    report = look(model, dark, bright(16, 8), dark)
    assert [n.node for n in report.kept] == ["mul"]
    assert (report.images, report.sizes) == (3, ((8, 8), (16, 8)))


def test_what_is_too_small_is_counted_and_kept():
    tiny = np.full((2, 3, 1, 1), 1e-6, np.float32)
    tiny[0, 0], tiny[0, 1], tiny[1] = 0, 1e-9, 1.0
    nodes = [helper.make_node("Conv", ["x", "a.weight"], ["y"], "conv")]
    (_, _, conv) = look(graph(nodes, {"a.weight": tiny}), bright(8, 8)).nodes
    assert (conv.weights.count, conv.weights.subnormal, conv.weights.vanishing) == (6, 2, 1)
    assert conv.weights.worst_kernel == 0
    # 1e-6 is 16.8 steps of 2^-24, written as 17; 1e-9 is written as one whole step.
    lost = np.hypot(17 * 2**-24 - 1e-6, 2**-24 - 1e-9) / np.hypot(1e-6, 1e-9)
    assert conv.weights.worst_lost == pytest.approx(lost, rel=0.01)
    assert conv.reasons == ()  # the layer as a whole loses nothing
    (_, _, conv) = look(graph(nodes, {"a.weight": tiny[:1]}), bright(8, 8)).nodes
    assert "of its norm" in conv.reasons[0]


def test_a_tensor_of_nothing_but_subnormal_values_is_kept():
    small = {"s": np.float32([1e-8]), "t": np.float32([1e8])}
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["small"], "down"),
        helper.make_node("Mul", ["small", "t"], ["y"], "up"),
    ]
    report = look(graph(nodes, small), bright(8, 8))
    assert [n.node for n in report.kept] == ["down", "up"]
    assert "float16 cannot hold" in report.kept[1].reasons[-1]
    half = graph(nodes, small)
    to_half(half, ["down", "up"])
    assert as_a_gpu(half, bright(8, 8)) == pytest.approx(200, rel=1e-3)
    assert half.graph.output[0].name == "y"


def test_rounded_rounds_what_is_half_and_nothing_else():
    tenth = {"s": np.float32([0.1])}
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["a"], "whole"),
        helper.make_node("Mul", ["a", "a"], ["y"], "half"),
    ]
    model = graph(nodes, tenth)
    exact = run(model, bright(8, 8))
    assert not rounded(copy.deepcopy(model))
    to_half(model, ["whole"])
    value = np.float16(np.float32(200) * np.float32(0.1))
    assert as_a_gpu(model, bright(8, 8)) == pytest.approx(float(value * value), abs=0)
    model = graph(nodes, tenth)
    to_half(model)
    value = np.float16(200) * np.float16(0.1)
    assert as_a_gpu(model, bright(8, 8)) == pytest.approx(float(value * value), abs=0)
    assert exact == pytest.approx(400, rel=1e-6)


def test_values_that_are_not_finite_are_refused():
    model = graph([helper.make_node("Log", ["x"], ["y"], "log")])
    with pytest.raises(CheckFailed, match="not finite even in float32"):
        look(model, np.zeros((8, 8, 3), np.uint8))


def test_one_value_that_is_not_a_number_is_found():
    """ONNX Runtime's largest and smallest values leave it out."""
    model = graph([helper.make_node("Sqrt", ["d"], ["y"], "root")])
    model.graph.node.insert(2, helper.make_node("Sub", ["x", "c"], ["d"], "less"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32([100]), "c"))
    image = bright(8, 8)
    assert look(model, image).images == 1
    image[3, 4, 1] = 99
    with pytest.raises(CheckFailed, match="y is not finite even in float32"):
        look(model, image)


def test_the_check_of_the_logits_is_not_judged(artefact, scene):
    """What it sums up is beyond float16 by design."""
    model = onnx.load(artefact("labels"))
    told = {n.node for n in look(model, scene).nodes}
    check = finite_check(model)
    assert len(check) == 3
    assert not told & set(check)
    assert len(told) > 100


def test_the_command_measures_tells_and_writes(loud, tmp_path, capsys):
    checkpoint = load_checkpoint(SHIPPED)
    state = checkpoint.network.state_dict()
    for name in ("_3x3.bn.weight", "_3x3.bn.bias"):
        state[f"conv4_2.{name}"] *= SCALE
    state["conv4_2._1x1_increase.conv.weight"] /= SCALE
    known = (checkpoint.network, checkpoint.label_set, checkpoint.preprocessing)
    save_checkpoint(tmp_path / "loud.safetensors", *known)
    out, told = tmp_path / "half.onnx", tmp_path / "headroom.json"
    write_image(tmp_path / "photo.png", bright(70, 80))
    argv = ["--weights", tmp_path / "loud.safetensors", "--size", "97x161", "--precision", "fp16"]
    argv += ["--image", tmp_path / "photo.png", "--headroom", told, "-o", out]
    assert main(["export", *map(str, argv)]) == 0
    printed = capsys.readouterr().out
    assert "kept in float32     3" in printed
    assert "Relu after conv4_2._3x3: its output reaches" in printed
    report = json.loads(told.read_text())
    assert (report["kind"], report["images"], report["sizes"]) == ("fp16-headroom", 3, [[97, 161]])
    assert [n["node"] for n in report["nodes"]] == [n.name for n in loud.graph.node]
    assert len(report["kept"]) == 3
    kinds = Counter(t.data_type for t in onnx.load(out).graph.initializer)
    assert kinds[TensorProto.FLOAT16] > 100


def test_the_report_is_refused_for_float32(tmp_path, capsys):
    argv = ["export", "-o", str(tmp_path / "a.onnx"), "--headroom", str(tmp_path / "a.json")]
    assert main(argv) == 2
    assert "needs the precision fp16" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_samples_are_loaded_two_at_a_time(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for index, path in enumerate(paths):
        write_image(path, np.full((70, 80, 3), index, np.uint8))
    samples = Samples([(64, 96), (96, 64)], paths)
    shapes = [[image.shape for image in batch] for batch in samples]
    assert shapes == [[(64, 96, 3)] * 2, [(96, 64, 3)] * 2, [(64, 96, 3)] * 2, [(64, 96, 3)]]
    assert [int(image.max()) for batch in list(samples)[2:] for image in batch] == [0, 1, 2]
