"""What cannot be taken is refused with the reason: exit code 2, and nothing written."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FILES = Path(__file__).parent / "files"


@pytest.fixture
def refused(run, tmp_path):
    """A function that adopts a file, which is refused, and gives the message."""
    classes = tmp_path / "five.json"
    classes.write_text(json.dumps({"name": "five", "names": list("abcde")}))

    def refused(path, *arguments, labels=classes):
        out = tmp_path / "made" / "out.onnx"
        done = run(
            *("adopt", path, "--label-set", labels, "--preprocessing", "imagenet"),
            *("-o", out, *arguments),
        )
        assert (done.code, done.out) == (2, ""), done
        assert not out.exists()
        assert not list(tmp_path.glob("made/*"))
        assert done.err.count("\n") == 1
        return done.err

    return refused


def image(*shape, kind=TensorProto.FLOAT):
    """A change: the input's shape, and its type."""

    def change(model):
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input", kind, shape))

    return change


def last_node(kind, domain="", **attributes):
    """A change: an operator behind everything."""

    def change(model):
        graph = model.graph
        graph.node[-1].output[0] = "before"
        node = helper.make_node(kind, ["before"], ["output"], domain=domain, **attributes)
        graph.node.append(node)
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]))


def second_output(model):
    value = helper.make_tensor_value_info(model.graph.node[3].output[0], TensorProto.FLOAT, None)
    model.graph.output.append(value)


def sequence_output(model):
    last_node("SequenceConstruct")(model)
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    value = helper.make_value_info("output", helper.make_sequence_type_proto(kind))
    model.graph.output[0].CopyFrom(value)


def not_finite(model):
    weights = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = numpy_helper.to_array(weights).copy()
    values.flat[0] = np.nan
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))


def above_2_gb(model):
    tensor = onnx.TensorProto(name="large", data_type=TensorProto.FLOAT, dims=[3 << 28])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="large.data"))
    model.graph.initializer.append(tensor)


def enlarged(model):
    twice = numpy_helper.from_array(np.array([1, 1, 2, 2], np.int64), "twice")
    last_node("Tile")(model)
    model.graph.node[-1].input.append("twice")
    model.graph.initializer.append(twice)


CASES = {
    "two inputs": (second_input, "has 2 inputs (input float32 1 x 3 x 64 x 96; scale float32 1)"),
    "two outputs": (
        second_output,
        "give --output NAME for the one with the logits or the label map",
    ),
    "a sequence": (sequence_output, "output, a sequence; expected a tensor of logits or labels"),
    "grey": (image(1, 1, 64, 96), "is 1 x 1 x 64 x 96, which is not an image of 3 channels"),
    "a vector": (image(1, 3), "expected images, N x 3 x H x W or N x H x W x 3"),
    "int64": (image(1, 3, 64, 96, kind=TensorProto.INT64), "expected an image as float32 or uint8"),
    "no layout": (
        image("a", "b", "c", "d"),
        "does not show where its 3 channels are: give --layout",
    ),
    "one free side": (image(1, 3, 64, "w"), "one free side and one fixed side (64xany)"),
    "a domain": (last_node("Swish", "vendor.ops"), "do not belong to ONNX, vendor.ops.Swish"),
    "an operator": (last_node("Magic"), "operators that ONNX does not know, Magic"),
    "quantized": (last_node("DynamicQuantizeLinear"), "is quantized already (DynamicQuantizeLi"),
    "chance": (last_node("Bernoulli"), "uses random numbers, or was exported in training mode"),
    "above 2 GB": (above_2_gb, "holds 3.2 GB of weights, as float32; an artefact is one file belo"),
    "larger": (
        enlarged,
        "logits of 128x192; expected logits that are not larger than the image: export the",
    ),
    "no numbers": (last_node("Log"), "not numbers for an image of noise: export the network again"),
    "not finite": (not_finite, "holds numbers that are infinite or not numbers"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_taken_says_why(refused, changed, case):
    change, reason = CASES[case]
    assert reason in refused(changed(change))


def test_a_loop_that_nothing_folds_is_named(refused):
    error = refused(FILES / "tensorflow-crop.onnx")
    assert "has Loop with inner graphs that depend on the image or its size" in error


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--size", "64x128"), "takes only images of 64x96: leave --size out"),
        (("--layout", "NHWC"), "--layout NHWC does not fit the input input of"),
        (("--output", "logits"), "has no such output; it has output float32"),
        (("--threshold", "0.3"), "is for one channel of logits;"),
        (
            ("--upsampling", "aligned-corners"),
            "upsamples its logits by half-pixel: its last resize has align_corners=F",
        ),
    ],
)
def test_what_is_said_must_be_so(refused, arguments, reason):
    assert reason in refused(FILES / "script-half.onnx", *arguments)


def test_a_rule_for_logits_of_another_size(refused, changed):
    def without_resize(model):
        inner = model.graph.node.pop().input[0]
        value = helper.make_tensor_value_info(inner, TensorProto.FLOAT, None)
        model.graph.output[0].CopyFrom(value)

    error = refused(changed(without_resize), "--upsampling", "none")
    assert "are 32x48, not the image's size: leave it out, or give" in error
    error = refused(FILES / "script-cubic.onnx", "--upsampling", "half-pixel")
    assert "have the image's size already; leave" in error


def test_a_layout_that_free_sides_allow_and_the_channels_do_not(refused):
    error = refused(FILES / "dynamo-free.onnx", "--layout", "NHWC")
    assert "whose 3 channels are in another place: leave it out" in error


def test_a_size_that_the_graph_refuses(refused):
    error = refused(FILES / "paddle-aligned.onnx", "--size", "66x98")
    assert "does not run on 1 image of 66x98" in error


def test_classes_that_contradict_the_label_set(refused):
    error = refused(FILES / "script-half.onnx", labels="camvid")
    assert "logits of 5 channels" in error
    assert "the label set has 11 classes" in error


def test_a_label_map_with_other_classes(refused, changed, run, tmp_path):
    assert "logits of 5 channels" in refused(FILES / "paddle-argmax.onnx", labels="voc")
    three = tmp_path / "three.json"
    three.write_text(json.dumps({"name": "three", "names": list("abc")}))

    def last_index(model):
        node = next(node for node in model.graph.node if node.op_type == "ArgMax")
        node.attribute.append(helper.make_attribute("select_last_index", 1))

    error = refused(changed(last_index, "tensorflow-argmax"), labels=three)
    assert error.startswith("icnet: error: the label map of")
    assert "holds 4, but the label set has only the classes 0 to 2" in error


def test_no_file_no_onnx_and_half_a_file(refused, tmp_path):
    assert "No such file" in refused(tmp_path / "none.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("not a network")
    assert "is not a whole ONNX file" in refused(text)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes((FILES / "script-half.onnx").read_bytes()[:20000])
    assert "it was cut off" in refused(cut)
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(onnx.ModelProto(ir_version=8).SerializeToString())
    assert "holds no graph" in refused(empty)


def test_external_data_that_are_missing_or_outside(refused, tmp_path):
    alone = tmp_path / "folder" / "dynamo-external.onnx"
    alone.parent.mkdir()
    shutil.copy(FILES / "dynamo-external.onnx", alone)
    assert "external data" in (error := refused(alone))
    assert "are missing" in error
    shutil.copy(FILES / "dynamo-external.onnx.data", tmp_path / "outside.data")
    model = onnx.load(alone, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../outside.data"
    alone.write_bytes(model.SerializeToString())
    assert "lie outside of its folder" in refused(alone)
    model = onnx.load(FILES / "dynamo-external.onnx", load_external_data=False)
    alone.write_bytes(model.SerializeToString())
    whole = (FILES / "dynamo-external.onnx.data").read_bytes()
    (alone.parent / "dynamo-external.onnx.data").write_bytes(whole[:100])
    assert "cannot be read as ONNX" in refused(alone)


def test_an_artefact_is_one_already(refused, adopted):
    assert "is an artefact already" in refused(adopted("script-half")[0])


def test_an_artefact_has_the_ending_of_its_kind(refused, tmp_path, changed):
    message = refused(changed(lambda model: None), "-o", tmp_path / "made" / "x.engine")
    assert "x.engine: it does not end in .onnx" in message


def test_the_file_itself_is_not_replaced(run, tmp_path, changed):
    path = changed(lambda model: None)
    before = path.read_bytes()
    classes = tmp_path / "five.json"
    classes.write_text(json.dumps({"name": "five", "names": list("abcde")}))
    what = ("--label-set", classes, "--preprocessing", "imagenet")
    done = run("adopt", path, *what, "-o", path)
    assert done.code == 2
    assert "would replace" in done.err
    assert path.read_bytes() == before
