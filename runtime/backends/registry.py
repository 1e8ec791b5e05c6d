"""The runtimes that can serve a model, by name; each is imported only when it is asked for.

`open_backend` opens an ONNX file in one, `open_engine` an engine; `choose` says what `auto` means
for an ONNX file on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from icnet_deploy.errors import (
    DeviceError,
    InputError,
    MissingPackage,
    ModelError,
    UnavailableError,
)
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.backends.tensorrt.engine import Plan
from icnet_deploy.runtime.cuda import open_cuda
from icnet_deploy.runtime.cuda.base import Cuda

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Runtime:
    """Where a runtime's code is, and what it needs.

    Attributes:
        module: the module of this package that opens its files.
        package: the package to import.
        extras: device -> the extra of `icnet-deploy` that brings the package.
        engines: whether it runs engines that were built beforehand, not ONNX files.
    """

    module: str
    package: str
    extras: dict[str, str]
    engines: bool = False


RUNTIMES = {
    "onnxruntime": Runtime("onnxruntime.session", "onnxruntime", {"cpu": "cpu", "cuda": "cuda"}),
    "onnxruntime-tensorrt": Runtime(
        "onnxruntime.tensorrt_provider", "onnxruntime", {"cuda": "cuda"}
    ),
    "openvino": Runtime("openvino.backend", "openvino", {"cpu": "openvino"}),
    "tensorrt": Runtime("tensorrt.backend", "tensorrt", {"cuda": "tensorrt"}, engines=True),
    "tensorrt-rtx": Runtime(
        "tensorrt.backend", "tensorrt_rtx", {"cuda": "tensorrt-rtx"}, engines=True
    ),
}

ENGINE_RUNTIMES = tuple(name for name, runtime in RUNTIMES.items() if runtime.engines)


def check_available(name: str, device: str) -> Runtime:
    """Returns the runtime of that name if it can be asked to run an ONNX file on the device.

    Raises:
        InputError: no runtime or device has that name, or the runtime runs engines only.
        DeviceError: the runtime never runs on that device.
        MissingPackage: its package is not installed.
    """
    if name not in RUNTIMES:
        raise InputError(f"unknown runtime {name!r}; known: auto, {', '.join(RUNTIMES)}")
    if device not in DEVICES:
        raise InputError(f"unknown device {device!r}; known: auto, {', '.join(DEVICES)}")
    runtime = RUNTIMES[name]
    if runtime.engines:
        raise InputError(
            f"runtime {name!r} runs engines, and this is an ONNX file: build one from it with "
            f"`icnet build-engine MODEL.onnx --with {name}`, and give that (Predictor.from_engine);"
            " or run the ONNX file with runtime 'onnxruntime' or 'openvino'"
        )
    if device not in runtime.extras:
        raise DeviceError(
            f"runtime {name!r} runs on {', '.join(runtime.extras)} here, not on {device!r}: use "
            f"runtime 'onnxruntime' for {device!r}, or another device"
        )
    _require(name, device)
    return runtime


def _require(name: str, device: str) -> None:
    runtime = RUNTIMES[name]
    if not _installed(runtime.package):
        raise MissingPackage(
            runtime.package, extra=runtime.extras[device], purpose=f"runtime {name!r}"
        )


def open_backend(
    name: str,
    path: Path,
    device: str,
    threads: int | None = None,
    *,
    streams: int = 1,
    tf32: bool = False,
    cached: bool | None = None,
) -> Backend:
    """Loads a model file into a runtime.

    Args:
        name: a key of `RUNTIMES`.
        path: an ONNX file.
        device: `cpu` or `cuda`.
        threads: how many CPU threads the model uses; None leaves it to the runtime.
        streams: how many threads may run it at once, each on its share of `threads`; CPU only.
        tf32: let ONNX Runtime on CUDA multiply float32 with 10 bits of the mantissa.
        cached: whether the runtime may read, and keep, what it compiled below `cache_folder`; None:
            only where `ICNET_CACHE` is set. What judges a file passes False.

    Raises:
        InputError, MissingPackage: as `check_available`.
        UnavailableError: the package is broken.
        DeviceError: the device was asked for and cannot be had.
        ModelError: the runtime cannot load the file.
    """
    runtime = check_available(name, device)
    if tf32 and (name, device) != ("onnxruntime", "cuda"):
        raise InputError(
            f"TF32 is for runtime 'onnxruntime' on 'cuda', not for {name!r} on {device!r}"
        )
    if streams < 1 or (streams > 1 and device != "cpu"):
        raise InputError(
            f"{streams} streams on {device!r}: there are 1 or more on the CPU, and 1 elsewhere "
            "(open the model once more for each further thread)"
        )
    options: dict[str, object] = {"tf32": True} if tf32 else {}
    if streams > 1:
        options["streams"] = streams
    if cached is not None and name in ("openvino", "onnxruntime-tensorrt"):
        options["cached"] = cached
    module = import_module(f"icnet_deploy.runtime.backends.{runtime.module}")
    try:
        return cast(Backend, module.open_model(path, device, threads, **options))
    except ImportError as error:
        raise _broken(runtime, device, error) from error


def open_engine(
    name: str, plan: Plan, cuda: Cuda | str = "auto", host_code: bool = False
) -> tuple[Backend, str]:
    """Loads an engine into the runtime that built it.

    Args:
        name: `tensorrt`, `tensorrt-rtx`, or `auto`: what the engine or its sidecar says.
        plan: the engine file, of `read_plan`.
        cuda: the GPU, or the name of an adapter to it (see `open_cuda`).
        host_code: let an engine's code for the CPU run.

    Returns:
        The backend and the name of its runtime.

    Raises:
        InputError: no runtime of engines has that name.
        MissingPackage: the runtime, or what drives the GPU, is not installed.
        DeviceError: there is no GPU.
        ModelError: the engine is another runtime's, or cannot be loaded.
        BackendError: the GPU has no room for it.
    """
    if name not in ("auto", *ENGINE_RUNTIMES):
        raise InputError(
            f"unknown runtime {name!r} for an engine; known: auto, {', '.join(ENGINE_RUNTIMES)}"
        )
    if plan.flavour is not None and name not in ("auto", plan.flavour):
        raise ModelError(f"{plan.path} is an engine of {plan.flavour}, not of {name}")
    if name == "auto":
        if plan.flavour is None:
            raise ModelError(
                f"{plan.path} is no engine of TensorRT that this version knows ({len(plan.data)} "
                "bytes that begin otherwise): build it with `icnet build-engine`, or name its "
                f"runtime, {' or '.join(ENGINE_RUNTIMES)}, if it is one"
            )
        name = plan.flavour
    _require(name, "cuda")
    if isinstance(cuda, str):
        cuda = open_cuda(cuda)
    runtime = RUNTIMES[name]
    module = import_module(f"icnet_deploy.runtime.backends.{runtime.module}")
    try:
        return module.open_plan(plan, runtime.package, cuda, host_code), name
    except ImportError as error:
        raise _broken(runtime, "cuda", error) from error


def _broken(runtime: Runtime, device: str, error: ImportError) -> UnavailableError:
    return UnavailableError(
        f"the package {runtime.package!r} is installed but does not import ({error}): "
        f'pip install --force-reinstall "icnet-deploy[{runtime.extras[device]}]"'
    )


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
    if device == "auto" and runtime in RUNTIMES and "cpu" not in RUNTIMES[runtime].extras:
        device = "cuda"
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
        from icnet_deploy.runtime.backends.onnxruntime.session import cuda_works

        return cuda_works()
    except ImportError:
        return False
