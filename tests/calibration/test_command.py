"""`icnet quantize`: what it writes, refuses and leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from placement_contract import save_network

from icnet_deploy.cli import main
from icnet_deploy.data import content_hash, open_dataset
from icnet_deploy.files import sha256
from icnet_deploy.images import write_image
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.predictor import Predictor


@pytest.fixture(scope="module")
def done(float_file, dataset, tmp_path_factory):
    """The folder of one run for both placements."""
    out = tmp_path_factory.mktemp("quantized")
    arguments = [str(float_file), "--dataset", "scenes", "--data", str(dataset), "--count", "8"]
    histogram = ["--histogram", "relu5", str(out / "relu5.svg")]
    assert main(["quantize", *arguments, *histogram, "-o", str(out)]) == 0
    return out


@pytest.mark.parametrize("placement", ["int8", "int8-ort"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_artefacts_run_everywhere_and_say_what_they_are(
    placement, runtime, done, float_file, dataset
):
    pytest.importorskip(runtime)
    path = done / f"small-{placement}.onnx"
    metadata = read_onnx_metadata(path)
    assert metadata.precision == placement
    assert metadata.parent_sha256 == sha256(float_file)
    assert metadata.tools["ranges"] in ("percentile", "mse")
    assert "labels alike on 8 calibration images" in metadata.tools["ranges_chosen_by"]
    train = {content_hash(s.image) for s in open_dataset("scenes", dataset, "train")}
    assert len(metadata.calibration_images) == 8
    assert set(metadata.calibration_images) <= train
    with Predictor.from_onnx(path, runtime=runtime, device="cpu") as predictor:
        image = open_dataset("scenes", dataset, "val")[0].image
        labels = predictor.predict(image).labels
    with Predictor.from_onnx(float_file, runtime=runtime, device="cpu") as predictor:
        assert (predictor.predict(image).labels == labels).mean() > 0.97


@pytest.mark.parametrize("name", ["conv1", "conv5", "classifier"])
def test_a_histogram_of_a_layer_or_a_block(name, done, float_file, dataset):
    out = done / f"{name}.svg"
    calibration = done / "small.calibration.json"
    data = ["--dataset", "scenes", "--data", str(dataset), "--count", "8"]
    kept = ["--calibration", str(calibration), "-o", str(done / "again")]
    (done / "again").mkdir(exist_ok=True)
    assert main(["quantize", str(float_file), *data, *kept, "--histogram", name, str(out)]) == 0
    assert f" of {name}" in out.read_text() or f"to {name}" in out.read_text()


def test_a_histogram_of_nothing_is_refused_before_the_work(float_file, dataset, capsys, tmp_path):
    data = ["--dataset", "scenes", "--data", str(dataset), "--count", "8", "-o", str(tmp_path)]
    histogram = ["--histogram", "relu_of_mine", str(tmp_path / "h.svg")]
    assert main(["quantize", str(float_file), *data, *histogram]) == 2
    assert (
        "no layer, block or tensor of that name; layers: conv4, conv1, " in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


def test_scoring_refuses_the_images_that_were_calibrated_on(done, dataset, capsys):
    model = str(done / "small-int8-ort.onnx")
    where = ["--dataset", "scenes", "--data", str(dataset)]
    assert main(["evaluate", model, *where, "--split", "train"]) == 2
    assert "was used to calibrate" in capsys.readouterr().err
    assert main(["evaluate", model, *where, "--split", "val"]) == 0


def test_the_ranges_are_kept_and_used_again_only_for_the_same_images(
    done, float_file, dataset, capsys, tmp_path
):
    cache = done / "small-fp32.calibration.json"
    value = json.loads(cache.read_text())
    assert value["parent_sha256"] == sha256(float_file)
    assert len(value["images"]) == 8
    low, high = value["tensors"]["relu5"]["int8-ort"]
    assert low == 0 < high <= value["tensors"]["relu5"]["maximum"]
    assert "<svg" in (done / "relu5.svg").read_text()

    def arguments(seed):
        source = ["--dataset", "scenes", "--data", str(dataset), "--count", "8", "--seed", seed]
        where = ["--calibration", str(cache), "-o", str(tmp_path), "--placement", "int8"]
        return ["quantize", str(float_file), *source, *where, "--method", "mse"]

    assert main(arguments("0")) == 0
    assert "used again" in capsys.readouterr().out
    assert main(arguments("1")) == 0
    assert "ranges of 12 tensors on 8 images" in capsys.readouterr().out
    assert json.loads(cache.read_text())["images"] != value["images"]


def test_kept_ranges_make_the_file_that_was_made_when_they_were_kept(
    done, float_file, dataset, tmp_path, capsys
):
    source = ["--dataset", "scenes", "--data", str(dataset), "--count", "8", "--placement", "int8"]
    for words in ("ranges of 12 tensors", "used again"):
        assert main(["quantize", str(float_file), *source, "-o", str(tmp_path)]) == 0
        assert words in capsys.readouterr().out
        assert sha256(tmp_path / "small-int8.onnx") == sha256(done / "small-int8.onnx")


def test_operators_that_stay_in_float_are_named(dataset, tmp_path, capsys):
    odd = save_network(tmp_path / "odd.onnx", odd=True)
    source = ["--dataset", "scenes", "--data", str(dataset), "--placement", "int8"]
    assert main(["quantize", str(odd), *source]) == 0
    words = "in float, because int8 cannot round them: 1 Tanh"
    assert words in capsys.readouterr().out


def test_a_file_that_is_no_float32_of_one_size_is_refused(done, dataset, tmp_path, capsys):
    where = ["--dataset", "scenes", "--data", str(dataset)]
    assert main(["quantize", str(done / "small-int8.onnx"), *where]) == 2
    assert "is int8; expected a float32 file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the images to calibrate on"),
        (["--dataset", "scenes"], "needs its folder"),
        (["--dataset", "scenes", "--data", "{data}", "--split", "val"], "models are scored on it"),
        (["--images", "{data}/leftImg8bit/val"], "4 images are too few"),
        (
            ["--images", "{data}/leftImg8bit", "--held-out", "{data}/leftImg8bit/val"],
            ", which models are scored on: a model that is calibrated on it",
        ),
        (
            ["--images", "{data}/leftImg8bit/train", "-o", "x.onnx"],
            "2 files are written by default: name a folder",
        ),
        (["--images", "{data}/leftImg8bit/train", "-o", "x.ONNX"], "name a folder, or a file that"),
        (["--images", "{data}/leftImg8bit/train", "-o", "x.engine"], "name a folder, or a file"),
        (
            ["--images", "{data}/leftImg8bit", "--histogram", "x", "{model}"],
            "--histogram {model} is also given as model, and would replace it",
        ),
    ],
)
def test_wrong_requests_are_answered_in_one_line(
    arguments, message, float_file, dataset, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    names = {"{data}": str(dataset), "{model}": str(float_file)}
    for name, path in names.items():
        arguments = [text.replace(name, path) for text in arguments]
        message = message.replace(name, path)
    assert main(["quantize", str(float_file), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("placement", [[], ["--placement", "int8"]])
def test_a_run_that_fails_leaves_no_folder_that_it_made(placement, float_file, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    for path in ("there", "there/new", "new/deep", *(["other/x.onnx"] if placement else [])):
        files = ["-o", str(tmp_path / path), "--histogram", "conv1", str(tmp_path / "h/h.svg")]
        asked = [*placement, "--images", str(tmp_path / "there"), *files]
        assert main(["quantize", str(float_file), *asked]) == 2
        assert "there holds no image" in capsys.readouterr().err
        assert [each.name for each in tmp_path.rglob("*")] == ["there"]


def test_what_predict_wrote_is_not_calibrated_on(float_file, dataset, tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(dataset / "leftImg8bit" / "train", photos / "camera")
    results = photos / "results"
    assert main(["predict", "--model", str(float_file), str(photos), "-o", str(results)]) == 0
    asked = ["quantize", str(float_file), "--placement", "int8", "-o", str(out), "--count", "8"]
    count = len(list(photos.rglob("*_leftImg8bit.png")))
    capsys.readouterr()
    assert main([*asked, "--images", str(photos)]) == 0
    note = f"note: {photos}: {3 * count} images are left out, which `icnet predict` wrote there"
    assert note in capsys.readouterr().out
    train = {content_hash(s.image) for s in open_dataset("scenes", dataset, "train")}
    assert set(read_onnx_metadata(out / "small-int8.onnx").calibration_images) <= train
    assert main([*asked, "--images", str(results)]) == 2
    assert "holds only images that `icnet predict` wrote" in capsys.readouterr().err
    (results / "predictions.jsonl").write_text("of somebody else")
    main([*asked, "--images", str(photos)])
    assert "are left out, which" not in capsys.readouterr().out


def test_a_killed_run_leaves_no_artefact(float_file, dataset, tmp_path):
    source = ["--dataset", "scenes", "--data", str(dataset)]
    code = "import sys; from icnet_deploy.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["quantize", str(float_file), *source, "-o", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        if any(".onnx" in p.name for p in tmp_path.iterdir()):  # it is being written: now
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.002)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    for path in tmp_path.glob("[!.]*.onnx"):
        assert read_onnx_metadata(path).calibration_images  # whole, if it has its name


def test_what_a_folder_of_photos_holds_beside_images_is_said(float_file, tmp_path, capsys):
    for index in range(8):
        noise = np.random.default_rng(index).integers(0, 256, (64, 96, 3), np.uint8)
        write_image(tmp_path / "photos" / f"{index}.png", noise)
    (tmp_path / "photos" / "b.heic").write_bytes(b"")
    arguments = ["quantize", str(float_file), "--images", str(tmp_path / "photos")]
    main([*arguments, "-o", str(tmp_path / "out"), "--placement", "int8"])
    assert "photos: 8 images; 1 left out: b.heic" in capsys.readouterr().out
    assert main([*arguments, "--exif", "apply"]) == 2
    assert "--exif apply is for a data set, but" in capsys.readouterr().err
    for option in ("--split", "--data"):
        assert main([*arguments, option, "x"]) == 2
        assert f"{option} x is for a data set, but" in capsys.readouterr().err
