"""Smoothing: loud channels behind a LayerNorm become quieter, and the function stays the same."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.calibration.artefact import Recipe, write_quantized
from icnet_deploy.calibration.calibrate import calibrate, open_session, save_calibration
from icnet_deploy.calibration.equalize import equalized
from icnet_deploy.calibration.ladder.refined import Refinery
from icnet_deploy.calibration.ladder.smoothing import smoothed
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.quantize import quantize
from icnet_deploy.calibration.selection import choose
from icnet_deploy.data import image_files
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.labels import label_set_of
from icnet_deploy.metadata import ArtefactMetadata, write_artefact

SIZE, CHANNELS = (32, 48), 12


@pytest.fixture(scope="module")
def images(dataset):
    return choose(image_files(dataset / "leftImg8bit" / "train")[:8], SIZE)


def network(loud=60.0):
    """Patches of the image, a LayerNorm with one loud channel, light weights for it, and logits."""
    random = np.random.default_rng(0)

    def constant(name, *shape, spread=0.3, light=False):
        value = random.normal(0, spread, shape).astype(np.float32)
        if light:
            value[3] /= loud
        return numpy_helper.from_array(value, name)

    scale = np.ones(CHANNELS, np.float32)
    scale[3] = loud
    constants = [
        constant("embed.weight", CHANNELS, 3, 4, 4, spread=0.003),
        numpy_helper.from_array(scale, "norm.weight"),
        constant("norm.bias", CHANNELS),
        constant("query.weight", CHANNELS, CHANNELS, light=True),
        constant("key.weight", CHANNELS, CHANNELS, light=True),
        constant("head.weight", CHANNELS, 5),
        numpy_helper.from_array(np.int64([1, CHANNELS, -1]), "rows"),
    ]
    nodes = [
        ("Cast", "pixels", ["image"], {"to": TensorProto.FLOAT}),
        ("Transpose", "planes", ["pixels"], {"perm": [0, 3, 1, 2]}),
        ("Conv", "embedded", ["planes", "embed.weight"], {"strides": [4, 4]}),
        ("Reshape", "flat", ["embedded", "rows"], {}),
        ("Transpose", "tokens", ["flat"], {"perm": [0, 2, 1]}),
        ("LayerNormalization", "normed", ["tokens", "norm.weight", "norm.bias"], {"axis": -1}),
        ("MatMul", "query", ["normed", "query.weight"], {}),
        ("MatMul", "key", ["normed", "key.weight"], {}),
        ("Mul", "product", ["query", "key"], {}),
        ("MatMul", "logits", ["product", "head.weight"], {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, given, [name], name, **how) for kind, name, given, how in nodes],
        "attention",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *SIZE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 96, 5])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def error(rounded, model, images):
    ours, exact = open_session(rounded), open_session(model)
    feeds = [{"image": image[None]} for image in images]
    apart = [ours.run(None, feed)[0] - exact.run(None, feed)[0] for feed in feeds]
    return float(np.square(apart).mean())


def test_a_loud_channel_is_quieter_and_the_logits_are_nearer(images):
    model = network()
    before = calibrate(model, images, "0" * 64)
    after = smoothed(model, before, images)
    assert after is not None
    assert set(after.factors) - set(before.factors) == {"normed"}
    factor = after.factors["normed"]
    assert factor.argmax() == 3
    assert factor[3] > 4 * np.median(factor)
    loud = [c.statistics["normed"].highest for c in (before, after)]
    np.testing.assert_allclose(loud[1] * factor, loud[0], rtol=1e-5)
    assert error(equalized(model, after.factors), model, images) < 1e-6
    for placement in PLACEMENTS:
        plain, smooth = (
            error(quantize(model, c.ranges(), placement), model, images) for c in (before, after)
        )
        assert smooth < 0.5 * plain


def test_a_recipe_says_how_it_was_smoothed_and_what_is_learned_is_learned_once(images, monkeypatch):
    model = network()
    refinery = Refinery(model, images)
    recipes = [Recipe(calibrate(model, images, "0" * 64), name) for name in PLACEMENTS]
    first, second = (refinery.smoothing(recipe) for recipe in recipes)
    assert first.smoothing == second.smoothing == 0.5
    assert first.learned is second.learned
    assert first.learned is not refinery.rounding(recipes[0]).learned


def test_layers_of_a_smoothed_file_are_compared_as_they_were_scaled(
    images, dataset, run, monkeypatch, tmp_path
):
    model = network()
    nodes, logits = model.graph.node, model.graph.output[0]
    nodes[-1].output[0] = "flat_logits"
    nodes.append(helper.make_node("Transpose", ["flat_logits"], ["rows"], "turn", perm=[0, 2, 1]))
    model.graph.initializer[-1].name = "sizes"
    nodes[3].input[1] = "sizes"
    model.graph.initializer.append(numpy_helper.from_array(np.int64([1, 5, 8, 12]), "grid"))
    nodes.append(helper.make_node("Reshape", ["rows", "grid"], ["logits"], "grown"))
    logits.CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 5, 8, 12]))
    five = label_set_of({"name": "five", "names": list("abcde")}, "this test")
    source, out = tmp_path / "net-fp32.onnx", tmp_path / "net-int8-ort.onnx"
    told = {"weights_sha256": "a" * 64, "network": {"architecture": "small"}}
    metadata = ArtefactMetadata(five, SIZE, "logits", "fp32", stride=4, **told)
    write_artefact(source, model.SerializeToString(), metadata)
    calibration = calibrate(model, images, artefact_sha256(source))
    save_calibration(tmp_path / "net-fp32.calibration.json", calibration)
    recipe = Refinery(model, images).smoothing(Recipe(calibration, "int8-ort"))
    monkeypatch.setattr("icnet_deploy.calibration.artefact._LEAST_AGREEMENT", 0)
    write_quantized(source, out, recipe, list(images)[:1])
    found = tmp_path / "layers.json"
    photos = dataset / "leftImg8bit" / "val"
    arguments = ("sensitivity", out, "--layers", "--images", photos)
    done = run(*arguments, "--limit", "2", "--json", found)
    assert done.code == 0, done.err
    blocks = json.loads(found.read_text())["blocks"]
    assert len(blocks) == 4
    assert min(block["after"]["db"] or 99 for block in blocks) > 25  # else next to 0
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(model.SerializeToString())
    done = run(*arguments, "--reference", foreign)
    assert done.code == 2
    assert "name the float32 artefact that `icnet adopt` made of it" in done.err


def test_a_network_without_such_a_channel_is_left_alone(images):
    model = network()
    # A product of its output with another needs it as it is.
    model.graph.node.insert(9, helper.make_node("Mul", ["product", "normed"], ["gated"], "gated"))
    model.graph.node[-1].input[0] = "gated"
    assert smoothed(model, calibrate(model, images, "0" * 64), images) is None
