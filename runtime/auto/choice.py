"""The fastest verified artefact of a folder on this machine: measured once, and remembered.

What is remembered is keyed by all that the answer hangs on: the candidates' bytes and where they
can run, the processor and the cores that this process may use, GPUs, versions, threads, streams.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from icnet_deploy._version import __version__
from icnet_deploy.cache import cache_folder
from icnet_deploy.documents import (
    COUNT,
    NUMBER,
    OBJECT,
    SHA256,
    TEXT,
    Kind,
    list_of,
    one_of,
    read,
    take,
)
from icnet_deploy.errors import IcnetError, ModelError, OutputError, UnavailableError
from icnet_deploy.files import write_json
from icnet_deploy.runtime import machine
from icnet_deploy.runtime.auto.candidates import Candidate, Found, Request, find_candidates
from icnet_deploy.runtime.auto.folder import ENGINE_SUFFIXES, digest_of
from icnet_deploy.runtime.auto.race import race
from icnet_deploy.runtime.backends.registry import DEVICES, RUNTIMES
from icnet_deploy.runtime.predictor import Predictor

_SCHEMA = 1
"""Of what is remembered; raised when its layout or the way of measuring changes."""

_REMEMBERED = {"schema": one_of(_SCHEMA), "key": OBJECT, "choice": OBJECT}
_CHOICE = {
    "folder": TEXT,
    "candidates": Kind(lambda value: isinstance(value, list) and bool(value), "a list of some"),
    "left_out": list_of(TEXT),
    "measured": TEXT,
}
_TIMED = {
    **dict.fromkeys(("file", "precision", "head"), TEXT),
    "sha256": SHA256,
    "runtime": one_of(*RUNTIMES),
    "device": one_of(*DEVICES),
    "median_ms": Kind(lambda value: NUMBER.fits(value) and value > 0, "a time above 0"),
    "runs": Kind(lambda value: COUNT.fits(value) and value > 0, "a whole number from 1 on"),
}
"""Of what is remembered: what each part must be."""


@dataclass(frozen=True)
class Timed:
    """A candidate, and how long an image takes it.

    Attributes:
        file, sha256, precision, head: the artefact.
        runtime, device: where it runs.
        median_ms: from an image in memory to its label map, in milliseconds; None where there was
            nothing to choose from.
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

    @classmethod
    def of(cls, candidate: Candidate, seconds: float | None = None, runs: int = 0) -> Timed:
        """A candidate with its median in seconds."""
        path, digest, runtime, device, precision, head = candidate
        ms = None if seconds is None else round(seconds * 1e3, 2)
        return cls(path.name, digest, precision, head, runtime, device, ms, runs)

    def is_of(self, candidate: Candidate) -> bool:
        """Whether it is that candidate, whatever the file is called now."""
        same = (candidate.sha256, candidate.runtime, candidate.device)
        return (self.sha256, self.runtime, self.device) == same


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        folder: of the artefacts.
        candidates: the chosen one, then the others, the faster first.
        left_out: a sentence for each file and place that was not among them.
        measured: when, UTC, ISO 8601; None where there was nothing to choose from.
        remembered: whether that was an earlier time.
        note: what to know of the chosen one, in words; empty if there is nothing.
    """

    folder: str
    candidates: tuple[Timed, ...]
    left_out: tuple[str, ...]
    measured: str | None
    remembered: bool
    note: str = ""

    @property
    def winner(self) -> Timed:
        """The one that was opened."""
        return self.candidates[0]

    def __str__(self) -> str:
        best = self.winner
        chosen = f"{best.file} ({best.precision}) on {best.runtime}, {best.device}"
        note = f"; {self.note}" if self.note else ""
        if self.measured is None:
            return f"{chosen}: the only candidate in {self.folder}{note}"
        when = f"{'remembered from' if self.remembered else 'measured'} {self.measured}"
        return (
            f"{chosen}: the fastest of {len(self.candidates)} candidates in {self.folder}, "
            f"{best.median_ms:.1f} ms an image ({when}){note}"
        )


def open_fastest(folder: Path, request: Request | None = None, *, anew: bool = False) -> Predictor:
    """Opens the fastest candidate of a folder; its `choice` says why.

    Args:
        folder: of the artefacts.
        request: what is asked for.
        anew: measure also where the answer is remembered.

    Raises:
        InputError, UnavailableError: as `find_candidates`.
        ModelError: the files change while they are read.
    """
    request = request or Request()
    for fresh in (False, True):
        found = find_candidates(folder, request, fresh=fresh)
        with suppress(_Changed):
            return _open_best(folder, request, found, anew)
    raise ModelError(f"the files in {folder} change while they are read: try again")


class _Changed(Exception):
    """An artefact is not what it was when its folder was read."""


def _open_best(folder: Path, request: Request, found: Found, anew: bool) -> Predictor:
    if len(found.candidates) == 1:
        only = Timed.of(found.candidates[0])
        return _open_chosen(
            Choice(str(folder), (only,), tuple(found.left_out), None, False), found, request
        )
    key = _key(found.candidates, request)
    path = _kept_in(key)
    asked, known = ({}, None) if anew or path is None else _read(path)
    told = known and asked == _as_json(key) and _retold(known, folder, found)
    if told:
        with suppress(IcnetError):  # what ran then and does not now is measured again
            return _open_chosen(told, found, request)
    return _open_chosen(_measure(folder, request, found, key, path), found, request)


def _open_chosen(choice: Choice, found: Found, request: Request) -> Predictor:
    """Opens the winner, whose bytes are those of the verdict before it is opened and after."""
    winner = next(one for one in found.candidates if choice.winner.is_of(one))
    digest = digest_of(winner.path)
    if digest.sha256 != winner.sha256:
        raise _Changed
    predictor = _open(winner, request, cached=True)
    if not digest.stands(winner.path.parent):
        predictor.close()
        raise _Changed
    predictor.choice = replace(choice, note=found.notes.get(winner, ""))
    return predictor


def _measure(
    folder: Path, request: Request, found: Found, key: dict[str, Any], path: Path | None
) -> Choice:
    """Runs the candidates against each other, and remembers the answer."""
    ranked, failed = race(found.candidates, lambda one: _open(one, request), request.streams)
    if not ranked:
        raise UnavailableError(f"nothing in {folder} runs on this machine: {'; '.join(failed)}")
    timed = tuple(Timed.of(one.candidate, one.median, len(one.seconds)) for one in ranked)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    choice = Choice(str(folder), timed, (*found.left_out, *failed), now, remembered=False)
    if path is not None:
        with suppress(OutputError):  # it is measured again next time
            told = asdict(replace(choice, folder=str(folder.resolve()), left_out=tuple(failed)))
            write_json(path, {"schema": _SCHEMA, "key": key, "choice": told})
    return choice


def _open(candidate: Candidate, request: Request, *, cached: bool | None = None) -> Predictor:
    if candidate.path.suffix in ENGINE_SUFFIXES:
        return Predictor.from_engine(candidate.path, candidate.runtime, require_manifest=True)
    return Predictor.from_onnx(
        candidate.path,
        candidate.runtime,
        candidate.device,
        request.threads,
        streams=request.streams,
        cached=cached,
    )


def _retold(known: Choice, folder: Path, found: Found) -> Choice | None:
    """What is remembered, of the files as they are called now; None if it is of others."""
    candidates = []
    for one in known.candidates:
        now = next(filter(one.is_of, found.candidates), None)
        if now is None:
            return None
        candidates.append(replace(one, file=now.path.name, precision=now.precision, head=now.head))
    left_out = (*found.left_out, *known.left_out)
    return replace(known, folder=str(folder), candidates=tuple(candidates), left_out=left_out)


def _here() -> dict[str, Any]:
    """What the answer hangs on besides the candidates and how they are run."""
    found = machine.cpu()
    return {
        "cpu": [found["model"], found["cores"], found["flags"]],
        "icnet-deploy": __version__,
        "label_map": machine.label_maps()["kind"],
    }


def _key(candidates: list[Candidate], request: Request) -> dict[str, Any]:
    packages = {RUNTIMES[one.runtime].package for one in candidates}
    on_gpu = any(one.device == "cuda" for one in candidates)
    return {
        "here": _here(),
        "gpus": [gpu["name"] for gpu in machine.gpus()] if on_gpu else [],
        "versions": {name: machine.package_version(name) for name in sorted(packages)},
        "threads": request.threads,
        "streams": request.streams,
        "candidates": sorted([one.sha256, one.runtime, one.device] for one in candidates),
    }


def _as_json(value: Any) -> Any:
    """A value as it is read back: tuples are lists."""
    return json.loads(json.dumps(value))


def _kept_in(key: dict[str, Any]) -> Path | None:
    kept = cache_folder("choices")
    name = hashlib.sha256(json.dumps([_SCHEMA, key], sort_keys=True).encode()).hexdigest()[:32]
    return kept and kept / f"{name}.json"


def _read(path: Path) -> tuple[dict[str, Any], Choice | None]:
    """What it was measured for, and the answer; ({}, None) where neither can be read."""
    try:
        value = take(read(path), _REMEMBERED)
        told = take(value["choice"], _CHOICE)
        timed = tuple(Timed(**take(one, _TIMED)) for one in told["candidates"])
        left_out = tuple(told["left_out"])
        return value["key"], Choice(told["folder"], timed, left_out, told["measured"], True)
    except (OSError, ValueError):
        return {}, None


def remembered_choices() -> Iterator[Choice]:
    """What is remembered for this machine and version, in the order it was measured."""
    kept = cache_folder("choices")
    # None that is hidden: it is being written, or a killed process left it.
    found = map(_read, kept.glob("[!.]*.json")) if kept and kept.is_dir() else ()
    here = _as_json(_here())
    mine = [choice for key, choice in found if choice and key.get("here") == here]
    yield from sorted(mine, key=lambda choice: choice.measured or "")
