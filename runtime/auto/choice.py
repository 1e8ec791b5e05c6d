"""The fastest verified artefact of a folder on this machine: measured once, and remembered.

What is remembered is keyed by all that the answer hangs on: the candidates' bytes and where they
can run, the processor and the cores that this process may use, GPUs, versions, threads, streams.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from os.path import isdir
from pathlib import Path
from typing import Any, Generic, TypeVar

from icnet_deploy.documents import (
    FROM_ONE,
    NUMBER,
    OBJECT,
    SHA256,
    TEXT,
    Kind,
    Schema,
    as_read,
    list_of,
    one_of,
    take,
)
from icnet_deploy.errors import IcnetError, InputError, ModelError, OutputError, UnavailableError
from icnet_deploy.files import cache_folder, real_path, write_json
from icnet_deploy.runtime import machine
from icnet_deploy.runtime.auto.candidates import Candidate, Offer, Request, find_candidates
from icnet_deploy.runtime.auto.folder import digest_of, kept_file
from icnet_deploy.runtime.auto.race import Clock, Opened, race, seconds_an_image
from icnet_deploy.runtime.auto.verdicts import RUNTIME
from icnet_deploy.runtime.backends.registry import DEVICES, RUNTIMES

_SCHEMA = 1
"""Of what is remembered; raised when its layout or the way of measuring changes."""

_REMEMBERED = Schema(
    "a remembered choice", {"schema": one_of(_SCHEMA), "key": OBJECT, "choice": OBJECT}
)
_CHOICE = {
    "folder": TEXT,
    "candidates": Kind(lambda value: isinstance(value, list) and bool(value), "a list of some"),
    "left_out": list_of(TEXT),
    "measured": TEXT,
}
_TIMED = {
    **dict.fromkeys(("file", "precision", "head"), TEXT),
    "sha256": SHA256,
    "runtime": RUNTIME,
    "device": one_of(*DEVICES),
    "median_ms": Kind(lambda value: NUMBER.fits(value) and value > 0, "a time above 0"),
    "runs": FROM_ONE,
}
"""Of what is remembered: what each part must be."""

_Model = TypeVar("_Model", bound=Opened)


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
    candidates: tuple[Candidate, ...]
    left_out: tuple[str, ...]
    measured: str | None
    remembered: bool
    note: str = ""

    @property
    def winner(self) -> Candidate:
        """The one that was opened."""
        return self.candidates[0]

    def speaking_of(self, place: Path, copy: Path) -> "Choice":
        """The same of the folder that was asked for, where what was opened is a copy of it."""
        left_out = tuple(one.replace(str(copy), str(place)) for one in self.left_out)
        return replace(self, left_out=left_out, note=self.note.replace(str(copy), str(place)))

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


def open_fastest(
    folder: Path,
    request: Request,
    open_one: Callable[..., _Model],
    *,
    anew: bool = False,
    clock: Clock = seconds_an_image,
    here: Any = machine,
    copy_of: Path | None = None,
) -> tuple[_Model, Choice]:
    """Opens the fastest candidate of a folder, and says why it is that one.

    Args:
        folder: of the artefacts.
        request: what is asked for.
        open_one: opens a `Candidate`; the one that is chosen with `cached=True`.
        anew: measure also where the answer is remembered.
        clock: times a run.
        here: what the machine has; see `runtime.machine`.
        copy_of: the folder that this one is a copy of, for a short time; None: it is none.

    Raises:
        InputError, UnavailableError: as `find_candidates`.
        ModelError: the files change while they are read.
    """
    chooser = _Chooser(folder, copy_of or folder, request, open_one, clock, here)
    for fresh in (False, True):
        offer = find_candidates(folder, request, fresh=fresh, keep=copy_of is None, here=here)
        with suppress(_Changed):
            return chooser.open_best(offer, anew)
    raise ModelError(f"the files in {folder} change while they are read: try again")


class _Changed(Exception):
    """An artefact is not what it was when its folder was read."""


@dataclass(frozen=True)
class _Chooser(Generic[_Model]):
    """Chooses among what a folder offers; see `open_fastest`."""

    folder: Path
    called: Path
    request: Request
    open_one: Callable[..., _Model]
    clock: Clock
    here: Any

    def open_best(self, offer: Offer, anew: bool) -> tuple[_Model, Choice]:
        if len(offer.candidates) == 1:
            left_out = tuple(offer.left_out)
            choice = Choice(str(self.called), tuple(offer.candidates), left_out, None, False)
            return self._open(choice, offer)
        key = self._key(offer.candidates)
        path = kept_file("choices", json.dumps([_SCHEMA, key], sort_keys=True))
        known = None if anew or path is None else read_choice(path)
        again = known and known[0] == as_read(key) and self._retold(known[1], offer)
        if again:
            with suppress(IcnetError):  # what ran then and does not now is measured again
                return self._open(again, offer)
        return self._open(self._measure(offer, key, path), offer)

    def _open(self, choice: Choice, offer: Offer) -> tuple[_Model, Choice]:
        """Opens the winner, whose bytes are those of the verdict before it is opened and after."""
        winner = choice.winner
        path = self.folder / winner.file
        digest = digest_of(path)
        if digest.sha256 != winner.sha256:
            raise _Changed
        model = self.open_one(winner, cached=True)
        if not digest.stands(self.folder):
            model.close()
            raise _Changed
        return model, replace(choice, note=offer.notes.get(winner.place, ""))

    def _measure(self, offer: Offer, key: dict[str, Any], path: Path | None) -> Choice:
        """Runs the candidates against each other, and remembers the answer."""
        streams = self.request.streams
        timed, failed = race(offer.candidates, self.open_one, streams, self.clock)
        if not timed:
            reasons = "; ".join(failed)
            raise UnavailableError(f"nothing in {self.folder} runs on this machine: {reasons}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        left_out = (*offer.left_out, *failed)
        choice = Choice(str(self.called), tuple(timed), left_out, now, remembered=False)
        if path is not None:
            kept = replace(choice, folder=str(real_path(self.called)), left_out=tuple(failed))
            with suppress(OutputError):  # it is measured again next time
                write_json(path, {"schema": _SCHEMA, "key": key, "choice": asdict(kept)})
        return choice

    def _retold(self, known: Choice, offer: Offer) -> Choice | None:
        """What is remembered, of the files as they are called now; None if it is of others."""
        offered = {one.place: one for one in offer.candidates}
        if not offered.keys() >= {one.place for one in known.candidates}:
            return None
        candidates = tuple(
            replace(offered[one.place], median_ms=one.median_ms, runs=one.runs)
            for one in known.candidates
        )
        left_out = (*offer.left_out, *known.left_out)
        return Choice(str(self.called), candidates, left_out, known.measured, True)

    def _key(self, candidates: list[Candidate]) -> dict[str, Any]:
        packages = {RUNTIMES[one.runtime].package for one in candidates}
        on_gpu = any(one.device == "cuda" for one in candidates)
        return {
            "here": _here(self.here),
            "gpus": [gpu["name"] for gpu in self.here.gpus()] if on_gpu else [],
            "versions": {name: self.here.package_version(name) for name in sorted(packages)},
            "threads": self.request.threads,
            "streams": self.request.streams,
            "candidates": sorted(list(one.place) for one in candidates),
        }


def _here(here: Any) -> dict[str, Any]:
    """What the answer hangs on besides the candidates and how they are run."""
    cpu = here.cpu()
    return {
        "cpu": [cpu["model"], cpu["cores"], cpu["flags"]],
        "icnet-deploy": here.__version__,
        "label_map": here.label_maps()["kind"],
    }


def read_choice(path: Path) -> tuple[dict[str, Any], Choice] | None:
    """What a remembered choice was measured for, and the choice; None where there is none."""
    try:
        remembered = _REMEMBERED.read(path)
        choice = take(remembered["choice"], _CHOICE)
        timed = tuple(Candidate(**take(one, _TIMED)) for one in choice["candidates"])
    except (InputError, ValueError):
        return None
    left_out = tuple(choice["left_out"])
    kept = Choice(choice["folder"], timed, left_out, choice["measured"], remembered=True)
    return remembered["key"], kept


def remembered_choices() -> Iterator[Choice]:
    """What is remembered for this machine and version, in the order it was measured."""
    folder = cache_folder("choices")
    # None that is hidden: it is being written, or a killed process left it.
    known = map(read_choice, folder.glob("[!.]*.json")) if folder and isdir(folder) else ()
    here = as_read(_here(machine))
    mine = [choice for key, choice in filter(None, known) if key.get("here") == here]
    yield from sorted(mine, key=lambda choice: choice.measured or "")
