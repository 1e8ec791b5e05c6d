"""What a recorded result says of where it was made."""

from __future__ import annotations

from functools import cache
from typing import Any

from icnet_deploy.runtime.machine import examine

__all__ = ["machine", "versions"]

# Looks around once a process: it asks every runtime for its devices.
_examined = cache(examine)

_RECORDED = ("numpy", "opencv", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch")


def versions() -> dict[str, str]:
    """Name -> version of this product, Python, and the libraries that a result depends on.

    Those that are not installed are left out.
    """
    found = _examined()
    packages = {name: found["packages"].get(name) for name in _RECORDED}
    return {
        "icnet-deploy": found["icnet_deploy"],
        "python": found["python"],
        **{name: version for name, version in packages.items() if version is not None},
    }


def machine() -> dict[str, Any]:
    """The operating system, the processor, the cores this process may use, memory and GPUs."""
    found = _examined()
    return {
        "os": found["os"],
        "cpu": found["cpu"]["model"],
        "cpu_flags": found["cpu"]["flags"],
        "cores": found["cpu"]["cores"],
        "memory_gib": found["memory_gib"],
        "gpus": found["gpus"],
    }
