"""`icnet doctor` reports whatever it finds, and never fails for what is missing."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
from host_cuda import HostCuda

from icnet_deploy._version import __version__
from icnet_deploy.errors import DeviceError, MissingPackage, pip_install
from icnet_deploy.metadata import read_onnx_metadata, stamped
from icnet_deploy.runtime import machine
from icnet_deploy.runtime.doctor import main, notes, report
from icnet_deploy.runtime.machine import examine


def test_it_reports_this_machine(capsys, tmp_path):
    assert main(["--json", str(tmp_path / "machine.json")]) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "machine.json").read_text())
    assert found["schema"] == 1
    assert found["icnet_deploy"] == __version__
    assert found["cpu"]["cores"] >= 1
    assert "CPUExecutionProvider" in found["runtimes"]["onnxruntime"]["providers"]
    assert "CPU" in found["runtimes"]["openvino"]["devices"]
    assert f"auto chooses {found['auto']['runtime']} on {found['auto']['device']}" in said
    for what, of in (("code that makes label maps", "label_map"), ("check of JPEG files", "jpeg")):
        assert f"{what}: {found[of]['kind']} ({found[of]['why']})" in said
    assert found["packages"]["numpy"] in said
    assert found["packages"]["pillow"] in said
    for name in ("tensorrt", "tensorrt-rtx"):
        told = found["runtimes"][name]
        assert told is None or "error" in told or f"{told['version']}: engines" in said
    assert set(found["cuda"]) == {"cuda-python", "pycuda"}


def test_without_packages_it_says_how_to_get_them(capsys, monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    for package in ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cuda.core", "pycuda"):
        monkeypatch.setitem(sys.modules, package, None)
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "auto finds no runtime: " in said
    assert said.count("not installed") >= 6
    for extra in ("cpu", "cuda", "openvino", "tensorrt", "tensorrt-rtx", "export", "train"):
        assert pip_install(extra) in said


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("cv2", ["opencv-python-headless", "opencv-python"]),
        ("cv2", ["opencv-python", "opencv-contrib-python"]),
        ("onnxruntime", ["onnxruntime", "onnxruntime-gpu"]),
    ],
)
def test_distributions_that_overwrite_each_other_are_told(capsys, monkeypatch, module, names):
    def version(name):
        if name not in names:
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(machine, "version", version)
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "packages that overwrite each other" in said
    assert f"{module:<18} {' and '.join(names)} install the same files: keep only one:" in said
    assert f"pip uninstall -y {' '.join(names)} && pip install {names[0]}" in said


def test_one_distribution_of_a_module_is_no_clash(capsys):
    assert examine()["clashes"] == {}
    assert main([]) == 0
    assert "overwrite" not in capsys.readouterr().out


def test_a_broken_runtime_is_reported_not_raised(capsys, monkeypatch, tmp_path):
    """Here by two distributions that overwrite each other's files."""
    pytest.importorskip("onnxruntime")
    told = tmp_path / "onnxruntime_gpu-1.2.3.dist-info" / "METADATA"
    told.parent.mkdir()
    told.write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.2.3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main([]) == 0
    said = capsys.readouterr().out
    assert re.search("does not work: UnavailableError: both onnxruntime .*gpu 1.2.3 are inst", said)


def test_what_drives_a_gpu_is_told_with_the_gpu():
    def open_cuda(adapter):
        if adapter == "pycuda":
            raise MissingPackage("pycuda", extra="tensorrt", purpose="x")
        return HostCuda((8, 9))

    said = "\n".join(report(examine(open_cuda)))
    assert re.search(r"cuda-python +host memory on a fake GPU \(compute 8\.9\)", said)
    assert re.search(r"pycuda +not installed", said)

    def broken(adapter):
        raise DeviceError("finds no GPU")

    said = "\n".join(report(examine(broken)))
    assert "does not work: DeviceError: finds no GPU" in said


def test_a_tensorrt_whose_libraries_are_missing_is_told(capsys, monkeypatch, tmp_path):
    reason = "libnvinfer.so.11: cannot open shared object file"
    (tmp_path / "tensorrt.py").write_text(f"raise ImportError({reason!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    assert main([]) == 0
    assert f"does not work: ImportError: {reason}" in capsys.readouterr().out


@pytest.fixture
def nvidia_smi(monkeypatch, tmp_path):
    """A function that puts a program of that name, and nothing else, where programs are found."""

    def install(script):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path))
    return install


def test_gpus_are_read_from_nvidia_smi(capsys, nvidia_smi):
    nvidia_smi(2 * "echo NVIDIA L4, 23034 MiB, 580.65.06, 8.9\n")
    assert main([]) == 0
    assert capsys.readouterr().out.count("NVIDIA L4, 23034 MiB, driver 580.65.06") == 2


@pytest.mark.parametrize("script", [None, "exit 9", "echo no devices were found"])
def test_without_nvidia_smi_there_is_no_gpu(nvidia_smi, script):
    if script:
        nvidia_smi(script)
    assert examine()["gpus"] == []


def test_an_nvidia_smi_that_hangs_is_not_waited_for(monkeypatch):
    def run(*args, **kwargs):
        assert kwargs["timeout"] <= 20
        raise subprocess.TimeoutExpired("nvidia-smi", 20)

    monkeypatch.setattr(subprocess, "run", run)
    assert examine()["gpus"] == []


def test_an_unwritable_file_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main(["--json", str(tmp_path / "file" / "x.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_it_starts_where_nothing_is_installed():
    script = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxruntime", "openvino", "cv2", "tqdm"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
from icnet_deploy.cli import main
sys.exit(main(["doctor"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "auto finds no runtime: " in done.stdout


def test_it_names_files_that_nobody_can_vouch_for(tmp_path, tiny_model):
    old, new = tiny_model(), tmp_path / "new.onnx"
    shutil.copy(old, tmp_path / "old.onnx")
    new.write_bytes(stamped(old.read_bytes(), read_onnx_metadata(old)))
    (tmp_path / ".old.123.tmp.onnx").write_bytes(b"half")
    said = notes(tmp_path)
    assert any("old.onnx: it holds no digest" in line for line in said)
    assert any(".old.123.tmp.onnx: a killed process left this file" in line for line in said)
    assert not any("new.onnx" in line for line in said)
    old.unlink()
    for name in ("old.onnx", ".old.123.tmp.onnx"):
        (tmp_path / name).unlink(missing_ok=True)
    assert notes(tmp_path) == []
