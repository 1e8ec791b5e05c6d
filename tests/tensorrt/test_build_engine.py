"""The command, on a fake of each release: what it writes, keeps, finds again and refuses."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
from importlib.machinery import ModuleSpec

import numpy as np
import onnx
import pytest
from fake_tensorrt import Machine, make_fake
from host_cuda import HostCuda

from icnet_deploy.command import command
from icnet_deploy.engine_sidecar import Gpu, read_sidecar, sidecar_path
from icnet_deploy.errors import ModelError, pip_install
from icnet_deploy.export import build_engine as building
from icnet_deploy.export.engine.cache import find_gpu
from icnet_deploy.export.engine.options import BuildOptions
from icnet_deploy.files import cache_folder, sha256
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime import Predictor

GPU = Gpu("NVIDIA Orin", (8, 7), "540.4.0")


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A cache of the test's own."""
    monkeypatch.setenv("ICNET_CACHE", str(tmp_path / "cache"))


def build_engine(*arguments, gpu=GPU):
    """Builds where there is that GPU."""
    return building.build_engine(*arguments, gpu_here=lambda: gpu)


@command
def main(argv=None):
    """The command where there is that GPU."""
    return building.run(argv, gpu_here=lambda: GPU)


@pytest.fixture
def installed(trt, monkeypatch):
    """The fake as the `tensorrt` that the command imports."""
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(trt, "__spec__", ModuleSpec("tensorrt", None))
    return trt


def test_an_engine_and_what_lies_beside_it(trt, artefact, tmp_path):
    source, out = artefact(half=True, precision="fp16"), tmp_path / "icnet.engine"
    built = build_engine(source, out, trt, BuildOptions(batch=(1, 1, 2), workspace=32))
    sidecar = read_sidecar(out)
    assert sidecar == built.sidecar
    sidecar.check(out.read_bytes(), out)
    assert sidecar.engine_sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert sidecar.onnx_sha256 == sha256(source)
    assert sidecar.metadata == read_onnx_metadata(source)
    assert (sidecar.flavour, sidecar.version, sidecar.gpu) == ("tensorrt", trt.__version__, GPU)
    assert sidecar.profiles == ({"image": ((1, 8, 16, 3), (1, 8, 16, 3), (2, 8, 16, 3))},)
    assert sidecar.options == {
        "workspace": 32,
        "level": 3,
        "tf32": False,
        "hardware": "none",
        "version_compatible": False,
    }
    assert sidecar.precisions == {"fp16": 2, "unknown": 1}
    assert out.read_bytes()[:4] == b"ftrt"


def test_predictor_runs_what_was_built(installed, artefact, tmp_path):
    """From the file to the label map, the sidecar required, on memory of this process."""
    source, out = artefact(size=(64, 96), channels=11), tmp_path / "icnet.engine"
    cuda = HostCuda()
    installed.machine = Machine(enqueue=cuda.enqueue, check=cuda.check)
    build_engine(source, out, installed, BuildOptions(batch=(1, 1, 4)))
    images = list(np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8))
    with Predictor.from_engine(out, require_manifest=True, cuda=cuda) as engine:
        found = engine.predict_batch(images)
        assert engine.metadata == read_onnx_metadata(source)
    with Predictor.from_onnx(source, "onnxruntime") as predictor:
        for one, other in zip(found, predictor.predict_batch(images), strict=True):
            assert (one.labels == other.labels).all()
    out.write_bytes(out.read_bytes() + b" ")
    with pytest.raises(ModelError, match="is not the engine that"):
        Predictor.from_engine(out, cuda=cuda)


def builds(trt, source, out, gpu=GPU, **change):
    """How many builds a request costs."""
    before = len(trt.machine.builds)
    build_engine(source, out, trt, BuildOptions(**change), cache_folder("engines"), gpu=gpu)
    return len(trt.machine.builds) - before


def test_the_same_build_is_found_and_any_other_is_not(trt, artefact, tmp_path, monkeypatch):
    source, out = artefact(), tmp_path / "icnet.engine"
    assert builds(trt, source, out) == 1
    first = out.read_bytes()
    out.unlink()
    assert builds(trt, source, tmp_path / "again.engine") == 0
    assert (tmp_path / "again.engine").read_bytes() == first
    for change in ({"level": 1}, {"batch": (1, 1, 2)}, {"tf32": True}, {"workspace": 9}):
        assert builds(trt, source, out, **change) == 1
        assert builds(trt, source, out, **change) == 0
    other = onnx.load(source)
    other.graph.initializer[0].raw_data = bytes(48)
    onnx.save(other, tmp_path / "other.onnx")
    assert builds(trt, tmp_path / "other.onnx", out) == 1
    for gpu in (Gpu("NVIDIA Orin", (8, 7), "541"), Gpu("NVIDIA Orin", (8, 6), "540.4.0")):
        assert builds(trt, source, out, gpu) == 1
    monkeypatch.setattr(trt, "__version__", "10.17.0.1")
    assert builds(trt, source, out) == 1


def test_a_gpu_without_a_name_has_no_cache(trt, artefact, tmp_path):
    out = tmp_path / "icnet.engine"
    assert [builds(trt, artefact(), out, None) for _ in range(2)] == [1, 1]
    assert read_sidecar(out).gpu is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["cut", "no sidecar", "swapped"])
def test_a_damaged_entry_is_built_anew(trt, artefact, tmp_path, damage):
    source, out = artefact(), tmp_path / "icnet.engine"
    builds(trt, source, out)
    [kept] = (tmp_path / "cache").rglob("*.engine")
    if damage == "no sidecar":
        sidecar_path(kept).unlink()
    else:
        kept.write_bytes(kept.read_bytes()[:-1] if damage == "cut" else b"another")
    assert builds(trt, source, out) == 1
    assert builds(trt, source, out) == 0


def test_the_cache_is_its_owners_alone(trt, artefact, tmp_path):
    builds(trt, artefact(), tmp_path / "icnet.engine")
    assert (tmp_path / "cache" / "engines").stat().st_mode & 0o077 == 0


def test_timings_are_kept_for_the_gpu_and_the_version(trt, artefact, tmp_path):
    source, out = artefact(), tmp_path / "icnet.engine"
    builds(trt, source, out)
    builds(trt, source, out, level=1)
    assert [build["timed"] for build in trt.machine.builds] == [3, 0]
    builds(trt, source, out, Gpu("Another", (8, 7), "540.4.0"))
    assert trt.machine.builds[-1]["timed"] == 3
    [*_, timings] = sorted((tmp_path / "cache").rglob("timings-*Orin*"))
    timings.write_bytes(b"rubbish")  # TensorRT says no, and the build goes on without
    builds(trt, source, out, level=2)
    assert trt.machine.builds[-1]["timed"] == 3


def test_timings_of_another_machine_are_not_used(trt, artefact, tmp_path):
    """Where the name is the same and TensorRT finds that the device is not."""
    source, out = artefact(), tmp_path / "icnet.engine"
    builds(trt, source, out)
    trt.machine.compute = (9, 0)
    builds(trt, source, out, level=1)
    assert trt.machine.builds[-1]["timed"] == 3


def test_the_command_builds_and_says_what(installed, artefact, tmp_path, capsys):
    source = artefact(quantized=True, precision="int8")
    assert main([str(source), "--batch", "1:1:4"]) == 0
    told = capsys.readouterr().out
    assert f"TensorRT {installed.__version__} for NVIDIA Orin (compute capability 8.7" in told
    assert "image: 1x8x16x3 to 4x8x16x3" in told
    assert "layers: 1 in fp32, 1 in int8, 1 in unknown" in told
    assert read_sidecar(tmp_path / "icnet.engine").metadata.precision == "int8"
    assert main([str(source), "--batch", "1:1:4"]) == 0
    assert "(from the cache)" in capsys.readouterr().out
    assert len(installed.machine.builds) == 1
    assert main([str(source), "--batch", "1:1:4", "--no-cache"]) == 0
    assert len(installed.machine.builds) == 2


def test_the_report_names_every_layer(installed, artefact, tmp_path):
    report = tmp_path / "layers.json"
    assert main([str(artefact(half=True)), "--report", str(report)]) == 0
    layers = {layer["name"]: layer for layer in json.loads(report.read_text())["layers"]}
    assert layers["conv"] == {"name": "conv", "onnx": ["conv"], "precision": "fp16"}


def test_a_build_that_fails_leaves_what_was_there(installed, artefact, tmp_path, capsys):
    out = tmp_path / "icnet.engine"
    assert main([str(artefact(half=True)), "-o", str(out)]) == 0
    before = out.read_bytes(), sidecar_path(out).read_bytes()
    installed.machine.float_layers = frozenset(("conv",))
    assert main([str(artefact(half=True)), "-o", str(out), "--no-cache"]) == 1
    assert "did not keep the graph's precisions" in capsys.readouterr().err
    assert (out.read_bytes(), sidecar_path(out).read_bytes()) == before
    installed.machine.on_step = lambda step: step or os.kill(os.getpid(), signal.SIGINT)
    assert main([str(artefact(half=True)), "-o", str(out), "--no-cache"]) == 130
    assert (out.read_bytes(), sidecar_path(out).read_bytes()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "cache",
        "icnet.engine",
        "icnet.engine.json",
        "icnet.onnx",
    ]


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_a_missing_package_is_named_with_its_extra(artefact, monkeypatch, capsys, flavour):
    package = flavour.replace("-", "_")
    monkeypatch.setitem(sys.modules, package, None)
    assert main([str(artefact()), "--with", flavour]) == 2
    told = capsys.readouterr().err
    assert f"needs the package '{package}'" in told
    assert pip_install(flavour) in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["--batch", "1:2"],
        ["--batch", "0"],
        ["--sizes", "512"],
        ["--target", "SM99", "--with", "tensorrt-rtx"],
        ["--target", "SM86", "--print-trtexec"],
        ["--with", "tensorrt-rtx", "--target", "SM86", "--version-compatible"],
        ["--with", "tensorrt-rtx", "--target", "SM86", "--hardware", "ampere-plus"],
        ["--no-cache", "--cache", "x"],
    ],
)
def test_wrong_requests_exit_with_2(artefact, arguments):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    assert main([str(artefact()), *arguments]) == 2


def test_an_engine_does_not_replace_its_onnx_file(artefact, installed, capsys):
    before = artefact().read_bytes()
    assert main([str(artefact()), "-o", str(artefact())]) == 2
    assert "does not end in .engine or .plan" in capsys.readouterr().err
    assert artefact().read_bytes() == before


def test_the_commands_of_trtexec(artefact, capsys):
    """No TensorRT is needed for them. 10 and 11 differ as their sources do."""
    arguments = ["--batch", "1:2:4", "--workspace", "512", "--hardware", "ampere-plus"]
    assert main([str(artefact()), "-o", "a b.engine", "--print-trtexec", *arguments]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    ten, time_ten, eleven, time_eleven = [shlex.split(line) for line in lines]
    assert ten == [
        "trtexec",
        f"--onnx={artefact()}",
        "--saveEngine=a b.engine",
        "--stronglyTyped",
        "--minShapes=image:1x8x16x3",
        "--optShapes=image:2x8x16x3",
        "--maxShapes=image:4x8x16x3",
        "--builderOptimizationLevel=3",
        "--noTF32",
        "--memPoolSize=workspace:512",
        "--hardwareCompatibilityLevel=ampere+",
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]
    assert eleven == [word for word in ten if word != "--stronglyTyped"]
    assert set(time_ten) - set(time_eleven) == {
        "--useCudaGraph",
        "--noDataTransfers",
        "--useSpinWait",
    }
    assert "--shapes=image:2x8x16x3" in time_eleven


def test_neither_torch_nor_onnx_is_needed(artefact):
    """A Jetson need not have them."""
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None); "
        "from icnet_deploy.export.build_engine import main; raise SystemExit(main())"
    )
    command = [sys.executable, "-c", code, str(artefact()), "--print-trtexec"]
    assert "trtexec --onnx=" in subprocess.run(command, check=True, stdout=-1, text=True).stdout


def test_trtexec_of_one_shape_and_of_all_options(artefact, capsys):
    arguments = ["--tf32", "--version-compatible", "--level", "5"]
    assert main([str(artefact(batch=1)), "--print-trtexec", *arguments]) == 0
    told = capsys.readouterr().out
    assert "Shapes" not in told
    assert "--shapes" not in told
    assert "--noTF32" not in told
    assert "--builderOptimizationLevel=5 --versionCompatible" in told


class Driver:
    """The two libraries of NVIDIA's driver, as far as they are asked."""

    def __init__(self, name=b"NVIDIA Orin", capability=(8, 7), fails="", nvml=True):
        self.name, self.capability, self.fails, self.nvml = name, capability, fails, nvml

    def load(self, library):
        if library.startswith("libnvidia-ml") and not self.nvml:
            raise OSError(library)
        return self

    def __getattr__(self, function):
        def call(*arguments):
            if function == self.fails:
                return 1
            if function == "cuDeviceGetName":
                arguments[0].value = self.name
            if function == "cuDeviceGetAttribute":
                ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_int))[0] = self.capability[
                    arguments[1] - 75
                ]
            if function == "cuDriverGetVersion":
                ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_int))[0] = 12060
            if function == "nvmlSystemGetDriverVersion":
                arguments[0].value = b"540.4.0"
            return 0

        return call


def test_the_gpu_is_asked_of_the_driver():
    assert find_gpu(Driver().load) == GPU
    assert find_gpu(Driver(nvml=False).load) == Gpu("NVIDIA Orin", (8, 7), "CUDA 12.6")
    for function in ("cuInit", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"):
        assert find_gpu(Driver(fails=function).load) is None

    def missing(library):
        raise OSError(library)

    assert find_gpu(missing) is None


def test_the_other_release_does_not_get_this_one_s_engine(artefact, tmp_path):
    """Two versions, one cache."""
    out = tmp_path / "icnet.engine"
    plans = []
    for release in ("10.16", "11.4"):
        trt = make_fake(release)
        assert builds(trt, artefact(), out) == 1
        plans.append(out.read_bytes())
        assert trt.Runtime(trt.Logger()).deserialize_cuda_engine(plans[-1]) is not None
    assert plans[0][24:28] != plans[1][24:28]
