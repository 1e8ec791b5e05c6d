"""PyTorch by itself, as its documentation runs a network: eager or compiled, on any device."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.benchmarks.subjects import labelling
from icnet_deploy.errors import DeviceError, InputError, UnavailableError
from icnet_deploy.evaluation.reference import read_checkpoint
from icnet_deploy.images import UInt8
from icnet_deploy.runtime.backends.registry import DEVICES
from icnet_deploy.timing import Subject

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint


@dataclass(frozen=True)
class _Manner:
    """How PyTorch runs it.

    Attributes:
        channels_last: in memory; otherwise channels first.
        half: weights and activations are float16.
        compiled: by `torch.compile` as it comes.
    """

    channels_last: bool = True
    half: bool = False
    compiled: bool = False


_MANNERS = {
    "pytorch": _Manner(channels_last=False),
    "pytorch-channels-last": _Manner(),
    "pytorch-fp16": _Manner(half=True),
    "torch-compile": _Manner(compiled=True),
    "torch-compile-fp16": _Manner(half=True, compiled=True),
}


def torch_device(device: str) -> str:
    """What a device means for PyTorch: `auto` is CUDA where there is one.

    Raises:
        InputError: there is no such device.
        DeviceError: it finds no CUDA.
    """
    import torch

    if device not in ("auto", *DEVICES):
        raise InputError(f"unknown device {device!r}; known: auto, {', '.join(DEVICES)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("PyTorch finds no CUDA here: use --device cpu, or see `icnet doctor`")
    return device


@contextmanager
def open_pytorch(
    name: str,
    weights: Path | Checkpoint,
    threads: int | None = None,
    device: str = "cpu",
    head: str = "labels",
) -> Iterator[Subject]:
    """A checkpoint in PyTorch, from the uint8 image in the host's memory to the answer in it.

    Args:
        name: `pytorch`, `pytorch-channels-last`, `pytorch-fp16`, `torch-compile`, or
            `torch-compile-fp16`.
        weights: a checkpoint, or its file. The network of one that is open is moved and converted.
        threads: for the whole process until it is closed; None leaves them as they are.
        device: `cpu`, `cuda`, or `auto`. On a GPU float32 means float32, not TF32.
        head: where it ends: `labels` (uint8 H x W) or `logits` (float C x h x w).

    Raises:
        MissingPackage, ModelError: as `read_checkpoint`.
        UnavailableError: `torch.compile` finds no C++ compiler.
        DeviceError: PyTorch finds no CUDA.
    """
    checkpoint = read_checkpoint(weights) if isinstance(weights, Path) else weights
    import torch

    manner, device = _MANNERS[name], torch_device(device)
    compiler = os.environ.get("CXX", "g++")
    if manner.compiled and device == "cpu" and shutil.which(compiler) is None:
        raise UnavailableError(
            f"torch.compile needs a C++ compiler, and there is no {compiler}: install g++, or name "
            "another compiler in the environment variable CXX"
        )
    layout = torch.channels_last if manner.channels_last else torch.contiguous_format
    dtype = torch.float16 if manner.half else torch.float32
    network: Any = checkpoint.network.to(  # type: ignore[call-overload]
        device, dtype, memory_format=layout
    )

    def step(pixels: torch.Tensor) -> torch.Tensor:
        x = checkpoint.preprocessing.normalise(pixels).to(dtype).contiguous(memory_format=layout)
        logits: torch.Tensor = network(x)
        if head == "logits":
            return logits
        dense = checkpoint.network.upsample(logits, (pixels.shape[1], pixels.shape[2]))
        return dense.argmax(1).to(torch.uint8)

    # With `fullgraph` what cannot be compiled is an error, not a part that runs uncompiled.
    run = torch.compile(step, fullgraph=True) if manner.compiled else step

    def answer(image: UInt8) -> npt.NDArray[Any]:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(image))[None].to(device)
            return np.asarray(run(pixels)[0].cpu().numpy())

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    facts = {
        "name": name,
        "file": checkpoint.path.name,
        "sha256": checkpoint.sha256,
        "precision": "fp16" if manner.half else "fp32",
        "runtime": "pytorch",
        "device": device,
        "threads": torch.get_num_threads(),
    }
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            yield labelling(facts, answer)
    finally:
        torch.set_num_threads(before)
        if manner.compiled:
            torch.compiler.reset()
