"""What our runtime is measured beside: other ways to a label map, as their own docs run them.

A peer that labels images (scope `image-to-labels`) does the whole job that `Predictor` does. A bare
one (scope `network`) is one inference call and nothing else: what no way to a label map can beat.
Both are held to our label map before they are timed. A row in `PEERS` adds one.

`docs/decisions/peers.md` says where each is recommended.
"""

from __future__ import annotations

import atexit
import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.peers.pytorch import open_pytorch
from icnet_deploy.benchmarks.peers.runtimes import (
    benchmark_app,
    open_bare_openvino,
    open_onnxruntime,
    open_openvino,
)
from icnet_deploy.benchmarks.subjects import export_labels
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import BackendError, CheckFailed, IcnetError, ImageError, InputError
from icnet_deploy.evaluation.float_network import FloatNetwork, PytorchNetwork
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.evaluation.reference import Reference, read_checkpoint, shipped_checkpoint
from icnet_deploy.files import scratch_folder, sha256
from icnet_deploy.images import UInt8
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.auto.folder import kind_of
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import Subject

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint

Size = tuple[int, int]

_SECONDS = 10.0  # for how long a peer runs that times itself

_LEAST_ALIKE_PERCENT = 99.9
"""The share of the pixels that a peer and we must label alike."""


@dataclass(frozen=True)
class Peer:
    """One of them.

    Attributes:
        what: it is, in words.
        runs: `weights`, a checkpoint; `labels`, a float32 file that makes label maps; `artefact`,
            every artefact that is meant for OpenVINO, as it is.
        open: opens it, of its name, the file that it runs, and: of weights, CPU threads or None and
            the device; else (height, width) of the images in pixels and CPU threads or None. The
            subject has an `answer`.
        time: in place of `open` of one that times itself in a process of its own, so that it cannot
            take turns: of an artefact, for how many seconds, and CPU threads or None.
        devices: where it runs.
    """

    what: str
    runs: Literal["weights", "labels", "artefact"]
    open: Callable[..., AbstractContextManager[Subject]] | None = None
    time: Callable[[Path, float, int | None], Measurement] | None = None
    devices: tuple[str, ...] = ("cpu",)


_ANY = ("cpu", "cuda")

PEERS: dict[str, Peer] = {
    "pytorch": Peer(
        "PyTorch, float32, `torch.inference_mode`, channels first in memory",
        "weights",
        open_pytorch,
        devices=_ANY,
    ),
    "pytorch-channels-last": Peer(
        "PyTorch, float32, channels last in memory", "weights", open_pytorch, devices=_ANY
    ),
    "pytorch-fp16": Peer(
        "PyTorch, float16, channels last in memory", "weights", open_pytorch, devices=("cuda",)
    ),
    "torch-compile": Peer(
        "`torch.compile`, float32, from the uint8 image to the uint8 label map",
        "weights",
        open_pytorch,
        devices=_ANY,
    ),
    "torch-compile-fp16": Peer(
        "`torch.compile`, float16, from the uint8 image to the uint8 label map",
        "weights",
        open_pytorch,
        devices=("cuda",),
    ),
    "onnxruntime": Peer(
        "ONNX Runtime with its default options, float32, with the label map in the graph",
        "labels",
        open_onnxruntime,
    ),
    "openvino": Peer(
        "OpenVINO with its hint LATENCY, float32, with the label map in the graph",
        "labels",
        open_openvino,
    ),
    "openvino-bare": Peer(
        "OpenVINO's inference call alone, on the artefact, without the label map",
        "artefact",
        open_bare_openvino,
    ),
    "openvino-bare-core": Peer(
        "OpenVINO's inference call alone, also without the preprocessing in the graph (cast, "
        "transposition and mean)",
        "artefact",
        open_bare_openvino,
    ),
    "benchmark_app": Peer(
        "OpenVINO's own benchmark tool on the artefact, in its own process",
        "artefact",
        time=benchmark_app,
    ),
}
"""Name -> what it is."""


@contextmanager
def open_peer(
    name: str,
    artefact: Path | None,
    size: Size,
    threads: int | None = None,
    *,
    weights: Path | FloatNetwork | None = None,
    device: str = "cpu",
    peers: Mapping[str, Peer] = PEERS,
    export: Callable[..., object] = export_labels,
) -> Iterator[Subject]:
    """Opens a peer, and proves on a drawn scene that it does our job.

    That is its first run, so what is compiled at the first run is compiled.

    Args:
        name: a key of `peers` that takes turns.
        artefact: an ONNX file of ours. The bare peers run it. `onnxruntime` and `openvino` run it
            if it is float32, makes labels and takes images of that size; otherwise, and if it is
            None, a file that is exported for them. PyTorch's peers only see that it is of their
            weights.
        size: (height, width) in pixels of the images.
        threads: CPU threads; None leaves it to the runtime. PyTorch has one number for the whole
            process, which is put back when the peer is closed.
        weights: the checkpoint, or the network itself, for all but the bare peers; None is the
            shipped one.
        device: `cpu` or `cuda`, for those that run there.
        peers: those that there are.
        export: as `export_labels`.

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
    peer = peers.get(name)
    if peer is None or peer.open is None:
        why = "is not a peer" if peer is None else "times itself and takes no turns"
        known = ", ".join(each for each, row in peers.items() if row.open)
        raise InputError(f"{name!r} {why}; peers that take turns: {known}")
    path: Path | Checkpoint
    if peer.runs == "artefact":
        if artefact is None:
            raise InputError(f"{name} needs an artefact: name an ONNX file")
        path, ours = artefact, _by_us(artefact, size)
    else:
        network = _network(artefact, weights)
        ours = _by_reference(network, size)
        if peer.runs == "labels":
            path = _labels_graph(artefact, network, size, export)
        else:
            path = _in_pytorch(name, network)
    how = (threads, device) if peer.runs == "weights" else (size, threads)
    with peer.open(name, path, *how) as subject:
        assert subject.answer is not None  # see `Peer.open`
        _check(name, _guarded(name, subject.answer, size)(draw_scene(0, size).image), ours)
        yield replace(subject, label=_guarded(name, subject.label, size))


def _network(artefact: Path | None, weights: Path | FloatNetwork | None) -> FloatNetwork:
    """The network, which the artefact must have been made from."""
    if weights is None or isinstance(weights, Path):
        weights = _read(weights or shipped_checkpoint())
        path = weights.checkpoint.path
        if artefact is not None and read_onnx_metadata(artefact).weights_sha256 != sha256(path):
            raise InputError(
                f"{artefact} was not made from the checkpoint {path}, so a peer would run another "
                "network: give the checkpoint that it was exported from (--weights), or its "
                "network (--network)"
            )
    elif artefact is not None:
        weights.require_origin(artefact, read_onnx_metadata(artefact), artefact_sha256(artefact))
    return weights


@cache
def _read(path: Path) -> PytorchNetwork:
    return PytorchNetwork(read_checkpoint(path))


def _in_pytorch(name: str, network: FloatNetwork) -> Checkpoint:
    """A copy of the network, which a peer may move and convert."""
    if not isinstance(network, PytorchNetwork):
        raise InputError(
            f"{name} runs the network in PyTorch, and the reference {network.origin.name} is no "
            "PyTorch network: give --network PACKAGE.MODULE:FACTORY, or --weights FILE"
        )
    return replace(network.checkpoint, network=copy.deepcopy(network.checkpoint.network))


def _labels_graph(
    artefact: Path | None, network: FloatNetwork, size: Size, export: Callable[..., object]
) -> Path:
    """A float32 file that takes images of that size and makes label maps."""
    if artefact is not None and _makes_labels(artefact, size, None):
        return artefact
    if not isinstance(network, PytorchNetwork):
        raise InputError(
            "this peer needs a float32 file that makes label maps: also name one that `icnet "
            "export --head labels` wrote"
        )
    return _exported(network, size, export)


def _makes_labels(path: Path, *sizes: Size | None) -> bool:
    """Whether it is a float32 file of one of these sizes that makes the labels itself."""
    metadata = read_onnx_metadata(path)
    return (metadata.precision, metadata.head) == ("fp32", "labels") and metadata.size in sizes


@cache
def _exported(network: PytorchNetwork, size: Size, export: Callable[..., object]) -> Path:
    """The export, for every peer that runs it; it goes with the process."""
    stack = ExitStack()
    atexit.register(stack.close)
    name = Path(network.origin.name.rpartition(":")[2]).stem
    path = stack.enter_context(scratch_folder()) / f"{name}-labels.onnx"
    export(network.checkpoint, path, size)
    return path


@cache
def _by_reference(network: FloatNetwork, size: Size) -> UInt8:
    """What every artefact of ours is held to: the float32 network's map, worked out in float64."""
    return Reference(network, size).labels(draw_scene(0, size).image)


@cache
def _by_us(artefact: Path, size: Size) -> UInt8:
    with Predictor.open(artefact, "openvino", "cpu", cached=False) as predictor:
        return np.asarray(predictor.predict(draw_scene(0, size).image).labels)


def _check(name: str, labels: UInt8, ours: UInt8) -> None:
    alike = 100 * float(np.mean(labels == ours)) if labels.shape == ours.shape else 0.0
    if alike < _LEAST_ALIKE_PERCENT:
        raise CheckFailed(
            f"{name} labels {alike:.2f} % of the pixels of a drawn scene as icnet does, expected "
            f"at least {_LEAST_ALIKE_PERCENT} %: its result differs, so it is not timed"
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


def peer_names(text: str, device: str = "cpu") -> list[str]:
    """Reads names with commas between them, or `all`: those that run on the device or the CPU.

    Raises:
        InputError: there is no peer of a name.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if text == "all":
        names = [name for name, peer in PEERS.items() if {"cpu", device} & {*peer.devices}]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        known = "; ".join(f"{name}: {peer.what}" for name, peer in PEERS.items())
        raise InputError(f"there is no peer {', '.join(unknown)}; known: {known}; or `all`")
    return names


def open_peers(
    names: Sequence[str],
    runs: Sequence[Run],
    stack: ExitStack,
    size: Size,
    threads: int | None = None,
    network: Callable[[], FloatNetwork | None] = lambda: None,
    device: str = "cpu",
    open_one: Callable[..., AbstractContextManager[Subject]] = open_peer,
) -> list[Subject]:
    """Opens those that take turns; one that cannot is left out, unless it was named alone.

    Args:
        names: keys of `PEERS`, each once.
        runs: the artefacts that they are timed beside, and their runtimes.
        stack: closes them.
        size: (height, width) of the images, in pixels.
        threads: CPU threads a run; None leaves it to each.
        network: opens the network of the artefacts; None is the shipped one.
        device: `cpu`, or `cuda` for those that run there.
        open_one: opens one, as `open_peer`.

    Raises:
        InputError, BackendError: the only one cannot run here, or not on these files.
        CheckFailed: one does not label as we do.
    """
    opened = []
    for name, peer, path in _each(names, runs, size):
        if peer.open:
            place = device if device in peer.devices else peer.devices[0]
            with _or_left_out(name, alone=len(names) == 1):
                weights = None if peer.runs == "artefact" else network()
                how = {"weights": weights, "device": place}
                opened.append(stack.enter_context(open_one(name, path, size, threads, **how)))
    return opened


def time_outside(
    names: Sequence[str], runs: Sequence[Run], size: Size, threads: int | None = None
) -> list[Measurement]:
    """Runs those that time themselves, each on every artefact that is meant for OpenVINO.

    Arguments and errors are those of `open_peers`.
    """
    measured = []
    for name, peer, path in _each(names, runs, size):
        if peer.time and path:
            with _or_left_out(name, alone=len(names) == 1):
                measured.append(peer.time(path, _SECONDS, threads))
    return measured


def _each(
    names: Sequence[str], runs: Sequence[Run], size: Size
) -> Iterator[tuple[str, Peer, Path | None]]:
    """A bare peer runs each artefact; any other runs once, on one of its kind if it is here."""
    bare = dict.fromkeys(run.path for run in runs if run.runtime == "openvino")
    files = [run.path for run in runs if kind_of(run.path) == "onnx"]
    whole = [path for path in files if _makes_labels(path, size)]
    for name in names:
        for path in bare if PEERS[name].runs == "artefact" else [*whole, *files, None][:1]:
            yield name, PEERS[name], path


@contextmanager
def _or_left_out(name: str, alone: bool) -> Iterator[None]:
    try:
        yield
    except (InputError, BackendError) as error:
        if alone:
            raise
        print(f"{name} is left out: {error}", file=sys.stderr)
