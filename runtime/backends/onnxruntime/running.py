"""Sessions of ONNX Runtime as backends: on the CPU, on CUDA, and as a CUDA graph."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError, ModelError, UnavailableError
from icnet_deploy.runtime.backends.base import Array, Backend, TensorSpec, check_feed
from icnet_deploy.runtime.backends.forks import outlive_forks

_DTYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}


class OnnxRuntimeBackend:
    """A session of ONNX Runtime as a `Backend`."""

    def __init__(self, session: Any) -> None:
        self._session: Any = session
        self.inputs = tuple(_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_spec(value) for value in session.get_outputs())
        outlive_forks(self)

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        if self._session is None:
            raise BackendError("the model was closed")
        check_feed(self.inputs, feed)
        try:
            values = self._values_of(feed)
        except Exception as error:  # ONNX Runtime's errors have no common root but this
            raise BackendError(f"ONNX Runtime failed to run the model: {error}") from error
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        """See `Backend.close`."""
        self._session = None

    def _values_of(self, feed: Mapping[str, Array]) -> list[Array]:
        """Runs it; an array for each output."""
        values: list[Array] = self._session.run([spec.name for spec in self.outputs], dict(feed))
        return values


class BoundBackend(OnnxRuntimeBackend):
    """A session on a GPU, where the memory of its input and outputs stays from run to run.

    As every artefact, the model has one input.
    """

    def __init__(self, session: Any, onnxruntime: Any) -> None:
        super().__init__(session)
        self._values = onnxruntime.OrtValue
        self._binding: Any = session.io_binding()
        self._shape: tuple[int, ...] | None = None
        self._input: Any = None

    def close(self) -> None:
        """See `Backend.close`."""
        super().close()
        self._binding = self._input = None

    def _values_of(self, feed: Mapping[str, Array]) -> list[Array]:
        name = self.inputs[0].name
        image = np.ascontiguousarray(feed[name])
        if image.shape == self._shape:
            self._input.update_inplace(image)
        else:
            self._bind(name, image)
        self._session.run_with_iobinding(self._binding)
        values: list[Array] = self._binding.copy_outputs_to_cpu()
        return values

    def _bind(self, name: str, image: Array) -> None:
        """Takes memory for images of a new shape, and for what comes of them."""
        self._shape = None
        self._input = self._values.ortvalue_from_numpy(image, "cuda", 0)
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        self._binding.bind_ortvalue_input(name, self._input)
        for spec in self.outputs:
            if None in spec.shape:  # as large as it comes out
                self._binding.bind_output(spec.name, "cuda", 0)
                continue
            # A graph writes where it wrote when it was captured.
            value = self._values.ortvalue_from_shape_and_type(
                list(spec.shape), spec.dtype.type, "cuda", 0
            )
            self._binding.bind_ortvalue_output(spec.name, value)
        self._shape = image.shape


class GraphBackend:
    """A graph for one shape, and a session for all others that is opened when there is one.

    A graph whose first run fails is given up with a warning: the session then takes its place.
    """

    def __init__(
        self,
        graph: Backend,
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        open_plain: Callable[[], Backend],
    ) -> None:
        """Takes the graph's backend, the inputs and outputs of the whole, and what opens it."""
        self.inputs, self.outputs = specs
        self._graph: Backend | None = graph
        self._plain: Backend | None = None
        self._open: Callable[[], Backend] | None = open_plain
        self._captured = False

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        if self._open is None:
            raise BackendError("the model was closed")
        check_feed(self.inputs, feed)
        if (
            self._graph is not None
            and feed[self.inputs[0].name].shape == self._graph.inputs[0].shape
        ):
            try:
                values = self._graph.run(feed)
                self._captured = True
                return values
            except BackendError as error:
                if self._captured:
                    raise
                reason = str(error)
            # Past the handler, whose traceback would hold the session, and with it a stream that
            # is still capturing: other sessions could then take no memory.
            self._graph.close()
            self._graph = None
            without_graph(reason)
        if self._plain is None:
            try:
                self._plain = self._open()
            except UnavailableError as error:
                raise BackendError(str(error)) from error
        return self._plain.run(feed)

    def close(self) -> None:
        """See `Backend.close`."""
        for each in (self._graph, self._plain):
            if each is not None:
                each.close()
        self._graph = self._plain = self._open = None


def without_graph(reason: str) -> None:
    """Warns that a model goes without."""
    warnings.warn(
        f"the model runs without a CUDA graph, a little slower: {reason}",
        RuntimeWarning,
        stacklevel=3,
    )


def _spec(value: Any) -> TensorSpec:
    """Reads a session's input or output; a symbolic side is free."""
    if value.type not in _DTYPES:
        raise ModelError(
            f"the model's {value.name!r} is a {value.type}, which icnet-deploy does not support"
        )
    try:
        shape = tuple(side if isinstance(side, int) else None for side in value.shape)
        return TensorSpec(value.name, shape, np.dtype(_DTYPES[value.type]))
    except UnicodeDecodeError as error:
        raise ModelError(
            f"the names in the model are not UTF-8 ({error.reason}): export it again"
        ) from error
