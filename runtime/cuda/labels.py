"""The label map's kernels: logits on the GPU in, one image's label map on the GPU out.

labelmap.cu is their one source, compiled where it runs. They give what `label_map_dense` gives, to
the byte, and what it refuses they flag.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError
from icnet_deploy.metadata import UPSAMPLINGS
from icnet_deploy.runtime.cuda.base import Cuda

KERNELS: Mapping[np.dtype[Any], str] = {
    np.dtype(np.float32): "label_map_float",
    np.dtype(np.float16): "label_map_half",
}
"""The logits' dtype -> the kernel that reads them."""

CHECK = "check_labels"
"""The kernel that looks for labels that are no class."""

_BLOCK = (32, 8)
"""Threads in x and y: a warp writes 32 bytes of a row, and reads one stretch of the logits."""


@cache
def source() -> str:
    """The kernels in CUDA C++."""
    return Path(__file__).with_name("labelmap.cu").read_text(encoding="utf-8")


def launch_label_map(
    cuda: Cuda,
    stream: Any,
    logits: int,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    labels: int,
    size: tuple[int, int],
    flag: int,
    upsampling: str = UPSAMPLINGS[0],
) -> None:
    """Puts one image's label map on a stream.

    Args:
        cuda: whose context is current.
        stream: of `cuda`.
        logits: the address of one image's logits, C x h x w, contiguous.
        shape: (C, h, w), 1 <= C <= 255.
        dtype: float32 or float16.
        labels: the address that gets uint8 H x W.
        size: (H, W) in pixels.
        flag: the address of an int32, 0, that becomes 1 if one of the logits, read for a pixel or
            not, is infinite or not a number. The label map then says nothing.
        upsampling: see `label_map`; `none` only where (h, w) is (H, W), which the caller sees to.

    Raises:
        BackendError: the kernel cannot be compiled, or the sizes are too large for it.
    """
    centred = upsampling == "half-pixel"
    axes = list(zip(shape[1:], size, strict=True))
    if centred:  # the kernel counts halves of a pixel
        largest, divisor = max(2 * grid * side for grid, side in axes), 2 * max(size)
    else:
        largest, divisor = max((grid - 1) * (side - 1) for grid, side in axes), max(size)
    if largest >= 2**31 or divisor >= 2**24:
        raise BackendError(f"a label map of {size[0]} x {size[1]} pixels is too large for the GPU")
    arguments: list[np.generic] = [
        np.uint64(logits),
        *(np.int32(side) for side in shape),
        np.uint64(labels),
        *(np.int32(side) for side in size),
        np.uint64(flag),
        np.int32(centred),
    ]
    _launch(cuda, stream, KERNELS[np.dtype(dtype)], arguments, size)


def launch_check(
    cuda: Cuda, stream: Any, labels: int, size: tuple[int, int], classes: int, flag: int
) -> None:
    """Puts a look at one image's label map, which the network has made, on a stream.

    Args:
        cuda, stream: see `launch_label_map`.
        labels: the address of uint8 H x W.
        size: (H, W) in pixels.
        classes: how many the network has.
        flag: the address of an int32, 0, that becomes 1 if a label is not below `classes`.

    Raises:
        BackendError: the kernel cannot be compiled.
    """
    arguments: list[np.generic] = [
        np.uint64(labels),
        *(np.int32(side) for side in size),
        np.int32(classes),
        np.uint64(flag),
    ]
    _launch(cuda, stream, CHECK, arguments, size)


def _launch(
    cuda: Cuda, stream: Any, name: str, arguments: list[np.generic], size: tuple[int, int]
) -> None:
    """A thread a pixel."""
    grid = (-(-size[1] // _BLOCK[0]), -(-size[0] // _BLOCK[1]))
    cuda.launch(cuda.kernel(source(), name), grid, _BLOCK, arguments, stream)
