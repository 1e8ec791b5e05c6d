"""What `int8-ort` arranges computes what was there before."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.calibration.placements.registry import placement_of

SIZE = (9, 11)
CHANNELS = 4
RANDOM = np.random.default_rng(0)


def graph_of(nodes, shape=(1, CHANNELS, *SIZE), **constants):
    """A graph from `x` to `y` of these nodes."""
    values = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    ends = [
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "C", "H", "W"])],
    ]
    graph = helper.make_graph(nodes, "one", *ends, values)
    opset = [helper.make_opsetid("", 19)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9)


def answer(model):
    import onnxruntime

    x = np.random.default_rng(1).normal(0, 1, (1, CHANNELS, *SIZE)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})[0]


def check(model, gone):
    """That the placement rewrites an operator, and the answer stays."""
    before = answer(model)
    assert placement_of("int8-ort").arrange(model)
    onnx.checker.check_model(model)
    assert gone not in [node.op_type for node in model.graph.node]
    after = answer(model)
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, atol=1e-4)


@pytest.mark.parametrize("group", [1, 2, CHANNELS])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 2), (4, 4), (5, 3)])
def test_a_transposed_convolution_is_a_convolution_and_copies(kernel, group):
    for stride, pad, more, clipped in product((1, 2, 3), (0, 1, 2), (0, 1), (False, True)):
        if more >= stride or (clipped and kernel != (4, 4)):
            continue
        size = {"strides": [stride, 1 + stride // 2], "pads": [pad, 0, 1, pad], "group": group}
        size["output_padding"] = [more, 0]
        nodes = [helper.make_node("ConvTranspose", ["x", "w", "b"], ["up"], "up", **size)]
        nodes += [helper.make_node("Relu", ["up"], ["relu"])] if clipped else []
        nodes += [helper.make_node("Identity", [nodes[-1].output[0]], ["y"])]
        made = 6 // group if group < CHANNELS else 1  # by each group
        weight = RANDOM.normal(0, 1, (CHANNELS, made, *kernel)).astype(np.float32)
        bias = RANDOM.normal(0, 1, made * group).astype(np.float32)
        check(graph_of(nodes, w=weight, b=bias), "ConvTranspose")


@pytest.mark.parametrize(
    "attribute", [{"dilations": [2, 2]}, {"auto_pad": "SAME_UPPER"}, {"output_shape": [17, 21]}]
)
def test_of_another_form_it_stays(attribute):
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], "up", strides=[2, 2], **attribute)
    model = graph_of([node], w=np.ones((CHANNELS, 2, 3, 3), np.float32))
    assert not placement_of("int8-ort").arrange(model)


def around(node, **constants):
    """An operator between two convolutions."""
    weight = RANDOM.normal(0, 1, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["first"], "first"),
        node,
        helper.make_node("Conv", [node.output[0], "w2"], ["y"], "last"),
    ]
    return graph_of(nodes, w1=weight, w2=weight, **constants)


RESIZES = [("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")]


@pytest.mark.parametrize(("coordinates", "rounding"), RESIZES)
def test_repeated_pixels_are_gathered(coordinates, rounding):
    for factors in ((2, 2), (3, 1), (4, 2)):
        how = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
        node = helper.make_node("Resize", ["first", "", "s"], ["up"], mode="nearest", **how)
        check(around(node, s=np.float32([1, 1, *factors])), "Resize")
        sizes = np.int64([1, CHANNELS, SIZE[0] * factors[0], SIZE[1] * factors[1]])
        node = helper.make_node("Resize", ["first", "", "", "s"], ["up"], mode="nearest", **how)
        check(around(node, s=sizes), "Resize")


@pytest.mark.parametrize("scales", [[1, 1, 1.5, 2], [1, 1, 0.5, 0.5]])
def test_what_repeats_no_pixels_stays(scales):
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    node = helper.make_node("Resize", ["first", "", "s"], ["up"], mode="nearest", **how)
    assert not placement_of("int8-ort").arrange(around(node, s=np.float32(scales)))


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
def test_pixels_are_shuffled(mode):
    node = helper.make_node("DepthToSpace", ["first"], ["pixels"], blocksize=2, mode=mode)
    model = around(node)
    weight = RANDOM.normal(0, 1, (CHANNELS, 1, 1, 1)).astype(np.float32)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(weight, "w2"))
    check(model, "DepthToSpace")


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]])
def test_an_average_pool_is_a_depthwise_convolution(pads):
    size = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": pads, "count_include_pad": 1}
    check(around(helper.make_node("AveragePool", ["first"], ["pool"], **size)), "AveragePool")


@pytest.mark.parametrize(
    "size",
    [
        {"kernel_shape": [5, 5], "strides": [4, 4], "pads": [2, 2, 2, 2]},  # makes few pixels
        {"kernel_shape": [7, 7], "pads": [3, 3, 3, 3]},  # takes many
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ],
)
def test_one_that_counts_its_border_always_is(size):
    node = helper.make_node("AveragePool", ["first"], ["pool"], count_include_pad=1, **size)
    model = around(node)
    model.graph.node[-1].op_type = "Tanh"  # whether 8 bits follow or not
    del model.graph.node[-1].input[1:]
    check(model, "AveragePool")


@pytest.mark.parametrize("more", [{}, {"pads": [1, 2, 1, 2], "count_include_pad": 1}])
def test_one_with_dilations_is_however_few_pixels_it_makes(more):
    """ONNX Runtime makes an integer pool of any between 8 bits, and then does not know the word."""
    size = {"kernel_shape": [2, 3], "dilations": [3, 2], "strides": [2, 2], **more}
    check(around(helper.make_node("AveragePool", ["first"], ["pool"], **size)), "AveragePool")


@pytest.mark.parametrize(
    "size", [{"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, {"kernel_shape": [4, 6]}]
)
def test_one_that_leaves_out_its_border_or_makes_few_pixels_stays(size):
    node = helper.make_node("AveragePool", ["first"], ["pool"], **size)
    assert not placement_of("int8-ort").arrange(around(node))


def test_a_batch_normalization_is_a_depthwise_convolution():
    names = ["scale", "shift", "mean", "variance"]
    values = {name: np.linspace(0.5, 2, CHANNELS, dtype=np.float32) for name in names}
    node = helper.make_node("BatchNormalization", ["first", *names], ["bn"], epsilon=1e-3)
    check(around(node, **values), "BatchNormalization")


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_a_mean_of_all_pixels_is_a_pool(axes):
    node = helper.make_node("ReduceMean", ["first", "axes"], ["mean"], keepdims=1)
    check(around(node, axes=np.int64(axes)), "ReduceMean")
