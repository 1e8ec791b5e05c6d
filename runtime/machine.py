"""What this machine has: processor, memory, GPUs, packages, and what the runtimes find."""

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from icnet_deploy._version import __version__
from icnet_deploy.errors import IcnetError, MissingPackage
from icnet_deploy.formats import jpeg
from icnet_deploy.processes import run_tool
from icnet_deploy.runtime.backends.registry import RUNTIMES, choose, ranked
from icnet_deploy.runtime.cores import usable_cores
from icnet_deploy.runtime.cuda import ADAPTERS, open_cuda
from icnet_deploy.runtime.cuda.base import Cuda
from icnet_deploy.runtime.labelmap import kind

_FLAGS = (
    *("avx2", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
)
"""The flags of /proc/cpuinfo that decide how fast float32, INT8 and half precision are."""


_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


@dataclass(frozen=True)
class _Package:
    """A package that some part of the product uses.

    Attributes:
        name: what to call it.
        distributions: the names that it is installed by, any of which will do.
        extra: the extra of `icnet-deploy` that brings it, or None: always installed with it.
        purpose: what it is for.
    """

    name: str
    distributions: tuple[str, ...]
    extra: str | None
    purpose: str


_OPENCV = (
    *("opencv-python-headless", "opencv-python"),
    *("opencv-contrib-python-headless", "opencv-contrib-python"),
)
_ONNX_RUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")

PACKAGES = (
    _Package("numpy", ("numpy",), None, "arrays"),
    _Package("opencv", _OPENCV, None, "images"),
    _Package("pillow", ("pillow",), None, "palettes, animations, TIFF and AVIF"),
    _Package("tqdm", ("tqdm",), None, "progress bars"),
    _Package("av", ("av",), "video", "videos and animations"),
    _Package("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), "cpu", "run on the CPU"),
    _Package("onnxruntime-gpu", ("onnxruntime-gpu",), "cuda", "run on an NVIDIA GPU"),
    _Package("openvino", ("openvino",), "openvino", "run on the CPU, faster"),
    _Package("tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"), "tensorrt", "engines"),
    _Package(
        "tensorrt_rtx",
        ("tensorrt-rtx", "tensorrt-rtx-cu13"),
        "tensorrt-rtx",
        "engines for RTX GPUs",
    ),
    _Package("cuda-core", ("cuda-core",), "tensorrt", "GPU access for engines"),
    _Package("pycuda", ("pycuda",), None, "GPU access for engines, if cuda-core is missing"),
    _Package("torch", ("torch",), "export", "export, training, the reference for parity"),
    _Package("safetensors", ("safetensors",), "export", "checkpoints"),
    _Package("onnx", ("onnx",), "export", "export"),
    _Package("onnxscript", ("onnxscript",), "export", "export"),
    _Package("onnxsim", ("onnxsim",), "export", "export"),
    _Package("pytorch-lightning", ("pytorch-lightning",), "train", "training"),
)

_SAME_MODULE = {"cv2": _OPENCV, "onnxruntime": _ONNX_RUNTIME}
"""Module -> the distributions that install it, each over the files of the other."""


def examine(open_cuda: Callable[[str], Cuda] = open_cuda) -> dict[str, Any]:
    """Everything, as a JSON value; what cannot be found out is None. Never raises.

    Args:
        open_cuda: opens the GPU by the name of an adapter.
    """
    return {
        "schema": 1,
        "icnet_deploy": __version__,
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpu": cpu(),
        "memory_gib": _memory_gib(),
        "gpus": gpus(),
        "packages": {package.name: package_version(package.name) for package in PACKAGES},
        "clashes": _clashes(),
        "runtimes": {name: _tried(_probe, name) for name in RUNTIMES},
        "cuda": {adapter: _tried(partial(_cuda, open_cuda), adapter) for adapter in ADAPTERS},
        "label_map": label_maps(),
        "jpeg": dict(zip(("kind", "why"), jpeg.kind(), strict=True)),
        "auto": _auto(),
    }


def package_version(name: str) -> str | None:
    """The version of a package, which `PACKAGES` may know better; None if it is not installed."""
    known = {package.name: package.distributions for package in PACKAGES}
    return next(filter(None, map(_version, known.get(name, (name,)))), None)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _clashes() -> dict[str, list[str]]:
    """Modules that several installed distributions share: the last wrote over the others' files,
    and uninstalling one breaks what is left."""
    there = {
        module: [name for name in names if _version(name)] for module, names in _SAME_MODULE.items()
    }
    return {module: names for module, names in there.items() if len(names) > 1}


def cpu() -> dict[str, Any]:
    """Model, the number of cores that this process may use, and the flags that matter."""
    info = _facts("/proc/cpuinfo")
    present = set(info.get("flags", "").split())
    return {
        "model": info.get("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "flags": [flag for flag in _FLAGS if flag in present],
    }


def exact_int8(flags: Iterable[str]) -> bool | None:
    """Whether a processor with these flags sums products of 8 bits in 32.

    An x86 without VNNI or AMX sums pairs of them in 16 bits, which saturate (VPMADDUBSW), so that
    runtimes lose them or halve the weights before: INT8 gives other labels there.

    Returns:
        None where the flags do not tell, as of a processor that is no x86.
    """
    known = set(flags)
    return bool(known & _DOT_PRODUCTS) if known else None


def _memory_gib() -> float | None:
    total = _facts("/proc/meminfo").get("MemTotal")
    return round(int(total.split()[0]) / 2**20, 1) if total else None


def _facts(path: str) -> dict[str, str]:
    """What a file of lines `name: value` says, where a name is there twice the first time."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    parts = (line.partition(":") for line in reversed(lines))
    return {name.strip(): value.strip() for name, _, value in parts}


def gpus() -> list[dict[str, str]]:
    """NVIDIA's GPUs as `nvidia-smi` lists them; none where it is missing or fails."""
    fields = ("name", "memory.total", "driver_version", "compute_cap")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    done = run_tool(command, timeout=20)
    if done.returncode:
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]


def label_maps() -> dict[str, str]:
    """What makes label maps of logits on the CPU here, `compiled` or `numpy`, and why."""
    return dict(zip(("kind", "why"), kind(), strict=True))


def _tried(look: Callable[[str], dict[str, Any]], name: str) -> dict[str, Any] | None:
    """What there is to see; None where nothing is installed, an `error` where it does not work."""
    try:
        return look(name)
    except (ModuleNotFoundError, MissingPackage):
        return None
    except Exception as error:  # half an installation must not keep the doctor from reporting
        return {"error": f"{type(error).__name__}: {error}"}


def _probe(runtime: str) -> dict[str, Any]:
    """What a runtime says of itself if its package imports; whether it runs is up to the device."""
    package = RUNTIMES[runtime].imported()
    facts: dict[str, Any] = import_module(RUNTIMES[runtime].module).probe(package)
    return facts


def _cuda(open_cuda: Callable[[str], Cuda], adapter: str) -> dict[str, Any]:
    """What drives the GPU for an engine, and the GPU that it opens."""
    opened = open_cuda(adapter)
    return {"version": opened.adapter, "gpu": str(opened.gpu)}


def _auto() -> dict[str, Any]:
    """What `auto` chooses, and why."""
    try:
        runtime, device = choose("auto", "auto")
    except IcnetError as error:
        return {"runtime": None, "device": None, "why": str(error)}
    if device == "cuda":
        return {"runtime": runtime, "device": device, "why": f"{runtime} ran a convolution on CUDA"}
    faster = ", ".join(ranked(device)[: ranked(device).index(runtime)])
    here = f"{faster} is not installed" if faster else f"{runtime} is the fastest on a CPU"
    why = f"CUDA does not work with {', '.join(ranked('cuda'))}; {here}"
    return {"runtime": runtime, "device": device, "why": why}


# Looks around once a process: it asks every runtime for its devices.
_examined = cache(examine)

_RECORDED = ("numpy", "opencv", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch")


def versions() -> dict[str, str]:
    """Name -> version of this product, Python, and the libraries that a result depends on.

    Those that are not installed are left out.
    """
    seen = _examined()
    packages = {name: seen["packages"].get(name) for name in _RECORDED}
    return {
        "icnet-deploy": seen["icnet_deploy"],
        "python": seen["python"],
        **{name: version for name, version in packages.items() if version is not None},
    }


def machine() -> dict[str, Any]:
    """The operating system, the processor, the cores this process may use, memory and GPUs."""
    seen = _examined()
    return {
        "os": seen["os"],
        "cpu": seen["cpu"]["model"],
        "cpu_flags": seen["cpu"]["flags"],
        "cores": seen["cpu"]["cores"],
        "memory_gib": seen["memory_gib"],
        "gpus": seen["gpus"],
    }
