"""`icnet sensitivity --layers`: it finds the block in which an artefact leaves float32's path."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import onnx
import placement_contract as small
import pytest
from onnx import numpy_helper

from icnet_deploy.calibration.calibrate import Calibration, save_calibration
from icnet_deploy.calibration.placements import base
from icnet_deploy.calibration.placements.registry import PLACEMENTS, cpu_runtime
from icnet_deploy.calibration.quantize import quantize
from icnet_deploy.calibration.sensitivity import handovers
from icnet_deploy.calibration.sensitivity.layers_report import layers_plot
from icnet_deploy.calibration.sensitivity.search import blocks_of
from icnet_deploy.images import write_image
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import read_onnx_metadata, write_artefact

NETWORK = {"architecture": "small"}  # of which nothing is known but the names of its layers
ORDER = ["conv4", "conv1", "conv2", "conv3", "conv5", "conv6", "classifier"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for index, image in enumerate(small.images()[:3]):
        write_image(folder / f"{index}.png", image)
    return folder


def changed(model, name, change):
    """A copy with one of its constants changed in place."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    [tensor] = [t for t in copy.graph.initializer if t.name == name]
    value = numpy_helper.to_array(tensor).copy()
    change(value)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    return copy


def save_float(path):
    """Writes the network of seven convolutions; returns the file."""
    metadata = replace(small.metadata(), network=NETWORK)
    write_artefact(path, small.network().SerializeToString(), metadata)
    return path


def save_eight_bits(folder, placement, damaged=None):
    """Writes a float32 file, its calibration and its 8-bit file, and returns the last.

    Of a layer that is damaged the weights of all filters have the next one's place.
    """
    source = save_float(folder / "small-fp32.onnx")
    parent = artefact_sha256(source)
    kept = folder / "small-fp32.calibration.json"
    save_calibration(kept, replace(small.calibration(), parent_sha256=parent))
    calibration = Calibration.read(kept)
    model = quantize(onnx.load(source), calibration.ranges(), placement)
    if damaged is not None:
        name = f"network.{damaged}.weight_q"
        model = changed(model, name, lambda v: v.__setitem__(..., np.roll(v, 1, axis=0)))
    path = folder / f"small-{placement}.onnx"
    told = {"parent_sha256": parent, "calibration_images": calibration.images}
    metadata = replace(small.metadata(), network=NETWORK, precision=placement, **told)
    write_artefact(path, model.SerializeToString(), metadata)
    return path


@pytest.fixture
def compare(run, photos, tmp_path):
    """A function that runs the command on photos: its result, and what it printed."""

    def do(path, *arguments):
        out = tmp_path / "layers.json"
        done = run("sensitivity", path, "--layers", "--images", photos, "--json", out, *arguments)
        assert done.code == 0, done.err
        return json.loads(out.read_text()), done.out

    return do


def first_column(text):
    """The blocks in the order of the table."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("-----")) + 1
    return [line.split()[0] for line in lines[start : start + len(ORDER)]]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_block_with_wrong_weights_is_found(placement, compare, tmp_path):
    pytest.importorskip(cpu_runtime(placement))
    drawing, page = tmp_path / "l.svg", tmp_path / "l.html"
    path = save_eight_bits(tmp_path, placement, damaged="conv3")
    result, text = compare(path, "--plot", drawing, "--report", page)
    blocks = {block["name"]: block for block in result["blocks"]}
    assert list(blocks) == ORDER
    worst, *others = first_column(text)
    assert worst == "conv3"
    assert blocks["conv3"]["added"]["db"] < 10
    assert all((blocks[name]["added"]["db"] or 99) > 25 for name in others)
    assert blocks["conv2"]["after"]["db"] > 25
    assert blocks["conv5"]["before"]["db"] == blocks["conv3"]["after"]["db"] < 10
    assert result["labels_alike"] < 0.9
    assert (result["runtime"], result["reference"]) == (cpu_runtime(placement), "small-fp32.onnx")
    assert result["image_names"] == ["0.png", "1.png", "2.png"]
    assert drawing.read_text().count("<polyline") == 2
    assert page.read_text().count("<circle") == drawing.read_text().count("<circle") > 14


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_of_a_sound_file_or_of_what_is_made_of_float32_each_block_adds_its_rounding(
    placement, compare, tmp_path
):
    pytest.importorskip(cpu_runtime(placement))
    assert small.calibration().factors  # without them the channels would not be scaled
    path = save_eight_bits(tmp_path, placement)
    result, text = compare(path)
    made, _ = compare(path.with_name("small-fp32.onnx"), "--placement", placement)
    assert made["blocks"] == result["blocks"]
    assert (made["precision"], made["artefact"]) == (placement, "small-fp32.onnx")
    blocks = {block["name"]: block for block in result["blocks"]}
    assert all((block["added"]["db"] or 99) > 25 for block in blocks.values())
    assert all(block["after"]["db"] > 25 for block in blocks.values())
    assert blocks["classifier"]["added"]["noise_share"] < 1e-9  # it is in float
    assert blocks["classifier"]["before"] == blocks["conv6"]["after"]
    least = min(blocks[name]["after"]["db"] for name in ("conv4", "conv5"))
    assert blocks["conv6"]["before"]["db"] == least
    shares = [blocks[name]["in_8_bits"] for name in ORDER]
    assert shares == [0 if name in small.IN_FLOAT else 1 for name in ORDER]
    assert result["labels_alike"] > 0.95
    assert result["returning_outputs"]["labels_alike"] > 0.99
    assert f"labels alike with float32: {100 * result['labels_alike']:.2f} %" in text


def test_blocks_are_divided_by_what_the_placement_keeps_in_float(compare, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    path = save_eight_bits(tmp_path, "int8")
    kept = []

    def divided(layers, in_float, network):
        kept.append("classifier" in in_float)
        return blocks_of(layers, in_float, network)

    monkeypatch.setattr(handovers, "blocks_of", divided)
    monkeypatch.setattr(base, "_COSTLY", 0)  # now the classifier takes long, and loses little
    monkeypatch.setattr(base.Placement, "even", 1)
    compare(path)
    compare(path.with_name("small-fp32.onnx"), "--runtime", "openvino")
    assert kept == [False, True]


def test_a_float32_file_is_compared_on_another_runtime(compare, tmp_path):
    pytest.importorskip("openvino")
    path = save_float(tmp_path / "a.onnx")
    same, text = compare(path, "--runtime", "onnxruntime", "--limit", "1")
    assert all(block["added"]["noise_share"] == 0 for block in same["blocks"])
    assert same["labels_alike"] == 1
    assert "in 8 bits" not in text
    assert "the copy that returns these outputs answers exactly as the file does" in text
    other, _ = compare(path, "--runtime", "openvino", "--limit", "1")
    assert all(0 < block["after"]["noise_share"] < 1e-9 for block in other["blocks"])
    assert len(other["image_names"]) == 1


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A float32 file, and a float16 one in which the output of a layer overflows."""
    pytest.importorskip("onnxruntime.transformers.float16")
    from icnet_deploy.export.passes import to_half

    folder = tmp_path_factory.mktemp("half")
    model = small.network()
    for name, factor in (("conv2.weight", 2000), ("conv2.bias", 2000), ("conv3.weight", 1 / 2000)):
        by = np.float32(factor)
        model = changed(model, f"network.{name}", lambda v, by=by: v.__imul__(by))
    metadata = replace(small.metadata(), network=NETWORK, weights_sha256="a" * 64)
    write_artefact(folder / "large.onnx", model.SerializeToString(), metadata)
    to_half(model)
    metadata = replace(metadata, precision="fp16")
    write_artefact(folder / "large-fp16.onnx", model.SerializeToString(), metadata)
    return folder / "large-fp16.onnx"


def test_a_layer_that_overflows_in_float16_is_found(half, compare):
    result, text = compare(half)
    assert (result["runtime"], result["reference"]) == ("rounded", "large.onnx")
    blocks = {block["name"]: block for block in result["blocks"]}
    assert first_column(text)[0] == "conv2"
    assert not blocks["conv2"]["added"]["finite"]
    assert not blocks["conv2"]["after"]["finite"]
    unknown = {"noise_share": None, "db": None, "finite": True}
    assert blocks["conv3"]["added"] == unknown  # of what is not finite nothing can be said
    assert not blocks["conv3"]["before"]["finite"]
    assert blocks["conv1"]["added"]["db"] > 50
    assert result["labels_alike"] == 0
    [line] = [line for line in text.splitlines() if line.startswith("conv2")]
    assert line.split()[1:3] == ["not", "finite"]


def test_a_reference_is_found_by_name_or_in_the_folder(half, compare, photos, run, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / half.name).write_bytes(half.read_bytes())
    done = run("sensitivity", alone / half.name, "--layers", "--images", photos)
    assert done.code == 2
    assert "is not in its folder: name it with --reference" in done.err
    named, _ = compare(alone / half.name, "--reference", half.with_name("large.onnx"))
    assert named["reference"] == "large.onnx"
    adopted = tmp_path / "adopted"  # the parent of both is another program's file
    adopted.mkdir()
    for name in ("large.onnx", half.name):
        metadata = replace(read_onnx_metadata(half.with_name(name)), parent_sha256="a" * 64)
        write_artefact(adopted / name, half.with_name(name).read_bytes(), metadata)
    assert compare(adopted / half.name)[0]["reference"] == "large.onnx"
    other = small.save_network(alone / "other.onnx")
    done = run("sensitivity", half, "--layers", "--images", photos, "--reference", other)
    assert done.code == 2
    assert "the reference's weights is None, expected aaaa" in done.err


def test_an_8_bit_file_is_compared_with_the_calibration_that_it_was_made_with(
    compare, photos, run, tmp_path
):
    path = save_eight_bits(tmp_path, "int8-ort")
    kept = tmp_path / "small-fp32.calibration.json"
    moved = kept.rename(tmp_path / "ranges.json")
    done = run("sensitivity", path, "--layers", "--images", photos)
    assert done.code == 2
    assert "name the file with --calibration" in done.err
    compare(path, "--calibration", moved)
    other = replace(
        small.calibration(),
        images=tuple(f"{i + 7:064x}" for i in range(4)),
        parent_sha256=artefact_sha256(tmp_path / "small-fp32.onnx"),
    )
    save_calibration(moved, other)
    done = run("sensitivity", path, "--layers", "--images", photos, "--calibration", moved)
    assert done.code == 2
    assert "is not the calibration that" in done.err


@pytest.mark.parametrize(
    ("layers", "arguments", "message"),
    [
        (True, ["--max-miou-drop", "1"], "--max-miou-drop is for the scores of blocks"),
        (True, ["-o", "out.onnx"], "-o is for the scores of blocks"),
        (True, ["--trade-off", "t.svg"], "--trade-off is for the scores of blocks"),
        (True, ["--proof-split", "val"], "--proof-split is for the scores of blocks"),
        (True, ["--rounds", "3"], "--rounds is for the scores of blocks"),
        (True, ["--undecided", "fail"], "--undecided fail is for a proof"),
        (True, [], "give --placement to compare its 8-bit graph, or --runtime"),
        (True, ["--runtime", "rounded"], "--runtime rounded is for fp16"),
        (True, ["--runtime", "no"], "unknown runtime 'no'"),
        (True, ["--runtime", "tensorrt-rtx"], "runs engines, but this is an ONNX file"),
        (True, ["--reference", "b.onnx"], "--reference b.onnx is for INT8 and FP16 files"),
        (True, ["--placement", "int8", "--split", "val"], "--split val is for a data set, but"),
        (True, ["--placement", "int8"], "holds no calibration of"),
        (False, ["--placement", "int8"], "has no labels, and the score of a block needs labels"),
        (False, ["--reference", "b.onnx"], "--reference b.onnx needs --layers"),
        (False, ["--runtime", "openvino"], "--runtime openvino needs --layers"),
        (False, ["--device", "cpu"], "--device cpu needs --layers"),
    ],
)
def test_options_that_contradict_are_refused(
    layers, arguments, message, float_file, photos, run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.onnx"
    path.write_bytes(float_file.read_bytes())
    more = ["--layers"] if layers else []
    done = run("sensitivity", path, "--images", photos, *more, *arguments)
    assert done.code == 2
    assert message in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]


def test_what_is_for_float32_is_refused_of_other_files(half, photos, run, tmp_path):
    for arguments, message in (
        (["--placement", "int8"], "--placement int8 is for float32 files, and"),
        (["--calibration", "ranges.json"], "--calibration ranges.json is for 8-bit files"),
    ):
        done = run("sensitivity", half, "--layers", "--images", photos, *arguments)
        assert done.code == 2
        assert message in done.err
    done = run("sensitivity", tmp_path / "a.engine", "--layers", "--images", photos)
    assert done.code == 2
    assert "is an engine, whose blocks cannot be seen" in done.err


def test_nothing_says_which_placement_without_layers(float_file, run, tmp_path):
    done = run("sensitivity", float_file, "--dataset", "scenes", "--data", tmp_path)
    assert done.code == 2
    assert "give --placement int8 or int8-ort" in done.err


def test_a_drawing_holds_long_names_and_cuts_off_what_adds_next_to_nothing():
    def noise(db):
        return {"db": db, "noise_share": 10 ** (-db / 10), "finite": True}

    name = "decoder.blocks.first to decoder.blocks.the_one_before_the_last"
    blocks = [{"name": name, "added": noise(150.0), "after": noise(44.0)}]
    drawn = layers_plot({"blocks": blocks})
    assert "...blocks.first to decoder.blocks.the_one_before_the_last"[-45:] in drawn
    assert f">{name}<" not in drawn
    assert f"{name}, added: 150.0 dB" in drawn  # when pointed at
    ticks = [int(each) for each in re.findall(r">(\d+)</text>", drawn)]
    assert 55 <= max(ticks) < 100
