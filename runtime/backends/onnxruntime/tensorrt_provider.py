"""ONNX Runtime's TensorRT provider, where it can work: it links TensorRT 10, and no later one.

An engine of our own (`icnet build-engine`) runs on TensorRT 10 and 11, loads at once and is held to
its SHA-256; this is for those who have TensorRT 10 and an ONNX file. The provider's own cache goes
by the graph's name and shapes, and can serve the engine of another model: here each model has a
folder of its own, named by the SHA-256 of its bytes.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

from icnet_deploy.cache import asked_cache_folder
from icnet_deploy.errors import DeviceError
from icnet_deploy.files import make_folder
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.backends.onnxruntime.session import (
    CUDA,
    CUDA_OPTIONS,
    BoundBackend,
    open_session,
    prepare_cuda,
)

PROVIDER = "TensorrtExecutionProvider"

LIBRARY = "nvinfer_10.dll" if sys.platform == "win32" else "libnvinfer.so.10"
"""What the provider of ONNX Runtime 1.31 is linked to."""


def open_model(
    path: Path, device: str, threads: int | None, cached: bool | None = None
) -> BoundBackend:
    """Loads an ONNX file; see `open_backend`, which lets no device but `cuda` through."""
    import onnxruntime

    prepare_cuda(onnxruntime)
    if PROVIDER not in onnxruntime.get_available_providers():
        raise DeviceError(
            "the installed ONNX Runtime has no TensorRT provider: use runtime 'onnxruntime', or "
            "build an engine with `icnet build-engine`"
        )
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DeviceError(
            f"ONNX Runtime's TensorRT provider needs TensorRT 10, whose {LIBRARY} does not load "
            f"({error}): install tensorrt-cu13 10.x, or build an engine with `icnet build-engine`, "
            "which TensorRT 11 runs, too"
        ) from error
    providers: list[Any] = [(PROVIDER, provider_options(path, cached)), (CUDA, CUDA_OPTIONS)]
    return BoundBackend(open_session(str(path), providers, threads), onnxruntime)


def provider_options(path: Path, cached: bool | None = None) -> dict[str, str]:
    """What the provider is given for a model; ONNX Runtime takes values as text."""
    precision = read_onnx_metadata(path).precision
    options = {
        "device_id": "0",
        # The provider's networks are weakly typed: a type that the graph has must be let in.
        "trt_fp16_enable": str(int(precision == "fp16")),
        "trt_int8_enable": str(int(precision == "int8")),
    }
    folder = asked_cache_folder("onnxruntime-tensorrt", cached)
    if folder is not None:
        own = make_folder(folder / artefact_sha256(path))
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(own)}
        options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(own)}
    return options
