"""ONNX Runtime: its CPU provider, and its CUDA provider with the promise that it is CUDA.

ONNX Runtime by itself answers a CUDA provider that cannot start with a session on the CPU and a
line in its log. Here that is a `DeviceError`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError, DeviceError, ModelError, UnavailableError
from icnet_deploy.runtime.backends.base import Array, TensorSpec, check_feed

__all__ = ["CUDA_OPTIONS", "OnnxRuntimeBackend", "check_distributions", "cuda_works", "open_model"]

CUDA_OPTIONS = {
    "device_id": "0",
    # Tries every algorithm once a shape at the first run, which `warmup` is for.
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "cudnn_conv_use_max_workspace": "1",
    # TF32 keeps 10 bits of the mantissa: float32 is to mean float32. FP16 is an artefact's own.
    "use_tf32": "0",
    # Tensor cores want channels last; without it every convolution transposes.
    "prefer_nhwc": "1",
    # Grow by what is asked for, not to the next power of two: the shapes are fixed.
    "arena_extend_strategy": "kSameAsRequested",
}
"""What the CUDA provider is given; ONNX Runtime takes values as text."""

_DTYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}

_FATAL_ONLY, _WARNINGS = 4, 2  # ONNX Runtime's log severities

# An ONNX file of 109 bytes: y = Conv(x, 1) on 1 x 1 x 1 x 1 (a convolution, since that needs
# cuDNN, which can be missing where CUDA is there).
_PROBE = base64.b64decode(
    "CAg6YwoPCgF4CgF3EgF5IgRDb252EgFnKhMIAQgBCAEIARABIgQAAIA/QgF3WhsKAXgSFgoUCAESEAoCCAEKAggBCgII"
    "AQoCCAFiGwoBeRIWChQIARIQCgIIAQoCCAEKAggBCgIIAUIECgAQDQ=="
)


class OnnxRuntimeBackend:
    """A session of ONNX Runtime as a `Backend`."""

    def __init__(self, session: Any) -> None:
        self._session: Any = session
        self.inputs = tuple(_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_spec(value) for value in session.get_outputs())

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        if self._session is None:
            raise BackendError("the model was closed")
        check_feed(self.inputs, feed)
        names = [spec.name for spec in self.outputs]
        try:
            values = self._session.run(names, dict(feed))
        except Exception as error:  # ONNX Runtime's errors have no common root but this
            raise BackendError(f"ONNX Runtime failed to run the model: {error}") from error
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        """See `Backend.close`."""
        self._session = None


def open_model(path: Path, device: str, threads: int | None) -> OnnxRuntimeBackend:
    """Loads an ONNX file; see `open_backend`."""
    return OnnxRuntimeBackend(_session(str(path), device, threads))


def _session(model: str | bytes, device: str, threads: int | None) -> Any:
    check_distributions()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL_ONLY  # what it would log is in the exception
    if threads is not None:
        options.intra_op_num_threads = threads
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        _prepare_cuda(onnxruntime)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = [("CUDAExecutionProvider", CUDA_OPTIONS)]
    try:
        # enable_fallback=0: otherwise a failure prints a banner and starts again on the CPU.
        session = onnxruntime.InferenceSession(model, options, providers, enable_fallback=0)
    except Exception as error:
        if device == "cuda":
            raise DeviceError(
                f"ONNX Runtime cannot run the model on CUDA: {error}; `icnet doctor` says what is "
                "missing, --device cpu runs without a GPU"
            ) from error
        raise ModelError(f"ONNX Runtime cannot load the model {model!s:.200}: {error}") from error
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise DeviceError(
            f"asked for CUDA, ONNX Runtime gave {session.get_providers()}: its CUDA provider could "
            "not start (a library of CUDA 13 or cuDNN 9 is missing, or there is no GPU); "
            'pip install "icnet-deploy[cuda]", or use --device cpu'
        )
    return session


def _prepare_cuda(onnxruntime: Any) -> None:
    """Loads CUDA's libraries from their packages, if this ONNX Runtime has a CUDA provider."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise DeviceError(
            "asked for CUDA, but the installed ONNX Runtime has no CUDA provider: pip uninstall "
            'onnxruntime, then pip install "icnet-deploy[cuda]"; or use --device cpu'
        )
    onnxruntime.preload_dlls()


def check_distributions() -> None:
    """Refuses two distributions that install the same folder and overwrite one another.

    Raises:
        UnavailableError: both `onnxruntime` and `onnxruntime-gpu` are installed.
    """
    try:
        found = [distribution(name) for name in ("onnxruntime", "onnxruntime-gpu")]
    except PackageNotFoundError:
        return
    raise UnavailableError(
        f"both onnxruntime {found[0].version} and onnxruntime-gpu {found[1].version} are installed "
        "and have overwritten each other's files: pip uninstall -y onnxruntime onnxruntime-gpu, "
        'then pip install "icnet-deploy[cpu]" or "icnet-deploy[cuda]"'
    )


@cache
def cuda_works() -> bool:
    """Whether ONNX Runtime really runs a convolution on CUDA here. Costs nothing without its files.

    `get_available_providers` lists what was compiled in, GPU or not, so it is tried.
    """
    found = find_spec("onnxruntime")
    folders = (found.submodule_search_locations if found else None) or []
    if not any(file for d in folders for file in Path(d).glob("capi/*providers_cuda*")):
        return False
    import onnxruntime

    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    try:
        backend = OnnxRuntimeBackend(_session(_PROBE, "cuda", None))
        backend.run({"x": np.ones((1, 1, 1, 1), np.float32)})
    except (UnavailableError, BackendError):
        return False
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
    return True


def _spec(value: Any) -> TensorSpec:
    """Reads a session's input or output; a symbolic side is free."""
    if value.type not in _DTYPES:
        raise ModelError(f"the model's {value.name!r} is a {value.type}, which nothing here takes")
    shape = tuple(side if isinstance(side, int) else None for side in value.shape)
    return TensorSpec(value.name, shape, np.dtype(_DTYPES[value.type]))
