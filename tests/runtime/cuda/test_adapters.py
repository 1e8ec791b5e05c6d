"""The adapters: the real libraries on a fake driver, on host memory, and on a GPU where one is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cuda_contract
import pytest
from host_cuda import HostCuda

from icnet_deploy.runtime import machine
from icnet_deploy.runtime.cuda import ADAPTERS, labels, open_cuda

HERE = Path(__file__).parent


def installed(package):
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A folder with the fake driver as libcuda.so.1."""
    compiler = shutil.which("g++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the fake driver needs Linux and g++")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    command = [compiler, "-O1", "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC"]
    command += ["-Wl,-soname,libcuda.so.1", "-I", str(Path(labels.__file__).parent)]
    command += ["-o", str(library), str(HERE.parents[1] / "fakes" / "fake_driver.cpp"), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library.parent


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_library_on_a_fake_driver(adapter, driver, tmp_path):
    """The real cuda-python; PyCUDA where it is installed, else its stand-in."""
    if adapter == "cuda-python" and not installed("cuda.core"):
        pytest.skip("cuda-python is not installed")
    if machine.gpus():
        pytest.skip("there is a GPU: the tests marked gpu run on it")
    command = [sys.executable, str(HERE / "driven.py"), adapter]
    command += [str(driver / "libcuda.so.1"), str(tmp_path)]
    where = {"LD_LIBRARY_PATH": f"{driver}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | where, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("driven ")


@pytest.mark.parametrize("check", cuda_contract.CHECKS)
def test_host_memory_keeps_the_contract(check):
    cuda = HostCuda()
    with cuda.current():
        check(cuda)
    assert cuda.live == 0


@pytest.mark.gpu
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("check", cuda_contract.CHECKS)
def test_a_gpu_keeps_the_contract(adapter, check):
    if not machine.gpus():
        pytest.skip("there is no NVIDIA GPU here")
    if not installed(ADAPTERS[adapter][0]):
        pytest.skip(f"{adapter} is not installed")
    cuda = open_cuda(adapter)
    with cuda.current():
        check(cuda)


def test_nvrtc_compiles_the_kernels_as_the_adapter_asks_it_to():
    """Without a GPU: NVRTC needs none."""
    core = pytest.importorskip("cuda.core", reason="cuda-python is not installed")
    for arch in ("sm_86", "sm_89", "sm_120"):
        options = core.ProgramOptions(std="c++17", arch=arch)
        try:
            program = core.Program(labels.source(), "c++", options)
        except Exception as error:
            pytest.skip(f"NVRTC is not installed: {error}")
        cubin = program.compile("cubin").code
        assert all(name.encode() in cubin for name in (*labels.KERNELS.values(), labels.CHECK))
