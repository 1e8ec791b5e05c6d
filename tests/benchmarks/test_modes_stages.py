"""Where the time of one image goes, stage by stage and operator by operator."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from icnet_deploy.benchmarks.command import BENCHMARKS
from icnet_deploy.benchmarks.modes.stages import STAGES, one_by_one, profile
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.images import read_image, write_image
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.predict.inputs import find_items
from icnet_deploy.runtime.predict.labelling import label_files

SIZE = (96, 128)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_stages_leave_what_predict_leaves(artefact, tmp_path, suffix):
    file = tmp_path / f"scene.{suffix}"
    write_image(file, draw_scene(5, SIZE).image)
    with Predictor.from_onnx(artefact, "onnxruntime", "cpu") as predictor:
        for folder, label in (
            ("stages", lambda items: one_by_one(predictor, items[0])),
            ("predict", lambda items: label_files(predictor, items)),
        ):
            (tmp_path / folder).mkdir()
            label(find_items([str(file)], tmp_path / folder))
    names = sorted(path.name for path in (tmp_path / "predict").iterdir())
    assert len(names) == 3
    for name in names:
        one, other = (read_image(tmp_path / folder / name) for folder in ("stages", "predict"))
        assert np.array_equal(one, other)


def test_every_stage_is_told_with_its_share(artefact, tmp_path, run):
    out = tmp_path / "stages.jsonl"
    argv = ["--size", "96x128", "--rounds", "3", "--layers", "4", "--json", out, "--threads", "1"]
    done = run("benchmark", "stages", artefact, *argv)
    assert done.code == 0, done.err
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["subject"]["runtime"] for each in found] == ["onnxruntime", "openvino"]
    for each in found:
        values = each["values"]
        parts = sum(np.array(values[stage]["samples_ms"]) for stage in STAGES)
        assert np.allclose(parts, values["total"]["samples_ms"], atol=0.01)
        assert sum(values[f"{stage}_percent"] for stage in STAGES) == pytest.approx(100, abs=0.1)
        assert len(values["operators"]) == 4 < values["operators_count"]
        assert each["setting"]["format"] == "png"
    assert "share %" in done.out
    assert done.out.count("4 slowest of") == 2


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_profile_tells_every_operator_slowest_first(artefact, runtime):
    image = draw_scene(5, SIZE).image
    found = profile(Run(artefact, runtime, "cpu"), image, threads=1, runs=2)
    times = [one["median_ms"] for one in found]
    assert times == sorted(times, reverse=True)
    assert sum(one["share_percent"] for one in found) == pytest.approx(100, abs=1)
    assert times[0] > 0
    convolutions = [one for one in found if one["kind"] in ("Convolution", "Conv", "FusedConv")]
    known = sum(node.op_type == "Conv" for node in onnx.load(artefact).graph.node)
    # OpenVINO leaves out what takes less than a microsecond, as one of so few pixels may.
    assert 0.9 * known <= len(convolutions) <= known


def test_a_runtime_without_a_profile(artefact):
    image = np.zeros((*SIZE, 3), np.uint8)
    with pytest.raises(InputError, match="no profile of tensorrt on cuda"):
        profile(Run(artefact, "tensorrt", "cuda"), image)


def test_an_image_of_ones_own(artefact, tmp_path, run):
    file = tmp_path / "mine.jpg"
    write_image(file, draw_scene(5, (80, 100)).image)
    out = tmp_path / "stages.jsonl"
    argv = ["--runtime", "openvino", "--image", file, "--rounds", "2", "--layers", "1"]
    assert run("benchmark", "stages", artefact, *argv, "--json", out).code == 0
    setting = json.loads(out.read_text())["setting"]
    assert setting["size"] == [80, 100]
    assert setting["format"] == "jpg"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.jpg", "stages.jsonl"]


@pytest.mark.parametrize("name", ["throughput", "stages", "start", "memory", "paced"])
def test_help_shows_an_example(name, run):
    assert name in BENCHMARKS
    done = run("benchmark", name, "--help")
    assert done.code == 0
    assert f"example:\n  icnet benchmark {name} " in done.out
    assert "--runtime NAME" in done.out
