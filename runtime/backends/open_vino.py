"""OpenVINO on the CPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.cache import CACHE_VARIABLE, cache_folder
from icnet_deploy.errors import BackendError, ModelError
from icnet_deploy.runtime.backends.base import Array, TensorSpec, check_feed, reason
from icnet_deploy.runtime.backends.open_vino_graph import for_one, prepare

__all__ = ["OpenVinoBackend", "core", "open_model"]


class OpenVinoBackend:
    """A compiled model of OpenVINO as a `Backend`; each thread has infer requests of its own.

    Where only the batch is free, a model that is compiled for one image takes 0.85 of the time
    (INT8, two cores), so that one is there from the start, and the other from the first batch on.
    """

    def __init__(self, model: Any, compile_model: Callable[[Any], Any]) -> None:
        """Takes the model as it was read, and what compiles it.

        Compiling drops casts at the ends of a graph, and a port then has their names, too: names
        and shapes are those that were read, types those that are run.
        """
        self._lock = threading.Lock()
        self._compile = compile_model
        self._model, self._turned = prepare(model)
        self._single = for_one(self._model)
        compiled = compile_model(self._single or self._model)
        self.inputs = _specs(model.inputs, compiled.inputs)
        self.outputs = _specs(model.outputs, compiled.outputs)
        self._compiled: dict[bool, Any] = {self._single is not None: compiled}
        self._own: Any = threading.local()
        self._closed = False

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`. Neither C-contiguous inputs nor outputs are copied."""
        if self._closed:
            raise BackendError("the model was closed")
        check_feed(self.inputs, feed)
        one = self._single is not None and len(feed[self.inputs[0].name]) == 1
        try:
            values = self._request(one).infer(
                [feed[spec.name] for spec in self.inputs], share_inputs=True, share_outputs=True
            )
            return {
                spec.name: values[index].transpose(0, 3, 1, 2)
                if index in self._turned
                else values[index]
                for index, spec in enumerate(self.outputs)
            }
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed to run the model: {reason(error)}") from error

    def close(self) -> None:
        """See `Backend.close`."""
        with self._lock:
            self._closed = True
            self._compiled = {}
            self._own = threading.local()

    def _request(self, one: bool) -> Any:
        """This thread's infer request, of the model for one image or of the one for any number."""
        requests: dict[bool, Any] = self._own.__dict__
        if one not in requests:
            with self._lock:
                if self._closed:  # since `run` looked
                    raise BackendError("the model was closed")
                if one not in self._compiled:
                    self._compiled[one] = self._compile(self._model)
                requests[one] = self._compiled[one].create_infer_request()
        return requests[one]


def open_model(
    path: Path, device: str, threads: int | None, streams: int = 1, cached: bool = False
) -> OpenVinoBackend:
    """Loads an ONNX file; see `open_backend`, which lets no device but `cpu` through.

    A compiled model is as large as the file and is never deleted, so it is kept only for who asks:
    by `cached`, or by setting `ICNET_CACHE`.
    """
    config: dict[str, Any] = {
        # The default precision is bfloat16 on some processors: less exact there, and slower.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        # As many requests as there are streams run at once, each on its share of the threads.
        "NUM_STREAMS": streams,
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core().read_model(path)
        cached = cached or CACHE_VARIABLE in os.environ
        return OpenVinoBackend(model, lambda model: _compile(model, device.upper(), config, cached))
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot load the model {path}: {reason(error)}") from error


def core() -> Any:
    """The process's one `openvino.Core`, which is never freed.

    Each core that loads the CPU plugin gives the thread a stack for signals, and puts the former
    back when it is freed. Cores that are freed in the order in which they were made leave the
    thread a stack that is gone, and the next signal, a Ctrl-C or the end of a child, kills the
    process (OpenVINO 2026.4).
    """
    import openvino

    return _only(openvino.Core)


@cache
def _only(kind: Callable[[], Any]) -> Any:
    return kind()


def _compile(model: Any, device: str, config: dict[str, Any], cached: bool) -> Any:
    """Compiles a model, or finds it compiled; a cache that cannot be used is done without."""
    folder = cache_folder("openvino") if cached else None
    if folder is not None and _writable(folder):
        try:
            return core().compile_model(model, device, config | {"CACHE_DIR": str(folder)})
        except RuntimeError:  # a full disk, a file that is damaged: the model may yet be sound
            pass
    return core().compile_model(model, device, config)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _specs(read: list[Any], compiled: list[Any]) -> tuple[TensorSpec, ...]:
    """Reads inputs or outputs, whose order compiling keeps; a dynamic side is free."""
    specs = []
    for port, run in zip(read, compiled, strict=True):
        sides = tuple(None if side.is_dynamic else side.get_length() for side in port.partial_shape)
        specs.append(TensorSpec(port.any_name, sides, np.dtype(run.element_type.to_dtype())))
    return tuple(specs)
