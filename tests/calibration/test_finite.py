"""8 bits hide what is not finite, so nothing that holds such a number is quantized."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import placement_contract as small
import pytest
from onnx import numpy_helper

from icnet_deploy.calibration import agreement
from icnet_deploy.calibration.agreement import agreements
from icnet_deploy.calibration.artefact import load_float
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.quantize import quantize
from icnet_deploy.cli import main
from icnet_deploy.errors import ModelError, NotFinite
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.metadata import UPSAMPLINGS, ArtefactMetadata, read_onnx_metadata, stamped

NOT_FINITE = [np.nan, np.inf, -np.inf]


def edited(source, name, change):
    model = onnx.load(source)
    [tensor] = [t for t in model.graph.initializer if t.name == name]
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return model


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("name", ["classifier.bias", "conv2.weight"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_weights_that_are_not_finite_are_refused(float_file, placement, name, value):
    bad = edited(float_file, f"network.{name}", lambda v: v.reshape(-1).__setitem__(3, value))
    with pytest.raises(ModelError, match=rf"network.{name} \(1 of"):
        quantize(bad, small.calibration().ranges(), placement)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("part", ["limit", "low", "high", "means", "factors"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_ranges_that_are_not_finite_are_refused(float_file, placement, part, value):
    ranges = small.calibration().ranges()
    name = next(iter(ranges.factors if part == "factors" else ranges.tensors))
    if part == "factors":
        spoilt = np.array(ranges.factors[name])
        spoilt[0] = value
        bad = replace(ranges, factors={**ranges.factors, name: spoilt})
    else:
        one = ranges.tensors[name]
        spoilt = np.full_like(one.means, value) if part == "means" else value
        tensors = {**ranges.tensors, name: replace(one, **{part: spoilt})}
        bad = replace(ranges, tensors=tensors)
    with pytest.raises(ModelError, match=f"the calibration holds numbers .* in {name}"):
        quantize(onnx.load(float_file), bad, placement)


@pytest.mark.parametrize("value", NOT_FINITE)
def test_the_command_refuses_such_a_file_before_it_calibrates(
    float_file, dataset, tmp_path, capsys, value
):
    bad = edited(float_file, "network.classifier.bias", lambda v: v.__setitem__(3, value))
    path = tmp_path / "bad.onnx"
    path.write_bytes(stamped(bad.SerializeToString(), read_onnx_metadata(float_file)))
    with pytest.raises(ModelError, match=r"network.classifier.bias \(1 of 19 values\)"):
        load_float(path)
    images = str(dataset / "leftImg8bit" / "train")
    out = tmp_path / "int8.onnx"
    assert main(["quantize", str(path), "--images", images, "-o", str(out)]) == 2
    assert "network.classifier.bias (1 of 19 values)" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["bad.onnx"]


def test_two_label_maps_of_255_do_not_agree(scene_of_255):
    with pytest.raises(NotFinite):
        agreements(scene_of_255, scene_of_255, small.images()[:1], described("labels"))


@pytest.mark.parametrize("rule", UPSAMPLINGS)
def test_graphs_agree_by_the_networks_rule(float_file, monkeypatch, rule):
    """Not by ICNet's, of whatever network they are."""
    obeyed = []

    def label_map(logits, size, *, upsampling):
        obeyed.append(upsampling)
        return np.zeros((1, *size), np.uint8)

    monkeypatch.setattr(agreement, "label_map", label_map)
    model = onnx.load(float_file)
    [found] = agreements(model, model, small.images()[:1], described("logits", rule))
    assert found.share == 1
    assert obeyed == [rule, rule]


def described(head, rule="aligned-corners"):
    return ArtefactMetadata(CITYSCAPES, None, head, "fp32", upsampling=rule)


@pytest.fixture
def scene_of_255(size):
    """A graph of the head `labels` that writes 255 everywhere."""
    helper, kind = onnx.helper, onnx.TensorProto
    image = helper.make_tensor_value_info("image", kind.UINT8, ["N", *size, 3])
    labels = helper.make_tensor_value_info("labels", kind.UINT8, ["N", *size])
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=kind.FLOAT),
        helper.make_node("ReduceMax", ["f", "axis"], ["m"], keepdims=0),
        helper.make_node("Max", ["m", "no_class"], ["l"]),
        helper.make_node("Cast", ["l"], ["labels"], to=kind.UINT8),
    ]
    constants = {"axis": np.array([3], np.int64), "no_class": np.float32([255])}
    tensors = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", [image], [labels], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
