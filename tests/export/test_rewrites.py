"""The exact rewrites leave the same function, in float64 and in float32."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from icnet_deploy.export.deployed import Deployed
from icnet_deploy.export.graph import trace
from icnet_deploy.export.passes import (
    centre_first,
    pointwise_first,
    simplify,
    static_resize,
    to_half,
    transpose_first,
)
from icnet_deploy.networks.checkpoint import SHIPPED, load_checkpoint
from icnet_deploy.networks.preprocessing import CAFFE

SIZE = (97, 161)

make = helper.make_node


def resize(source, out, sides):
    """Bilinear with aligned corners, its sizes from the batch as torch writes them."""
    where = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    tail = numpy_helper.from_array(np.array(sides, np.int64), f"{out}_tail")
    nodes = [
        make("Shape", [source], [f"{out}_head"], start=0, end=2),
        make("Concat", [f"{out}_head", tail.name], [f"{out}_sizes"], axis=0),
        make("Resize", [source, "", "", f"{out}_sizes"], [out], **where),
    ]
    return nodes, tail


def pooled_model(cin, cout, side, larger, windows, kind, bias=True):
    """x, pooled by each window and enlarged to x's size, summed with it; enlarged; a 1x1."""
    random = np.random.default_rng(0)
    real = helper.tensor_dtype_to_np_dtype(kind)
    nodes, constants, last = [], [], "x"
    for index, window in enumerate(windows):
        nodes.append(make("AveragePool", ["x"], [f"p{index}"], kernel_shape=window, strides=window))
        more, tail = resize(f"p{index}", f"u{index}", side)
        nodes += [*more, make("Add", [last, f"u{index}"], [f"s{index}"])]
        constants.append(tail)
        last = f"s{index}"
    if larger is not None:
        more, tail = resize(last, "large", larger)
        nodes += more
        constants.append(tail)
        last = "large"
    weight, b = random.normal(size=(cout, cin, 1, 1)), random.normal(size=cout)
    constants += [
        numpy_helper.from_array(v.astype(real), n) for n, v in (("w", weight), ("b", b))[: 1 + bias]
    ]
    nodes.append(make("Conv", [last, "w", "b"][: 2 + bias], ["y"], name="conv"))
    x = helper.make_tensor_value_info("x", kind, ["N", cin, *side])
    y = helper.make_tensor_value_info("y", kind, ["N", cout, *(larger or side)])
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def run(model, feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, feed)[0]


CASES = [
    (6, 3, (5, 7), (11, 13), []),
    (4, 1, (1, 9), (3, 10), []),
    (8, 3, (7, 13), None, [(7, 13), (3, 5)]),
    (5, 2, (6, 9), (12, 33), [(6, 9), (3, 4), (2, 3), (1, 1)]),
]


def test_sums_of_a_tensor_and_itself_are_counted_not_walked():
    """There are 2**40 ways through them, and so many parts of the bias come out."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(2, 3, 1, 1)) / 2.0**40
    names = ["x", *(f"s{index}" for index in range(40))]
    nodes = [make("Add", [a, a], [b]) for a, b in pairwise(names)]
    nodes.append(make("Conv", [names[-1], "w", "b"], ["y"], name="conv"))
    constants = {"w": weight, "b": random.normal(size=2)}
    tensors = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in constants.items()]
    x, y = (helper.make_tensor_value_info(n, 1, [1, c, 4, 5]) for n, c in (("x", 3), ("y", 2)))
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], tensors),
        opset_imports=[helper.make_opsetid("", 19)],
        ir_version=9,
    )
    feed = {"x": random.normal(size=(1, 3, 4, 5)).astype(np.float32)}
    before = run(model, feed)
    assert pointwise_first(model)
    np.testing.assert_allclose(run(model, feed), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("cin", "cout", "side", "larger", "windows"), CASES)
def test_pointwise_first_is_exact(cin, cout, side, larger, windows, bias):
    arguments = (cin, cout, side, larger, windows)
    double = pooled_model(*arguments, TensorProto.DOUBLE, bias)
    x = np.random.default_rng(1).normal(size=(2, cin, *side))
    before = ReferenceEvaluator(double).run(None, {"x": x})[0]
    assert pointwise_first(double)
    onnx.checker.check_model(double, full_check=True)
    np.testing.assert_allclose(
        ReferenceEvaluator(double).run(None, {"x": x})[0], before, atol=1e-12
    )
    kinds = [n.op_type for n in double.graph.node if n.op_type not in ("Shape", "Concat")]
    assert kinds[0] == "Conv"
    assert not pointwise_first(double)

    single = pooled_model(*arguments, TensorProto.FLOAT, bias)
    static_resize(single)
    simplify(single)
    feed = {"x": x.astype(np.float32)}
    before = run(single, feed)
    assert pointwise_first(single)
    scale = np.abs(before).max() * cin * np.finfo(np.float32).eps
    np.testing.assert_allclose(run(single, feed), before, atol=8 * scale)


def changed(edit, *arguments):
    model = pooled_model(*arguments, TensorProto.FLOAT)
    edit(model.graph)
    return model


def attribute(kind, **values):
    def edit(graph):
        [node] = [n for n in graph.node if n.op_type == kind]
        node.attribute.extend(helper.make_attribute(k, v) for k, v in values.items())

    return edit


def cropped(graph):
    [node] = [n for n in graph.node if n.op_type == "Resize"]
    [mode] = [a for a in node.attribute if a.name == "coordinate_transformation_mode"]
    mode.s = b"tf_crop_and_resize"


def read_twice(graph):
    graph.node.append(make("Relu", ["large"], ["again"]))
    graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, None))


def given_out(graph):
    graph.output.append(helper.make_tensor_value_info("large", TensorProto.FLOAT, None))


def bias_shared(graph):
    graph.node.append(make("Relu", ["b"], ["again"]))
    graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, None))


def of_two(graph):
    graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4, 11, 13]))
    graph.node.insert(len(graph.node) - 1, make("Add", ["large", "z"], ["both"]))
    graph.node[-1].input[0] = "both"


UPSAMPLED = (4, 2, (5, 7), (11, 13), [])
LEFT = {
    "more channels than it reads": changed(lambda graph: None, 4, 5, (5, 7), (11, 13), []),
    "fewer pixels than before": changed(lambda graph: None, 4, 2, (11, 13), (5, 7), []),
    "nothing before it": changed(lambda graph: None, 4, 2, (5, 7), None, []),
    "a stride": changed(attribute("Conv", strides=[2, 2]), *UPSAMPLED),
    "padding, which makes a border of the bias": changed(
        attribute("Conv", pads=[1, 1, 1, 1]), *UPSAMPLED
    ),
    "a pool with padding": changed(
        attribute("AveragePool", pads=[1, 1, 1, 1]), 4, 2, (6, 6), None, [(2, 2)]
    ),
    "a value for what is beyond the image": changed(cropped, *UPSAMPLED),
    "read by another": changed(read_twice, *UPSAMPLED),
    "an output": changed(given_out, *UPSAMPLED),
    "a shared bias": changed(bias_shared, *UPSAMPLED),
    "made of two": changed(of_two, *UPSAMPLED),
}


@pytest.mark.parametrize("why", LEFT)
def test_pointwise_first_leaves_what_would_not_be_exact(why):
    model = copy.deepcopy(LEFT[why])
    assert not pointwise_first(model)
    assert model == LEFT[why]


def image_model(width, mean, second_reader=False):
    nodes = [
        make("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        make("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        make("Sub", ["t", "mean"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 5, width])]
    if second_reader:
        outputs.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, ["N", 3, 5, width]))
        nodes.append(make("Relu", ["t"], ["z"]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 5, width, 3])
    constants = [numpy_helper.from_array(mean, "mean")]
    graph = helper.make_graph(nodes, "g", [image], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


MEAN = np.array([123.675, 116.28, 103.53], np.float32).reshape(1, 3, 1, 1)


def test_centre_first_changes_no_bit():
    model = image_model(7, MEAN)
    image = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    before = run(model, {"image": image})
    assert centre_first(model)
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node] == ["Cast", "Sub", "Transpose"]
    assert [list(t.dims) for t in model.graph.initializer] == [[1, 1, 7, 3]]
    assert run(model, {"image": image}).tobytes() == before.tobytes()
    assert not centre_first(model)


@pytest.mark.parametrize(
    "model",
    [
        image_model("W", MEAN),
        image_model(7, MEAN, True),
        image_model(7, MEAN.repeat(7, 3)),
    ],
    ids=["free width", "another reader", "no number a channel"],
)
def test_centre_first_leaves_what_it_cannot_swap(model):
    before = model.SerializeToString()
    assert not centre_first(model)
    assert model.SerializeToString() == before


def plain(network, preprocessing):
    """The network's graph as it is before the rewrites."""
    return trace(Deployed(network, preprocessing, "logits"), SIZE, rewrites=()).model


def kinds_between(model, first, last):
    names = [n.op_type for n in model.graph.node]
    return names[names.index(first) : len(names) - names[::-1].index(last)]


def test_of_the_real_network_logits_and_labels_stay(scene):
    checkpoint = load_checkpoint(SHIPPED)
    model = plain(checkpoint.network, checkpoint.preprocessing)
    feed = {"image": np.stack([scene, scene[:, ::-1]])}
    before = run(model, feed)
    assert pointwise_first(model)
    assert centre_first(model)
    after = run(model, feed)
    largest = np.abs(after - before).max()
    assert largest < 1e-4  # of logits that spread over 20
    differ = after.argmax(1) != before.argmax(1)
    top = np.sort(before, axis=1)
    assert (top[:, -1] - top[:, -2])[differ].max(initial=0) <= 2 * largest
    assert [n.op_type for n in model.graph.node][-2:] == ["Conv", "Resize"]  # the classifier
    pyramid = kinds_between(model, "AveragePool", "AveragePool")
    assert set(pyramid) == {"AveragePool", "Resize", "Add"}
    [early] = [n for n in model.graph.node if "network.conv5_4_k1.conv.weight" in n.input]
    pools = [n for n in model.graph.node if n.op_type == "AveragePool"]
    assert {pool.input[0] for pool in pools} == {early.output[0]}


def test_of_pspnet_only_the_pyramid_changes(settled, scene):
    network = settled({"architecture": "pspnet", "num_classes": 5, "width": 0.125})
    model = plain(network, CAFFE)
    before = run(model, {"image": scene[None]})
    assert pointwise_first(model)
    assert centre_first(model)
    assert "BatchNormalization" not in {n.op_type for n in model.graph.node}
    assert model.graph.node[-1].op_type == "Conv"  # its classifier follows no Resize
    with torch.inference_mode():
        reference = network(CAFFE.tensor(scene)).numpy()
    noise = np.abs(before - reference).max()
    assert np.abs(run(model, {"image": scene[None]}) - reference).max() < 4 * noise + 1e-5


def attention_model(shared=False, perm=(1, 0, 2), axis=-1):
    """A layer norm, a transpose and a product, as of the queries of attention."""
    random = np.random.default_rng(0)
    values = {name: random.normal(size=8).astype(np.float32) for name in ("scale", "bias")}
    values["weight"] = random.normal(size=((8, 5, 8)[perm[2]], 6)).astype(np.float32)
    if axis == 1:
        values |= {
            name: random.normal(size=(5, 8)).astype(np.float32) for name in ("scale", "bias")
        }
    nodes = [
        make("LayerNormalization", ["x", "scale", "bias"], ["normed"], axis=axis, name="norm"),
        make("Transpose", ["normed"], ["turned"], perm=list(perm)),
        make("MatMul", ["turned", "weight"], ["y"]),
    ]
    names = ["y"]
    if shared:
        nodes.append(make("Relu", ["normed"], ["z"]))
        names.append("z")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5, 8])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["A", "B", "C"]) for n in names],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize("shared", [False, True])
def test_transpose_first_changes_no_bit_and_its_float16_loads(shared):
    model = attention_model(shared)
    x = np.random.default_rng(1).normal(size=(3, 5, 8)).astype(np.float32)
    before = run(model, {"x": x})
    assert transpose_first(model)
    onnx.checker.check_model(model, full_check=True)
    makers = {output: node for node in model.graph.node for output in node.output}
    norm = makers[next(n for n in model.graph.node if n.op_type == "MatMul").input[0]]
    assert (norm.op_type, makers[norm.input[0]].op_type) == ("LayerNormalization", "Transpose")
    assert [n.op_type for n in model.graph.node].count("LayerNormalization") == 1 + shared
    assert run(model, {"x": x}).tobytes() == before.tobytes()
    assert not transpose_first(model)
    to_half(model)
    assert np.abs(run(model, {"x": x}) - before).max() < 0.05


@pytest.mark.parametrize("model", [attention_model(perm=(0, 2, 1)), attention_model(axis=1)])
def test_transpose_first_leaves_what_it_cannot_swap(model):
    before = model.SerializeToString()
    assert not transpose_first(model)
    assert model.SerializeToString() == before
