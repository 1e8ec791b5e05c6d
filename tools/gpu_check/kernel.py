"""The label map's kernel on real logits: equal to the dense way, and its time beside its bytes."""

from typing import Any

import numpy as np

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.data.scenes.dataset import SEED
from icnet_deploy.errors import NotFinite
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.networks import SHIPPED
from icnet_deploy.runtime.cuda import open_cuda
from icnet_deploy.runtime.cuda.base import Cuda
from icnet_deploy.runtime.cuda.labels import launch_label_map
from icnet_deploy.runtime.labelmap import label_map_dense
from icnet_deploy.timing import summary
from tools.gpu_check.steps import Setting


def kernel(setting: Setting) -> dict[str, Any]:
    """Of logits in float32 and float16; without a GPU on host memory, which tells no time."""
    logits = Reference(SHIPPED, None).logits(draw_scene((SEED, 0), setting.size).image)
    if setting.device == "cuda":
        cuda, runs = open_cuda(), 50
    else:
        from host_cuda import HostCuda  # of tests/fakes

        cuda, runs = HostCuda(), 1
    told: dict[str, Any] = {"adapter": cuda.adapter}
    for kind in (np.float32, np.float16):
        told[np.dtype(kind).name] = run_kernel(cuda, logits.astype(kind), setting, runs)
    return told


def run_kernel(cuda: Cuda, logits: Any, setting: Setting, runs: int) -> dict[str, Any]:
    """Compares one label map with the dense way, and times the kernel by events.

    Args:
        cuda: what drives the GPU.
        logits: C x h x w, float32 or float16, on the host.
        setting: for the size, and the copy's rate that `found` measured.
        runs: timed ones, after five.
    """
    logits = np.ascontiguousarray(logits)
    pixels = setting.size[0] * setting.size[1]
    with cuda.current():
        stream = cuda.stream()
        source, target = cuda.allocate(logits.nbytes), cuda.allocate(pixels)
        given, got = cuda.pinned(logits.nbytes), cuda.pinned(pixels)
        flag, flagged = cuda.allocate(4), cuda.pinned(4)
        events = cuda.event(), cuda.event()
        try:
            given.array[:] = logits.view(np.uint8).reshape(-1)
            cuda.copy_in(source.address, given.array, stream)
            flagged.array[:] = 0
            cuda.copy_in(flag.address, flagged.array, stream)
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
                    flag.address,
                )
                events[1].record(stream)
                stream.synchronize()
                seconds.append(events[1].milliseconds_since(events[0]) / 1e3)
            cuda.copy_out(got.array, target.address, stream)
            cuda.copy_out(flagged.array, flag.address, stream)
            stream.synchronize()
            if flagged.array.any():
                raise NotFinite
            labels = got.array.reshape(setting.size).copy()
        finally:
            for one in (*events, stream):
                one.close()
            for block in (given, got, source, target, flag, flagged):
                block.free()
    wrong = int((labels != label_map_dense(logits, setting.size)).sum())
    told: dict[str, Any] = {"pixels_that_differ": wrong, "bytes": logits.nbytes + pixels}
    if setting.device == "cuda":
        told["time"] = summary(seconds[5:])
        ceilings = setting.results.get("found", {}).get("ceilings", {})
        if rate := ceilings.get("copy_bytes_per_s"):
            told["bytes_ms"] = 1e3 * told["bytes"] / rate
            told["times_the_bytes"] = told["time"]["median_ms"] / told["bytes_ms"]
    return told
