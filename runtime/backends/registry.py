"""The runtimes that can serve a model, by name; each is imported only when it is asked for.

`open_backend` opens an ONNX file in one; `choose` says what `auto` means for one on this machine.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import cast

from icnet_deploy.errors import (
    DeviceError,
    InputError,
    MissingPackage,
    UnavailableError,
    pip_install,
)
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.cuda import installed

DEVICES = ("cpu", "cuda")

_MOST_THREADS = 1024
"""Beyond it runtimes take all memory, or end the process."""


@dataclass(frozen=True)
class Runtime:
    """What the kit knows of a runtime before it imports the runtime's code.

    The module has these functions:

    - `open_model(path, device, threads, **options)` returns a `Backend` of an ONNX file, and raises
      ModelError ("... cannot load ...") if it cannot. A runtime of engines has
      `open_plan(plan, package, cuda, host_code)` in its place.
    - `probe(package)` gets the imported package and returns what `icnet doctor` shows: a dict with
      `version`, and `devices` (a dict) or `providers` (a list).
    - `cuda_works()`, only if the runtime runs on the CPU and on CUDA.

    The module imports the package inside functions, never at its top, with `imported`. A backend
    calls `forks.outlive_forks(self)`, or a forked child waits for ever when it frees the model.

    Attributes:
        module: the module's full name.
        package: the pip package to import.
        extras: device -> the extra of `icnet-deploy` that installs the package.
        auto_rank: `auto` takes the installed runtime of the lowest rank. None: `auto` never takes
            this one; `verify`, `parity` and `quantize` still do.
        engines: whether it runs engines that were built beforehand, not ONNX files.
        options: those of `streams`, `tf32` and `cached` that `open_model` accepts.
        statistics: its package for usage statistics, which is hidden while it is imported.
    """

    module: str
    package: str
    extras: Mapping[str, str]
    auto_rank: int | None = None
    engines: bool = False
    options: tuple[str, ...] = ()
    statistics: str | None = None

    def imported(self) -> ModuleType:
        """Imports its package, from which nothing is sent to anybody."""
        if self.statistics is None or self.statistics in sys.modules:
            return import_module(self.package)
        sys.modules[self.statistics] = None  # type: ignore[assignment]  # as one that is not there
        try:
            return import_module(self.package)
        finally:
            sys.modules.pop(self.statistics, None)

    @contextmanager
    def working(self, device: str) -> Iterator[ModuleType]:
        """Imports its module, for functions of it that import the package.

        Raises:
            UnavailableError: the package is broken.
        """
        try:
            yield import_module(self.module)
        except ImportError as error:
            raise UnavailableError(
                f"the package {self.package!r} is installed but does not import ({error}): "
                f"{pip_install(self.extras[device], '--force-reinstall')}"
            ) from error


_HERE = "icnet_deploy.runtime.backends"

RUNTIMES = {
    "onnxruntime": Runtime(
        f"{_HERE}.onnxruntime.session",
        "onnxruntime",
        {"cpu": "cpu", "cuda": "cuda"},
        auto_rank=1,
        options=("streams", "tf32"),
    ),
    # On a CPU the faster of the two for this network where we measured it (x86 with AVX-512).
    "openvino": Runtime(
        f"{_HERE}.openvino.backend",
        "openvino",
        {"cpu": "openvino"},
        auto_rank=0,
        options=("streams", "cached"),
        # By default it makes a file in the user's home, and a process that sends; where there is no
        # home it does not import at all.
        statistics="openvino_telemetry",
    ),
    "tensorrt": Runtime(
        f"{_HERE}.tensorrt.backend", "tensorrt", {"cuda": "tensorrt"}, engines=True
    ),
    "tensorrt-rtx": Runtime(
        f"{_HERE}.tensorrt.backend", "tensorrt_rtx", {"cuda": "tensorrt-rtx"}, engines=True
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
        others = (other for other, row in RUNTIMES.items() if not row.engines)
        raise InputError(
            f"runtime {name!r} runs engines, but this is an ONNX file: use runtime "
            f"{_either(others)}; or, on a machine with an NVIDIA GPU, build an engine with `icnet "
            f"build-engine MODEL.onnx --with {name}`, and open the engine"
        )
    if device not in runtime.extras:
        raise DeviceError(
            f"runtime {name!r} runs on {', '.join(runtime.extras)} here, not on {device!r}: use "
            f"runtime {_either(ranked(device))} for {device!r}, or another device"
        )
    require_package(name, device)
    return runtime


def _either(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))


def require_package(name: str, device: str) -> None:
    """Refuses a runtime whose package is not installed (MissingPackage)."""
    runtime = RUNTIMES[name]
    if not installed(runtime.package):
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
        InputError, MissingPackage: as `check_available`; or threads or streams that no machine has.
        UnavailableError: the package is broken.
        DeviceError: the device was asked for and cannot be had.
        ModelError: the runtime cannot load the file.
    """
    runtime = check_available(name, device)
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise InputError(
            f"got {threads} threads, expected 1 to {_MOST_THREADS}; leave the number out and the "
            "runtime chooses"
        )
    if streams > _MOST_THREADS:
        raise InputError(f"got {streams} streams, expected 1 to {_MOST_THREADS}")
    if tf32 and not ("tf32" in runtime.options and device == "cuda"):
        able = (other for other, row in RUNTIMES.items() if "tf32" in row.options)
        raise InputError(
            f"TF32 is for runtime {_either(able)} on 'cuda', not for {name!r} on {device!r}"
        )
    several = device == "cpu" and "streams" in runtime.options
    if streams < 1 or (streams > 1 and not several):
        able = (other for other, row in RUNTIMES.items() if "streams" in row.options)
        raise InputError(
            f"got {streams} streams on {device!r}, expected 1, or more on the CPU with runtime "
            f"{_either(able)}: elsewhere open the model once for each thread"
        )
    asked = {"streams": streams, "tf32": tf32, "cached": cached}
    options = {option: asked[option] for option in runtime.options}
    with runtime.working(device) as module:
        return cast(Backend, module.open_model(path, device, threads, **options))


def auto_runtime(device: str) -> str:
    """The runtime that `auto` means on a device: the fastest that is installed.

    Raises:
        MissingPackage: none is installed.
    """
    *others, last = names = ranked(device)
    for name in names:
        if installed(RUNTIMES[name].package):
            return name
    without = "".join(
        f"without {name} (the extra {RUNTIMES[name].extras[device]!r}), " for name in others
    )
    runtime = RUNTIMES[last]
    raise MissingPackage(
        runtime.package,
        extra=runtime.extras[device],
        purpose=f"{without}a model on {'the CPU' if device == 'cpu' else device!r}",
    )


def ranked(device: str) -> list[str]:
    """What `auto` may mean on a device, the fastest first."""
    ranks = {
        name: runtime.auto_rank
        for name, runtime in RUNTIMES.items()
        if runtime.auto_rank is not None and device in runtime.extras
    }
    return sorted(ranks, key=ranks.__getitem__)


def choose(runtime: str, device: str) -> tuple[str, str]:
    """Replaces `auto` by what it means on this machine.

    A device of `auto` is CUDA only where the runtime really runs a model on it.

    Returns:
        The names of a runtime and of a device, neither of them `auto`.
    """
    if device == "auto":
        able = ranked("cuda") if runtime == "auto" else [runtime]
        device = "cuda" if any(map(_runs_on_cuda, able)) else "cpu"
    return auto_runtime(device) if runtime == "auto" else runtime, device


def _runs_on_cuda(name: str) -> bool:
    known = RUNTIMES.get(name)
    if known is None or "cuda" not in known.extras:
        return False
    with suppress(UnavailableError), known.working("cuda") as module:
        return "cpu" not in known.extras or bool(module.cuda_works())
    return False
