"""ONNX Runtime: its CPU provider, and its CUDA provider with the promise that it is CUDA.

ONNX Runtime by itself answers a CUDA provider that cannot start with a session on the CPU and a
line in its log. Here that is a `DeviceError`.

On CUDA inputs and outputs are bound to the GPU's memory once and used again. A model whose shapes
are fixed runs as a CUDA graph, which is captured for one shape only, and so does one image where
only the batch is free. What ONNX Runtime asks of such a session: every node on CUDA (but those that
only compute shapes), no control flow, and inputs and outputs that stay where they are. What it
finds at the opening it refuses there. The capture itself, after a run to warm up, is part of the
first run, and can fail.
"""

import base64
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError, DeviceError, ModelError, UnavailableError, pip_install
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.backends.onnxruntime.running import (
    BoundBackend,
    GraphBackend,
    OnnxRuntimeBackend,
    without_graph,
)
from icnet_deploy.runtime.cores import usable_cores

CUDA_OPTIONS = {
    "device_id": "0",
    # Tries every algorithm once a shape at the first run, which `warmup` is for.
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "cudnn_conv_use_max_workspace": "1",
    # TF32 keeps 10 bits of the mantissa: float32 is to mean float32 unless somebody says otherwise
    # (`tf32`). FP16 is an artefact's own.
    "use_tf32": "0",
    # Tensor cores want channels last; without it every convolution transposes.
    "prefer_nhwc": "1",
    # Grow by what is asked for, not to the next power of two: the shapes are fixed.
    "arena_extend_strategy": "kSameAsRequested",
}
"""What the CUDA provider is given; ONNX Runtime takes values as text."""

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_FATAL_ONLY, _WARNINGS = 4, 2  # ONNX Runtime's log severities

# An ONNX file of 109 bytes: y = Conv(x, 1) on 1 x 1 x 1 x 1 (a convolution, since that needs
# cuDNN, which can be missing where CUDA is there).
_PROBE = base64.b64decode(
    "CAg6YwoPCgF4CgF3EgF5IgRDb252EgFnKhMIAQgBCAEIARABIgQAAIA/QgF3WhsKAXgSFgoUCAESEAoCCAEKAggBCgII"
    "AQoCCAFiGwoBeRIWChQIARIQCgIIAQoCCAEKAggBCgIIAUIECgAQDQ=="
)


def _sides_to_fix(session: Any) -> dict[str, int] | None:
    """Which free sides of a session's input are to be fixed so that a graph can be captured.

    Returns:
        The batch's name and 1, where only the batch is free and has a name; {} where all is fixed;
        None where there can be no graph.
    """
    if len(session.get_inputs()) != 1:
        return None
    batch, *sides = session.get_inputs()[0].shape
    if not all(isinstance(side, int) for side in sides):
        return None
    if isinstance(batch, int):
        return {}
    return {batch: 1} if batch else None


def open_model(
    path: Path, device: str, threads: int | None, streams: int = 1, tf32: bool = False
) -> Backend:
    """Loads an ONNX file; see `open_backend`.

    Args:
        path: the file.
        device: `cpu` or `cuda`.
        threads, streams: see `open_backend`.
        tf32: let CUDA multiply float32 with 10 bits of the mantissa, which is faster.
    """
    if device == "cpu":
        if streams > 1:  # each of the threads that run it brings itself, and takes its share
            threads = max(1, (threads or usable_cores()) // streams)
        return OnnxRuntimeBackend(open_session(str(path), [CPU], threads))
    return _open_cuda(str(path), threads, tf32)


def _open_cuda(model: str, threads: int | None, tf32: bool) -> Backend:
    import onnxruntime

    _prepare_cuda(onnxruntime)
    options = CUDA_OPTIONS | {"use_tf32": "1" if tf32 else "0"}

    def bound(session: Any) -> BoundBackend:
        return BoundBackend(session, onnxruntime)

    def open_plain() -> Any:
        return open_session(model, [(CUDA, options)], threads)

    session = open_plain()
    plain = bound(session)
    # Only now is it known what a graph may be captured of, and it is asked for at the start.
    sides = _sides_to_fix(session)
    if sides is None:
        return plain
    try:
        graph = [(CUDA, options | {"enable_cuda_graph": "1"})]
        single = bound(open_session(model, graph, threads, sides))
    except DeviceError as error:
        without_graph(str(error))
        return plain
    if any(None in spec.shape for spec in single.inputs + single.outputs):
        return plain  # it would write where the last run's memory was
    return GraphBackend(single, (plain.inputs, plain.outputs), lambda: bound(open_plain()))


def open_session(
    model: str | bytes,
    providers: list[Any],
    threads: int | None,
    sides: Mapping[str, int] | None = None,
) -> Any:
    """Makes a session whose first provider is the one that was asked for.

    Args:
        model: a path, or a file's bytes.
        providers: names, or names with their options; the CPU's alone, or some of CUDA.
        threads: CPU threads a run; None leaves it to ONNX Runtime.
        sides: free sides by their names in the model, and what they are fixed to.

    Raises:
        DeviceError: ONNX Runtime cannot run the model on CUDA, or would run some of it on the CPU.
        ModelError: it cannot load the file.
        UnavailableError: its installation is broken.
    """
    _check_distributions()
    import onnxruntime

    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL_ONLY  # what it would log is in the exception
    if threads is not None:
        options.intra_op_num_threads = threads
    for name, side in (sides or {}).items():
        options.add_free_dimension_override_by_name(name, side)
    if first == CPU:
        # Its threads would wait for the next run at full speed, on the cores that the label map is
        # to use (docs/decisions/cpu-runtimes.md).
        options.add_session_config_entry("session.force_spinning_stop", "1")
    else:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        # enable_fallback=0: otherwise a failure prints a banner and starts again on the CPU.
        session = onnxruntime.InferenceSession(model, options, providers, enable_fallback=0)
    except Exception as error:
        if first != CPU:
            raise DeviceError(
                f"ONNX Runtime cannot run the model on CUDA: {error}; `icnet doctor` shows what "
                "is missing; without a GPU, use the device cpu"
            ) from error
        raise ModelError(f"ONNX Runtime cannot load the model {model!s:.200}: {error}") from error
    if session.get_providers()[0] != first:
        raise DeviceError(
            f"asked for CUDA ({first}), but ONNX Runtime uses {session.get_providers()}: "
            f"{_not_started()}"
        )
    return session


def _not_started() -> str:
    return (
        "CUDA could not start (a library of CUDA 13 or cuDNN 9 is missing, or there is no GPU); "
        f"{pip_install('cuda')}, or use the device cpu"
    )


def _prepare_cuda(onnxruntime: Any) -> None:
    """Loads CUDA's libraries from their packages, if this ONNX Runtime has a CUDA provider."""
    if CUDA not in onnxruntime.get_available_providers():
        raise DeviceError(
            "asked for CUDA, but the installed ONNX Runtime has no CUDA provider: pip uninstall "
            f"onnxruntime, then {pip_install('cuda')}; or use the device cpu"
        )
    onnxruntime.preload_dlls()


def probe(package: Any) -> dict[str, Any]:
    """Its version and its compiled-in providers, which says nothing yet of a GPU.

    Raises:
        UnavailableError: two distributions of it are installed.
    """
    _check_distributions()
    return {"version": package.__version__, "providers": package.get_available_providers()}


def _check_distributions() -> None:
    """Refuses two distributions that install the same folder and overwrite one another.

    Raises:
        UnavailableError: both `onnxruntime` and `onnxruntime-gpu` are installed.
    """
    try:
        both = [distribution(name) for name in ("onnxruntime", "onnxruntime-gpu")]
    except PackageNotFoundError:
        return
    raise UnavailableError(
        f"both onnxruntime {both[0].version} and onnxruntime-gpu {both[1].version} are installed "
        "and have overwritten each other's files: pip uninstall -y onnxruntime onnxruntime-gpu, "
        f"then {pip_install('cpu')}, or {pip_install('cuda')}"
    )


@cache
def cuda_works() -> bool:
    """Whether ONNX Runtime really runs a convolution on CUDA here. Costs nothing without its files.

    `get_available_providers` lists what was compiled in, GPU or not, so it is tried.
    """
    spec = find_spec("onnxruntime")
    folders = (spec.submodule_search_locations if spec else None) or []
    if not any(file for d in folders for file in Path(d).glob("capi/*providers_cuda*")):
        return False
    import onnxruntime

    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    try:
        _prepare_cuda(onnxruntime)
        session = open_session(_PROBE, [(CUDA, CUDA_OPTIONS)], None)
        backend = BoundBackend(session, onnxruntime)
        backend.run({"x": np.ones((1, 1, 1, 1), np.float32)})
    except (UnavailableError, BackendError):
        return False
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
    return True


def require_cuda() -> None:
    """DeviceError where ONNX Runtime runs nothing on CUDA: said before work that would be lost."""
    import onnxruntime

    _prepare_cuda(onnxruntime)
    if not cuda_works():
        raise DeviceError(
            f"asked for CUDA, but ONNX Runtime cannot run a model there: {_not_started()}"
        )
