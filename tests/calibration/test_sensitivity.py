"""`icnet sensitivity`: it finds the block that was made sensitive, and keeps that one in float."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import placement_contract as small
import pytest
from onnx import numpy_helper

from icnet_deploy.calibration.placements.registry import PLACEMENTS, cpu_runtime
from icnet_deploy.calibration.sensitivity.kept import calibration_of
from icnet_deploy.calibration.sensitivity.plots import cost_plot
from icnet_deploy.calibration.sensitivity.report import markdown, sensitivity_text
from icnet_deploy.calibration.sensitivity.search import Block, Cost, blocks_of, modules_of, search
from icnet_deploy.data.scenes import write_scenes
from icnet_deploy.evaluation.budgets import Budget
from icnet_deploy.evaluation.confidence.differences import Differences, Interval, Seen
from icnet_deploy.images import read_image, write_labels
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.metadata import read_onnx_metadata, write_artefact
from icnet_deploy.runtime.predictor import Predictor

BLOCKS = [Block(name, (name,), 1, False) for name in "abcd"]


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    """A network with a convolution whose weights no 8 bits can hold, and scenes.

    These are 8 of train, 2 of val and 10 of test.

    One channel of its input is always zero, and has weights so large that a grid over them holds
    nothing else; in float32 they do nothing. The truth of val and test is what it answers.
    """
    folder = tmp_path_factory.mktemp("fragile")
    model = onnx.ModelProto.FromString(small.network().SerializeToString())
    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def change(name, edit):
        value = numpy_helper.to_array(constants[name]).copy()
        edit(value)
        constants[name].CopyFrom(numpy_helper.from_array(value, name))

    change("network.conv2.weight", lambda value: value[0].fill(0))
    change("network.conv2.bias", lambda value: value[:1].fill(-1))
    change("network.conv3.weight", lambda value: value[:, 0].fill(1e4))
    path, scenes = folder / "fragile.onnx", folder / "scenes"
    write_artefact(path, model.SerializeToString(), small.metadata())
    write_scenes(scenes, 8, (96, 144), 1, "train", progress=False)
    write_scenes(scenes, 2, (96, 144), 2, "val", progress=False)
    write_scenes(scenes, 10, (96, 144), 3, "test", progress=False)
    numbers = np.array(CITYSCAPES.label_ids, np.uint8)
    with Predictor.open(path, "onnxruntime", "cpu") as predictor:
        for image in scenes.glob("leftImg8bit/[vt]*[lt]/*/*.png"):  # val and test
            labels = predictor.predict(read_image(image)).labels
            name = image.name.replace("leftImg8bit", "gtFine_labelIds")
            split, city = image.parts[-3:-1]
            write_labels(scenes / "gtFine" / split / city / name, numbers[labels])
    return folder


@pytest.fixture
def sensitivity(fragile, run):
    """A function that runs the command on it."""

    def do(*arguments, placement="int8-ort"):
        data = ["--dataset", "scenes", "--data", fragile / "scenes", "--placement", placement]
        return run("sensitivity", fragile / "fragile.onnx", *data, *arguments)

    return do


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_fragile_block_costs_most_and_is_kept_in_float(placement, sensitivity, tmp_path):
    pytest.importorskip(cpu_runtime(placement))
    files = ["--json", tmp_path / "s.json", "--report", tmp_path / "s.html"]
    files += ["--plot", tmp_path / "s.svg", "--trade-off", tmp_path / "t.svg"]
    own = placement == "int8"  # parts the split; else another one is the proof
    budget = ["--max-miou-drop", "40", "--max-class-drop", "100", "--rounds", "3"]
    budget += [] if own else ["--proof-split", "test"]
    out = tmp_path / "out.onnx"
    done = sensitivity(*budget, *files, "-o", out, placement=placement)
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "s.json").read_text())
    changed = {b["name"]: b["labels_changed_percent"]["value"] for b in result["blocks"]}
    assert max(changed, key=changed.get) == "conv3"
    assert changed["conv3"] > 2 * sorted(changed.values())[-2]
    assert result["together"]["labels_changed_percent"]["value"] > changed["conv3"] / 2
    found = result["search"]
    assert [a["in_float"] for a in found["attempts"]] == [[], ["conv3"]]
    assert [a["met"] for a in found["attempts"]] == [False, True]
    assert (
        found["attempts"][0]["labels_changed_percent"]
        == (result["together"]["labels_changed_percent"])
    )
    assert all(len(a["inference"]["samples_ms"]) == 3 for a in found["attempts"])
    metadata = read_onnx_metadata(out)
    assert metadata.precision == placement
    assert set(metadata.tools["float"].split(", ")) == {"conv3", "conv4", "classifier"}
    assert metadata.calibration_images == tuple(result["calibration_images"])
    names = [t.name for t in onnx.load(out).graph.initializer if t.name.endswith("weight_q")]
    assert {name.split(".")[1] for name in names} == {"conv1", "conv2", "conv5", "conv6"}
    assert "the budget is met with conv3 in float; proof: undecided" in done.out
    few = "1 image: too few to tell anything about other images; give at least 10"
    first = f"The proof: {few}. Undecided: " if own else "The proof: 10 images in 10 groups; "
    assert done.out.startswith(first)
    seen, unseen = result["image_names"], found["proof"]["image_names"]
    assert (len(seen), len(unseen)) == ((1, 1) if own else (2, 10))
    assert seen != unseen
    assert found["proof"]["protocol"]["split"] == ("val" if own else "test")
    assert found["proof"]["trials"][0]["attempt"] == 1
    assert (tmp_path / "t.svg").read_text().count("<circle") == 3
    assert "conv3" in (tmp_path / "s.svg").read_text()
    assert (tmp_path / "s.html").read_text().count("<svg") == 4


def test_an_undecided_proof_fails_if_that_is_asked_for_and_leaves_the_file(sensitivity, tmp_path):
    limits = ["--max-miou-drop", "40", "--max-class-drop", "100", "--rounds", "1"]
    done = sensitivity(*limits, "--undecided", "fail", "-o", tmp_path / "out.onnx")
    assert done.code == 1
    assert "the proof is undecided: " in done.err
    assert (tmp_path / "out.onnx").is_file()


def test_a_reader_that_closes_the_pipe_loses_no_file(fragile, tmp_path):
    files = [tmp_path / "s.json", tmp_path / "out.onnx"]
    data = ["--dataset", "scenes", "--data", fragile / "scenes", "--placement", "int8-ort"]
    limits = ["--max-miou-drop", "40", "--max-class-drop", "100", "--rounds", "1"]
    command = [sys.executable, "-u", "-m", "icnet_deploy", "sensitivity", fragile / "fragile.onnx"]
    reading, writing = os.pipe()
    os.close(reading)
    told = [*data, *limits, "--json", files[0], "-o", files[1]]
    done = subprocess.run([*command, *told], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 141, done.stderr
    assert all(file.stat().st_size for file in files)


def test_a_budget_that_none_meets_is_a_failed_check(sensitivity, tmp_path):
    limits = ["--max-miou-drop", "0", "--max-class-drop", "0", "--rounds", "1"]
    result = tmp_path / "s.json"
    done = sensitivity(*limits, "--json", result, "-o", tmp_path / "out.onnx")
    assert done.code == 1
    assert "no graph meets the budget; the nearest has" in done.err
    found = json.loads(result.read_text())["search"]
    assert found["proof"] is None
    assert len(found["attempts"]) == sum(
        not b["kept"] for b in json.loads(result.read_text())["blocks"]
    )
    assert list(tmp_path.iterdir()) == [result]


def test_images_that_were_calibrated_on_are_not_scored(sensitivity):
    for split in ("--split",), ("--max-miou-drop", "1", "--proof-split"):
        done = sensitivity(*split, "train")
        assert done.code == 2
        assert "was used to calibrate" in done.err


def test_ranges_that_were_kept_are_what_ranges_made_now_were(fragile, tmp_path):
    args = argparse.Namespace(
        exif=None,
        label_set=None,
        label_values=None,
        class_map=None,
        model=fragile / "fragile.onnx",
        calibration=None,
        dataset="scenes",
        data=fragile / "scenes",
        placement="int8",
    )
    made, kept = (calibration_of(args, tmp_path / "ranges.json").ranges() for _ in range(2))
    for name, one in made.tensors.items():
        assert (one.low, one.high) == (kept.tensors[name].low, kept.tensors[name].high)
        assert np.array_equal(one.means, kept.tensors[name].means)
    assert all(np.array_equal(v, kept.factors[name]) for name, v in made.factors.items())


def test_wrong_requests_are_told_before_the_work(sensitivity, fragile, tmp_path):
    done = sensitivity("--trade-off", tmp_path / "t.svg")
    assert (done.code, "--trade-off needs a search" in done.err) == (2, True)
    done = sensitivity("--proof-split", "test")
    assert (done.code, "--proof-split needs a search" in done.err) == (2, True)
    done = sensitivity("--proof-split", "val", "--max-miou-drop", "1")
    assert (done.code, "is the split of the search" in done.err) == (2, True)
    done = sensitivity("--limit", "1", "--max-miou-drop", "1")
    assert (done.code, "or another split with --proof-split" in done.err) == (2, True)
    done = sensitivity("-o", fragile / "fragile.onnx")
    assert (done.code, "would replace MODEL" in done.err) == (2, True)
    other = tmp_path / "other.json"
    other.write_text("{}")
    done = sensitivity("--calibration", other)
    assert (done.code, "is not a calibration of" in done.err) == (2, True)


def test_every_convolution_is_in_one_block():
    layers = ["conv1_1_3x3_s2", "conv1_2_3x3", "conv2_1._3x3", "conv2_1._1x1_proj", "conv3_1._3x3"]
    layers += ["conv3_2._3x3", "conv4_1._3x3", "conv1_sub1", "conv2_sub1", "conv_sub4"]
    layers += ["conv3_1_sub2_proj", "conv_sub2", "conv3_sub1_proj", "conv6_cls", "extra._1x1"]
    blocks = blocks_of(layers, ["conv1_1_3x3_s2", "conv6_cls"], {"architecture": "icnet"})
    assert {b.name: b.modules for b in blocks} == {
        "conv1_1_3x3_s2": ("conv1_1_3x3_s2",),
        "stem": ("conv1_2_3x3",),
        "conv2": ("conv2_1",),
        "conv3_1": ("conv3_1",),
        "conv3": ("conv3_2",),
        "conv4": ("conv4_1",),
        "high branch": ("conv1_sub1", "conv2_sub1"),
        "CFF 24": ("conv_sub4", "conv3_1_sub2_proj"),
        "CFF 12": ("conv_sub2", "conv3_sub1_proj"),
        "classifier": ("conv6_cls",),
        "extra": ("extra",),
    }
    assert [b.name for b in blocks if b.kept] == ["conv1_1_3x3_s2", "classifier"]
    assert sum(b.convolutions for b in blocks) == len(layers)
    assert sorted(modules_of(blocks)) == sorted({layer.split(".")[0] for layer in layers})


def interval(value):
    return Interval(value, value - 0.25, value + 0.25, 12, 12.0)


def cost(points, changed=0.0):
    classes = {"road": interval(points), "sky": interval(0.0)}
    alike = replace(interval(0), value=1 - changed, low=0.9 - changed, high=1.0)
    found = Differences(
        images=12,
        groups=12,
        level=0.95,
        miou=interval(points / 2),
        left_out=(),
        classes=classes,
        seen=dict.fromkeys(classes, Seen(12, 10**6)),
        pixel_accuracy=interval(0),
        small_regions=None,
        alike=alike,
    )
    values = {name: one.value for name, one in classes.items()}
    return Cost(1 - changed, points / 2, values, found)


def searched(needed, limit=1.0):
    """A search where the budget is met once the blocks `needed` are all in float."""
    alone = {b: cost(0, share) for b, share in zip(BLOCKS, (0.1, 0.4, 0.2, 0.3), strict=True)}

    def attempt(chosen):
        left = len(set(needed) - {b.name for b in chosen})
        return Path("".join(b.name for b in chosen)), cost(-4.0 * left)

    return search(alone, Budget(0.25, limit, limit), attempt)


def test_blocks_are_put_back_by_their_cost_and_those_not_needed_taken_out_again():
    attempts, best = searched("bc")
    assert [str(a.path) for a in attempts] == [".", "b", "bd", "bdc", "bc", "c"]
    assert best.name == "b + c"
    assert [a.met for a in attempts] == [False, False, False, True, True, False]


def test_a_search_ends_where_nothing_is_left_to_try():
    assert [str(a.path) for a in searched("")[0]] == ["."]
    attempts, best = searched("abcd")
    assert [len(a.in_float) for a in attempts] == [0, 1, 2, 3]
    assert not best.met
    assert best.name == "b + d + c"


def test_the_tables_and_bars_say_what_was_measured():
    block = {"name": "conv2", "modules": ["conv2_1"], "convolutions": 4, "kept": False}
    result = {
        "kind": "sensitivity",
        "placement": "int8",
        "runtime": "openvino",
        "basis": "12 images in 12 groups; for mIoU they count as 12 independent images",
        "protocol": {"images": 12, "dataset": "camvid", "split": "val"},
        "float32": {"miou_percent": 61.5},
        "blocks": [{**block, **cost(-0.5, 0.02).to_dict()}],
        "together": {"convolutions": 4, **cost(-1.0, 0.05).to_dict()},
        "search": None,
    }
    lines = sensitivity_text(result).splitlines()
    assert lines[0] == f"{result['basis']}."
    row = ["conv2", "4", "-0.25 [-0.50, 0.00]", "-0.50 [-0.75, -0.25] road", "2.00"]
    assert row in [re.split("  +", line) for line in lines]
    del row[1]
    assert markdown([result, {"kind": "parity"}]).splitlines()[2] == f"| {' | '.join(row)} |"
    plot = cost_plot(result)
    assert "conv2: -0.250 points [-0.500, +0.000]" in plot
    assert plot.count('class="whisker') == 3 * 3 * 2  # a line and its caps
    changed = [float(width) for width in re.findall(r'width="([\d.]+)" height="12', plot)]
    assert np.isclose(changed[1] / changed[0], 2.5)


def test_results_that_were_recorded_without_intervals_are_read():
    block = {
        "name": "conv2",
        "convolutions": 4,
        "kept": False,
        "miou_difference_points": -0.25,
        "worst_class": "road",
        "worst_class_difference_points": -0.5,
        "labels_changed_percent": 2.0,
    }
    old = {"kind": "sensitivity", "placement": "int8", "together": block, "blocks": [block]}
    ort = {**old, "placement": "int8-ort", "blocks": [{**block, "kept": True}]}
    lines = markdown([old, ort]).splitlines()
    assert lines[2] == "| conv2 * | -0.25 | -0.50 road | 2.00 | -0.25 | -0.50 road | 2.00 |"
