"""What is installed and what the device can do at most."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from icnet_deploy.runtime.cuda import ADAPTERS
from tools.gpu_check.setting import Setting

STOOD_IN: list[str] = []
"""The packages for which `bare` has put something in place."""

_RUNS = 10


def identity(cuda: bool) -> dict[str, Any]:
    """What results must have in common to lie in one file: the machine, its GPU and libraries."""
    import torch

    cudnn: Any = torch.backends.cudnn
    told: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "cudnn": cudnn.version(),
        "onnxruntime": _version("onnxruntime"),
        "tensorrt": _version("tensorrt"),
        "tensorrt_rtx": _version("tensorrt_rtx"),
    }
    if cuda:
        gpu = torch.cuda.get_device_properties(0)
        told |= {
            "gpu": gpu.name,
            "capability": [gpu.major, gpu.minor],
            "memory_bytes": gpu.total_memory,
            "driver": _driver(),
        }
    return told


def found(setting: Setting) -> dict[str, Any]:
    """What else is there, and the device's ceilings, measured."""
    told: dict[str, Any] = {
        "onnxruntime_providers": _providers(),
        "adapters": {name: _has(package) for name, (package, _) in ADAPTERS.items()},
        "missing": [name for name in ("onnx", "cv2", "onnxscript", "onnxsim") if not _has(name)],
        "stood_in": STOOD_IN,
    }
    setting.results["found"] = told
    setting.save()
    return told | {"ceilings": _ceilings(setting)}


def _ceilings(setting: Setting) -> dict[str, Any]:
    """Bytes a second of a copy, read plus written, and multiply-adds a second of products."""
    import torch

    count = 1 << 28 if setting.cuda else 1 << 22
    source = torch.zeros(count, dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    told: dict[str, Any] = {
        "copy_bytes_per_s": 2 * count / _best(setting, lambda: target.copy_(source))
    }
    side = 8192 if setting.cuda else 256
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
            a, b = (torch.randn(side, side, device=setting.device).to(dtype) for _ in range(2))
            told[f"{name}_macs_per_s"] = side**3 / _best(setting, partial(torch.matmul, a, b))
        a, b = (torch.ones(side, side, dtype=torch.int8, device=setting.device) for _ in range(2))
        # Tensor cores want the second one by columns.
        told["int8_macs_per_s"] = side**3 / _best(setting, partial(torch._int_mm, a, b.t()))
    except (AttributeError, RuntimeError) as error:  # `_int_mm` is not torch's public interface
        told["left_out"] = f"{type(error).__name__}: {error}"
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return told


def _best(setting: Setting, work: Callable[[], Any]) -> float:
    """The fastest of some runs after two: a ceiling is what the device can do."""
    for _ in range(2):
        work()
    return min(setting.seconds(work, events=True) for _ in range(_RUNS))


def _has(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def _version(package: str) -> str | None:
    try:
        return str(__import__(package).__version__)
    except (ImportError, OSError, AttributeError):
        return None


def _providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        return []
    return list(onnxruntime.get_available_providers())


def _driver() -> str | None:
    import subprocess

    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
