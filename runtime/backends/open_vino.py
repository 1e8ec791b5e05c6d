"""OpenVINO on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError, ModelError
from icnet_deploy.runtime.backends.base import Array, TensorSpec, check_feed, reason

__all__ = ["CACHE_VARIABLE", "OpenVinoBackend", "open_model"]

CACHE_VARIABLE = "ICNET_CACHE"
"""An environment variable: the folder where compiled models are kept from run to run, if set."""


class OpenVinoBackend:
    """A compiled model of OpenVINO as a `Backend`."""

    def __init__(self, model: Any, compiled: Any) -> None:
        """Takes the model as it was read, for its names, and as it was compiled, for the rest.

        Compiling drops casts at the ends of a graph, and a port then has their names, too.
        """
        self.inputs = _specs(model.inputs, compiled.inputs)
        self.outputs = _specs(model.outputs, compiled.outputs)
        self._request: Any = compiled.create_infer_request()

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`. Reads C-contiguous inputs where they lie, copies the outputs out."""
        if self._request is None:
            raise BackendError("the model was closed")
        check_feed(self.inputs, feed)
        try:
            values = self._request.infer(
                [feed[spec.name] for spec in self.inputs], share_inputs=True, share_outputs=True
            )
            # The next run writes over the request's own memory.
            return {spec.name: np.array(values[index]) for index, spec in enumerate(self.outputs)}
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed to run the model: {reason(error)}") from error

    def close(self) -> None:
        """See `Backend.close`."""
        self._request = None


def open_model(path: Path, device: str, threads: int | None) -> OpenVinoBackend:
    """Loads an ONNX file; see `open_backend`, which lets no device but `cpu` through."""
    import openvino

    # The default precision is bfloat16 on some processors: less exact there, and slower.
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    if folder := os.environ.get(CACHE_VARIABLE):
        config["CACHE_DIR"] = folder
    core = openvino.Core()
    try:
        model = core.read_model(path)
        return OpenVinoBackend(model, core.compile_model(model, device.upper(), config))
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot load the model {path}: {reason(error)}") from error


def _specs(named: list[Any], compiled: list[Any]) -> tuple[TensorSpec, ...]:
    """Reads inputs or outputs, whose order compiling keeps; a dynamic side is free."""
    specs = []
    for name, port in zip((port.any_name for port in named), compiled, strict=True):
        sides = tuple(None if side.is_dynamic else side.get_length() for side in port.partial_shape)
        specs.append(TensorSpec(name, sides, np.dtype(port.element_type.to_dtype())))
    return tuple(specs)
