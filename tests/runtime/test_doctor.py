"""`icnet doctor` reports whatever it finds, and never fails for what is missing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
from host_cuda import HostCuda

from icnet_deploy._version import __version__
from icnet_deploy.errors import DeviceError, MissingPackage, UnavailableError
from icnet_deploy.metadata import read_onnx_metadata, stamped
from icnet_deploy.runtime import cuda, machine
from icnet_deploy.runtime.backends import registry as backends
from icnet_deploy.runtime.backends.onnxruntime import session
from icnet_deploy.runtime.doctor import main, notes


def test_it_reports_this_machine(capsys, tmp_path):
    assert main(["--json", str(tmp_path / "machine.json")]) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "machine.json").read_text())
    assert found["schema"] == 1
    assert found["icnet_deploy"] == __version__
    assert found["cpu"]["cores"] >= 1
    assert "CPUExecutionProvider" in found["runtimes"]["onnxruntime"]["providers"]
    assert "CPU" in found["runtimes"]["openvino"]["devices"]
    assert f"auto means {found['auto']['runtime']} on {found['auto']['device']}" in said
    assert f"label maps are {found['label_map']['kind']}: {found['label_map']['why']}" in said
    assert f"whether images are whole: {found['jpeg']['why']}" in said
    assert found["packages"]["numpy"] in said
    assert found["packages"]["pillow"] in said
    for name in ("tensorrt", "tensorrt-rtx"):
        told = found["runtimes"][name]
        assert told is None or "error" in told or f"{told['version']}: engines" in said
    assert set(found["cuda"]) == {"cuda-python", "pycuda"}


def test_without_packages_it_says_how_to_get_them(capsys, monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", absent)
    monkeypatch.setattr(machine, "import_module", lambda name: exec(f"import no_such_{name}"))
    monkeypatch.setattr(backends, "_installed", lambda package: False)
    monkeypatch.setattr(cuda, "_installed", lambda package: False)
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "auto finds nothing that runs a model" in said
    assert said.count("not installed") >= 6
    for extra in ("cpu", "cuda", "openvino", "tensorrt", "tensorrt-rtx", "export", "train"):
        assert f'pip install "icnet-deploy[{extra}]"' in said


def test_a_broken_runtime_is_reported_not_raised(capsys, monkeypatch):
    def broken():
        raise UnavailableError("both are installed")

    monkeypatch.setattr(session, "_check_distributions", broken)
    assert main([]) == 0
    assert "does not work: UnavailableError: both are installed" in capsys.readouterr().out


def test_what_drives_a_gpu_is_told_with_the_gpu(capsys, monkeypatch):
    def open_cuda(adapter):
        if adapter == "pycuda":
            raise MissingPackage("pycuda", extra="tensorrt", purpose="x")
        return HostCuda((8, 9))

    monkeypatch.setattr(machine, "open_cuda", open_cuda)
    assert main([]) == 0
    said = capsys.readouterr().out
    assert re.search(r"cuda-python +host memory on a fake GPU \(compute 8\.9\)", said)
    assert re.search(r"pycuda +not installed", said)

    def broken(adapter):
        raise DeviceError("finds no GPU to work on")

    monkeypatch.setattr(machine, "open_cuda", broken)
    assert main([]) == 0
    assert "does not work: DeviceError: finds no GPU to work on" in capsys.readouterr().out


def test_a_tensorrt_whose_libraries_are_missing_is_told(capsys, monkeypatch):
    real = machine.import_module

    def import_module(name):
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.11: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(machine, "import_module", import_module)
    assert main([]) == 0
    assert "does not work: ImportError: libnvinfer.so.11" in capsys.readouterr().out


def test_gpus_are_read_from_nvidia_smi(capsys, monkeypatch):
    listing = "NVIDIA L4, 23034 MiB, 580.65.06, 8.9\nNVIDIA L4, 23034 MiB, 580.65.06, 8.9\n"
    done = subprocess.CompletedProcess([], 0, stdout=listing, stderr="")
    monkeypatch.setattr(machine.subprocess, "run", lambda *args, **kwargs: done)
    assert main([]) == 0
    assert capsys.readouterr().out.count("NVIDIA L4, 23034 MiB, driver 580.65.06") == 2


@pytest.mark.parametrize("failure", [FileNotFoundError(), subprocess.TimeoutExpired("x", 20)])
def test_without_nvidia_smi_there_is_no_gpu(monkeypatch, failure):
    def run(*args, **kwargs):
        raise failure

    monkeypatch.setattr(machine.subprocess, "run", run)
    assert machine.examine()["gpus"] == []


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
    assert "auto finds nothing" in done.stdout


def test_it_names_files_that_nobody_can_vouch_for(tmp_path, tiny_model):
    old, new = tiny_model(), tmp_path / "new.onnx"
    shutil.copy(old, tmp_path / "old.onnx")
    new.write_bytes(stamped(old.read_bytes(), read_onnx_metadata(old)))
    (tmp_path / ".old.123.tmp.onnx").write_bytes(b"half")
    said = notes(tmp_path)
    assert any("old.onnx: it holds no digest" in line for line in said)
    assert any(".old.123.tmp.onnx: a process that was killed left it" in line for line in said)
    assert not any("new.onnx" in line for line in said)
    old.unlink()
    for name in ("old.onnx", ".old.123.tmp.onnx"):
        (tmp_path / name).unlink(missing_ok=True)
    assert notes(tmp_path) == []
