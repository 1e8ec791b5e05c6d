"""What a recorded result says of where it was made."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from icnet_deploy._version import __version__

__all__ = ["machine", "versions"]

# The same module can come from several distributions.
_DISTRIBUTIONS = {
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "torch": ("torch",),
}


def versions() -> dict[str, str]:
    """Name -> version of this product, Python, and the libraries that are installed here."""
    found = {"icnet-deploy": __version__, "python": platform.python_version()}
    for name, distributions in _DISTRIBUTIONS.items():
        for distribution in distributions:
            try:
                found[name] = version(distribution)
            except PackageNotFoundError:
                continue
            break
    return found


def machine() -> dict[str, Any]:
    """The operating system, the processor's model, and how many cores this process may use."""
    return {
        "os": platform.platform(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": _cores(),
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    """The processor's name; on Linux only the kernel's list tells more than `x86_64`."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
