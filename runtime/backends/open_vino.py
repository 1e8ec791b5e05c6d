"""OpenVINO on the CPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.cache import CACHE_VARIABLE, cache_folder
from icnet_deploy.errors import BackendError, ModelError
from icnet_deploy.runtime.backends.base import Array, TensorSpec, check_feed, reason

__all__ = ["OpenVinoBackend", "open_model"]


class OpenVinoBackend:
    """A compiled model of OpenVINO as a `Backend`; each thread has an infer request of its own."""

    def __init__(self, model: Any, compiled: Any) -> None:
        """Takes the model as it was read, for its names, and as it was compiled, for the rest.

        Compiling drops casts at the ends of a graph, and a port then has their names, too.
        """
        self.inputs = _specs(model.inputs, compiled.inputs)
        self.outputs = _specs(model.outputs, compiled.outputs)
        self._compiled: Any = compiled
        self._own: Any = threading.local()

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`. Neither C-contiguous inputs nor outputs are copied."""
        compiled = self._compiled
        if compiled is None:
            raise BackendError("the model was closed")
        check_feed(self.inputs, feed)
        try:
            request = getattr(self._own, "request", None)
            if request is None:
                request = self._own.request = compiled.create_infer_request()
            values = request.infer(
                [feed[spec.name] for spec in self.inputs], share_inputs=True, share_outputs=True
            )
            return {spec.name: values[index] for index, spec in enumerate(self.outputs)}
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed to run the model: {reason(error)}") from error

    def close(self) -> None:
        """See `Backend.close`."""
        self._compiled = None
        self._own = threading.local()


def open_model(
    path: Path, device: str, threads: int | None, streams: int = 1, cached: bool = False
) -> OpenVinoBackend:
    """Loads an ONNX file; see `open_backend`, which lets no device but `cpu` through.

    A compiled model is as large as the file and is never deleted, so it is kept only for who asks:
    by `cached`, or by setting `ICNET_CACHE`.
    """
    import openvino

    config: dict[str, Any] = {
        # The default precision is bfloat16 on some processors: less exact there, and slower.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        # As many requests as there are streams run at once, each on its share of the threads.
        "NUM_STREAMS": streams,
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    try:
        model = core.read_model(path)
        cached = cached or CACHE_VARIABLE in os.environ
        compiled = _compile(core, model, device.upper(), config, cached)
        return OpenVinoBackend(model, compiled)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot load the model {path}: {reason(error)}") from error


def _compile(core: Any, model: Any, device: str, config: dict[str, Any], cached: bool) -> Any:
    """Compiles a model, or finds it compiled; a cache that cannot be used is done without."""
    folder = cache_folder("openvino") if cached else None
    if folder is not None and _writable(folder):
        try:
            return core.compile_model(model, device, config | {"CACHE_DIR": str(folder)})
        except RuntimeError:  # a full disk, a file that is damaged: the model may yet be sound
            pass
    return core.compile_model(model, device, config)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _specs(named: list[Any], compiled: list[Any]) -> tuple[TensorSpec, ...]:
    """Reads inputs or outputs, whose order compiling keeps; a dynamic side is free."""
    specs = []
    for name, port in zip((port.any_name for port in named), compiled, strict=True):
        sides = tuple(None if side.is_dynamic else side.get_length() for side in port.partial_shape)
        specs.append(TensorSpec(name, sides, np.dtype(port.element_type.to_dtype())))
    return tuple(specs)
