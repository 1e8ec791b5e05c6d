"""From a file to the backend that runs it, and what is known of it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.labels import LabelSet
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata
from icnet_deploy.precisions import PRECISIONS, precision_of
from icnet_deploy.runtime.auto.folder import ENGINE_SUFFIXES
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.backends.registry import (
    ENGINE_RUNTIMES,
    RUNTIMES,
    check_available,
    choose,
    open_backend,
    require_package,
)
from icnet_deploy.runtime.backends.tensorrt.engine import Plan, read_plan
from icnet_deploy.runtime.contract import describe
from icnet_deploy.runtime.cuda import open_cuda
from icnet_deploy.runtime.cuda.base import Cuda

_CHOOSES = "{path} is one file: leave out %s, which chooses among the files of a folder"
_MISFITS = {
    "size": f"{_CHOOSES % '--size (size in Python)'}; every image is resized for the model",
    "precision": _CHOOSES % "the precision",
    "unverified": _CHOOSES % "unverified",
    "require_manifest": "--require-manifest (require_manifest in Python) is for an engine "
    "({suffixes}), not for {path}: leave it out",
    "sha256": "{path} is a folder, but a SHA-256 identifies one file: name a file in it, or give "
    "the public key of the signer",
    "label_set": "a label set is for an engine without a sidecar, and {path} has its own: leave "
    "out label_set",
    "engine": "{path} is an engine: it runs on the GPU, one image after the other, in the "
    "precision that it was built with; leave out --device cpu, --threads and --streams (in Python "
    "also tf32), or give the ONNX file that it was built from",
    "folder": "{path} is a folder, whose fastest file is opened as it was measured: leave out tf32 "
    "and cached, or name a file in it",
}
"""What is said of an option that fits another kind of artefact, by the option or by the kind."""

_ONNX = frozenset({"device", "threads", "streams", "tf32", "cached", "sha256"})
_TAKEN = {
    "folder": _ONNX - {"tf32", "cached", "sha256"}
    | {"size", "precision", "unverified", "require_manifest"},
    # It was compiled when it was built: nothing that `cached` forbids is done.
    "engine": frozenset({"require_manifest", "label_set", "cached", "sha256"}),
}
"""Kind of artefact -> what it can be asked besides a runtime; others as an ONNX file."""


class Loaded(NamedTuple):
    """A model, what it is, and where it runs."""

    backend: Backend
    metadata: ArtefactMetadata
    runtime: str
    device: str


def refuse_misfits(path: Path, kind: str, asked: Mapping[str, bool]) -> None:
    """Refuses options of `Predictor.open` that another kind of artefact takes.

    Args:
        path: the artefact.
        kind: of `kind_of`.
        asked: option -> whether it was asked for.

    Raises:
        InputError: one does not fit.
    """
    for option, is_asked in asked.items():
        if is_asked and option not in _TAKEN.get(kind, _ONNX):
            said = _MISFITS.get(option) or _MISFITS[kind]
            raise InputError(said.format(path=path, suffixes=", ".join(ENGINE_SUFFIXES)))


def load_onnx(
    path: Path,
    runtime: str,
    device: str,
    threads: int | None,
    *,
    streams: int,
    tf32: bool,
    cached: bool | None,
) -> Loaded:
    """Loads an ONNX file; arguments and errors are those of `Predictor.from_onnx`."""
    if path.suffix in (".safetensors", ".pt", ".pth", ".ckpt"):
        raise ModelError(
            f"{path} is a checkpoint, which no runtime can run: export it with `icnet export "
            f"--weights {path} -o {path.stem}.onnx`, and use that file"
        )
    asked = runtime, device
    runtime, device = choose(*asked)
    check_available(runtime, device)
    metadata = read_onnx_metadata(path)
    precision = precision_of(metadata.precision)
    refused = precision and precision.refusal(runtime, device)
    if refused:
        if asked[1] == device:
            meant = (row.name for row in PRECISIONS.values() if runtime in row.runtimes)
            raise InputError(
                f"{path} is {metadata.precision}, and {refused}, so it would run as float and "
                "slower: use an fp16 artefact or a TensorRT engine there, or on the CPU "
                f"{' or '.join(meant)}"
            )
        runtime, device = choose(asked[0], "cpu")
    backend = open_backend(
        runtime, path, device, threads, streams=streams, tf32=tf32, cached=cached
    )
    return Loaded(backend, metadata, runtime, device)


def load_engine(
    path: Path,
    runtime: str,
    *,
    label_set: LabelSet | None = None,
    require_manifest: bool = False,
    host_code: bool = False,
    cuda: Cuda | str = "auto",
    called: Path,
) -> Loaded:
    """Loads an engine; arguments and errors are those of `Predictor.from_engine`.

    Args:
        called: what the file is called in messages, where it is a copy.
    """
    plan = replace(read_plan(path, require_manifest), path=called)
    name = _runtime_of(plan, runtime)
    require_package(name, "cuda")
    if isinstance(cuda, str):
        cuda = open_cuda(cuda)
    with RUNTIMES[name].working("cuda") as module:
        backend = module.open_plan(plan, RUNTIMES[name].package, cuda, host_code)
    try:
        metadata = plan.sidecar.metadata if plan.sidecar else describe(backend, label_set)
    except ModelError as error:
        backend.close()
        raise ModelError(f"{path}: {error}") from error
    return Loaded(backend, metadata, name, "cuda")


def _runtime_of(plan: Plan, asked: str) -> str:
    """The runtime that built an engine, which alone runs it."""
    if asked not in ("auto", *ENGINE_RUNTIMES):
        raise InputError(
            f"unknown runtime {asked!r} for an engine; known: auto, {', '.join(ENGINE_RUNTIMES)}"
        )
    if asked != "auto":
        if plan.flavour not in (None, asked):
            raise ModelError(
                f"{plan.path} is an engine of {plan.flavour}, not of {asked}: name the runtime "
                f"{plan.flavour} or auto"
            )
        return asked
    if plan.flavour is None:
        raise ModelError(
            f"{plan.path} does not begin like a TensorRT engine of a version that is known here "
            f"({len(plan.data)} bytes): build it with `icnet build-engine`; if it is an engine, "
            f"name its runtime, {' or '.join(ENGINE_RUNTIMES)}"
        )
    return plan.flavour
