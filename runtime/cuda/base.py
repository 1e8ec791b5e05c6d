"""What serving a model takes of CUDA: memory, copies, a stream, events, graphs and a kernel.

Everything that touches the GPU runs inside `Cuda.current()`: the current context is a thread's own.
Copies and launches are put on a stream; host memory may be read or changed once the stream was
synchronized. An address is a plain number, as TensorRT takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import BackendError

ALIGNMENT = 256
"""Bytes: what TensorRT asks of a tensor's address (`setTensorAddress` in NvInferRuntime.h)."""

UInt8 = npt.NDArray[np.uint8]


class OutOfMemory(BackendError):
    """The GPU, or the host's pinned memory, has no room."""


class CaptureError(BackendError):
    """Work on a stream could not be made a graph."""


@contextmanager
def failing(
    what: str, errors: type[Exception] = Exception, kind: type[BackendError] = BackendError
) -> Iterator[None]:
    """Turns what a library raises into an error of ours, which says what failed."""
    try:
        yield
    except errors as error:
        raise kind(f"{what}: {error}") from error


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU: its number, its name, and its compute capability, such as (8, 6)."""

    index: int
    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name} (compute {'.'.join(map(str, self.capability))})"


class Memory(Protocol):
    """A block of the GPU's memory, aligned to `ALIGNMENT`."""

    @property
    def address(self) -> int:
        """Where it is."""

    @property
    def size(self) -> int:
        """In bytes."""

    def free(self) -> None:
        """Gives it back, once all that was put on streams is done; a second call does nothing."""


class Pinned(Protocol):
    """A block of the host's memory that a GPU copies from and to without a detour."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def array(self) -> UInt8:
        """The block, uint8, one dimension. Dead after `free`."""

    def free(self) -> None:
        """As `Memory.free`."""


class Event(Protocol):
    """A point in a stream's work."""

    def record(self, stream: Any) -> None:
        """Makes it the point after all that was put on the stream so far."""

    def milliseconds_since(self, earlier: Any) -> float:
        """The GPU's time from another event to this one; both have been passed."""

    def close(self) -> None:
        """Frees it; a second call does nothing."""


class Stream(Protocol):
    """Work of the GPU that is done in the order in which it was put on; not the default stream."""

    @property
    def handle(self) -> int:
        """The `cudaStream_t`, as a number."""

    def synchronize(self) -> None:
        """Waits for all its work.

        Raises:
            BackendError: some of it failed.
        """

    def wait_for(self, handle: int) -> None:
        """Makes later work wait for what another stream was given so far.

        Args:
            handle: as `__cuda_array_interface__` names streams: 1 is the default stream, 2 the
                default stream of each thread, another number a `cudaStream_t`.
        """

    def close(self) -> None:
        """Waits for its work and frees it; a second call does nothing."""


class Graph(Protocol):
    """Work that was captured, to be done again in one call."""

    def launch(self, stream: Any) -> None:
        """Puts the work on a stream."""

    def close(self) -> None:
        """Frees it; a second call does nothing."""


class Cuda(Protocol):
    """A GPU's primary context, through one library.

    Attributes:
        adapter: the library and its version.
        gpu: which GPU it is.
    """

    adapter: str
    gpu: Gpu

    def current(self) -> AbstractContextManager[None]:
        """Makes the context this thread's own while the block runs."""

    def free_memory(self) -> int:
        """Bytes of the GPU's memory that no process holds."""

    def allocate(self, size: int) -> Memory:
        """Takes memory of the GPU.

        Raises:
            OutOfMemory: there is not enough.
        """

    def pinned(self, size: int) -> Pinned:
        """Takes pinned memory of the host; raises as `allocate`."""

    def stream(self) -> Stream:
        """Makes a stream that does not wait for the default stream."""

    def event(self) -> Event:
        """Makes an event that can tell the time."""

    def copy_in(self, target: int, source: UInt8, stream: Any) -> None:
        """Puts a copy of pinned bytes, contiguous, to an address on the stream."""

    def copy_out(self, target: UInt8, source: int, stream: Any) -> None:
        """Puts a copy from an address into pinned bytes, contiguous, on the stream."""

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:
        """Puts a copy of `size` bytes from address to address on the stream."""

    def capture(self, stream: Any, work: Callable[[], None]) -> Graph:
        """Makes a graph of what `work` puts on the stream, without doing it.

        Raises:
            CaptureError: `work` raised, or did what cannot be captured. The stream is as before.
        """

    def kernel(self, source: str, name: str) -> Any:
        """Compiles a kernel of CUDA C++, declared `extern "C"`; once a process.

        Raises:
            BackendError: the compiler is missing or refuses it; its words are in the message.
        """

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[np.generic],
        stream: Any,
    ) -> None:
        """Puts a kernel on a stream.

        Args:
            kernel: of `kernel`.
            grid: blocks in x and y.
            block: threads a block in x and y.
            arguments: NumPy scalars of the parameters' types, an address as `np.uint64`.
            stream: of `stream`.
        """
