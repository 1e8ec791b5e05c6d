"""The label map's kernel on real logits: equal to the dense way, and its time beside its bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from icnet_deploy.benchmarks.gpu.setting import Setting
from icnet_deploy.benchmarks.timing import summary
from icnet_deploy.runtime.cuda.base import Cuda

__all__ = ["kernel", "run_kernel"]


def kernel(setting: Setting) -> dict[str, Any]:
    """Of logits in float32 and float16; without a GPU on host memory, which tells no time."""
    from icnet_deploy.benchmarks.drawn import drawn_scenes
    from icnet_deploy.benchmarks.reference import Reference, shipped_checkpoint

    image = drawn_scenes(1, setting.size)[0].image
    logits = Reference(shipped_checkpoint(), None).logits(image)
    cuda = _open(setting)
    kinds = (np.float32, np.float16)
    runs = 50 if setting.cuda else 1
    return {np.dtype(k).name: run_kernel(cuda, logits.astype(k), setting, runs) for k in kinds}


def _open(setting: Setting) -> Cuda:
    if setting.cuda:
        from icnet_deploy.runtime.cuda import open_cuda

        return open_cuda()
    from icnet_deploy.runtime.cuda.host import HostCuda

    return HostCuda()


def run_kernel(cuda: Cuda, logits: Any, setting: Setting, runs: int) -> dict[str, Any]:
    """Compares one label map with the dense way, and times the kernel by events.

    Args:
        cuda: what drives the GPU.
        logits: C x h x w, float32 or float16, on the host.
        setting: for the size, and the copy's rate that `found` measured.
        runs: timed ones, after five.
    """
    from icnet_deploy.runtime.cuda.labels import launch_label_map
    from icnet_deploy.runtime.labelmap import label_map_dense

    logits = np.ascontiguousarray(logits)
    pixels = setting.size[0] * setting.size[1]
    with cuda.current():
        stream = cuda.stream()
        source, target = cuda.allocate(logits.nbytes), cuda.allocate(pixels)
        given, got = cuda.pinned(logits.nbytes), cuda.pinned(pixels)
        events = cuda.event(), cuda.event()
        try:
            given.array[:] = logits.view(np.uint8).reshape(-1)
            cuda.copy_in(source.address, given.array, stream)
            seconds = []
            for _ in range(5 + runs):
                events[0].record(stream)
                launch_label_map(
                    cuda,
                    stream,
                    source.address,
                    logits.shape,
                    logits.dtype,
                    target.address,
                    setting.size,
                )
                events[1].record(stream)
                stream.synchronize()
                seconds.append(events[1].milliseconds_since(events[0]) / 1e3)
            cuda.copy_out(got.array, target.address, stream)
            stream.synchronize()
            labels = got.array.reshape(setting.size).copy()
        finally:
            for one in (*events, stream):
                one.close()
            for block in (given, got, source, target):
                block.free()
    wrong = int((labels != label_map_dense(logits, setting.size)).sum())
    told: dict[str, Any] = {"pixels_that_differ": wrong, "bytes": logits.nbytes + pixels}
    if setting.cuda:
        told["time"] = summary(seconds[5:])
        ceilings = setting.results.get("found", {}).get("ceilings", {})
        if rate := ceilings.get("copy_bytes_per_s"):
            told["bytes_ms"] = 1e3 * told["bytes"] / rate
            told["times_the_bytes"] = told["time"]["median_ms"] / told["bytes_ms"]
    return told
