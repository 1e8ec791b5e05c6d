"""The part of `Cuda` that the label map's kernel takes, over torch: for a machine with no adapter.

torch brings streams, events, memory and NVRTC; NVRTC and the driver are called by ctypes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError
from icnet_deploy.runtime.cuda.base import Gpu, UInt8


class _Memory:
    def __init__(self, size: int) -> None:
        import torch

        self._tensor: Any = torch.empty(size, dtype=torch.uint8, device="cuda")
        self.size, self.address = size, self._tensor.data_ptr()

    def free(self) -> None:
        self._tensor = None


class _Pinned:
    def __init__(self, size: int) -> None:
        import torch

        self.array: UInt8 = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()

    def free(self) -> None:
        pass


class _Stream:
    def __init__(self) -> None:
        import torch

        make: Any = torch.cuda.Stream
        self.raw = make()
        self.handle = int(self.raw.cuda_stream)

    def synchronize(self) -> None:
        self.raw.synchronize()

    def close(self) -> None:
        pass


class _Event:
    def __init__(self) -> None:
        import torch

        make: Any = torch.cuda.Event
        self.raw = make(enable_timing=True)

    def record(self, stream: _Stream) -> None:
        self.raw.record(stream.raw)

    def milliseconds_since(self, earlier: _Event) -> float:
        return float(earlier.raw.elapsed_time(self.raw))

    def close(self) -> None:
        pass


class TorchCuda:
    """See `Cuda`; no graphs, and what it does not have is not asked for here."""

    def __init__(self) -> None:
        import torch

        gpu = torch.cuda.get_device_properties(0)
        torch.zeros(1, device="cuda")  # makes the primary context, and it current
        self.adapter = f"torch {torch.__version__}"
        self.gpu = Gpu(0, gpu.name, (gpu.major, gpu.minor))
        major = (torch.version.cuda or "").split(".")[0]
        self._nvrtc = _library(f"libnvrtc.so.{major}", "libnvrtc.so")
        self._driver = _library("libcuda.so.1")
        self._kernels: dict[tuple[str, str], ctypes.c_void_p] = {}

    def current(self) -> AbstractContextManager[None]:
        return nullcontext()

    def allocate(self, size: int) -> _Memory:
        return _Memory(size)

    def pinned(self, size: int) -> _Pinned:
        return _Pinned(size)

    def stream(self) -> _Stream:
        return _Stream()

    def event(self) -> _Event:
        return _Event()

    def copy_in(self, target: int, source: UInt8, stream: _Stream) -> None:
        self._copy("cuMemcpyHtoDAsync_v2", target, source.ctypes.data, source.nbytes, stream)

    def copy_out(self, target: UInt8, source: int, stream: _Stream) -> None:
        self._copy("cuMemcpyDtoHAsync_v2", target.ctypes.data, source, target.nbytes, stream)

    def kernel(self, source: str, name: str) -> ctypes.c_void_p:
        """See `Cuda.kernel`."""
        if (source, name) not in self._kernels:
            module, found = ctypes.c_void_p(), ctypes.c_void_p()
            self._ask("cuModuleLoadData", ctypes.byref(module), self._compile(source))
            self._ask("cuModuleGetFunction", ctypes.byref(found), module, name.encode())
            self._kernels[source, name] = found
        return self._kernels[source, name]

    def launch(
        self,
        kernel: ctypes.c_void_p,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[np.generic],
        stream: _Stream,
    ) -> None:
        """See `Cuda.launch`."""
        held = [np.array(one) for one in arguments]  # the driver reads them during the call
        places = (ctypes.c_void_p * len(held))(*(one.ctypes.data for one in held))
        sides = [ctypes.c_uint(side) for side in (*grid, 1, *block, 1, 0)]
        self._ask("cuLaunchKernel", kernel, *sides, ctypes.c_void_p(stream.handle), places, None)

    def _compile(self, source: str) -> bytes:
        """CUDA C++ to this GPU's machine code."""
        rtc, program, size = self._nvrtc, ctypes.c_void_p(), ctypes.c_size_t()
        options = [b"-std=c++17", b"-arch=sm_%d%d" % self.gpu.capability]
        told = (ctypes.c_char_p * len(options))(*options)
        text = source.encode()
        failed = rtc.nvrtcCreateProgram(ctypes.byref(program), text, b"kernel.cu", 0, None, None)
        if failed:
            raise BackendError(f"NVRTC makes no program of a kernel: error {failed}")
        try:
            if rtc.nvrtcCompileProgram(program, len(options), told):
                rtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
                log = ctypes.create_string_buffer(size.value)
                rtc.nvrtcGetProgramLog(program, log)
                raise BackendError(f"NVRTC cannot compile a kernel: {log.value.decode()}")
            rtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
            code = ctypes.create_string_buffer(size.value)
            rtc.nvrtcGetCUBIN(program, code)
            return code.raw
        finally:
            rtc.nvrtcDestroyProgram(ctypes.byref(program))

    def _copy(self, name: str, target: int, source: int, size: int, stream: _Stream) -> None:
        places = (ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size))
        self._ask(name, *places, ctypes.c_void_p(stream.handle))

    def _ask(self, name: str, *arguments: Any) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(status, ctypes.byref(text))
            raise BackendError(f"{name} failed: {(text.value or b'?').decode()} ({status})")


def _library(*names: str) -> ctypes.CDLL:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:  # torch has loaded one of them
            continue
    raise BackendError(f"{names[0]} does not load, which torch for CUDA brings")
