"""What of a folder of artefacts can be run on this machine, and why the rest cannot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icnet_deploy.errors import InputError, MissingPackage, ModelError, UnavailableError
from icnet_deploy.metadata import FITS, UPSAMPLINGS, ArtefactMetadata
from icnet_deploy.precisions import PRECISIONS, precision_of
from icnet_deploy.runtime import machine
from icnet_deploy.runtime.auto.folder import ArtefactFile, digests, read_artefacts
from icnet_deploy.runtime.auto.verdicts import UNDECIDED, Entry, Verdicts, read_verdicts
from icnet_deploy.runtime.backends.registry import DEVICES, RUNTIMES, require_package

_NO_SIDECAR = (
    "the engine has no sidecar, so its network and size are unknown; build it with `icnet "
    "build-engine`"
)

_SHOWN = 2  # parts of a list that a message shows

_Described = tuple[ArtefactFile, ArtefactMetadata]
"""An artefact that says what it is."""

Place = tuple[str, str, str]
"""A SHA-256, a runtime and a device."""


@dataclass(frozen=True)
class Request:
    """What a caller asks of a folder of artefacts.

    Attributes:
        runtime, device, threads, streams: as for `Predictor.from_onnx`; `auto` is any.
        precision: choose among artefacts of this precision only; None: among all.
        unverified: choose among files that `icnet verify` did not pass, too, and by speed alone.
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


@dataclass(frozen=True)
class Candidate:
    """An artefact of a folder, where it can be run, and how long an image takes it there.

    Attributes:
        file, sha256, precision, head: the artefact.
        runtime, device: where it runs.
        median_ms: from an image in memory to its label map, in milliseconds; None where it was not
            timed, as where there is nothing to choose from.
        runs: how many times it was timed; less often where it was clearly slower.
    """

    file: str
    sha256: str
    precision: str
    head: str
    runtime: str
    device: str
    median_ms: float | None = None
    runs: int = 0

    def __str__(self) -> str:
        return f"{self.file} on {self.runtime}, {self.device}"

    @property
    def place(self) -> Place:
        """What it is, whatever the file is called: its SHA-256, the runtime and the device."""
        return self.sha256, self.runtime, self.device


@dataclass
class Offer:
    """What a folder offers.

    Attributes:
        candidates: the likely fastest first.
        left_out: a sentence for every file and place that is none.
        notes: the `place` of a candidate -> what its user should know, in words.
        undecided: the `place` of a candidate that is -> what of it, in words.
        unverified: those of these sentences that say that nothing but a verdict is missing.
        missing: those that say that a package is missing.
    """

    candidates: list[Candidate] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: dict[Place, str] = field(default_factory=dict)
    undecided: dict[Place, str] = field(default_factory=dict)
    unverified: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def find_candidates(
    folder: Path,
    request: Request,
    *,
    fresh: bool = False,
    keep: bool = True,
    here: Any = machine,
) -> Offer:
    """Every artefact of a folder on every runtime and device that may be chosen here.

    Args:
        folder: ONNX files and engines, all of one network, and of one size unless one is asked
            for.
        request: what is asked for.
        fresh: read every file for its SHA-256, also where nothing was done to it since it was read.
        keep: see `digests`.
        here: what the machine has; see `runtime.machine`.

    Raises:
        InputError: there is no such folder, no artefact in it, several networks or sizes, a record
            that cannot be read, or nothing that is verified.
        UnavailableError: nothing in it can be run here.
    """
    offer = Offer()
    artefacts = _of_size(folder, _described(folder, offer), request.size, offer)
    _require_one_network(folder, artefacts)
    verdicts = Verdicts() if request.unverified else read_verdicts(folder)
    known = digests(folder, [artefact for artefact, _ in artefacts], fresh=fresh, keep=keep)
    for artefact, metadata in artefacts:
        digest = known[artefact.path.name]
        if isinstance(digest, ModelError):
            offer.left_out.append(f"{artefact.path.name}: {digest}")
            continue
        for runtime in _runtimes(artefact, request, offer):
            for device in _devices(artefact, runtime, request, offer, here):
                described = (artefact.path.name, digest, metadata.precision, metadata.head)
                candidate = Candidate(*described, runtime, device)
                if request.unverified or _is_verified(folder, candidate, verdicts, offer, here):
                    offer.candidates.append(candidate)
    _prefer_within(offer)
    if not offer.candidates:
        raise _nothing(folder, offer)
    offer.candidates.sort(key=_likely)
    return offer


def _likely(candidate: Candidate) -> tuple[object, ...]:
    row = precision_of(candidate.precision)
    rank = row.rank if row else len(PRECISIONS)
    slower = (candidate.device != "cuda", rank, candidate.head != "logits")
    return (*slower, candidate.runtime, candidate.file)


def _described(folder: Path, offer: Offer) -> list[_Described]:
    """The artefacts of a folder that say what they are."""
    artefacts: list[_Described] = []
    for artefact in read_artefacts(folder, check=False):  # who opens one checks it
        if artefact.metadata:
            artefacts.append((artefact, artefact.metadata))
        else:
            offer.left_out.append(f"{artefact.path.name}: {artefact.problem or _NO_SIDECAR}")
    return artefacts


def _of_size(
    folder: Path, artefacts: list[_Described], size: tuple[int, int] | None, offer: Offer
) -> list[_Described]:
    """Those that take the size that was asked for; all where none was."""
    if size is None:
        return artefacts
    fitting = [each for each in artefacts if each[1].size == size]
    if artefacts and not fitting:
        sizes = ", ".join(sorted({_size_text(metadata.size) for _, metadata in artefacts}))
        raise InputError(
            f"no artefact in {folder} has the size {_size_text(size)}, only {sizes}: choose one "
            f"of these, or export at {_size_text(size)}"
        )
    offer.left_out += [
        f"{file.path.name}: its size is {_size_text(metadata.size)}, not {_size_text(size)}"
        for file, metadata in artefacts
        if metadata.size != size
    ]
    return fitting


def _size_text(size: tuple[int, int] | None) -> str:
    return "any size" if size is None else f"{size[0]}x{size[1]}"


def _require_one_network(folder: Path, artefacts: Sequence[_Described]) -> None:
    """Refuses a folder whose artefacts would not give the same label map."""
    kinds: dict[tuple[str, str], list[str]] = {}
    means = {str(metadata.preprocessing.get("mean")) for _, metadata in artefacts}
    for file, metadata in artefacts:
        weights, classes = (metadata.weights_sha256 or "unknown")[:12], metadata.label_set
        network = f"weights {weights}, {len(classes)} classes of {classes.name}"
        network += "".join(_unlike_icnet(metadata))
        if len(means) > 1:
            network += f", mean {metadata.preprocessing.get('mean')}"
        kinds.setdefault((_size_text(metadata.size), network), []).append(file.path.name)
    if len(kinds) < 2:
        return
    if len({network for _, network in kinds}) == 1:
        shown = [f"{size}: {_first(names, ', ')}" for (size, _), names in kinds.items()]
        what = "several input sizes: choose one with --size HxW (size=(H, W) in Python)"
    else:
        shown = [f"{', '.join(kind)}: {_first(names, ', ')}" for kind, names in kinds.items()]
        what = "several networks: give each a folder of its own"
    raise InputError(f"{folder} holds {what}, or name one file ({_first(shown)})")


def _unlike_icnet(metadata: ArtefactMetadata) -> Iterator[str]:
    """What else a label map hangs on, in words, where it is not as of an ICNet."""
    if metadata.fit != FITS[0]:
        yield f", fit {metadata.fit}"
    if metadata.upsampling != UPSAMPLINGS[0]:
        yield f", upsampling {metadata.upsampling}"
    if metadata.threshold is not None:
        yield f", threshold {metadata.threshold}"


def _runtimes(artefact: ArtefactFile, request: Request, offer: Offer) -> list[str]:
    """The runtimes that an artefact is for, of those that are asked for."""
    name, flavour, row = artefact.path.name, artefact.flavour, precision_of(artefact.precision)
    if request.precision not in (None, artefact.precision):
        offer.left_out.append(
            f"{name}: its precision is {artefact.precision}, not {request.precision}"
        )
        return []
    able = {r: known for r, known in RUNTIMES.items() if flavour == (r if known.engines else None)}
    asked = [runtime for runtime in able if request.runtime == runtime]
    if request.runtime == "auto":
        asked = [r for r, known in able.items() if known.engines or known.auto_rank is not None]
    if not asked:
        kind = f"an engine of {flavour}" if flavour else "an ONNX file"
        offer.left_out.append(f"{name}: it is {kind}, which {request.runtime} does not run")
    meant = [runtime for runtime in asked if row is None or row.meant_for(runtime)]
    offer.left_out += [
        f"{name} on {runtime}: {artefact.precision} is meant for {', '.join(row.runtimes)}"
        for runtime in asked
        if row and runtime not in meant
    ]
    return meant


def _devices(
    artefact: ArtefactFile, runtime: str, request: Request, offer: Offer, here: Any
) -> Iterator[str]:
    """The devices on which a runtime that is installed can run an artefact."""
    row, devices = precision_of(artefact.precision), RUNTIMES[runtime].extras
    for device in devices if request.device == "auto" else {request.device}.intersection(devices):
        missing = _missing(runtime, device, here)
        if missing and request.device == "auto" and device != "cpu" and "cpu" in devices:
            continue  # a machine for the CPU need not be told so for every file
        refusal = row and row.refusal(runtime, device, RUNTIMES[runtime].engines)
        if refusal:
            offer.left_out.append(f"{artefact.path.name} on {runtime}, {device}: {refusal}")
        elif missing:
            offer.missing.append(f"{artefact.path.name}: {missing}")
            offer.left_out.append(offer.missing[-1])
        else:
            yield device


def _missing(runtime: str, device: str, here: Any) -> MissingPackage | None:
    """What is not installed of what a runtime needs on a device."""
    row = RUNTIMES[runtime]
    extra, build = row.extras[device], f"{row.package}-gpu"
    try:
        # Where CUDA has an extra of its own, it has a build of its own.
        if row.extras.get("cpu", extra) != extra and here.package_version(build) is None:
            raise MissingPackage(build, extra=extra, purpose=f"runtime {runtime!r} on {device!r}")
        require_package(runtime, device)
    except MissingPackage as error:
        return error
    return None


def _is_verified(
    folder: Path, candidate: Candidate, verdicts: Verdicts, offer: Offer, here: Any
) -> bool:
    entry = verdicts.of(*candidate.place)
    if entry is not None and entry.passed:
        why = _other_sums(folder, candidate, entry, here)
        if not why or here.exact_int8(here.cpu()["flags"]) is not False:
            offer.notes[candidate.place] = why
            if entry.verdict == UNDECIDED:
                offer.undecided[candidate.place] = entry.undecided
            return True
    elif entry is not None:
        why = f"it did not pass `icnet verify`: {entry.reason}"
    elif verdicts.changed(candidate.file, candidate.sha256):
        why = "it was changed after `icnet verify` checked it"
    else:
        why = "not verified there"
    offer.unverified.append(f"{candidate}: {why}")
    offer.left_out.append(offer.unverified[-1])
    return False


def _prefer_within(offer: Offer) -> None:
    """Leaves out what is undecided where something is within its limits, and else says so."""
    within = [one for one in offer.candidates if one.place not in offer.undecided]
    if within:
        offer.left_out += [
            f"{one}: its verdict is undecided, and another file is within its limits: "
            f"{offer.undecided[one.place]}"
            for one in offer.candidates
            if one.place in offer.undecided
        ]
        offer.candidates = within
        return
    for place, what in offer.undecided.items():
        said = f"its verdict is undecided, but no file here is within its limits: {what}"
        offer.notes[place] = "; ".join(filter(None, [said, offer.notes[place]]))


def _other_sums(folder: Path, candidate: Candidate, entry: Entry, here: Any) -> str:
    """What differs for INT8 that passed on a processor of another kind; "" for all else.

    Where sums that were exact saturate, the file that passed there fails its budget here.
    """
    row = precision_of(candidate.precision)
    if row is None or row.bits != 8 or candidate.device != "cpu":
        return ""
    exact = here.exact_int8(entry.cpu_flags), here.exact_int8(here.cpu()["flags"])
    if exact[0] is None or exact[0] == exact[1]:
        return ""
    sums = {True: "in 32 bits", False: "in 16 bits, which saturate", None: "in its own way"}
    return (
        f"it was verified on {entry.processor}, which sums products of INT8 {sums[exact[0]]}; "
        f"this processor sums them {sums[exact[1]]}, so the labels may differ: run `icnet verify "
        f"{folder}` here"
    )


def _nothing(folder: Path, offer: Offer) -> InputError:
    """Why a folder has no candidate, and what to do."""
    if offer.unverified:
        return InputError(
            f"no artefact in {folder} is verified for this machine: run `icnet verify {folder}` "
            f"first, or name one file ({_first(offer.unverified)})"
        )
    if offer.missing:
        return UnavailableError(
            f"no artefact in {folder} runs on this machine: {_first(offer.missing)}"
        )
    reasons = _first(offer.left_out) or "nothing in it runs where it was asked to"
    return InputError(f"no artefact in {folder} is what was asked for: {reasons}")


def _first(parts: Sequence[str], between: str = "; ") -> str:
    """The first few of them, for a message that can be read; and how many more there are."""
    more = [f"and {len(parts) - _SHOWN} more"] if len(parts) > _SHOWN else []
    return between.join([*parts[:_SHOWN], *more])
