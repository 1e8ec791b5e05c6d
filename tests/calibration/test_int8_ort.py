"""Which operators ONNX Runtime works out in 8 bits, given the pairs that `int8-ort` places.

Each stands between two convolutions. What the runtime makes of the file says whether 8 bits reach
through: one QuantizeLinear before the first convolution, one DequantizeLinear before the last.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.calibration.calibrate import calibrate, open_session
from icnet_deploy.calibration.placements.registry import placement_of
from icnet_deploy.calibration.products import products
from icnet_deploy.calibration.quantize import quantize

SIZE = (12, 16)
CHANNELS = 8


class Net:
    """A graph of an image; each node's output has its name."""

    def __init__(self):
        self.nodes, self.constants = [], []
        self.random = np.random.default_rng(0)
        pixels = self.node("Cast", "cast", "image", to=TensorProto.FLOAT)
        centred = self.node("Sub", "centred", pixels, self.constant("grey", np.float32(128)))
        self.node("Transpose", "planes", centred, perm=[0, 3, 1, 2])
        self.conv("first", "planes", 3)

    def node(self, kind, name, *inputs, outputs=None, **attributes):
        made = outputs or [name]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name, **attributes))
        return name

    def constant(self, name, value):
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def whole(self, name, *values):
        return self.constant(name, np.int64(values))

    def normal(self, name, *shape, spread=1.0):
        return self.constant(name, self.random.normal(0, spread, shape).astype(np.float32))

    def conv(self, name, image, channels=CHANNELS, kernel=3, outputs=CHANNELS, **attributes):
        shape = (outputs, channels // attributes.get("group", 1), kernel, kernel)
        weight = self.normal(f"{name}.weight", *shape, spread=np.sqrt(1 / np.prod(shape[1:])))
        bias = self.normal(f"{name}.bias", outputs, spread=0.1)
        attributes = {"pads": [kernel // 2] * 4, **attributes}
        return self.node("Conv", name, image, weight, bias, **attributes)

    def model(self, last, channels=CHANNELS, kernel=1, inputs=CHANNELS):
        """With one more convolution in 8 bits, and one in float if it is of one pixel."""
        second = self.conv("second", last, channels, outputs=inputs)
        self.conv("classifier", second, inputs, kernel=kernel, outputs=4)
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *SIZE, 3])
        logits = helper.make_tensor_value_info("classifier", TensorProto.FLOAT, ["N", 4, "h", "w"])
        graph = helper.make_graph(self.nodes, "net", [image], [logits], self.constants)
        opset = [helper.make_opsetid("", 19)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        onnx.checker.check_model(model)
        return model


def hard_swish(n):
    return n.node("HardSwish", "swish", "first")


def hard_swish_of_little(n):
    small = n.node("Mul", "small", "first", n.constant("by", np.float32(0.002)))
    return n.node("HardSwish", "swish", small)


def hard_gate(n):
    mean = n.node("ReduceMean", "mean", "first", n.whole("axes", 2, 3), keepdims=1)
    gate = n.node("HardSigmoid", "gate", n.conv("squeeze", mean, kernel=1), alpha=1 / 6, beta=0.5)
    return n.node("Mul", "gated", "first", gate)


def gate(n):
    mean = n.node("GlobalAveragePool", "mean", "first")
    return n.node("Mul", "gated", n.node("Sigmoid", "gate", n.conv("squeeze", mean)), "first")


def relu6(n):
    ends = [n.constant("low", np.float32(0)), n.constant("high", np.float32(0.5))]
    return n.node("Clip", "relu6", "first", *ends)


def relu_of_what_others_read(n):
    return n.node("Add", "sum", "first", n.node("Relu", "relu", "first"))


def leaky_relu(n):
    return n.node("LeakyRelu", "leaky", "first", alpha=0.1)


def prelu(n, lowest=0.0, highest=1.0):
    slopes = np.linspace(lowest, highest, CHANNELS)
    slopes = n.constant("slopes", np.float32(slopes).reshape(-1, 1, 1))
    return n.node("PRelu", "prelu", "first", slopes)


def prelu_of_any_slopes(n):
    return prelu(n, -0.5, 1.5)


def prelu_of_one_slope(n):
    return prelu(n, 0.25, 0.25)


def concat(n):
    loud = n.node("Mul", "loud", n.conv("other", "first"), n.constant("by", np.float32(3)))
    return n.node("Concat", "joined", "first", n.node("Relu", "relu", loud), loud, axis=1)


def concat_of_what_nothing_else_reads(n):
    relu = n.node("Relu", "relu", n.conv("other", "first"))
    return n.node("Concat", "joined", relu, n.conv("third", "first"), axis=1)


def repeated(n):
    scales = n.constant("scales", np.float32([1, 1, 2, 3]))
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return n.node("Resize", "large", "first", "", scales, mode="nearest", **how)


def average_pool(n):
    size = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    return n.node("AveragePool", "pool", "first", count_include_pad=1, **size)


def padded(n, name="padded", *how, **attributes):
    sides = n.whole(f"{name}_by", 0, 0, 2, 1, 0, 0, 2, 1)
    return n.node("Pad", name, "first", sides, *how, **attributes)


def padded_otherwise(n):
    parts = [padded(n, "mirrored", mode="reflect"), padded(n, "edged", mode="edge")]
    zero, axes = n.constant("nought", np.float32(0)), n.whole("axes", 2, -1)
    sides = n.node("Pad", "sides", "first", n.whole("by", 2, 1, 2, 1), zero, axes)
    one = n.node("Add", "one", padded(n, "zero", zero), sides)
    return n.node("Add", "three", one, n.node("Add", "two", *parts))


def max_pool(n):
    return n.node("MaxPool", "pool", "first", kernel_shape=[2, 2], strides=[2, 2])


def normalization(n):
    names = [n.normal(f"bn.{name}", CHANNELS) for name in ("weight", "bias", "mean")]
    names.append(n.constant("bn.var", np.linspace(0.1, 2, CHANNELS, dtype="f")))
    return n.node("BatchNormalization", "bn", "first", *names)


def transposed(n, group=1):
    weight = n.normal("up.weight", CHANNELS, CHANNELS // group, 3, 3, spread=0.2)
    size = {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1], "group": group}
    up = n.node("ConvTranspose", "up", "first", weight, n.normal("up.bias", CHANNELS), **size)
    return n.node("Relu", "relu", up)


def transposed_in_groups(n):
    return transposed(n, CHANNELS)


def pixel_shuffle(n, mode="CRD"):
    up = n.conv("up", "first", outputs=4 * CHANNELS)
    return n.node("DepthToSpace", "pixels", up, blocksize=2, mode=mode)


def depth_to_space(n):
    return pixel_shuffle(n, "DCR")


def moved(n):
    axes = [n.whole(name, value) for name, value in (("from", 2), ("to", 10), ("axis", 2))]
    part = n.node("Slice", "slice", "first", *axes)
    halves = n.node("Split", "split", part, outputs=["upper", "lower"], num_outputs=2, axis=2)
    assert halves
    return n.node("Add", "sum", "upper", "lower")


def shifted(n):
    return n.node("Add", "sum", "first", n.normal("by", 1, CHANNELS, 1, 1))


def product_of_two(n):
    return n.node("Mul", "product", "first", n.node("Sigmoid", "sigmoid", n.conv("other", "first")))


def matrices(n):
    rows = n.node("Reshape", "rows", "first", n.whole("shape", 0, CHANNELS, -1))
    last = n.node("Transpose", "last", rows, perm=[0, 2, 1])
    product = n.node("MatMul", "product", last, n.normal("matrix", CHANNELS, CHANNELS))
    back = n.node("Transpose", "back", product, perm=[0, 2, 1])
    return n.node("Reshape", "image_again", back, n.whole("shape2", 0, CHANNELS, *SIZE))


CASES = {
    hard_swish: {"Clip": 1, "QLinearMul": 1},
    hard_swish_of_little: {"QLinearAdd": 1, "QLinearMul": 2},
    hard_gate: {"QLinearGlobalAveragePool": 1, "QLinearAdd": 1, "QLinearMul": 1},
    gate: {"QLinearGlobalAveragePool": 1, "QLinearSigmoid": 1, "QLinearMul": 1},
    relu6: {},
    relu_of_what_others_read: {"Clip": 1, "QLinearAdd": 1},
    leaky_relu: {"QLinearLeakyRelu": 1},
    prelu: {"QLinearMul": 2, "Max": 1},
    prelu_of_any_slopes: {"QLinearMul": 1, "QLinearAdd": 1, "Clip": 1},
    prelu_of_one_slope: {"QLinearLeakyRelu": 1},
    concat: {"QLinearConcat": 1, "QLinearMul": 1},
    concat_of_what_nothing_else_reads: {"QLinearConcat": 1},
    repeated: {"Gather": 2},
    average_pool: {"QLinearConv": 3},
    padded: {"Pad": 1},
    padded_otherwise: {"Pad": 3},  # two of them are the same
    max_pool: {},
    normalization: {"QLinearConv": 3},
    transposed: {"QLinearConv": 3},
    transposed_in_groups: {"QLinearConv": 6},
    pixel_shuffle: {"QLinearConv": 3},
    depth_to_space: {"QLinearConv": 3},
    moved: {"Slice": 1, "Split": 1, "QLinearAdd": 1},
    shifted: {"QLinearAdd": 1},
    product_of_two: {"QLinearSigmoid": 1, "QLinearMul": 1},
    matrices: {"QLinearMatMul": 1},
}
"""What makes the graph -> some of the operators that the runtime runs."""


class Images(list):
    """Noise that stands for a `CalibrationSet`."""

    hashes = ("0" * 64, "1" * 64)

    def first(self, count):
        return self[:count]


IMAGES = Images(
    np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8) for seed in (1, 2)
)


def optimized(model, path):
    """The operators that the runtime runs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def decibels(model, other):
    """How far the answers of two graphs to the images are apart."""
    answers = []
    for one in (model, other):
        session = open_session(one)
        answers.append([session.run(None, {"image": i[None]})[0] for i in IMAGES])
    exact, ours = map(np.array, answers)
    return 10 * np.log10(np.square(exact).sum() / np.square(ours - exact).sum())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_is_worked_out_in_8_bits(case, tmp_path):
    net = Net()
    last = case(net)
    channels = {"concat": 3, "concat_of_what_nothing_else_reads": 2}.get(case.__name__, 1)
    model = net.model(last, channels * CHANNELS)
    ranges = calibrate(model, IMAGES, "0" * 64).ranges("minmax")
    ours = quantize(model, ranges, "int8-ort")
    ran = optimized(ours, tmp_path / "optimized.onnx")
    assert (ran["QuantizeLinear"], ran["DequantizeLinear"], ran["Conv"]) == (1, 1, 1), ran
    assert ran.items() >= CASES[case].items(), ran
    assert decibels(model, ours) > 22
    floats = products(ours).float_layers()
    assert list(floats) == ["classifier"]


@pytest.mark.parametrize(
    ("placement", "kernel", "inputs", "wide", "kept"),
    [
        ("int8-ort", 1, 8, 8, ["classifier"]),
        ("int8-ort", 3, 8, 8, ["classifier"]),  # 72 terms
        ("int8-ort", 3, 16, 8, []),  # 144 terms
        ("int8-ort", 3, 16, 4096, ["classifier"]),  # less than 0.15 % of the products
        ("int8", 3, 16, 8, ["classifier"]),
        ("int8-ort", 1, 256, 8, []),
        ("int8", 1, 256, 8, []),
    ],
)
def test_a_classifier_that_takes_long_in_float_is_in_8_bits(placement, kernel, inputs, wide, kept):
    net = Net()
    last = net.conv("wide", net.conv("body", "first", outputs=wide), channels=wide)
    model = net.model(last, kernel=kernel, inputs=inputs)
    ours = quantize(model, calibrate(model, IMAGES, "0" * 64).ranges("minmax"), placement)
    assert list(products(ours).float_layers()) == kept
    assert not placement_of(placement).unknown(model)


def test_what_has_no_integer_kernel_is_named():
    net = Net()
    odd = net.node("Tanh", "tanh", net.node("Softmax", "softmax", transposed(net), axis=1))
    up = net.node(
        "ConvTranspose", "odd", odd, net.normal("odd.weight", CHANNELS, 8, 3, 3), dilations=[2, 2]
    )
    unknown = placement_of("int8-ort").unknown(net.model(up))
    assert unknown == {"Softmax": 1, "Tanh": 1, "ConvTranspose": 1}
    assert not placement_of("int8-ort").unknown(Net().model("first"))


def test_what_pads_by_others_than_zeros_stays_in_float(tmp_path):
    net = Net()
    model = net.model(padded(net, "padded", net.constant("one", np.float32(1))))
    ours = quantize(model, calibrate(model, IMAGES, "0" * 64).ranges("minmax"), "int8-ort")
    ran = optimized(ours, tmp_path / "optimized.onnx")
    assert (ran["QuantizeLinear"], ran["Pad"]) == (2, 1)
    assert decibels(model, ours) > 22


def filled(n):
    """A border that a max pool takes out again."""
    return padded(n, "filled", n.constant("lowest", np.float32(-1e9)))


def filled_and_moved(n):
    return n.node("Identity", "moved", filled(n))


def filled_and_joined(n):
    return n.node("Concat", "joined", filled(n), padded(n, "zeros"), axis=1)


def two_pools_of_one_that_is_filled(n):
    small = n.node("MaxPool", "small", filled(n), kernel_shape=[5, 3])
    large = n.node("MaxPool", "large", "filled", kernel_shape=[7, 3], pads=[1, 0, 1, 0])
    return n.node("Add", "sum", n.conv("of_small", small), n.conv("of_large", large))


@pytest.mark.parametrize(
    "case", [filled, filled_and_moved, filled_and_joined, two_pools_of_one_that_is_filled]
)
def test_a_value_that_a_max_pool_takes_out_is_on_no_grid(case):
    """It was: all others were one place of it."""
    net = Net()
    pool = net.node("MaxPool", "pool", case(net), kernel_shape=[3, 3], strides=[2, 2])
    last = net.conv("behind", pool, (1 + (case is filled_and_joined)) * CHANNELS)
    model = net.model(last)
    ranges = calibrate(model, IMAGES, "0" * 64).ranges("minmax")
    ours = quantize(model, ranges, "int8-ort")
    assert decibels(model, ours) > 22


def test_what_a_clip_cuts_off_has_no_places():
    net = Net()
    ends = [net.constant("low", np.float32(0.2)), net.constant("high", np.float32(3))]
    turned = net.node("Transpose", "turned", "first", perm=[0, 1, 3, 2])
    model = net.model(net.node("Clip", "clip", turned, *ends))
    ours = quantize(model, calibrate(model, IMAGES, "0" * 64).ranges("minmax"), "int8-ort")
    scale = {one.name: one for one in ours.graph.initializer}["first_scale"]
    np.testing.assert_allclose(numpy_helper.to_array(scale), 3 / 255, rtol=1e-6)
    assert decibels(model, ours) > 28
