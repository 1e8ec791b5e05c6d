"""Arrays on the GPU: those of others, copies of them, and a label map that stays there.

The language is `__cuda_array_interface__`, which PyTorch, CuPy, Numba, PyCUDA and others speak:
https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError, ImageError
from icnet_deploy.runtime.cuda.base import Cuda, Memory, UInt8

_DEFAULT_STREAM = 1


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
            f"an image on the GPU is uint8, H x W x 3, RGB; got {kind} of shape {shape}"
        )
    strides = interface.get("strides")
    if strides is not None and tuple(strides) != (shape[1] * 3, 3, 1):
        raise ImageError(
            "an image on the GPU is contiguous, pixel after pixel; this one has strides of "
            f"{tuple(strides)} bytes: copy it first (PyTorch: .contiguous())"
        )
    # Version 3 says which stream to wait for. Before it nobody did: the default one, then.
    stream = interface.get("stream") if interface.get("version", 0) >= 3 else _DEFAULT_STREAM
    if stream == 0:
        raise ImageError("an image on the GPU names the stream 0, which the interface forbids")
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
