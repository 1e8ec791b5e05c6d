"""Every file of `files`, of four writers, becomes an artefact that labels as the file does."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.labelmap import label_map
from icnet_deploy.runtime.predictor import Predictor

FILES = Path(__file__).parent / "files"

WHAT = {
    "dynamo-free": ("half-pixel", 2, None),
    "dynamo-external": ("half-pixel", 2, (64, 96)),
    "dynamo-softmax": ("half-pixel", 2, (64, 96)),
    "hand-resizes": ("none", 1, (64, 96)),
    "paddle-aligned": ("aligned-corners", 2, None),
    "paddle-argmax": ("half-pixel", 2, (64, 96)),
    "paddle-logits": ("half-pixel", 2, (64, 96)),
    "paddle-softmax": ("half-pixel", 2, None),
    "script-aligned": ("aligned-corners", 2, (64, 96)),
    "script-argmax": ("aligned-corners", 2, (64, 96)),
    "script-argmax-nearest": ("none", 1, (64, 96)),
    "script-cubic": ("none", 1, (64, 96)),
    "script-float16": ("half-pixel", 2, (64, 96)),
    "script-free": ("aligned-corners", 2, None),
    "script-half": ("half-pixel", 2, (64, 96)),
    "script-nearest": ("none", 1, (64, 96)),
    "script-sigmoid": ("half-pixel", 2, (64, 96)),
    "script-softmax-first": ("half-pixel", 2, (64, 96)),
    "script-upsample": ("none", 1, (64, 96)),
    "tensorflow-aligned": ("aligned-corners", 2, (64, 96)),
    "tensorflow-argmax": ("aligned-corners", 2, (64, 96)),
    "tensorflow-asymmetric": ("none", 1, (64, 96)),
    "tensorflow-half": ("half-pixel", 2, (64, 96)),
    "tensorflow-nearest": ("none", 1, (64, 96)),
    "tensorflow-nearest-legacy": ("half-pixel", 2, (64, 96)),
    "tensorflow-softmax": ("half-pixel", 2, (64, 96)),
}
"""File -> the rule, the stride and the size of its artefact."""

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
SCALE = np.array([1 / 58.395, 1 / 57.12, 1 / 57.375], np.float32)


def answer(path, image):
    """What a file itself gives for an image, uint8 H x W x 3."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [value] = session.get_inputs()
    pixels = ((image - MEAN) * SCALE)[None]
    pixels = pixels if value.shape[3] == 3 else pixels.transpose(0, 3, 1, 2)
    half = value.type == "tensor(float16)"
    return session.run(None, {value.name: pixels.astype(np.float16 if half else np.float32)})[0]


def labels_of(name, given, size, upsampling):
    """The label map that a file's answer is."""
    if given.dtype.kind != "f":
        return given.reshape(size)
    logits = given[0].astype(np.float32)
    logits = logits if logits.shape[0] in (1, 5) else logits.transpose(2, 0, 1)
    if logits.shape[1:] != size:
        return label_map(logits, size, upsampling=upsampling)
    return logits[0] > 0.5 if "sigmoid" in name else logits.argmax(0)


def scene(size=(64, 96)):
    image = draw_scene(3, (max(64, size[0]), max(64, size[1]))).image
    return np.ascontiguousarray(image[: size[0], : size[1]])


@pytest.mark.parametrize("name", WHAT)
def test_a_file_becomes_an_artefact_that_labels_as_it_does(adopted, name):
    out, found = adopted(name)
    upsampling, stride, size = WHAT[name]
    metadata = read_onnx_metadata(out)
    assert (metadata.head, metadata.precision) == ("logits", "fp32")
    assert (metadata.upsampling, metadata.stride, metadata.size) == (upsampling, stride, size)
    path = FILES / f"{name}.onnx"
    digest = artefact_sha256(path)
    assert metadata.weights_sha256 == metadata.parent_sha256 == digest
    assert metadata.network["architecture"] == "adopted"
    assert metadata.network["file"] == path.name
    assert found.check.agreement == 1
    image = scene(size or (72, 104))
    with Predictor.open(out, "onnxruntime", "cpu") as predictor:
        labels = predictor.predict(image).labels
        together = predictor.predict_batch([image, image[:, ::-1].copy()])
    theirs = labels_of(name, answer(path, image), image.shape[:2], upsampling)
    assert len(np.unique(theirs)) >= 2
    # Of float16 the labels are those of the arithmetic in float32.
    least = 0.995 if "float16" in name else 0.9999
    assert (labels == theirs).mean() >= least
    assert np.array_equal(together[0].labels, labels)


@pytest.mark.parametrize("name", WHAT)
def test_a_graph_is_as_plain_as_an_export_s(adopted, name):
    model = onnx.load(adopted(name)[0])
    [image] = model.graph.input
    sides = image.type.tensor_type.shape.dim
    assert (image.name, sides[0].dim_param, sides[3].dim_value) == ("image", "N", 3)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 19)]
    kinds = {node.op_type for node in model.graph.node}
    assert kinds.isdisjoint({"Identity", "Constant", "BatchNormalization", "ArgMax"})
    if WHAT[name][2] is not None:
        assert kinds.isdisjoint({"Shape", "Slice", "Gather", "Div"})
    assert sum(node.op_type == "Transpose" for node in model.graph.node) <= (
        3 if name == "script-softmax-first" else 1
    )
    names = [node.name for node in model.graph.node]
    assert "" not in names
    assert len(set(names)) == len(names)


def test_layers_have_the_names_that_their_writers_gave_them(adopted):
    from icnet_deploy.calibration.graph import Graph

    def layers(name):
        graph = Graph(onnx.load(adopted(name)[0]))
        return [graph.layer(node) for node in graph.nodes("Conv") + graph.nodes("ConvTranspose")]

    assert layers("dynamo-free")[:3] == ["stem.0", "depthwise.0", "depthwise.3"]
    assert layers("script-half")[:3] == ["stem.0", "depthwise.0", "depthwise.3"]
    assert layers("tensorflow-half")[:2] == ["encoder.stem_1", "encoder.wide_1"]
    assert layers("paddle-argmax")[-2:] == ["conv2d_3", "ConvTranspose.0"]


def test_one_channel_that_is_compared_keeps_its_threshold(adopted):
    out, _ = adopted("script-above")
    metadata = read_onnx_metadata(out)
    assert metadata.threshold == pytest.approx(0.4)
    assert metadata.upsampling == "half-pixel"
    image = scene()
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": image[None]})[0]
    theirs = answer(FILES / "script-above.onnx", image)
    assert np.array_equal(logits.argmax(1), theirs)
    assert 0.05 < theirs.mean() < 0.95


def test_the_command_says_what_it_found(run, tmp_path):
    out = tmp_path / "net.onnx"
    classes = tmp_path / "five.json"
    classes.write_text(json.dumps({"name": "five", "names": list("abcde")}))
    done = run(
        *("adopt", FILES / "tensorflow-argmax.onnx", "--label-set", classes),
        *("--preprocessing", "imagenet", "-o", out),
    )
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("file: tensorflow-argmax.onnx, written by tf2onnx")
    assert "after the logits: Resize, ArgMax, Cast (removed; the label map is the same)" in lines
    assert "upsampling: aligned-corners (found in its last Resize, which is removed)" in lines
    assert lines[-1].startswith("checked against tensorflow-argmax.onnx on ONNX Runtime: 2 images")
    assert out.exists()
