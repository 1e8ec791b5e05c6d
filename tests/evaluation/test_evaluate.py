import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest

from icnet_deploy.data import ConfusionMatrix, content_hash, open_dataset
from icnet_deploy.evaluation.evaluate.command import openings
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.labels import CITYSCAPES

ON_SCENES = ("--dataset", "scenes", "--data")


def expected_score(checkpoint, scenes, size):
    reference = Reference(checkpoint, size)
    matrix = ConfusionMatrix(19)
    for sample in open_dataset("scenes", scenes):
        matrix.add(reference.labels(sample.image), sample.labels)
    return matrix


def test_a_checkpoint_is_scored(run, checkpoint, scenes, tmp_path):
    out = tmp_path / "score.json"
    done = run("evaluate", checkpoint, *ON_SCENES, scenes, "--size", "64x96", "--json", out)
    assert (done.code, done.err) == (0, "")
    told = json.loads(out.read_text())
    assert told["schema"] == 2
    assert told["runtime"] == "pytorch"
    assert told["protocol"]["model_size"] == "64x96"
    assert told["protocol"]["images"] == 3
    assert {"numpy", "python", "icnet-deploy", "torch"} <= set(told["versions"])
    assert told["machine"]["cores"] >= 1
    assert told["time"]["milliseconds"] > 0
    assert len({one["group"] for one in told["images"]}) == 3
    expected = expected_score(checkpoint, scenes, (64, 96))
    assert sum(sum(one["truth"]) for one in told["images"]) == expected.counts.sum()
    assert told["score"]["miou_percent"] == pytest.approx(100 * expected.miou(), abs=1e-5)
    for name, iou in zip(CITYSCAPES.names, expected.iou(), strict=True):
        share = told["score"]["iou_percent"][name]
        assert share is None if np.isnan(iou) else share == pytest.approx(100 * iou, abs=1e-5)


def test_the_screen_has_every_class_the_protocol_and_the_scope(run, checkpoint, scenes):
    done = run("evaluate", checkpoint, *ON_SCENES, scenes, "--limit", 1)
    assert done.code == 0
    for name in CITYSCAPES.names:
        assert re.search(rf"^{name} +(\d+\.\d\d|-)$", done.out, re.MULTILINE)
    assert re.search(r"^mIoU +\d+\.\d\d$", done.out, re.MULTILINE)
    assert re.search(r"model size +image$", done.out, re.MULTILINE)
    assert "not resized" in done.out
    assert "without decoding and scoring" in done.out


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_onnx_file_scores_as_its_checkpoint(
    run, artefact, checkpoint, scenes, tmp_path, runtime
):
    pytest.importorskip(runtime)
    out = tmp_path / "score.json"
    done = run("evaluate", artefact, *ON_SCENES, scenes, "--runtime", runtime, "--json", out)
    assert done.code == 0
    told = json.loads(out.read_text())
    assert told["runtime"] == runtime
    expected = expected_score(checkpoint, scenes, (96, 128))
    assert told["score"]["miou_percent"] == pytest.approx(100 * expected.miou(), abs=0.01)


def test_a_19_class_model_is_scored_on_camvid(run, checkpoint, camvid, tmp_path):
    out = tmp_path / "score.json"
    arguments = ("--dataset", "camvid", "--data", camvid, "--size", "64x64", "--json", out)
    assert run("evaluate", checkpoint, *arguments).code == 0
    told = json.loads(out.read_text())
    assert told["protocol"]["data_label_set"] == "camvid, 11 classes"
    sample = open_dataset("camvid", camvid)[0]
    predicted = np.array(CITYSCAPES.names)[Reference(checkpoint, (64, 64)).labels(sample.image)]
    truth = np.where(sample.labels == 0, "sky", "road")
    right = 100 * float((predicted == truth).mean())
    assert told["score"]["pixel_accuracy_percent"] == pytest.approx(right, abs=1e-5)


def test_images_of_the_calibration_are_refused(run, describe, scenes):
    sample = open_dataset("scenes", scenes)[1]
    digests = (content_hash(sample.image),)
    path = describe("int8.onnx", precision="int8", calibration_images=digests)
    done = run("evaluate", path, *ON_SCENES, scenes)
    assert done.code == 2
    assert sample.name in done.err
    assert "calibrate" in done.err
    assert done.out == ""


def wrong(run, *arguments):
    """Runs a request that must be refused in one line with exit code 2, and returns the line."""
    done = run(*arguments)
    assert done.code == 2, done
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("icnet: error: ")
    assert done.out == ""
    return lines[0]


def test_bad_requests(run, checkpoint, artefact, scenes, tmp_path):
    def evaluate(model=checkpoint, dataset="scenes", data=scenes, extra=()):
        return wrong(run, "evaluate", model, "--dataset", dataset, "--data", data, *extra)

    (tmp_path / "empty").mkdir()
    assert "no scenes images" in evaluate(data=tmp_path / "empty")
    assert "does not exist" in evaluate(data=tmp_path / "nowhere")
    assert "unknown data set 'kitti'" in evaluate(dataset="kitti")
    assert "no scenes images of the split 'test'" in evaluate(extra=("--split", "test"))
    assert "there is no such file" in evaluate(tmp_path / "none.safetensors")
    assert "none.onnx" in evaluate(tmp_path / "none.onnx")
    assert "is not a model" in evaluate(tmp_path / "model.txt")
    engine = tmp_path / "model.engine"
    assert "cannot read the engine" in evaluate(engine)
    engine.write_bytes(b"plan")
    told = evaluate(engine, extra=("--runtime", "openvino"))
    assert "known: auto, tensorrt, tensorrt-rtx" in told
    assert "leave out --device cpu" in evaluate(engine, extra=("--device", "cpu"))
    assert "--runtime openvino" in evaluate(extra=("--runtime", "openvino"))
    assert "--device cuda" in evaluate(extra=("--device", "cuda"))
    assert "--size is for a checkpoint" in evaluate(artefact, extra=("--size", "64x64"))
    assert "unknown runtime 'abacus'" in evaluate(artefact, extra=("--runtime", "abacus"))
    assert "is not a regular expression" in evaluate(extra=("--group-by", "("))
    assert "--group-by ^drive finds nothing in" in evaluate(extra=("--group-by", "^drive"))
    (tmp_path / "file").write_text("")
    assert "cannot write" in evaluate(extra=("--json", tmp_path / "file" / "a.json"))
    assert "folder of that name" in evaluate(extra=("--report", tmp_path / "empty"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, [(None, "auto", "auto")] * 3),
        (
            {"size": (64, 64), "runtime": "openvino", "device": "cpu"},
            [((64, 64), "auto", "auto"), (None, "openvino", "cpu"), (None, "auto", "auto")],
        ),
        (
            {"runtime": "tensorrt", "device": "cuda"},
            [(None, "auto", "auto"), (None, "auto", "cuda"), (None, "tensorrt", "cuda")],
        ),
    ],
)
def test_each_option_goes_to_the_kind_of_file_that_it_speaks_of(options, told):
    paths = [Path(name) for name in ("a.safetensors", "a.onnx", "a.engine")]
    arguments = argparse.Namespace(**{"size": None, "runtime": "auto", "device": "auto"} | options)
    assert [opening[1:] for opening in openings(paths, arguments)] == told


def test_a_file_that_is_cut_off(run, artefact, scenes, tmp_path):
    data = artefact.read_bytes()
    (tmp_path / "half.onnx").write_bytes(data[: len(data) // 2])
    assert "cut off" in wrong(run, "evaluate", tmp_path / "half.onnx", *ON_SCENES, scenes)
