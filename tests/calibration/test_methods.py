"""Which method of ranges is taken where none was asked for."""

import json
from dataclasses import replace

import numpy as np
import placement_contract as small
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.calibration import calibrate
from icnet_deploy.calibration.agreement import agreements
from icnet_deploy.calibration.artefact import Recipe
from icnet_deploy.calibration.calibrate import (
    Calibration,
    collect,
    load_calibration,
    save_calibration,
)
from icnet_deploy.calibration.graph import plain
from icnet_deploy.calibration.ladder import methods
from icnet_deploy.calibration.ladder.methods import settled
from icnet_deploy.calibration.ranges import AUTO
from icnet_deploy.cli import main
from icnet_deploy.documents import sealed
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import read_onnx_metadata


def settle(method=AUTO, placement="int8-ort"):
    recipe = Recipe(small.calibration(), placement, method)
    return settled(recipe, small.network(), small.metadata(), small.images())


@pytest.mark.parametrize("placement", ["int8", "int8-ort"])
def test_both_graphs_are_compared_with_float32_on_calibration_images(placement):
    found = settle(placement=placement)
    assert found.compared.images == len(small.images())
    for method, share in found.compared.alike.items():
        graph = replace(found, method=method).graph(small.network())
        [exact] = agreements(small.network(), graph, small.images(), small.metadata())
        assert 0.9 < share < 1
        assert share == pytest.approx(exact.share)


def differing(percentile, mse):
    """What `other_labels` would find: shares of images that differ, in percent."""
    shares = {"percentile": np.array(percentile) / 100, "mse": np.array(mse) / 100}
    return lambda *_: shares


@pytest.mark.parametrize(
    ("percentile", "mse", "taken"),
    [
        ([2, 1, 3, 2], [1.5, 0.8, 2, 1.6], "mse"),
        ([2, 1, 3, 2], [0.5, 1.1, 2.9, 1.9], "percentile"),  # fewer, but by one image's chance
        ([2, 1, 3, 2], [2.2, 1.2, 3.2, 2.3], "percentile"),
        ([0, 0, 0, 0], [0, 0, 0, 0], "percentile"),
    ],
)
def test_the_other_is_taken_where_it_is_better_by_more_than_chance(
    monkeypatch, percentile, mse, taken
):
    monkeypatch.setattr(methods, "other_labels", differing(percentile, mse))
    found = settle()
    assert found.method == taken
    tools = found.metadata(small.metadata()).tools
    assert tools["ranges"] == taken
    shares = ", ".join(
        f"{name} {100 - np.mean(each):.3f} %"
        for name, each in (("percentile", percentile), ("mse", mse))
    )
    assert tools["ranges_chosen_by"] == f"labels alike on 4 calibration images: {shares}"


def test_few_images_are_run_of_large_ones(monkeypatch):
    seen, calibration = [], small.calibration()
    monkeypatch.setattr(small.Scenes, "first", lambda self, count: seen.append(count) or self)
    monkeypatch.setattr(methods, "other_labels", differing([1, 1], [1, 1]))
    for size in (small.SIZE, (360, 480), (720, 960), (4000, 6000)):
        metadata = replace(small.metadata(), size=size)
        settled(Recipe(calibration, "int8", AUTO), small.network(), metadata, small.images())
    assert seen == [682, 24, 8, 8]


def test_a_method_that_was_asked_for_is_not_compared():
    assert settle("mse").compared is None
    assert "ranges_chosen_by" not in settle("mse").metadata(small.metadata()).tools


def test_what_was_taken_is_kept_and_read_back(tmp_path):
    path = tmp_path / "kept.json"
    made = small.calibration().taken_by({"int8": "mse"})
    save_calibration(path, made)
    again = Calibration.read(path)
    assert [again.method(name) for name in ("int8", "int8-ort")] == ["mse", "percentile"]
    value = json.loads(path.read_text())
    for name, one in value["tensors"].items():
        limit = made.ranges("mse").tensors[name].limit
        assert one["int8"] == [-limit, limit]
        percentile = made.ranges("percentile").tensors[name]
        assert one["int8-ort"] == [percentile.low, percentile.high]
    old = {k: v for k, v in value.items() if k not in ("methods", "sha256")}  # of 0.9
    path.write_text(json.dumps(sealed({**old, "ranges_by": "mse"})))
    assert Calibration.read(path).method("int8") == "percentile"


def activations():
    """A graph in which one tensor each is read by an activation, and one by two of them."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])
    weight = np.random.default_rng(0).normal(0, 0.5, (3, 3, 3, 3)).astype(np.float32)
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.float32([[[0.25]], [[0.5]], [[0]]]), "slopes"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    given = "planes"
    kinds = {
        "prelu": ("PRelu", "slopes"),
        "leaky": ("LeakyRelu",),
        "swish": ("HardSwish",),
        "relu": ("Relu",),
        "two": ("PRelu", "slopes"),
    }
    for name, (kind, *more) in kinds.items():
        conv = helper.make_node("Conv", [given, "weight"], [f"before_{name}"], pads=[1] * 4)
        given = f"behind_{name}"
        nodes += [conv, helper.make_node(kind, [f"before_{name}", *more], [given])]
    nodes += [
        helper.make_node("Add", ["before_two", "behind_two"], ["sum"]),
        helper.make_node("Conv", ["sum", "weight"], ["last"], "classifier"),
    ]
    logits = helper.make_tensor_value_info("last", TensorProto.FLOAT, [1, 3, 6, 6])
    graph = helper.make_graph(nodes, "activations", [image], [logits], constants)
    return plain(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]))


def test_what_activations_leave_of_values_below_zero_is_known_of_tensors(tmp_path):
    model = activations()
    found = collect(model, [np.full((8, 8, 3), 100, np.uint8)])
    left = {name: one.below_zero for name, one in found.items() if one.below_zero != 1}
    slopes = np.mean(np.square([0.25, 0.5, 0]))
    expected = {"before_prelu": slopes, "before_leaky": 1e-4, "before_swish": 1 / 12}
    assert left == pytest.approx(expected)
    kept = tmp_path / "kept.json"
    made = Calibration("0" * 64, ("1" * 64,), {}, found)
    save_calibration(kept, made)
    assert load_calibration(kept, model, "0" * 64).statistics["before_swish"].below_zero == 1 / 12
    earlier = replace(found["before_prelu"], below_zero=1.0)  # as an earlier release kept it
    save_calibration(kept, replace(made, statistics={**found, "before_prelu": earlier}))
    assert load_calibration(kept, model, "0" * 64) is None


def test_layers_are_compared_of_the_graph_that_was_written(
    float_file, dataset, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(methods, "other_labels", differing([2, 2], [1, 1]))
    data = ["--dataset", "scenes", "--data", str(dataset)]
    where = ["--calibration", str(tmp_path / "kept.json")]
    out = ["--placement", "int8", "-o", str(tmp_path / "int8.onnx"), "--count", "8"]
    assert main(["quantize", str(float_file), *data, *where, *out]) == 0
    words = "ranges by mse; labels alike on 8 calibration images: percentile 98.000 %, mse 99.000 %"
    assert words in capsys.readouterr().out
    assert read_onnx_metadata(tmp_path / "int8.onnx").tools["ranges"] == "mse"
    graph = ["--placement", "int8", "--limit", "2", "--json", str(tmp_path / "of.json")]
    assert main(["sensitivity", str(float_file), "--layers", *data, *where, *graph]) == 0
    of_graph = json.loads((tmp_path / "of.json").read_text())
    file = ["--reference", str(float_file), "--limit", "2", "--json", str(tmp_path / "file.json")]
    assert main(["sensitivity", str(tmp_path / "int8.onnx"), "--layers", *data, *where, *file]) == 0
    of_file = json.loads((tmp_path / "file.json").read_text())
    assert of_graph["blocks"] == of_file["blocks"]
    monkeypatch.setattr(calibrate, "save_calibration", None)  # the same again has nothing to keep
    assert main(["quantize", str(float_file), *data, *where, *out]) == 0


def test_a_placement_that_the_kept_calibration_names_no_method_for_is_settled_as_quantize_does(
    float_file, dataset, tmp_path, monkeypatch
):
    seen = []

    def other_labels(model, graphs, images, metadata):
        seen.append(np.array(list(images)))
        return differing([2, 2], [1, 1])()

    monkeypatch.setattr(methods, "other_labels", other_labels)
    data = ["--dataset", "scenes", "--data", str(dataset)]
    kept = tmp_path / "kept.json"
    asked = ["quantize", str(float_file), *data, "--calibration", str(kept), "--count", "8"]
    asked += ["--seed", "3", "-o", str(tmp_path / "8.onnx")]
    assert main([*asked, "--placement", "int8"]) == 0
    layers = ["sensitivity", str(float_file), "--layers", *data, "--calibration", str(kept)]
    assert main([*layers, "--placement", "int8-ort", "--limit", "1"]) == 0
    assert Calibration.read(kept).methods == {"int8": "mse", "int8-ort": "mse"}
    assert len(seen) == 2
    assert np.array_equal(*seen)
    assert main([*layers, "--placement", "int8-ort", "--limit", "1"]) == 0
    assert len(seen) == 2  # it is kept


@pytest.mark.parametrize("source", ["--images", "--dataset"])
def test_where_its_images_are_not_at_hand_a_note_says_which_method_is_taken(
    source, float_file, dataset, tmp_path, capsys
):
    kept = tmp_path / "kept.json"
    made = replace(small.calibration(), parent_sha256=artefact_sha256(float_file))
    save_calibration(kept, made.taken_by({"int8": "mse"}))
    before = kept.read_bytes()
    data = ["--dataset", "scenes", "--data", str(dataset)]
    data = data if source == "--dataset" else ["--images", str(dataset / "leftImg8bit" / "val")]
    layers = ["sensitivity", str(float_file), "--layers", *data, "--calibration", str(kept)]
    assert main([*layers, "--placement", "int8-ort", "--limit", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("note: the ranges of int8-ort are chosen by percentile, the default: ")
    assert "Run `icnet quantize --placement int8-ort` first, which chooses a method" in said
    assert kept.read_bytes() == before
    assert main([*layers, "--placement", "int8", "--limit", "1"]) == 0
    assert "note: the ranges" not in capsys.readouterr().out
