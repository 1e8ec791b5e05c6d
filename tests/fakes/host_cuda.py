"""A CUDA of host memory, for tests that need no GPU: slow, and stricter than the real one.

Work waits on its stream until somebody synchronizes, so that a missing wait reads what was there
before. Memory is aligned to 256 bytes; freed, it is filled with 0xDD and kept, so that a later use
of it is found. What a GPU would answer with a crash or with wrong numbers is a `HostFault` here.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from icnet_deploy.errors import BackendError, NotFinite
from icnet_deploy.runtime.cuda.base import ALIGNMENT, CaptureError, Gpu, OutOfMemory, UInt8
from icnet_deploy.runtime.cuda.labels import CHECK, KERNELS
from icnet_deploy.runtime.labelmap import label_map_dense

Work = Callable[[], None]
One = TypeVar("One", bound="_Resource")

_FRESH, _FREED = 0xCD, 0xDD


class HostFault(AssertionError):
    """A use of CUDA that a real GPU would answer with a crash or with wrong numbers."""


@dataclass(eq=False)
class _Resource:
    """What is taken from the GPU and given back once; it stays known, so that late uses are found.

    Attributes:
        alive: whether it was not given back.
    """

    cuda: HostCuda
    alive: bool = field(default=True, init=False)

    def close(self) -> None:
        self.alive = False


@dataclass(eq=False)
class _Block(_Resource):
    size: int

    def __post_init__(self) -> None:
        memory = np.full(self.size + ALIGNMENT, _FRESH, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        self.array = memory[start : start + self.size]
        self.address = self.array.ctypes.data

    def free(self) -> None:
        self.close()
        self.array[:] = _FREED


@dataclass(eq=False)
class _Stream(_Resource):
    queue: list[Work] = field(default_factory=list)

    @property
    def handle(self) -> int:
        return id(self)

    def synchronize(self) -> None:
        self.cuda._check_current()
        if self.handle in self.cuda._captures:
            raise BackendError("a stream cannot be waited for while it is captured")
        self.run()

    def run(self, count: int = sys.maxsize) -> None:
        work, self.queue = self.queue[:count], self.queue[count:]
        for one in work:
            try:
                one()
            except (BackendError, HostFault):
                raise
            except Exception as error:
                raise BackendError(f"the GPU failed: {error}") from error

    def wait_for(self, handle: int) -> None:
        if handle in (1, 2):
            self.cuda.enqueue(self.handle, partial(self.cuda.waited.append, handle))
            return
        other = self.cuda.stream_of(handle)
        # Only what it was given so far: later work does not hold this stream up.
        self.cuda.enqueue(self.handle, partial(other.run, len(other.queue)))

    def close(self) -> None:
        self.run()
        super().close()


@dataclass(eq=False)
class _Event(_Resource):
    """Counts the works done as milliseconds: later events have larger times."""

    time: int | None = None

    def record(self, stream: _Stream) -> None:
        self.time = None

        def passed() -> None:
            self.time = self.cuda.done

        self.cuda.enqueue(stream.handle, passed)

    def milliseconds_since(self, earlier: _Event) -> float:
        if self.time is None or earlier.time is None:
            raise HostFault("an event's time is asked for before the stream passed it")
        return float(self.time - earlier.time)


@dataclass(eq=False)
class _Graph(_Resource):
    works: list[Work]

    def launch(self, stream: _Stream) -> None:
        if not self.alive:
            raise HostFault("a graph is launched after it was closed")
        self.cuda.graph_launches += 1
        for work in self.works:
            self.cuda.enqueue(stream.handle, work)


class HostCuda:
    """See `Cuda`.

    Attributes:
        capacity: bytes of "GPU" memory there are.
        fail_capture: while set, a capture fails with this text.
        graph_launches: how many times a graph was launched.
        moved: bytes copied so far: "in", "out" and "across" (from device to device).
        waited: the default streams that were waited for.
        done: how many works the streams have done.
    """

    def __init__(self, capability: tuple[int, int] = (8, 6), capacity: int = 1 << 30) -> None:
        self.adapter = "host memory"
        self.gpu = Gpu(0, "a fake GPU", capability)
        self.capacity = capacity
        self.fail_capture: str | None = None
        self.graph_launches = 0
        self.moved = {"in": 0, "out": 0, "across": 0}
        self.waited: list[int] = []
        self.done = 0
        self._made: list[_Resource] = []
        self._captures: dict[int, list[Work]] = {}
        self._thread = threading.local()
        self._lock = threading.RLock()

    # -- what a test asks

    @property
    def live(self) -> int:
        """How many blocks, streams, events and graphs were not freed."""
        return sum(one.alive for one in self._all(_Resource))

    def check(self, address: int, size: int, written: bool = True) -> None:
        """Raises `HostFault` unless one live block holds `size` bytes from an address on."""
        for block in self._all(_Block):
            if block.address <= address < block.address + block.size:
                if not block.alive:
                    raise HostFault("memory is used after it was freed")
                if address + size > block.address + block.size:
                    raise HostFault(f"{size} bytes go past the end of {block.size}")
                return
        raise HostFault(f"{address:#x} is no memory of the GPU")

    def enqueue(self, handle: int, work: Work) -> None:
        """Puts work on a stream, or into the graph that is captured from it."""
        stream = self.stream_of(handle)

        def counted() -> None:
            work()
            self.done += 1

        with self._lock:
            captured = self._captures.get(handle)
            (stream.queue if captured is None else captured).append(counted)

    def stream_of(self, handle: int) -> _Stream:
        """The live stream of that handle."""
        for stream in self._all(_Stream):
            if stream.alive and stream.handle == handle:
                return stream
        raise HostFault(f"{handle:#x} is no stream, or one that was closed")

    # -- the protocol

    @contextmanager
    def current(self) -> Iterator[None]:
        depth = getattr(self._thread, "depth", 0)
        self._thread.depth = depth + 1
        try:
            yield
        finally:
            self._thread.depth = depth

    def free_memory(self) -> int:
        return self.capacity - sum(block.size for block in self._all(_Block) if block.alive)

    def allocate(self, size: int) -> _Block:
        if size > self.free_memory():
            raise OutOfMemory(f"the GPU has no {size / 2**20:.1f} MiB of memory left")
        return self._opened(_Block(self, size))

    def pinned(self, size: int) -> _Block:
        return self._opened(_Block(self, size))

    def stream(self) -> _Stream:
        return self._opened(_Stream(self))

    def event(self) -> _Event:
        return self._opened(_Event(self))

    def copy_in(self, target: int, source: UInt8, stream: _Stream) -> None:
        self.check(source.ctypes.data, source.nbytes, written=False)
        self._copy("in", target, source.ctypes.data, source.nbytes, stream)

    def copy_out(self, target: UInt8, source: int, stream: _Stream) -> None:
        self.check(target.ctypes.data, target.nbytes)
        self._copy("out", target.ctypes.data, source, target.nbytes, stream)

    def copy(self, target: int, source: int, size: int, stream: _Stream) -> None:
        self._copy("across", target, source, size, stream)

    def capture(self, stream: _Stream, work: Work) -> _Graph:
        self._check_current()
        works: list[Work] = []
        self._captures[stream.handle] = works
        try:
            work()
        except Exception as error:
            raise CaptureError(f"capturing a CUDA graph failed: {error}") from error
        finally:
            del self._captures[stream.handle]
        if self.fail_capture is not None:
            raise CaptureError(f"capturing a CUDA graph failed: {self.fail_capture}")
        return self._opened(_Graph(self, works))

    def kernel(self, source: str, name: str) -> Any:
        if f"void {name}(" not in source:
            raise BackendError(f"the source has no kernel {name!r}")
        return name

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[np.generic],
        stream: _Stream,
    ) -> None:
        """Knows the label map's kernels only, and computes them with NumPy."""
        self._check_current()
        uint64, int32 = np.uint64, np.int32
        types = [uint64, *[int32] * 3, uint64, *[int32] * 2, uint64, int32]
        if kernel == CHECK:
            types = [uint64, *[int32] * 3, uint64]
        if [type(argument) for argument in arguments] != types:
            raise HostFault(f"{kernel} is launched with {[type(a).__name__ for a in arguments]}")
        values = [int(argument) for argument in arguments]
        height, width = values[1:3] if kernel == CHECK else values[5:7]
        threads = (grid[0] * block[0], grid[1] * block[1])
        if threads[0] < width or threads[1] < height or block[0] * block[1] > 1024:
            raise HostFault(f"{grid} blocks of {block} threads do not cover {width} x {height}")
        work = self._check_labels if kernel == CHECK else self._label_map
        self.enqueue(stream.handle, partial(work, kernel, *values))

    def _label_map(self, kernel: str, logits: int, *numbers: int) -> None:
        """What is flagged leaves the label map as it was: whoever reads it finds no labels."""
        classes, h, w, labels, height, width, flag, centred = numbers
        dtype = next(dtype for dtype, name in KERNELS.items() if name == kernel)
        target = self._view(labels, (height, width), np.dtype(np.uint8))
        try:
            target[...] = label_map_dense(
                self._view(logits, (classes, h, w), dtype),
                (height, width),
                upsampling="half-pixel" if centred else "aligned-corners",
            )
        except NotFinite:
            self._view(flag, (1,), np.dtype(np.int32))[0] = 1

    def _check_labels(self, kernel: str, labels: int, *numbers: int) -> None:
        height, width, classes, flag = numbers
        if (self._view(labels, (height, width), np.dtype(np.uint8)) >= classes).any():
            self._view(flag, (1,), np.dtype(np.int32))[0] = 1

    # -- within

    def _copy(self, way: str, target: int, source: int, size: int, stream: _Stream) -> None:
        self._check_current()

        def work() -> None:
            self.check(source, size, written=False)
            self.check(target, size)
            ctypes.memmove(target, source, size)
            self.moved[way] += size

        self.enqueue(stream.handle, work)

    def _view(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        size = int(np.prod(shape)) * dtype.itemsize
        self.check(address, size)
        memory = memoryview((ctypes.c_ubyte * size).from_address(address))
        return np.frombuffer(memory, dtype).reshape(shape)

    def _check_current(self) -> None:
        if not getattr(self._thread, "depth", 0):
            raise HostFault("the GPU is used outside of `current()`")

    def _opened(self, one: One) -> One:
        self._check_current()
        with self._lock:
            self._made.append(one)
        return one

    def _all(self, kind: type[One]) -> list[One]:
        with self._lock:
            return [one for one in self._made if isinstance(one, kind)]
