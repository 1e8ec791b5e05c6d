"""CUDA through cuda-python's `cuda.core`: wheels alone, graphs, and NVRTC as the compiler.

What it raises, CUDAError, NVRTCError and a loader's, has no common root.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from icnet_deploy.errors import DeviceError
from icnet_deploy.runtime.cuda.base import (
    CaptureError,
    Gpu,
    OutOfMemory,
    UInt8,
    aligned,
    failing,
)


def open_device() -> _CudaPython:
    """Opens the first GPU.

    Raises:
        DeviceError: there is no driver or no GPU.
    """
    import cuda.core as core

    try:
        device = core.Device(0)
        device.set_current()
    except Exception as error:  # cuda.core raises errors of its own, and of its loader
        raise DeviceError(
            f"cuda-python finds no GPU ({error}): check that nvidia-smi lists one, with a driver "
            "for CUDA 13 (580 or later); without a GPU, use an ONNX file on the CPU"
        ) from error
    return _CudaPython(core, device)


class _Block:
    """A `Buffer` of the device's pool, given back once the GPU has nothing left to do with it."""

    def __init__(self, device: Any, buffer: Any) -> None:
        self._device, self._buffer = device, buffer
        self.address, self.size = int(buffer.handle), int(buffer.size)

    def free(self) -> None:
        if self._buffer is not None:
            self._device.set_current()  # whichever thread drops it
            with suppress(Exception):  # a GPU that failed says so at every call
                self._device.sync()
            self._buffer.close()
            self._buffer = None


class _Host:
    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer
        block = (ctypes.c_ubyte * int(buffer.size)).from_address(int(buffer.handle))
        self.array: UInt8 = np.frombuffer(memoryview(block), np.uint8)
        self.size = self.array.size

    def free(self) -> None:
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None


class _Stream:
    def __init__(self, core: Any, device: Any) -> None:
        self._core = core
        self.raw = device.create_stream(options=core.StreamOptions(nonblocking=True))
        self.handle = int(self.raw.handle)
        self._open = True

    def synchronize(self) -> None:
        with failing("the GPU failed"):
            self.raw.sync()

    def wait_for(self, handle: int) -> None:
        own = {1: self._core.LEGACY_DEFAULT_STREAM, 2: self._core.PER_THREAD_DEFAULT_STREAM}
        self.raw.wait(own[handle] if handle in own else self._core.Stream.from_handle(handle))

    def close(self) -> None:
        if self._open:
            self._open = False
            with suppress(Exception):  # what failed was said when it was waited for
                self.raw.sync()
            self.raw.close()


@dataclass(frozen=True, eq=False)
class _Owner:
    """What has an object of `cuda.core`, whose second closing does nothing."""

    raw: Any

    def close(self) -> None:
        self.raw.close()


class _Event(_Owner):
    def record(self, stream: _Stream) -> None:
        stream.raw.record(self.raw)

    def milliseconds_since(self, earlier: _Event) -> float:
        return float(self.raw - earlier.raw)


class _Graph(_Owner):
    def launch(self, stream: _Stream) -> None:
        with failing("replaying a CUDA graph failed"):
            self.raw.launch(stream.raw)


class _CudaPython:
    """See `Cuda`."""

    def __init__(self, core: Any, device: Any) -> None:
        self._core, self._device = core, device
        self.adapter = f"cuda.core {core.__version__}"
        capability = device.compute_capability
        self.gpu = Gpu(device.device_id, device.name, (int(capability[0]), int(capability[1])))
        self._kernels: dict[tuple[str, str], Any] = {}
        # Memory is taken from and given back to the pool in the order of a stream that has no
        # other work: it is there once this stream was synchronized.
        self._pool_stream = device.create_stream()

    @contextmanager
    def current(self) -> Iterator[None]:
        self._device.set_current()  # the primary context; stays this thread's, as others' do
        yield

    def free_memory(self) -> int:
        from cuda.bindings import driver

        error, free, _ = driver.cuMemGetInfo()
        return int(free) if int(error) == 0 else 0

    def allocate(self, size: int) -> _Block:
        with failing(f"the GPU has no {size / 2**20:.1f} MiB of memory left", kind=OutOfMemory):
            buffer = self._device.allocate(size, stream=self._pool_stream)
            self._pool_stream.sync()
        return aligned(_Block(self._device, buffer))

    def pinned(self, size: int) -> _Host:
        with failing(
            f"the host has no {size / 2**20:.1f} MiB of memory left that can be pinned",
            kind=OutOfMemory,
        ):
            return _Host(self._core.LegacyPinnedMemoryResource().allocate(size))

    def stream(self) -> _Stream:
        return _Stream(self._core, self._device)

    def event(self) -> _Event:
        options = self._core.EventOptions(timing_enabled=True)
        return _Event(self._device.create_event(options=options))

    def copy_in(self, target: int, source: UInt8, stream: _Stream) -> None:
        self.copy(target, source.ctypes.data, source.nbytes, stream)

    def copy_out(self, target: UInt8, source: int, stream: _Stream) -> None:
        self.copy(target.ctypes.data, source, target.nbytes, stream)

    def copy(self, target: int, source: int, size: int, stream: _Stream) -> None:
        # Views of memory that others own; an address says itself whether it is the host's.
        view = self._core.Buffer.from_handle
        with failing(f"copying {size} bytes failed"):
            view(target, size).copy_from(view(source, size), stream=stream.raw)

    def capture(self, stream: _Stream, work: Callable[[], None]) -> _Graph:
        builder = stream.raw.create_graph_builder()
        try:
            # Only this thread's unsafe calls end the capture: other threads go on allocating.
            builder.begin_building(mode="thread_local")
            try:
                work()
            finally:
                builder.end_building()
            return _Graph(builder.complete())
        except Exception as error:
            raise CaptureError(f"capturing a CUDA graph failed: {error}") from error
        finally:
            with suppress(Exception):  # it raises again what ended a spoiled capture
                builder.close()

    def kernel(self, source: str, name: str) -> Any:
        if (source, name) not in self._kernels:
            options = self._core.ProgramOptions(std="c++17", arch=f"sm_{self._device.arch}")
            with failing("NVRTC cannot compile a kernel"):
                program = self._core.Program(source, "c++", options)
                self._kernels[source, name] = program.compile("cubin").get_kernel(name)
        return self._kernels[source, name]

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[np.generic],
        stream: _Stream,
    ) -> None:
        config = self._core.LaunchConfig(grid=grid, block=block)
        with failing("launching a kernel failed"):
            self._core.launch(stream.raw, config, kernel, *arguments)
