"""What serving a model takes of CUDA: memory, copies, a stream, events, graphs and a kernel.

Everything that touches the GPU runs inside `Cuda.current()`: the current context is a thread's own.
Copies and launches are put on a stream; host memory may be read or changed once the stream was
synchronized. An address is a plain number, as TensorRT takes it.

Arrays on the GPU, those of others and label maps that stay there, speak `__cuda_array_interface__`,
as PyTorch, CuPy, Numba, PyCUDA and others do:
https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import BackendError, ImageError

ALIGNMENT = 256
"""Bytes: what TensorRT asks of a tensor's address (`setTensorAddress` in NvInferRuntime.h)."""

UInt8 = npt.NDArray[np.uint8]

_DEFAULT_STREAM = 1
Block = TypeVar("Block", bound="Memory")


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


def aligned(block: Block) -> Block:
    """A block that was just taken, if it is aligned; else it is given back, with a BackendError."""
    if block.address % ALIGNMENT:
        block.free()
        raise BackendError(f"CUDA gave memory that is not aligned to {ALIGNMENT} bytes")
    return block


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


def is_on_device(image: Any) -> bool:
    """Whether an object is an array on the GPU."""
    return hasattr(image, "__cuda_array_interface__")


@dataclass(frozen=True)
class DeviceFrame:
    """A picture on the GPU that somebody else owns.

    Attributes:
        address: of uint8 H x W x 3, RGB, contiguous.
        shape: (H, W, 3).
        stream: the stream whose work writes it, or None: it is there.
        owner: what keeps it alive.
    """

    address: int
    shape: tuple[int, int, int]
    stream: int | None
    owner: Any


def read_frame(image: Any) -> DeviceFrame:
    """Reads what an array on the GPU says of itself.

    Raises:
        ImageError: it is not uint8, H x W x 3, contiguous.
    """
    interface = image.__cuda_array_interface__
    shape = tuple(int(side) for side in interface["shape"])
    kind = np.dtype(interface["typestr"])
    if kind != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ImageError(
            f"expected an image on the GPU of uint8, H x W x 3, RGB; got {kind} of shape {shape}"
        )
    strides = interface.get("strides")
    if strides is not None and tuple(strides) != (shape[1] * 3, 3, 1):
        raise ImageError(
            f"an image on the GPU must be contiguous; this one has strides of {tuple(strides)} "
            "bytes: copy it first (PyTorch: .contiguous())"
        )
    # Version 3 says which stream to wait for. Before it nobody did: the default one, then.
    stream = interface.get("stream") if interface.get("version", 0) >= 3 else _DEFAULT_STREAM
    if stream == 0:
        raise ImageError(
            "the image on the GPU names the stream 0, which the CUDA array interface forbids"
        )
    return DeviceFrame(int(interface["data"][0]), (shape[0], shape[1], 3), stream, image)


def copy_frame(cuda: Cuda, frame: DeviceFrame) -> DeviceArray:
    """A copy of a picture on the GPU; when it is returned, the picture may be written over.

    Raises:
        OutOfMemory: there is no room for it.
    """
    with cuda.current():
        copy, stream = DeviceArray(cuda, frame.shape), cuda.stream()
        try:
            if frame.stream is not None:
                stream.wait_for(frame.stream)
            cuda.copy(copy.address, frame.address, prod(frame.shape), stream)
            stream.synchronize()
        finally:
            stream.close()
    return copy


class DeviceArray:
    """An array on the GPU: uint8, contiguous. Yours until it is dropped, whatever runs later.

    `torch.as_tensor(array, device="cuda")` and `cupy.asarray(array)` read it where it lies; keep
    it for as long as they do.

    Attributes:
        shape: its sides.
        dtype: uint8.
    """

    def __init__(self, cuda: Cuda, shape: tuple[int, ...]) -> None:
        self._cuda = cuda
        self.shape = shape
        self.dtype = np.dtype(np.uint8)
        self._memory: Memory | None = cuda.allocate(prod(shape))

    @property
    def address(self) -> int:
        """Where it is.

        Raises:
            BackendError: it was freed.
        """
        if self._memory is None:
            raise BackendError("the array on the GPU was freed")
        return self._memory.address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Complete: no stream is to be waited for."""
        return {
            "shape": self.shape,
            "typestr": "|u1",
            "data": (self.address, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def to_host(self) -> UInt8:
        """A copy in the host's memory: uint8, of the same shape."""
        with self._cuda.current():
            stream = self._cuda.stream()
            pinned = self._cuda.pinned(prod(self.shape))
            try:
                self._cuda.copy_out(pinned.array, self.address, stream)
                stream.synchronize()
                return pinned.array.reshape(self.shape).copy()
            finally:
                stream.close()
                pinned.free()

    def free(self) -> None:
        """Gives the memory back; a second call does nothing. Dropping it does so, too."""
        memory, self._memory = self._memory, None
        if memory is not None:
            with self._cuda.current():
                memory.free()

    def __del__(self) -> None:
        # At the process's end the libraries are gone before this is, and the memory with them.
        if getattr(self, "_memory", None) is not None and not sys.is_finalizing():
            self.free()


class DeviceLabels(DeviceArray):
    """A label map on the GPU, as `DeviceArray`: uint8, H x W."""
