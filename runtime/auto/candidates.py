"""What of a folder of artefacts can be run on this machine, and why the rest cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from icnet_deploy.engine_sidecar import read_sidecar
from icnet_deploy.errors import InputError, MissingPackage, ModelError, UnavailableError
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata
from icnet_deploy.runtime.auto.digests import digests
from icnet_deploy.runtime.auto.folder import ENGINE_SUFFIXES, is_artefact
from icnet_deploy.runtime.auto.verdicts import Verdict, Verdicts, read_verdicts
from icnet_deploy.runtime.backends.registry import DEVICES, RUNTIMES, check_available
from icnet_deploy.runtime.machine import cpu, exact_int8, package_version

MEANT_FOR: Mapping[str, tuple[str, ...]] = {
    "int8": ("openvino", "tensorrt", "tensorrt-rtx"),
    "int8-ort": ("onnxruntime",),
}
"""INT8 placement -> the runtimes whose kernels it is placed for; other precisions run on all."""

_ON_ONNX = ("openvino", "onnxruntime")
"""What `auto` tries of an ONNX file; `onnxruntime-tensorrt` builds an engine first: minutes."""

_FIRST = ("int8", "int8-ort", "fp16", "fp32")


@dataclass(frozen=True)
class Request:
    """What a caller asks of a folder of artefacts.

    Attributes:
        runtime, device, threads, streams: as for `Predictor.from_onnx`; `auto` is any.
        precision: choose among `fp32`, `fp16`, `int8` or `int8-ort` only; None: among all.
        unverified: choose among files that `icnet verify` did not pass, too.
        size: choose among files that take this (height, width) only; None: all must be of one.
    """

    runtime: str = "auto"
    device: str = "auto"
    threads: int | None = None
    precision: str | None = None
    unverified: bool = False
    streams: int = 1
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuses a name that nothing here has."""
        for what, given, known in (
            ("runtime", self.runtime, RUNTIMES),
            ("device", self.device, DEVICES),
        ):
            if given not in ("auto", *known):
                raise InputError(f"unknown {what} {given!r}; known: auto, {', '.join(known)}")


class Artefact(NamedTuple):
    """A file of the folder, what it says of itself, and what built it if it is an engine."""

    path: Path
    metadata: ArtefactMetadata
    flavour: str | None


class Candidate(NamedTuple):
    """A file, and where it can be run."""

    path: Path
    sha256: str
    runtime: str
    device: str
    precision: str
    head: str

    def __str__(self) -> str:
        return f"{self.path.name} on {self.runtime}, {self.device}"


@dataclass
class Found:
    """What a folder offers.

    Attributes:
        candidates: the likely fastest first.
        left_out: a sentence for every file and place that is none.
        notes: candidate -> what a user of it should know, in words.
        unverified: how many of these lack nothing but a verdict.
        missing: how many lack a package.
    """

    candidates: list[Candidate] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: dict[Candidate, str] = field(default_factory=dict)
    unverified: int = 0
    missing: int = 0


def find_candidates(folder: Path, request: Request, *, fresh: bool = False) -> Found:
    """Every artefact of a folder on every runtime and device that may be chosen here.

    Args:
        folder: ONNX files and engines, all of one network, and of one size unless one is asked
            for.
        request: what is asked for.
        fresh: read every file for its SHA-256, also where nothing was done to it since it was read.

    Raises:
        InputError: there is no such folder, no artefact in it, several networks or sizes, a record
            that cannot be read, or nothing that is verified.
        UnavailableError: nothing in it can be run here.
    """
    found = Found()
    artefacts = _of_size(folder, list(_read(folder, found)), request.size, found)
    _require_one_network(folder, artefacts)
    verdicts = Verdicts() if request.unverified else read_verdicts(folder)
    known = digests(folder, [artefact.path.name for artefact in artefacts], fresh=fresh)
    for artefact in artefacts:
        path, digest = artefact.path, known[artefact.path.name]
        if isinstance(digest, ModelError):
            found.left_out.append(f"{path.name}: {digest}")
            continue
        for runtime, device in _places(artefact, request, found):
            candidate = Candidate(
                path, digest, runtime, device, artefact.metadata.precision, artefact.metadata.head
            )
            if request.unverified or _is_verified(candidate, verdicts, found):
                found.candidates.append(candidate)
    if not found.candidates:
        raise _nothing(folder, request, found)
    found.candidates.sort(key=_likely)
    return found


def _likely(candidate: Candidate) -> tuple[object, ...]:
    precision = candidate.precision
    rank = _FIRST.index(precision) if precision in _FIRST else len(_FIRST)
    slower = (candidate.device != "cuda", rank, candidate.head != "logits")
    return (*slower, candidate.runtime, candidate.path.name)


def _read(folder: Path, found: Found) -> Iterator[Artefact]:
    """The artefacts of a folder that say what they are."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: name one that holds exported files")
    paths = sorted(filter(is_artefact, folder.iterdir()))
    if not paths:
        suffixes = ", ".join((".onnx", *ENGINE_SUFFIXES))
        raise InputError(
            f"no artefact in {folder} (files {suffixes}): write one with `icnet export`"
        )
    for path in paths:
        try:
            if path.suffix == ".onnx":
                yield Artefact(path, read_onnx_metadata(path, check=False), None)
            elif sidecar := read_sidecar(path):
                yield Artefact(path, sidecar.metadata, sidecar.flavour)
            else:
                found.left_out.append(
                    f"{path.name}: an engine without its sidecar does not say what it is; build "
                    "it with `icnet build-engine`"
                )
        except ModelError as error:
            found.left_out.append(f"{path.name}: {error}")


def _of_size(
    folder: Path, artefacts: list[Artefact], size: tuple[int, int] | None, found: Found
) -> list[Artefact]:
    """Those that take the size that was asked for; all where none was."""
    if size is None:
        return artefacts
    fitting = [artefact for artefact in artefacts if artefact.metadata.size == size]
    if artefacts and not fitting:
        sizes = ", ".join(sorted({_size_text(artefact.metadata.size) for artefact in artefacts}))
        raise InputError(
            f"no artefact in {folder} is of {_size_text(size)}; it holds {sizes}: ask for one of "
            "these, or export at that size"
        )
    found.left_out += [
        f"{path.name}: it is of {_size_text(known.size)}, and {_size_text(size)} was asked for"
        for path, known, _ in artefacts
        if known.size != size
    ]
    return fitting


def _size_text(size: tuple[int, int] | None) -> str:
    return "any size" if size is None else f"{size[0]}x{size[1]}"


def _require_one_network(folder: Path, artefacts: Sequence[Artefact]) -> None:
    """Refuses a folder whose artefacts would not give the same label map."""
    kinds: dict[str, list[str]] = {}
    for path, known, _ in artefacts:
        weights = (known.weights_sha256 or "unknown")[:12]
        told = f"{_size_text(known.size)}, weights {weights}, {len(known.label_set)} classes of "
        kinds.setdefault(told + known.label_set.name, []).append(path.name)
    if len(kinds) > 1:
        listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
        raise InputError(
            f"{folder} holds several networks or sizes ({listed}): one is chosen by speed only "
            "among files of one; ask for a size (size=, --size HxW), give each network a folder of "
            "its own, or name a file"
        )


def _places(artefact: Artefact, request: Request, found: Found) -> Iterator[tuple[str, str]]:
    """Where an artefact can be run as it is asked for."""
    path, known, flavour = artefact
    if request.precision not in (None, known.precision):
        found.left_out.append(
            f"{path.name}: it is {known.precision}, and {request.precision} was asked for"
        )
        return
    if flavour is not None:
        wanted, fits = flavour, request.runtime in ("auto", flavour)
    else:
        wanted, fits = "an ONNX file", not _engines_only(request.runtime)
    if not fits:
        found.left_out.append(f"{path.name}: it is for {wanted}, not for {request.runtime}")
        return
    named = _ON_ONNX if request.runtime == "auto" else (request.runtime,)
    for runtime in named if flavour is None else (flavour,):
        meant = MEANT_FOR.get(known.precision, (runtime,))
        if runtime not in meant:
            found.left_out.append(
                f"{path.name} on {runtime}: {known.precision} is placed for {', '.join(meant)}"
            )
            continue
        yield from _devices(artefact, runtime, request, found)


def _engines_only(runtime: str) -> bool:
    return runtime != "auto" and RUNTIMES[runtime].engines


def _devices(
    artefact: Artefact, runtime: str, request: Request, found: Found
) -> Iterator[tuple[str, str]]:
    """The devices on which a runtime that is installed can run an artefact."""
    path, known, flavour = artefact
    for device in RUNTIMES[runtime].extras:
        if request.device not in ("auto", device):
            continue
        lacks_gpu_build = flavour is None and device == "cuda" and not _gpu_build()
        if lacks_gpu_build and request.device == "auto" and len(RUNTIMES[runtime].extras) > 1:
            continue  # a machine for the CPU need not be told so for every file
        if (known.precision, device) == ("int8-ort", "cuda"):
            found.left_out.append(
                f"{path.name} on {runtime}, cuda: it has no integer convolution there"
            )
            continue
        try:
            _require(runtime, device, lacks_gpu_build)
        except MissingPackage as error:
            found.missing += 1
            found.left_out.append(f"{path.name}: {error}")
        else:
            yield runtime, device


def _gpu_build() -> bool:
    return package_version("onnxruntime-gpu") is not None


def _require(runtime: str, device: str, lacks_gpu_build: bool) -> None:
    """Raises MissingPackage for a runtime that is not installed."""
    known = RUNTIMES[runtime]
    package = "onnxruntime-gpu" if lacks_gpu_build else known.package
    if lacks_gpu_build or (known.engines and find_spec(package) is None):
        extra = known.extras[device]
        raise MissingPackage(package, extra=extra, purpose=f"runtime {runtime!r} on {device!r}")
    if not known.engines:
        check_available(runtime, device)


def _is_verified(candidate: Candidate, verdicts: Verdicts, found: Found) -> bool:
    verdict = verdicts.of(candidate.sha256, candidate.runtime, candidate.device)
    if verdict is not None and verdict.passed:
        if candidate.precision.startswith("int8") and candidate.device == "cpu":
            return _is_verified_processor(candidate, verdict, found)
        return True
    found.unverified += 1
    if verdict is not None:
        found.left_out.append(f"{candidate}: it did not pass `icnet verify`: {verdict.reason}")
    elif verdicts.changed(candidate.path.name, candidate.sha256):
        found.left_out.append(f"{candidate}: it was changed after `icnet verify` looked at it")
    else:
        found.left_out.append(f"{candidate}: not verified there")
    return False


def _is_verified_processor(candidate: Candidate, verdict: Verdict, found: Found) -> bool:
    """Whether INT8 that passed on another processor may be taken here; says what differs.

    Not where sums that were exact saturate: the file that passed there fails its budget here.
    """
    there, here = exact_int8(verdict.cpu_flags), exact_int8(cpu()["flags"])
    if there is None or there == here:
        return True
    sums = {True: "in 32 bits", False: "in 16 bits, which saturate", None: "in its own way"}
    told = (
        f"it was verified on {verdict.processor}, which sums products of INT8 {sums[there]}; this "
        f"processor sums them {sums[here]}, so its labels may differ: run `icnet verify "
        f"{candidate.path.parent}` here"
    )
    if here is False:
        found.unverified += 1
        found.left_out.append(f"{candidate}: {told}")
        return False
    found.notes[candidate] = told
    return True


def _nothing(folder: Path, request: Request, found: Found) -> InputError:
    """Why a folder has no candidate, and what to do."""
    told = "; ".join(found.left_out) or "nothing in it runs where it was asked to"
    if found.unverified:
        return InputError(
            f"no artefact in {folder} is verified where it could run here: run "
            f"`icnet verify {folder}`, or name one file, or take them as they are "
            f"(Predictor.from_folder with unverified=True): {told}"
        )
    if found.missing:
        return UnavailableError(f"no artefact in {folder} runs on this machine: {told}")
    return InputError(f"no artefact in {folder} is what was asked for: {told}")
