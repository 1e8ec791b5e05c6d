"""The runtimes that can serve a model, by name; each is imported only when it is asked for.

`open_backend` finds and opens one; `choose` says what `auto` means on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from icnet_deploy.errors import DeviceError, InputError, MissingPackage, UnavailableError
from icnet_deploy.runtime.backends.base import Backend

__all__ = ["DEVICES", "RUNTIMES", "auto_runtime", "check_available", "choose", "open_backend"]

DEVICES = ("cpu", "cuda")

TENSORRT_LATER = (
    "this version of icnet-deploy does not run TensorRT engines yet: run the ONNX file that the "
    "engine is built from with runtime 'onnxruntime' or 'openvino'"
)


@dataclass(frozen=True)
class Runtime:
    """Where a runtime's code is, and what it needs.

    Attributes:
        module: the module of this package that holds its `open`; None for a later release.
        package: the package to import.
        extras: device -> the extra of `icnet-deploy` that brings the package.
    """

    module: str | None
    package: str
    extras: dict[str, str]


RUNTIMES = {
    "onnxruntime": Runtime("onnx_runtime", "onnxruntime", {"cpu": "cpu", "cuda": "cuda"}),
    "openvino": Runtime("open_vino", "openvino", {"cpu": "openvino"}),
    "tensorrt": Runtime(None, "tensorrt", {"cuda": "tensorrt"}),
    "tensorrt-rtx": Runtime(None, "tensorrt_rtx", {"cuda": "tensorrt"}),
}


def check_available(name: str, device: str) -> Runtime:
    """Returns the runtime of that name if it can be asked to run on the device.

    Raises:
        InputError: no runtime or device has that name.
        DeviceError: the runtime never runs on that device.
        MissingPackage: its package is not installed.
        UnavailableError: it comes with a later release.
    """
    if name not in RUNTIMES:
        raise InputError(f"unknown runtime {name!r}; known: auto, {', '.join(RUNTIMES)}")
    if device not in DEVICES:
        raise InputError(f"unknown device {device!r}; known: auto, {', '.join(DEVICES)}")
    runtime = RUNTIMES[name]
    if runtime.module is None:
        raise UnavailableError(TENSORRT_LATER)
    if device not in runtime.extras:
        raise DeviceError(
            f"runtime {name!r} runs on {', '.join(runtime.extras)} here, not on {device!r}: use "
            "runtime 'onnxruntime' for CUDA, or device 'cpu'"
        )
    if not _installed(runtime.package):
        raise MissingPackage(
            runtime.package, extra=runtime.extras[device], purpose=f"runtime {name!r}"
        )
    return runtime


def open_backend(name: str, path: Path, device: str, threads: int | None = None) -> Backend:
    """Loads a model file into a runtime.

    Args:
        name: a key of `RUNTIMES`.
        path: an ONNX file.
        device: `cpu` or `cuda`.
        threads: how many CPU threads one run uses; None leaves it to the runtime.

    Raises:
        InputError, UnavailableError: as `check_available`.
        DeviceError: the device was asked for and cannot be had.
        ModelError: the runtime cannot load the file.
    """
    runtime = check_available(name, device)
    module = import_module(f"icnet_deploy.runtime.backends.{runtime.module}")
    try:
        return cast(Backend, module.open_model(path, device, threads))
    except ImportError as error:
        raise UnavailableError(
            f"the package {runtime.package!r} is installed but does not import ({error}): "
            f'pip install --force-reinstall "icnet-deploy[{runtime.extras[device]}]"'
        ) from error


def auto_runtime(device: str) -> str:
    """The runtime that `auto` means on a device: the fastest that is installed.

    Raises:
        MissingPackage: none is installed.
    """
    if device == "cpu":
        # The faster of the two for this network where we measured it (x86 with AVX-512).
        if _installed("openvino"):
            return "openvino"
        if not _installed("onnxruntime"):
            raise MissingPackage(
                "onnxruntime",
                extra="cpu",
                purpose="without openvino (the extra 'openvino'), a model on the CPU",
            )
    return "onnxruntime"


def choose(runtime: str, device: str) -> tuple[str, str]:
    """Replaces `auto` by what it means on this machine.

    A device of `auto` is CUDA only where ONNX Runtime really runs a model on it.

    Returns:
        The names of a runtime and of a device, neither of them `auto`.
    """
    if device == "auto":
        device = "cuda" if runtime in ("auto", "onnxruntime") and _cuda_works() else "cpu"
    if runtime == "auto":
        runtime = auto_runtime(device)
    return runtime, device


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:  # an import hook that forbids it
        return False


def _cuda_works() -> bool:
    try:
        from icnet_deploy.runtime.backends.onnx_runtime import cuda_works

        return cuda_works()
    except ImportError:
        return False
