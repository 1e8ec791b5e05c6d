"""What our runtime is measured beside: other ways to a label map, as their own docs run them.

A peer that labels images (scope `image-to-labels`) does the whole job that `Predictor` does. A bare
one (scope `network`) is one inference call and nothing else: what no way to a label map can beat.
Both are held to our label map before they are timed.

`docs/decisions/peers.md` says where each is recommended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.peers.base import (
    Peer,
    open_bare_openvino,
    open_onnxruntime,
    open_openvino,
    open_pytorch,
)
from icnet_deploy.benchmarks.peers.benchmark_app import benchmark_app
from icnet_deploy.errors import BackendError, CheckFailed, IcnetError, ImageError, InputError
from icnet_deploy.evaluation.reference import Reference, shipped_checkpoint
from icnet_deploy.files import sha256
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import Subject

UInt8 = npt.NDArray[np.uint8]
Size = tuple[int, int]

PEERS: Mapping[str, str] = {
    "pytorch": "PyTorch on the CPU, float32, `torch.inference_mode`, channels first in memory",
    "pytorch-channels-last": "the same, channels last in memory",
    "torch-compile": "`torch.compile` over all of it, from the uint8 image to the uint8 label map",
    "onnxruntime": "ONNX Runtime with its default options, float32, the label map in the graph",
    "openvino": "OpenVINO with its hint LATENCY, float32, the label map in the graph",
    "openvino-bare": "OpenVINO's inference call alone, on the artefact as it is: no label map",
    "openvino-bare-core": "the same without the cast, the transposition and the mean in the graph",
    "benchmark_app": "OpenVINO's own tool on the artefact, in a process of its own",
}
"""Name -> what it is. `open_peer` opens all but those of `OUTSIDE`."""

OUTSIDE: Mapping[str, Callable[[Path, float, int | None], Measurement]] = {
    "benchmark_app": benchmark_app,
}
"""The peers that time themselves in a process of their own, so that they cannot take turns: to be
called before the turns or after them, with an artefact, for how many seconds, and how many threads
(None: the runtime's own default)."""

LEAST_ALIKE_PERCENT = 99.9
"""The share of the pixels that a peer and we must label alike."""

_BARE = ("openvino-bare", "openvino-bare-core")
_PYTORCH = ("pytorch", "pytorch-channels-last", "torch-compile")


@contextmanager
def open_peer(
    name: str,
    artefact: Path | None,
    size: Size,
    threads: int | None = None,
    *,
    weights: Path | None = None,
) -> Iterator[Subject]:
    """Opens a peer, and proves on a drawn scene that it does our job.

    That is its first run, so what is compiled at the first run is compiled.

    Args:
        name: a key of `PEERS` that is not one of `OUTSIDE`.
        artefact: an ONNX file of ours. The bare peers run it. `onnxruntime` and `openvino` run it
            if it is float32, makes labels and takes images of that size; otherwise, and if it is
            None, a file that is exported for them. PyTorch's peers only see that it is of their
            weights.
        size: (height, width) in pixels of the images.
        threads: CPU threads; None leaves it to the runtime. PyTorch has one number for the whole
            process, which is put back when the peer is closed.
        weights: the checkpoint, for all but the bare peers; None is the shipped one.

    Yields:
        The peer. Its `label` takes uint8 H x W x 3 of that size and returns `total` alone; it
        raises ImageError for another size, BackendError if the runtime fails.

    Raises:
        InputError: no peer has that name, it needs an artefact, or the artefact is of other
            weights.
        UnavailableError: a package or a compiler is missing.
        ModelError: a file cannot be loaded.
        CheckFailed: the peer labels otherwise than we do.
        BackendError: it failed as it ran.
    """
    if name not in PEERS or name in OUTSIDE:
        why = "times itself, outside the turns" if name in OUTSIDE else "is not a peer"
        known = ", ".join(each for each in PEERS if each not in OUTSIDE)
        raise InputError(f"{name!r} {why}; those that take turns: {known}")
    with _open(name, artefact, size, threads, weights) as (peer, ours):
        _check(name, _guarded(name, peer.answer, size)(_scene(size)), ours)
        subject = {"name": name, "device": "cpu", "precision": "fp32", **peer.subject}
        yield Subject(subject, _guarded(name, peer.label, size), peer.scope)


@contextmanager
def _open(
    name: str, artefact: Path | None, size: Size, threads: int | None, weights: Path | None
) -> Iterator[tuple[Peer, UInt8]]:
    """Opens a peer; beside it stands our label map of the scene."""
    opened: AbstractContextManager[Peer]
    if name in _BARE:
        if artefact is None:
            raise InputError(f"{name} runs an artefact, and none was given: name an ONNX file")
        opened, ours = open_bare_openvino(name, artefact, size, threads), _by_us(artefact, size)
    else:
        weights = _weights(artefact, weights)
        if name in _PYTORCH:
            opened = open_pytorch(name, weights, threads)
        elif name == "onnxruntime":
            opened = open_onnxruntime(_labels_graph(artefact, weights, size), threads)
        else:
            opened = open_openvino(_labels_graph(artefact, weights, size), size, threads)
        ours = _by_reference(weights, size)
    with opened as peer:
        yield peer, ours


def _weights(artefact: Path | None, weights: Path | None) -> Path:
    """The checkpoint, which the artefact must have been made from."""
    path = weights or shipped_checkpoint()
    if artefact is not None and read_onnx_metadata(artefact).weights_sha256 != sha256(path):
        raise InputError(
            f"{artefact} was not made from the checkpoint {path}, so a peer would run another "
            "network: give the checkpoint that it was exported from"
        )
    return path


def _labels_graph(artefact: Path | None, weights: Path, size: Size) -> Path:
    """A float32 file that takes images of that size and makes label maps."""
    if artefact is not None:
        told = read_onnx_metadata(artefact)
        if (told.precision, told.head) == ("fp32", "labels") and told.size in (size, None):
            return artefact
    return Path(_exported(weights, size).name) / f"{weights.stem}-labels.onnx"


@cache
def _exported(weights: Path, size: Size) -> TemporaryDirectory[str]:
    """A folder with the export, for every peer that runs it; it goes when the process ends."""
    from icnet_deploy.export.to_onnx import export

    folder = TemporaryDirectory(prefix="icnet-peers-")
    export(Path(folder.name) / f"{weights.stem}-labels.onnx", weights, size, head="labels")
    return folder


def _scene(size: Size) -> UInt8:
    from icnet_deploy.data.scenes import draw_scene

    return draw_scene(0, size).image


@cache
def _by_reference(weights: Path, size: Size) -> UInt8:
    """What every artefact of ours is held to: PyTorch's own label map, worked out in float64."""
    return Reference(weights, size).labels(_scene(size))


@cache
def _by_us(artefact: Path, size: Size) -> UInt8:
    with Predictor.from_onnx(artefact, "openvino", "cpu", cached=False) as predictor:
        return np.asarray(predictor.predict(_scene(size)).labels)


def _check(name: str, labels: UInt8, ours: UInt8) -> None:
    alike = 100 * float(np.mean(labels == ours)) if labels.shape == ours.shape else 0.0
    if alike < LEAST_ALIKE_PERCENT:
        raise CheckFailed(
            f"{name} labels {alike:.2f} % of the pixels of a drawn scene as we do, expected at "
            f"least {LEAST_ALIKE_PERCENT} %: it does another job, so it is not timed"
        )


def _guarded(name: str, run: Callable[[UInt8], Any], size: Size) -> Callable[[UInt8], Any]:
    """Refuses images of another size, and tells a runtime's failure as ours."""

    def guarded(image: UInt8) -> Any:
        if image.shape != (*size, 3) or image.dtype != np.uint8:
            raise ImageError(
                f"{name} was opened for uint8 {size[0]} x {size[1]} x 3; got {image.dtype} of "
                f"shape {image.shape}"
            )
        try:
            return run(image)
        except IcnetError:
            raise
        except Exception as error:  # three runtimes, whose errors have no common root
            raise BackendError(f"{name} failed as it ran: {error!s:.300}") from error

    return guarded
