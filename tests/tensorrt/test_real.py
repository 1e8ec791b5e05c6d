"""The real TensorRT and TensorRT-RTX on a real GPU, by the code that the fakes have driven.

Runs by itself wherever a package and a GPU are; `make test-gpu` runs these tests alone and writes
what came of them to a file.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess

import numpy as np
import pytest

from icnet_deploy.engine_sidecar import read_sidecar
from icnet_deploy.export.build_engine import PACKAGES, build_engine, main
from icnet_deploy.export.engine.cache import find_gpu
from icnet_deploy.export.engine.options import BuildOptions
from icnet_deploy.files import sha256
from icnet_deploy.runtime import Predictor

SIZE = (256, 512)

# Precision -> the least share of labels that an engine and ONNX Runtime on the CPU agree on, on one
# file: both round the same graph, in another order.
LEAST = {"fp32": 0.9999, "fp16": 0.995, "int8": 0.99}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("tensorrt", marks=[pytest.mark.tensorrt, pytest.mark.gpu]),
        pytest.param("tensorrt-rtx", marks=pytest.mark.gpu),
    ],
)
def trt(request, record_testsuite_property):
    """The module, where there is a GPU for it."""
    gpu = find_gpu()
    if gpu is None:
        pytest.skip("there is no NVIDIA GPU")
    module = pytest.importorskip(
        PACKAGES[request.param], reason=f"{request.param} is not installed"
    )
    record_testsuite_property("gpu", str(gpu))
    record_testsuite_property(request.param, module.__version__)
    return module


@pytest.fixture(scope="module")
def scene():
    from icnet_deploy.data.scenes import draw_scene

    return draw_scene(5, SIZE).image


@pytest.fixture(scope="module")
def source(tmp_path_factory, scene):
    """Returns the artefact of a precision and a head."""
    folder = tmp_path_factory.mktemp("artefacts")

    def get(precision, head="logits"):
        from icnet_deploy.export.to_onnx import export

        out = folder / f"{head}-{precision}.onnx"
        if out.exists():
            return out
        if precision != "int8":
            export(out, size=SIZE, head=head, precision=precision)
            return out
        return quantize(get("fp32", head), out, scene)

    return get


def quantize(float_file, out, scene):
    import onnx

    from icnet_deploy.calibration.artefact import Recipe, write_quantized
    from icnet_deploy.calibration.calibrate import calibrate
    from icnet_deploy.calibration.selection import CalibrationSet
    from icnet_deploy.images import write_image

    image = out.with_suffix(".png")
    write_image(image, scene)
    images = CalibrationSet((image,), ("a scene",), SIZE)
    found = calibrate(onnx.load(float_file), images, sha256(float_file))
    write_quantized(float_file, out, Recipe(found, "int8"), [scene])
    return out


@pytest.mark.parametrize("head", ["logits", "labels"])
@pytest.mark.parametrize("precision", LEAST)
def test_an_engine_labels_as_its_onnx_file(trt, source, scene, tmp_path, precision, head):
    onnx_file, out = source(precision, head), tmp_path / "icnet.engine"
    built = build_engine(onnx_file, out, trt, BuildOptions(batch=(1, 1, 2)))
    assert built.report is not None  # and no layer is in another precision, or it had raised
    assert built.sidecar.gpu == find_gpu()
    images = [scene, np.ascontiguousarray(scene[:, ::-1])]
    with Predictor.from_engine(out) as engine, Predictor.from_onnx(onnx_file, "onnxruntime") as cpu:
        found = engine.predict_batch(images)
        expected = cpu.predict_batch(images)
    same = np.mean([np.mean(a.labels == b.labels) for a, b in zip(found, expected, strict=True)])
    assert same >= LEAST[precision]


def test_a_second_build_is_found(trt, source, tmp_path):
    cache, options = tmp_path / "cache", BuildOptions()
    first = build_engine(source("fp16"), tmp_path / "a.engine", trt, options, cache)
    again = build_engine(source("fp16"), tmp_path / "b.engine", trt, options, cache)
    assert (first.cached, again.cached) == (False, True)
    assert (tmp_path / "a.engine").read_bytes() == (tmp_path / "b.engine").read_bytes()


def test_an_engine_of_trtexec_needs_no_sidecar(trt, source, scene, tmp_path, capsys):
    if trt.__name__ != "tensorrt" or shutil.which("trtexec") is None:
        pytest.skip("trtexec is not on the path")
    out = tmp_path / "icnet.engine"
    assert main([str(source("fp32", "labels")), "-o", str(out), "--print-trtexec"]) == 0
    commands = capsys.readouterr().out.splitlines()
    index = 1 if trt.__version__.startswith("10.") else 4
    subprocess.run(shlex.split(commands[index]), check=True, timeout=600)
    assert read_sidecar(out) is None
    with Predictor.from_engine(out) as engine:
        assert engine.predict(scene).labels.shape == SIZE


@pytest.mark.tensorrt
def test_the_module_is_the_recorded_surface():
    """Where a TensorRT of a recorded release is installed, its enums are the recorded ones."""
    from fake_tensorrt import RELEASES, load_surface

    trt = pytest.importorskip("tensorrt", reason="tensorrt is not installed")
    release = ".".join(trt.__version__.split(".")[:2])
    if release not in RELEASES:
        pytest.skip(f"the surface of {release} is not recorded")
    for name, members in load_surface(release)["enums"].items():
        enum = trt
        for part in name.split("."):
            enum = getattr(enum, part)
        assert {key: int(value) for key, value in enum.__members__.items()} == members
