"""What earlier versions wrote still opens, and answers as it did."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from icnet_deploy.engine_sidecar import read_sidecar
from icnet_deploy.images import read_image
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.auto.choice import read_choice
from icnet_deploy.runtime.auto.verdicts import read_verdicts

ARCHIVES = sorted((Path(__file__).parent / "old_files").glob("*.tar.xz"))

# 8-bit kernels differ by processor: what a file gave elsewhere it gives here but for borders.
LEAST_ALIKE = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.9, "int8-ort": 0.98}


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name)
def old(request, tmp_path_factory):
    """The unpacked files of one version."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _files(old: Path) -> list[Path]:
    files = [*sorted((old / "release").glob("*.onnx")), old / "free.onnx"]
    assert len(files) == 9
    return files


def test_every_artefact_says_what_it_is(old):
    kinds = {(m.precision, m.head) for m in map(read_onnx_metadata, _files(old))}
    assert len(kinds) == 8
    sidecar = read_sidecar(old / "tiny.engine")
    assert sidecar is not None
    assert sidecar.metadata == read_onnx_metadata(old / "release" / "tiny-logits-fp32.onnx")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_artefact_answers_as_it_did(old, runtime):
    pytest.importorskip(runtime, reason=f"{runtime} is not installed")
    image = read_image(old / "scene.png")
    expected = np.load(old / "labels.npz")
    for path in _files(old):
        with Predictor.from_onnx(path, runtime) as predictor:
            labels = predictor.predict(image).labels
            alike = (labels == expected[path.name]).mean()
            assert alike >= LEAST_ALIKE[predictor.metadata.precision], path.name


def test_a_verified_folder_opens(old):
    found = read_verdicts(old / "release").entries
    assert len(found) == 14
    assert [entry.verdict for entry in found if entry.passed] == ["within"] * 8
    with Predictor.from_folder(old / "release", "onnxruntime") as predictor:
        assert predictor.choice is not None


def test_a_remembered_choice_is_read(old):
    [path] = (old / "cache" / "choices").glob("*.json")
    key, choice = read_choice(path)
    assert choice is not None
    assert len(choice.candidates) == len(key["candidates"]) == 8


def test_the_checkpoint_loads(old):
    pytest.importorskip("torch", reason="a checkpoint needs torch")
    from icnet_deploy.networks.checkpoint import load_checkpoint
    from icnet_deploy.training.config import load_config

    config = load_config(str(old / "tiny.toml"))
    checkpoint = load_checkpoint(old / "tiny.safetensors")
    assert checkpoint.network.description().items() >= config.network.items()


def test_a_calibration_serves_again(old):
    pytest.importorskip("onnx", reason="calibration needs onnx")
    from icnet_deploy.calibration.calibrate import Calibration

    for path in (old / "release").glob("*.calibration.json"):
        calibration = Calibration.read(path)
        assert len(calibration.images) == 8
        assert calibration.ranges("percentile").tensors


def test_measurements_are_read(old):
    from icnet_deploy.benchmarks.measurement import read_measurements

    files = sorted((old / "results").glob("*.jsonl"))
    assert len(files) == 6
    assert all(read_measurements(path) for path in files)


def test_scores_are_read(old):
    pytest.importorskip("torch", reason="the package that compares scores needs torch")
    from icnet_deploy.evaluation.evaluate.command import main

    result = str(old / "results" / "evaluate.json")
    assert main([result, "--against", result]) == 0
    for path in (old / "results").glob("*.json"):
        assert isinstance(json.loads(path.read_text()), dict)
