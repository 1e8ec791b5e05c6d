"""Forms of files that exporters seldom write, made of those in `files`."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from adopted_files import SCENE, behind, labels_of, put_behind
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.errors import NotFinite
from icnet_deploy.export.adopt.adoption import adopt
from icnet_deploy.export.adopt.half import lift_half
from icnet_deploy.export.adopt.opsets import to_opset
from icnet_deploy.metadata import read_onnx_metadata, stamped
from icnet_deploy.networks.preprocessing import Preprocessing
from icnet_deploy.runtime.predictor import Predictor

FILES = Path(__file__).parent / "files"


def answer(model, image):
    """What a model of the input `x` gives."""
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": image})[0]


def test_one_output_of_two_is_named(take, changed, adopted):
    def change(model):
        inner = model.graph.node[1].output[0]
        model.graph.output.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, None))

    out, _ = take(changed(change), output="output")
    assert np.array_equal(labels_of(out), labels_of(adopted("script-half")[0]))


def test_nodes_in_any_order_are_sorted(take, changed, adopted):
    def change(model):
        nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(reversed(nodes))

    out, _ = take(changed(change))
    assert np.array_equal(labels_of(out), labels_of(adopted("script-half")[0]))


def branch(name, factor):
    """A graph that multiplies `x` by a constant of float16 of its own."""
    constant = numpy_helper.from_array(np.array(factor, np.float16), f"{name}_factor")
    made = helper.make_tensor_value_info(name, TensorProto.FLOAT16, None)
    node = helper.make_node("Mul", ["x", constant.name], [name])
    return helper.make_graph([node], name, [], [made], [constant])


def test_float16_is_lifted_in_branches_too():
    halves = {"then_branch": branch("then", 2), "else_branch": branch("else", 3)}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, [4]) for name in "xy")
    sure = numpy_helper.from_array(np.array(True), "sure")
    graph = helper.make_graph([helper.make_node("If", ["sure"], ["y"], **halves)], "g", [x], [y])
    graph.initializer.append(sure)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert lift_half(model)
    onnx.checker.check_model(model, full_check=True)
    values = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(answer(model, values), 2 * values)
    assert not lift_half(model)


def test_a_mask_made_float_keeps_its_threshold(take, changed, adopted):
    path = changed(behind("Cast", TensorProto.FLOAT), "script-above")
    out, _ = take(path.rename(path.with_name("above.onnx")))
    assert read_onnx_metadata(out).threshold == pytest.approx(0.4)
    assert np.array_equal(labels_of(out), labels_of(adopted("script-above")[0]))


def test_values_that_never_leave_0_to_1_are_probabilities(take, changed):
    def change(model):
        model.graph.node[-1].op_type = "HardSigmoid"

    path = changed(change, "script-sigmoid")
    path = path.rename(path.with_name("sigmoid.onnx"))
    out, found = take(path)
    assert "output: output, probabilities of 1 channel, NCHW" in found.found
    theirs = onnxruntime.InferenceSession(path).run(None, {"input": _pixels()})[0][0, 0] > 0.5
    assert 0 < theirs.mean() < 1
    assert (labels_of(out) == theirs).mean() > 0.9999


def test_what_a_constant_condition_chooses_is_taken(take, changed, adopted):
    def change(model):
        kind = helper.make_tensor_value_info("kept", TensorProto.FLOAT, None)
        bodies = {
            name: helper.make_graph([helper.make_node(op, ["before"], ["kept"])], op, [], [kind])
            for name, op in (("then_branch", "Identity"), ("else_branch", "Neg"))
        }
        put_behind(
            model, helper.make_node("If", ["sure"], ["output"], **bodies), sure=np.array(True)
        )

    out, _ = take(changed(change))
    assert "If" not in {node.op_type for node in onnx.load(out).graph.node}
    assert np.array_equal(labels_of(out), labels_of(adopted("script-half")[0]))


def test_functions_of_a_file_are_written_out(take, changed, adopted):
    def change(model):
        relu = next(node for node in model.graph.node if node.op_type == "Relu")
        body = [helper.make_node("Max", ["x", "zero"], ["y"])]
        zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
        body.insert(0, helper.make_node("Constant", [], ["zero"], value=zero))
        opsets = [helper.make_opsetid("", 11)]
        model.ir_version = 8
        model.functions.append(helper.make_function("own", "MyRelu", ["x"], ["y"], body, opsets))
        model.opset_import.append(helper.make_opsetid("own", 1))
        relu.op_type, relu.domain = "MyRelu", "own"

    out, _ = take(changed(change))
    assert np.array_equal(labels_of(out), labels_of(adopted("script-half")[0]))


def test_a_uint8_input_has_its_preprocessing_inside(take, changed, request_for, tmp_path):
    def change(model):
        graph = model.graph
        for node in graph.node:
            node.input[:] = ["pixels" if name == "input" else name for name in node.input]
        value = helper.make_tensor_value_info("input", TensorProto.UINT8, [1, 64, 96, 3])
        graph.input[0].CopyFrom(value)
        scale = np.array(1 / 64, np.float32)
        graph.initializer.append(numpy_helper.from_array(scale, "by"))
        nodes = [
            helper.make_node("Transpose", ["input"], ["first"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["first"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "by"], ["pixels"]),
        ]
        kept = list(graph.node)
        del graph.node[:]
        graph.node.extend([*nodes, *kept])

    path = changed(change)
    request = request_for(path)
    with pytest.raises(Exception, match="is uint8, so its preprocessing is inside the file"):
        adopt(path, tmp_path / "out.onnx", request)
    out = tmp_path / "plain.onnx"
    plain = Preprocessing((0.0, 0.0, 0.0))
    adopt(path, out, type(request)(request.label_set, plain))
    session = onnxruntime.InferenceSession(path)
    theirs = session.run(None, {"input": SCENE[None]})[0].argmax(1)[0]
    assert (labels_of(out) == theirs).mean() > 0.9999
    assert onnx.load(out).graph.node[0].op_type == "Cast"


def test_a_probability_that_is_resized_is_compared_as_one(take, changed):
    def change(model):
        """The Sigmoid goes before the last Resize."""
        graph = model.graph
        sigmoid, resize = graph.node[-1], graph.node[-2]
        assert (sigmoid.op_type, resize.op_type) == ("Sigmoid", "Resize")
        sigmoid.input[0], resize.input[0] = resize.input[0], "probability"
        sigmoid.output[0], resize.output[0] = "probability", "output"
        nodes = [*graph.node[:-2], sigmoid, resize]
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(nodes)

    path = changed(change, "script-sigmoid")
    path = path.rename(path.with_name("sigmoid-first.onnx"))
    out, _ = take(path, threshold=0.7)
    metadata = read_onnx_metadata(out)
    assert (metadata.threshold, metadata.upsampling) == (pytest.approx(0.7), "half-pixel")
    theirs = onnxruntime.InferenceSession(path).run(None, {"input": _pixels()})[0][0, 0] > 0.7
    assert (labels_of(out) == theirs).mean() > 0.9999
    assert 0.1 < theirs.mean() < 0.9


def last_index(model):
    """The file's ArgMax takes the last of the largest, which no artefact's label map does."""
    node = next(node for node in model.graph.node if node.op_type == "ArgMax")
    node.attribute.append(helper.make_attribute("select_last_index", 1))


def test_a_label_map_whose_logits_are_not_to_be_had(take, changed):
    path = changed(last_index, "tensorflow-argmax")
    out, found = take(path)
    metadata = read_onnx_metadata(out)
    assert (metadata.head, metadata.upsampling, metadata.stride) == ("labels", "none", 1)
    assert "output: Identity:0, a label map of 5 classes, without logits" in found.found
    pixels = _pixels().transpose(0, 2, 3, 1)
    theirs = onnxruntime.InferenceSession(path).run(None, {"images": pixels})[0][0]
    assert np.array_equal(labels_of(out), theirs)
    model = onnx.load(out)
    bias = [node for node in model.graph.node if node.op_type == "Conv"][-1].input[2]
    head = next(t for t in model.graph.initializer if t.name == bias)
    values = numpy_helper.to_array(head).copy()
    values[0] = np.inf
    head.CopyFrom(numpy_helper.from_array(values, head.name))
    out.write_bytes(stamped(model.SerializeToString(), metadata))
    with Predictor.open(out, "onnxruntime", "cpu") as predictor, pytest.raises(NotFinite):
        predictor.predict(SCENE)


def _pixels():
    mean, scale = np.array([123.675, 116.28, 103.53]), 1 / np.array([58.395, 57.12, 57.375])
    return ((SCENE - mean) * scale).astype(np.float32).transpose(2, 0, 1)[None]


@pytest.mark.parametrize(("shape", "free"), [([1, 5, 64, 96], True), ([5, 64, 96], False)])
def test_a_batch_that_a_constant_says_is_freed_where_that_is_right(take, changed, shape, free):
    def change(model):
        if not free:  # the file says any number, and takes one
            model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "any"
        put_behind(
            model,
            helper.make_node("Reshape", ["before", "shape"], ["flat"]),
            helper.make_node("Neg", ["flat"], ["turned"]),
            helper.make_node("Reshape", ["turned", "again"], ["output"]),
            shape=np.array(shape, np.int64),
            again=np.array([1, 5, 64, 96], np.int64),
        )

    out, found = take(changed(change))
    first = onnx.load(out).graph.input[0].type.tensor_type.shape.dim[0]
    assert (first.dim_param == "N", first.dim_value == 1) == (free, not free)
    what = "any number" if free else "1, which is a constant in the graph"
    assert f"images at a time: {what}" in found.found
    with Predictor.open(out, "onnxruntime", "cpu") as predictor:
        one, other = predictor.predict_batch([SCENE, SCENE[:, ::-1].copy()])
    assert np.array_equal(one.labels, labels_of(out))
    assert not np.array_equal(one.labels, other.labels)


def test_float16_keeps_what_overflows_in_float32(take):
    out, found = take(FILES / "tensorflow-argmax.onnx", precision="fp16")
    assert read_onnx_metadata(out).precision == "fp16"
    assert found.headroom is not None
    kinds = {tensor.data_type for tensor in onnx.load(out).graph.initializer}
    assert TensorProto.FLOAT16 in kinds
    assert found.check.agreement > 0.995


def test_a_file_of_four_images_at_a_time_takes_any_number(take, changed, adopted):
    def change(model):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4

    out, found = take(changed(change))
    assert "images at a time: any number" in found.found
    assert np.array_equal(labels_of(out), labels_of(adopted("script-half")[0]))


def test_what_upsamples_inside_is_no_proof_of_the_last_upsampling(take, changed):
    def change(model):
        """Its output is the logits before the last Resize."""
        inner = model.graph.node[-1].input[0]
        model.graph.node.pop()
        value = helper.make_tensor_value_info(inner, TensorProto.FLOAT, None)
        model.graph.output[0].CopyFrom(value)

    path = changed(change, "script-aligned")
    out, found = take(path)
    assert read_onnx_metadata(out).upsampling == "half-pixel"
    [line] = [line for line in found.found if line.startswith("upsampling")]
    assert line.endswith("if this one does also, give --upsampling aligned-corners)")
    out, found = take(path, upsampling="aligned-corners")
    assert read_onnx_metadata(out).upsampling == "aligned-corners"
    assert "upsampling: aligned-corners (given)" in found.found


def test_an_upsampling_can_be_left_in_the_graph(take):
    out, _ = take(FILES / "script-half.onnx", upsampling="none")
    metadata = read_onnx_metadata(out)
    assert (metadata.upsampling, metadata.stride) == ("none", 1)


def test_sides_are_those_at_which_the_file_answers_at_the_image_s_size(take, changed, adopted):
    def change(model):
        """Its last Resize is by a factor: at 65x97 it gives 66x98."""
        scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")
        model.graph.initializer.append(scales)
        model.graph.node[-1].input[:] = [model.graph.node[-1].input[0], "", "twice"]

    out, found = take(changed(change, "script-free"))
    metadata = read_onnx_metadata(out)
    assert (metadata.upsampling, metadata.side_multiple) == ("aligned-corners", 2)
    assert "sides: multiples of 2, from 64 pixels on (found)" in found.found
    assert read_onnx_metadata(adopted("script-free")[0]).side_multiple == 1


def test_constants_that_are_inputs_too_as_old_files_have_them(take, changed, adopted):
    def change(model):
        model.ir_version = 3
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in model.graph.initializer
        )

    out, _ = take(changed(change, "script-upsample"))
    assert np.array_equal(labels_of(out), labels_of(adopted("script-upsample")[0]))


def test_a_mask_may_be_infinite_and_no_weight(take, changed, adopted):
    def change(model):
        mask = np.zeros((1, 1, 64, 96), np.float32)
        mask[..., 0] = -np.inf
        put_behind(model, helper.make_node("Max", ["before", "mask"], ["output"]), mask=mask)

    out, _ = take(changed(change))
    assert np.array_equal(labels_of(out), labels_of(adopted("script-half")[0]))


def upscale(opset, kind, mode):
    """A model of one Upsample or Resize, 2 x 2, from 1 x 2 x 5 x 6."""
    scales = np.array([1, 1, 2, 2], np.float32)
    inputs, more, constants = ["x", "scales"], {}, [numpy_helper.from_array(scales, "scales")]
    if opset < 9:
        inputs, more, constants = ["x"], {"scales": scales.tolist()}, []
    node = helper.make_node(kind, inputs, ["y"], mode=mode, **more)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, *sides])
        for name, sides in (("x", (5, 6)), ("y", (10, 12)))
    ]
    graph = helper.make_graph([node], "one", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("opset", "kind"), [(7, "Upsample"), (9, "Upsample"), (10, "Resize")])
def test_an_upsample_stays_what_it_is(opset, kind, mode):
    """onnx's own converter leaves out where its pixels lie, so that it becomes another picture."""
    image = np.random.default_rng(0).normal(size=(1, 2, 5, 6)).astype(np.float32)
    model = upscale(opset, kind, mode)
    before = answer(model, image)
    to_opset(model, "it")
    assert model.opset_import[0].version == 19
    assert np.array_equal(answer(model, image), before)


def test_operators_that_opset_19_lacks_are_said_by_others():
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, 5, 6]) for n in "xy"]
    gains = [numpy_helper.from_array(np.arange(4, dtype=np.float32), n) for n in ("gain", "shift")]
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], approximate="tanh"),
        helper.make_node("GroupNormalization", ["g", "gain", "shift"], ["y"], num_groups=2),
    ]
    graph = helper.make_graph(nodes, "two", values[:1], values[1:], gains)
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    image = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    before = answer(model, image)
    to_opset(model, "it")
    assert {"Gelu", "GroupNormalization"}.isdisjoint(node.op_type for node in model.graph.node)
    assert np.allclose(answer(model, image), before, atol=1e-5)
