"""What folds into convolutions leaves the answers as they were; what would not be exact stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.export.passes import fold_batch_norms, fold_input

make = helper.make_node
RANDOM = np.random.default_rng(0)
SCALE = np.array([0.017, 0.02, 0.03], np.float32).reshape(1, 3, 1, 1)
MEAN = np.array([100.0, 110.0, 120.0], np.float32).reshape(1, 3, 1, 1)
ORDER = np.array([2, 1, 0])
KERNEL = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)

FRONT = [
    make("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
    make("Transpose", ["cast"], ["turned"], perm=[0, 3, 1, 2]),
    make("Sub", ["turned", "mean"], ["centred"]),
    make("Mul", ["centred", "scale"], ["scaled"]),
    make("Gather", ["scaled", "order"], ["x"], axis=1),
]


def graph(nodes, outputs, **constants):
    """A model from `image` over `x`, scaled and turned round, to the outputs."""
    known = {"mean": MEAN, "scale": SCALE, "order": ORDER, "w": KERNEL} | constants
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])
    values = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in known.items()]
    made = helper.make_graph([*FRONT, *nodes], "g", [image], values, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def run(model, size=(17, 22)):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    image = np.random.default_rng(1).integers(0, 256, (2, *size, 3), np.uint8)
    return session.run(None, {"image": image})


def kinds(model):
    return [n.op_type for n in model.graph.node]


def conv(source, out, kernel="w", **how):
    return make("Conv", [source, kernel], [out], pads=[1, 1, 1, 1], **how)


HALVED = make(
    "Resize",
    ["x", "", "halves"],
    ["half"],
    mode="linear",
    coordinate_transformation_mode="half_pixel",
)
HALVES = np.array([1, 1, 0.5, 0.5], np.float32)
PADDED = make("Pad", ["x", "pads"], ["padded"])
PADS = np.array([0, 0, 0, 1, 0, 0, 2, 0])

FOLDED = {
    "one convolution": ([conv("x", "y", strides=[2, 2])], ["y"], {}),
    "two, one of which others share a kernel with": (
        [conv("x", "a"), conv("x", "b"), make("Relu", ["w"], ["c"])],
        ["a", "b", "c"],
        {},
    ),
    "through a resize and a pool, and another asks for the size": (
        [
            HALVED,
            make("AveragePool", ["half"], ["pool"], kernel_shape=[2, 2]),
            conv("pool", "a"),
            conv("x", "b"),
            make("Shape", ["x"], ["s"]),
            make("Cast", ["s"], ["c"], to=TensorProto.FLOAT),
        ],
        ["a", "b", "c"],
        {"halves": HALVES},
    ),
    "through a padding with zeros": ([PADDED, conv("padded", "y")], ["y"], {"pads": PADS}),
    "a factor and a divisor of the network's own": (
        [
            make("Mul", ["x", "two"], ["m"]),
            make("Div", ["m", "each"], ["d"]),
            conv("d", "y"),
        ],
        ["y"],
        {"two": np.float32(2), "each": SCALE},
    ),
}


@pytest.mark.parametrize("how", FOLDED)
def test_scale_and_order_go_into_every_convolution_that_reads_the_image(how):
    nodes, outputs, constants = FOLDED[how]
    model = graph(nodes, outputs, **constants)
    before = run(model)
    assert fold_input(model)
    onnx.checker.check_model(model, full_check=True)
    assert not {"Mul", "Div", "Gather"} & set(kinds(model))
    assert kinds(model)[:3] == ["Cast", "Transpose", "Sub"]
    for ours, theirs in zip(run(model), before, strict=True):
        assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()
    assert not fold_input(model)


def test_of_a_convolution_of_groups_the_scale_is_folded_and_the_order_stays():
    model = graph([conv("x", "y", "each", group=3)], ["y"], each=KERNEL[:3, :1])
    before = run(model)[0]
    assert not fold_input(model)  # the order lies behind the scale
    model.graph.node[4].CopyFrom(make("Identity", ["scaled"], ["x"]))
    model.graph.node[5].input[0] = "scaled"
    before = run(model)[0]
    del model.graph.node[4]
    assert fold_input(model)
    assert np.abs(run(model)[0] - before).max() <= 1e-6 * np.abs(before).max()


STAYS = {
    "joined to another map": [conv("x", "a"), make("Concat", ["a", "x"], ["y"], axis=1)],
    "a nonlinear reader": [make("Relu", ["x"], ["r"]), conv("r", "y")],
    "a padding with another number": [
        make("Pad", ["x", "pads", "two"], ["p"]),
        conv("p", "y"),
    ],
    "a padding at the edge": [make("Pad", ["x", "pads"], ["p"], mode="edge"), conv("p", "y")],
    "a kernel that is computed": [make("Relu", ["w"], ["v"]), conv("x", "y", "v")],
    "a resize beyond the image": [
        make(
            "Resize",
            ["x", "roi", "halves"],
            ["half"],
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=3.0,
        ),
        conv("half", "y"),
    ],
}


@pytest.mark.parametrize("why", STAYS)
def test_what_would_not_be_exact_stays(why):
    roi = np.array([0, 0, -0.2, 0, 1, 1, 1.2, 1], np.float32)
    model = graph(STAYS[why], ["y"], pads=PADS, two=np.float32(2), halves=HALVES, roi=roi)
    before = model.SerializeToString()
    assert not fold_input(model)
    assert model.SerializeToString() == before


def test_what_lies_behind_a_convolution_is_no_factor_of_the_image():
    model = graph([conv("x", "a"), make("Mul", ["a", "four"], ["b"]), conv("b", "y", "v")], ["y"])
    model.graph.initializer.append(numpy_helper.from_array(np.float32(4), "four"))
    kernel = RANDOM.normal(size=(2, 4, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(kernel, "v"))
    assert fold_input(model)
    assert kinds(model).count("Mul") == 1


NORM = ["gain", "shift", "mean2", "variance"]


def normed(count):
    gain, shift, mean = RANDOM.normal(size=(3, count)).astype(np.float32)
    return dict(zip(NORM, (gain, shift, mean, mean**2 + 0.1), strict=True))


@pytest.mark.parametrize("shape_asked", [False, True])
@pytest.mark.parametrize(
    ("kind", "weight", "how"),
    [
        ("Conv", (6, 3, 3, 3), {}),
        ("Conv", (6, 1, 3, 3), {"group": 3}),
        ("ConvTranspose", (3, 6, 2, 2), {"strides": [2, 2]}),
        ("ConvTranspose", (3, 2, 2, 2), {"strides": [2, 2], "group": 3}),
    ],
    ids=str,
)
def test_a_batch_norm_goes_into_the_convolution_before_it(kind, weight, how, shape_asked):
    nodes = [
        make(kind, ["x", "v", "b"], ["c"], **how),
        make("BatchNormalization", ["c", *NORM], ["y"], epsilon=1e-3),
    ]
    outputs = ["y"]
    if shape_asked:
        nodes += [make("Shape", ["c"], ["s"]), make("Cast", ["s"], ["z"], to=TensorProto.FLOAT)]
        outputs.append("z")
    kernel, bias = RANDOM.normal(size=weight), RANDOM.normal(size=6)
    constants = normed(6) | {"v": kernel.astype(np.float32), "b": bias.astype(np.float32)}
    model = graph(nodes, outputs, **constants)
    before = run(model)
    assert fold_batch_norms(model)
    onnx.checker.check_model(model, full_check=True)
    assert "BatchNormalization" not in kinds(model)
    for ours, theirs in zip(run(model), before, strict=True):
        assert np.abs(ours - theirs).max() <= 2e-6 * np.abs(theirs).max()
    assert not fold_batch_norms(model)


@pytest.mark.parametrize("why", ["read by another", "given out", "nothing before it"])
def test_a_batch_norm_stays_where_what_it_reads_is_needed(why):
    nodes = [conv("x", "c"), make("BatchNormalization", ["c", *NORM], ["y"])]
    outputs = ["y"]
    if why == "read by another":
        nodes.append(make("Relu", ["c"], ["z"]))
        outputs.append("z")
    elif why == "given out":
        outputs.append("c")
    else:
        nodes = [make("BatchNormalization", ["x", *NORM], ["y"])]
    model = graph(nodes, outputs, **normed(3 if why == "nothing before it" else 4))
    before = model.SerializeToString()
    assert not fold_batch_norms(model)
    assert model.SerializeToString() == before
