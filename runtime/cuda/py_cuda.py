"""CUDA through PyCUDA, for those who have it. It has no graphs, and compiles with nvcc.

Of `pycuda.autoinit` and `pycuda.autoprimaryctx`, the latter: the former makes a context of its own,
in which TensorRT, ONNX Runtime and PyTorch find none of their memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError, DeviceError
from icnet_deploy.runtime.cuda.base import (
    CaptureError,
    Gpu,
    OutOfMemory,
    UInt8,
    aligned,
    failing,
)


def open_device() -> _PyCuda:
    """Opens the first GPU.

    Raises:
        DeviceError: there is no driver or no GPU.
    """
    import pycuda
    import pycuda.driver as driver

    try:
        import pycuda.autoprimaryctx as primary
    except (driver.Error, RuntimeError) as error:
        raise DeviceError(
            f"PyCUDA finds no GPU ({error}): check that nvidia-smi lists one; without a GPU, use "
            "an ONNX file on the CPU"
        ) from error
    return _PyCuda(driver, primary, pycuda.VERSION_TEXT)


class _Block:
    def __init__(self, raw: Any, size: int) -> None:
        self._raw = raw
        self.address, self.size = int(raw), size

    def free(self) -> None:
        if self._raw is not None:
            self._raw.free()  # cuMemFree waits for the GPU, and PyCUDA activates its context
            self._raw = None


class _Host:
    def __init__(self, array: UInt8) -> None:
        self.array, self.size = array, array.size

    def free(self) -> None:
        allocation: Any = self.array.base
        if allocation is not None:
            self.array = np.empty(0, np.uint8)
            allocation.free()


class _Stream:
    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.raw = driver.Stream(1)  # CU_STREAM_NON_BLOCKING
        self.handle = int(self.raw.handle)

    def synchronize(self) -> None:
        with failing("the GPU failed", self._driver.Error):
            self.raw.synchronize()

    def wait_for(self, handle: int) -> None:
        # PyCUDA cannot wrap another's stream, so the host waits for all of them.
        self._driver.Context.synchronize()

    def close(self) -> None:
        if self.raw is not None:
            with suppress(self._driver.Error):  # what failed was said when it was waited for
                self.raw.synchronize()
            self.raw = None  # the object's end is the stream's


class _Event:
    def __init__(self, driver: Any) -> None:
        self._raw = driver.Event()

    def record(self, stream: _Stream) -> None:
        self._raw.record(stream.raw)

    def milliseconds_since(self, earlier: _Event) -> float:
        return float(self._raw.time_since(earlier._raw))

    def close(self) -> None:
        self._raw = None


class _PyCuda:
    """See `Cuda`."""

    def __init__(self, driver: Any, primary: Any, version: str) -> None:
        self._driver, self._primary = driver, primary
        self.adapter = f"pycuda {version}"
        major, minor = primary.device.compute_capability()
        self.gpu = Gpu(0, primary.device.name(), (int(major), int(minor)))
        self._kernels: dict[tuple[str, str], Any] = {}

    @contextmanager
    def current(self) -> Iterator[None]:
        self._primary.context.push()
        try:
            yield
        finally:
            self._primary.context.pop()

    def free_memory(self) -> int:
        return int(self._driver.mem_get_info()[0])

    def allocate(self, size: int) -> _Block:
        what = f"the GPU has no {size / 2**20:.1f} MiB of memory left"
        with failing(what, self._driver.MemoryError, OutOfMemory):
            return aligned(_Block(self._driver.mem_alloc(size), size))

    def pinned(self, size: int) -> _Host:
        what = f"the host has no {size / 2**20:.1f} MiB of memory left that can be pinned"
        with failing(what, self._driver.MemoryError, OutOfMemory):
            return _Host(self._driver.pagelocked_empty(size, np.uint8))

    def stream(self) -> _Stream:
        return _Stream(self._driver)

    def event(self) -> _Event:
        return _Event(self._driver)

    def copy_in(self, target: int, source: UInt8, stream: _Stream) -> None:
        with failing(f"copying {source.nbytes} bytes to the GPU failed", self._driver.Error):
            self._driver.memcpy_htod_async(target, source, stream.raw)

    def copy_out(self, target: UInt8, source: int, stream: _Stream) -> None:
        with failing(f"copying {target.nbytes} bytes from the GPU failed", self._driver.Error):
            self._driver.memcpy_dtoh_async(target, source, stream.raw)

    def copy(self, target: int, source: int, size: int, stream: _Stream) -> None:
        with failing(f"copying {size} bytes failed", self._driver.Error):
            self._driver.memcpy_dtod_async(target, source, size, stream.raw)

    def capture(self, stream: _Stream, work: Callable[[], None]) -> Any:
        raise CaptureError("PyCUDA has no CUDA graphs: pip install cuda-python")

    def kernel(self, source: str, name: str) -> Any:
        if (source, name) not in self._kernels:
            from pycuda.compiler import SourceModule

            try:
                module = SourceModule(source, options=["-std=c++17"], no_extern_c=True)
            except Exception as error:  # CompileError, or nvcc is not there
                raise BackendError(
                    f"nvcc cannot compile a kernel ({error}): install the CUDA toolkit, or "
                    "cuda-python, which brings its own compiler"
                ) from error
            self._kernels[source, name] = module.get_function(name)
        return self._kernels[source, name]

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[np.generic],
        stream: _Stream,
    ) -> None:
        with failing("launching a kernel failed", self._driver.Error):
            kernel(*arguments, block=(*block, 1), grid=grid, stream=stream.raw)
