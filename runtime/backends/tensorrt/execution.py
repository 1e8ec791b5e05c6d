"""One execution context of TensorRT on one stream: its shapes, its buffers, and its CUDA graph."""

import warnings
from collections.abc import Callable
from math import prod
from typing import Any, TypeVar

import numpy as np

from icnet_deploy.errors import BackendError
from icnet_deploy.runtime.backends.base import TensorSpec
from icnet_deploy.runtime.backends.tensorrt.engine import Engine, Shape
from icnet_deploy.runtime.cuda.base import Cuda, Graph, Memory, Pinned, UInt8

_Block = TypeVar("_Block", Memory, Pinned)

_FLAG = np.dtype(np.int32).itemsize


class Buffers:
    """Blocks of the GPU's and of pinned memory by name, kept from run to run, grown when needed.

    Whoever asks has synchronized: a block that grows is freed at once.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._device: dict[str, Memory] = {}
        self._pinned: dict[str, Pinned] = {}

    def device(self, name: str, size: int) -> int:
        """The address of at least `size` bytes of the GPU's memory."""
        return _grown(self._device, name, size, self._cuda.allocate).address

    def pinned(self, name: str, size: int) -> UInt8:
        """`size` bytes of pinned memory, uint8, one dimension."""
        return _grown(self._pinned, name, size, self._cuda.pinned).array[:size]

    def free(self) -> None:
        """Gives all of it back."""
        for blocks in (self._device, self._pinned):
            for block in blocks.values():
                block.free()
            blocks.clear()


def _grown(
    blocks: dict[str, _Block], name: str, size: int, take: Callable[[int], _Block]
) -> _Block:
    """The block of that name, taken anew where it is none or too small."""
    block = blocks.get(name)
    if block is None or block.size < size:
        if block is not None:
            del blocks[name]
            block.free()
        block = blocks[name] = take(size)
    return block


class Flag:
    """A number on the GPU that kernels set where they find what may not be.

    Between `clear` and `is_set` lie their launches, `fetch`, and a wait for the stream.
    """

    def __init__(self, cuda: Cuda, stream: Any, buffers: Buffers) -> None:
        self._cuda, self._stream, self._buffers = cuda, stream, buffers

    def clear(self) -> int:
        """Puts a 0 there; its address."""
        address = self._buffers.device("flag", _FLAG)
        zero = self._buffers.pinned("zero", _FLAG)
        zero[:] = 0
        self._cuda.copy_in(address, zero, self._stream)
        return address

    def fetch(self) -> None:
        """Lets it be copied back."""
        block = self._buffers.pinned("flag", _FLAG)
        self._cuda.copy_out(block, self._buffers.device("flag", _FLAG), self._stream)

    def is_set(self) -> bool:
        """Whether a kernel set it."""
        return bool(self._buffers.pinned("flag", _FLAG).any())


class Execution:
    """Runs an engine at one shape after another; a shape that comes again runs as a CUDA graph.

    Attributes:
        shapes: the shape of every tensor at the shape that was prepared last.
        addresses: where every tensor is.
    """

    def __init__(self, engine: Engine, cuda: Cuda, stream: Any, buffers: Buffers) -> None:
        self._engine, self._cuda = engine, cuda
        self._stream, self._buffers = stream, buffers
        self._context = engine.new_context(cuda)
        self._profile = 0
        self._shape: Shape | None = None
        self._again = False
        self._graph: Graph | None = None
        self._try_graphs = True
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}

    def prepare(self, shape: Shape) -> None:
        """Makes everything ready for an input shape; nothing to do where it is the last one.

        Raises:
            BackendError: no profile takes it, TensorRT refuses it, or memory is short.
        """
        if shape == self._shape:
            self._again = True
            return
        self._drop_graph()
        self._shape, self._again = None, False
        image, context = self._engine.image, self._context
        profile = self._engine.profile_for(shape, self._profile)
        if profile != self._profile:
            self._ask(
                "switch to another profile",
                lambda: context.set_optimization_profile_async(profile, self._stream.handle),
            )
            self._stream.synchronize()
            self._profile = profile
        self._ask(f"take the shape {shape}", lambda: context.set_input_shape(image.name, shape))
        self._ask("work out the shapes", lambda: not context.infer_shapes())
        for spec in (image, *self._engine.outputs):
            self._place(spec)
        self._shape = shape

    def enqueue(self) -> None:
        """Puts a run on the stream.

        Raises:
            BackendError: TensorRT refuses.
        """
        if self._graph is None and self._again and self._try_graphs:
            self._capture()
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._execute()

    def close(self) -> None:
        """Frees the graph and the context."""
        self._drop_graph()
        self._context = None

    def _place(self, spec: TensorSpec) -> None:
        """Gives a tensor its memory."""
        shape = tuple(int(side) for side in self._context.get_tensor_shape(spec.name))
        if min(shape, default=1) < 1:
            raise BackendError(
                f"{self._engine.name}: the size of {spec} depends on the content of the image, "
                "which icnet-deploy does not support"
            )
        address = self._buffers.device(spec.name, prod(shape) * spec.dtype.itemsize)
        self._ask(
            f"take an address for {spec.name!r}",
            lambda: self._context.set_tensor_address(spec.name, address),
        )
        self.shapes[spec.name], self.addresses[spec.name] = shape, address

    def _execute(self) -> None:
        self._ask("run", lambda: self._context.execute_async_v3(self._stream.handle))

    def _capture(self) -> None:
        """Makes a graph of a run; where that fails, says so once and goes on without."""
        try:
            self._graph = self._cuda.capture(self._stream, self._execute)
        except BackendError as error:
            self._try_graphs = False
            warnings.warn(
                f"{self._engine.name} runs without a CUDA graph, a little slower: {error}",
                RuntimeWarning,
                stacklevel=2,
            )

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _ask(self, what: str, call: Any) -> None:
        """TensorRT's failures are False and a line in its log."""
        mark = self._engine.lines.mark()
        if not call():
            raise BackendError(
                f"{self._engine.name} failed to {what}: {self._engine.lines.since(mark)}"
            )
