"""Which GPU is here, asked of NVIDIA's driver itself: no package is needed for it.

Constants: cuda.h (CUdevice_attribute 75 and 76) and nvml.h, the same in every release.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from icnet_deploy.engine_sidecar import Gpu

_MAJOR, _MINOR = 75, 76


def find_gpu(load: Callable[[str], Any] = ctypes.CDLL) -> Gpu | None:
    """The first GPU, which is the one that TensorRT builds on; None where there is none.

    Args:
        load: opens a shared library by name, raising OSError where it is missing.
    """
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    if cuda.cuDeviceGetName(name, len(name), device):
        return None
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
        capability.append(value.value)
    return Gpu(name.value.decode(), (capability[0], capability[1]), _driver(load, cuda))


def _driver(load: Callable[[str], Any], cuda: Any) -> str:
    """The driver's version by NVML; a Jetson has none, and tells its CUDA version only."""
    text = ctypes.create_string_buffer(96)
    try:
        nvml = load("libnvidia-ml.so.1")
        if not nvml.nvmlInit_v2() and not nvml.nvmlSystemGetDriverVersion(text, len(text)):
            return text.value.decode()
    except OSError:
        pass
    number = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)):
        return ""
    return f"CUDA {number.value // 1000}.{number.value % 1000 // 10}"
