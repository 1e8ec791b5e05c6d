"""The example on data of one's own, as a user runs it, but for fewer images and steps."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the example trains")
pytest.importorskip("pytorch_lightning", reason="the example trains")
pytest.importorskip("onnx", reason="the example exports")
pytest.importorskip("onnxruntime", reason="the example quantizes")

from icnet_deploy.documents import parse
from icnet_deploy.images import read_grey
from icnet_deploy.metadata import read_onnx_metadata

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_data"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder and the output of a run of 20 steps, on 3 days a split."""
    if not (BIN / "icnet").is_file():
        pytest.skip("the command is not installed beside this Python")
    folder = tmp_path_factory.mktemp("own_data") / "work"
    loose = "--max-miou-drop 100 --max-class-drop 100"  # 20 steps make no network to be held to
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    variables = {"PATH": path, "DRAW": "--days 3", "GATE": loose, "OMP_NUM_THREADS": "1"}
    few = ["--steps", "20", "--batch", "2", "--crop", "129x161"]
    process = subprocess.run(
        ["sh", str(EXAMPLE / "run.sh"), str(folder), *few],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return folder, process.stdout, process.stderr


def test_it_writes_what_it_says(done):
    folder, out, _ = done
    release = folder / "release"
    names = ("farm.safetensors", "farm.onnx", "farm-int8.onnx", "farm-int8-ort.onnx")
    assert all((release / name).is_file() for name in names)
    assert (release / "verified.json").is_file()
    assert "weights of 1 class with the same name are kept: person" in out
    pictures = list((folder / "pictures").glob("*_labels.png"))
    assert len(pictures) == 12
    assert read_grey(pictures[0]).max() < 4
    assert out.count("within") >= 3


def test_its_artefacts_know_what_they_were_trained_on(done):
    metadata = read_onnx_metadata(done[0] / "release" / "farm-int8.onnx")
    assert metadata.label_set.names == ("field", "track", "crate", "person")
    assert metadata.training_data.startswith("12 images of farm train, ")
    assert "camvid" in metadata.training_data


def test_each_command_is_shown_before_it_runs(done):
    shown = [line for line in done[2].splitlines() if line.startswith("+ ")]
    commands = [line.split()[2] for line in shown if line.split()[1] == "icnet"]
    steps = ["dataset", "train", "evaluate", "export", "quantize", "verify", "predict"]
    assert commands == steps


def test_the_same_data_set_is_drawn_again(done):
    spec = importlib.util.spec_from_file_location("draw_own_data", EXAMPLE / "draw.py")
    drawn = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawn)
    image, truth = drawn.draw(102)
    again, _ = drawn.draw(102)
    assert np.array_equal(image, again)
    colours = {tuple(colour) for colour in truth.reshape(-1, 3).tolist()}
    assert {drawn.IGNORED, drawn.CLASSES["field"], drawn.CLASSES["track"]} <= colours
    assert colours <= {drawn.IGNORED, *drawn.CLASSES.values()}
    written = parse((done[0] / "farm" / "classes.json").read_text(encoding="utf-8"))
    assert written == drawn.DESCRIPTION
