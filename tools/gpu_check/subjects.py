"""What `speed` times: PyTorch and ONNX Runtime, from prepared memory to prepared memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tools.gpu_check.setting import Setting

EAGER = ("eager fp32", "eager fp16 channels-last")
COMPILED = ("compile max-autotune fp16", "compile max-autotune fp16 + kernel")
"""The ways that `open_torch` takes."""

SCOPES = {
    "host": "uint8 frames in the host's memory to uint8 label maps there, by the wall clock",
    "device": "uint8 frames on the GPU to uint8 label maps on it",
    "network": "the network alone on the GPU: PyTorch from normalised frames to logits, ONNX "
    "Runtime the file's own graph, from uint8 frames on",
}


@dataclass(frozen=True)
class Subject:
    """Work that is ready.

    Attributes:
        name: what the table calls it.
        scope: a key of `SCOPES`.
        precision: a key of `floor.BYTES`.
        work: does it once for the whole batch.
        events: whether its work is on torch's stream, so that CUDA events tell its time.
        clock: runs the work and returns its seconds by events of its own; None for torch's or the
            wall's.
    """

    name: str
    scope: str
    precision: str
    work: Callable[[], Any]
    events: bool = False
    clock: Callable[[Callable[[], Any]], float] | None = None


def open_torch(setting: Setting, way: str) -> Callable[[Any], AbstractContextManager[Any]]:
    """What opens PyTorch in one way, in all scopes, for uint8 frames N x H x W x 3 on the host."""

    @contextmanager
    def open_it(frames: Any) -> Iterator[list[Subject]]:
        yield _torch(setting, way, frames)

    return open_it


def _torch(setting: Setting, way: str, frames: Any) -> list[Subject]:
    import copy

    import torch
    import torch.nn.functional as F

    half, device = "fp16" in way, setting.device
    dtype, layout = (
        (torch.float16, torch.channels_last) if half else (torch.float32, torch.contiguous_format)
    )
    network = copy.deepcopy(setting.checkpoint.network).eval().to(device, dtype)
    network = network.to(memory_format=layout)
    preprocessing = setting.checkpoint.preprocessing

    def prepare(pixels: torch.Tensor) -> Any:
        return preprocessing.normalise(pixels).to(dtype).contiguous(memory_format=layout)

    def logits_of(pixels: torch.Tensor) -> Any:
        return network(prepare(pixels))

    def labels_of(pixels: torch.Tensor) -> torch.Tensor:
        dense = F.interpolate(
            logits_of(pixels), frames.shape[1:3], mode="bilinear", align_corners=True
        )
        return dense.argmax(1).to(torch.uint8)

    alone: Any = network
    label: Any = labels_of
    if way.startswith("compile"):
        alone = torch.compile(network, mode="max-autotune")
        if way.endswith("kernel"):
            label = _with_kernel(torch.compile(logits_of, mode="max-autotune"), frames.shape[:3])
        else:
            label = torch.compile(labels_of, mode="max-autotune")
    host = torch.from_numpy(np.ascontiguousarray(frames))
    result = torch.empty(frames.shape[:3], dtype=torch.uint8)
    if setting.cuda:
        host, result = host.pin_memory(), result.pin_memory()
    there = host.to(device)

    def inside(work: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return work()

        return run

    ready = inside(lambda: prepare(there))()

    def host_to_host() -> None:
        result.copy_(label(host.to(device, non_blocking=True)), non_blocking=True)

    precision = "fp16" if half else "fp32"
    works = {"host": host_to_host, "device": lambda: label(there), "network": lambda: alone(ready)}
    subjects = [
        Subject(f"PyTorch {way}", scope, precision, inside(work), scope != "host")
        for scope, work in works.items()
    ]
    return subjects[:2] if way.endswith("kernel") else subjects


def _with_kernel(logits_of: Callable[[Any], Any], shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """The label map's kernel behind logits, on a stream of its own that torch's waits for."""
    import torch

    from icnet_deploy.runtime.cuda.labels import launch_label_map
    from tools.gpu_check.kernel import open_any

    gpu: Any = torch.cuda
    gpu.init()
    cuda = open_any(gpu=True)
    with cuda.current():
        stream = cuda.stream()
    outside = gpu.ExternalStream(stream.handle)
    labels = torch.empty(shape, dtype=torch.uint8, device="cuda")
    flag = torch.zeros(1, dtype=torch.int32, device="cuda")

    def label(pixels: Any) -> Any:
        logits = logits_of(pixels).contiguous()
        kind = np.dtype(np.float16 if logits.dtype == torch.float16 else np.float32)
        outside.wait_stream(torch.cuda.current_stream())
        with cuda.current():
            for one, target in zip(logits, labels, strict=True):
                launch_label_map(
                    cuda,
                    stream,
                    one.data_ptr(),
                    tuple(one.shape),
                    kind,
                    target.data_ptr(),
                    tuple(target.shape),
                    flag.data_ptr(),
                )
        torch.cuda.current_stream().wait_stream(outside)
        return labels

    return label


def onnxruntime_ways(setting: Setting) -> list[tuple[Path, bool, bool]]:
    """(file, CUDA graph, NHWC): all four of each float file; without a GPU each file once.

    The ones that tell most come first: float16, label maps, graphs and NHWC.
    """
    from icnet_deploy.metadata import read_onnx_metadata

    found = []
    for path in setting.onnx_files():
        told = read_onnx_metadata(path)
        if not told.precision.startswith("int8"):
            found.append((told.precision != "fp16", told.head != "labels", path))
    files = [path for *_, path in sorted(found)]
    ways = [(True, True), (False, True), (True, False), (False, False)]
    return [(path, *way) for way in (ways if setting.cuda else ways[-1:]) for path in files]


def _session(setting: Setting, path: Path, graph: bool, nhwc: bool, batch: int) -> Any:
    import onnxruntime

    from icnet_deploy.runtime.backends.onnxruntime.session import (
        CPU,
        CUDA,
        CUDA_OPTIONS,
        open_session,
        prepare_cuda,
    )

    providers: list[Any] = [CPU]
    if setting.cuda:
        prepare_cuda(onnxruntime)
        options = {"enable_cuda_graph": str(int(graph)), "prefer_nhwc": str(int(nhwc))}
        providers = [(CUDA, CUDA_OPTIONS | options)]
    # Fixed, as `for_one` of the product is: a graph is of one shape.
    free = _free_batch(path)
    return open_session(str(path), providers, None, {free: batch} if free else None)


@cache
def _free_batch(path: Path) -> str | None:
    """What the file calls its batch; None where it is a number. The session is never run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]
    return batch if isinstance(batch, str) else None


def open_onnxruntime(
    setting: Setting, path: Path, graph: bool, nhwc: bool
) -> Callable[[Any], AbstractContextManager[Any]]:
    """What opens a file with its input and output bound to the device's memory.

    A file that gives logits has the scopes `host`, with the label map on the CPU, and `network`;
    one that gives labels `host` and `device`. It raises InputError where the file does not take
    that many frames of that size; DeviceError and ModelError where it does not open.
    """

    @contextmanager
    def open_it(frames: Any) -> Iterator[list[Subject]]:
        yield _onnxruntime(setting, path, graph, nhwc, frames)

    return open_it


def _onnxruntime(
    setting: Setting, path: Path, graph: bool, nhwc: bool, frames: Any
) -> list[Subject]:
    import onnxruntime

    from icnet_deploy.errors import InputError
    from icnet_deploy.metadata import read_onnx_metadata
    from icnet_deploy.runtime.labelmap import label_map

    session = _session(setting, path, graph, nhwc, len(frames))
    metadata, given = read_onnx_metadata(path), session.get_inputs()[0]
    fits = [
        not isinstance(side, int) or side == there
        for side, there in zip(given.shape, frames.shape, strict=True)
    ]
    if not all(fits):
        raise InputError(f"{path.name} takes {given.shape}, not {list(frames.shape)}")
    binding, end = session.io_binding(), session.get_outputs()[0]
    value = onnxruntime.OrtValue.ortvalue_from_numpy(frames, setting.device, 0)
    binding.bind_ortvalue_input(given.name, value)
    if all(isinstance(side, int) for side in end.shape):
        # A graph writes where it wrote when it was captured, so that is settled before.
        kinds = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16}
        out = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            end.shape, kinds.get(end.type, np.float32), setting.device, 0
        )
    elif graph:
        raise InputError(f"{path.name} gives {end.shape}: a CUDA graph needs fixed sides")
    else:
        binding.bind_output(end.name, setting.device, 0)
        session.run_with_iobinding(binding)
        out = binding.get_outputs()[0]
        binding.clear_binding_outputs()
    binding.bind_ortvalue_output(end.name, out)

    def run() -> None:
        session.run_with_iobinding(binding)

    def host_to_host() -> None:
        value.update_inplace(frames)
        run()
        answer = out.numpy()
        if metadata.head == "logits":
            label_map(answer, frames.shape[1:3])

    title = f"ONNX Runtime {path.stem}" + f" graph={graph:d} nhwc={nhwc:d}" * setting.cuda
    inner = "network" if metadata.head == "logits" else "device"
    return [
        Subject(title, "host", metadata.precision, host_to_host),
        Subject(title, inner, metadata.precision, run),
    ]
