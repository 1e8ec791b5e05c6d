"""What `icnet verify` found of a folder's files, kept beside them as `verified.json`.

A verdict holds for a file's bytes, by their SHA-256, on one runtime and device. A file that is
changed later has none, whatever its name.

Until version 0.2 a file passed or failed; since then there is a third verdict, undecided. Such a
file passes, by the word that earlier versions read, so that they read the record, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from icnet_deploy.documents import (
    BOOL,
    NUMBER,
    OBJECT,
    SHA256,
    TEXT,
    Kind,
    Schema,
    list_of,
    object_of,
    object_with,
    one_of,
    or_null,
)
from icnet_deploy.errors import InputError
from icnet_deploy.files import write_json
from icnet_deploy.report.tables import signed
from icnet_deploy.runtime.backends.registry import DEVICES, RUNTIMES

NAME = "verified.json"
"""The record's name in the folder."""

_SCHEMA = 1
"""Raised when a reader of today could misunderstand the file."""

PAST, UNDECIDED, WITHIN = "past", "undecided", "within"
"""What a file is of its limits, as `icnet_deploy.evaluation.verdicts` says it; the worst first."""

_WORST_FIRST = (PAST, UNDECIDED, WITHIN)

RUNTIME = Kind(lambda value: value in [*RUNTIMES], "the name of a runtime")

_WHAT = "a record of `icnet verify FOLDER`, which writes it again"
_RECORD = Schema(_WHAT, {"kind": one_of("verified"), "verdicts": list_of(OBJECT)}, newest=_SCHEMA)
_INTERVAL = dict.fromkeys(("value", "low", "high", "groups", "effective_images"), NUMBER)
_ENTRY = Schema(
    _WHAT,
    {
        "file": TEXT,
        "sha256": SHA256,
        # "rounded" is how `icnet parity` stands in for a GPU: nothing that auto takes.
        "runtime": Kind(
            lambda value: value in [*RUNTIMES, "rounded", None],
            f"{RUNTIME.words}, rounded or null",
        ),
        "device": or_null(one_of(*DEVICES)),
        "passed": BOOL,
        "verdict": one_of(*_WORST_FIRST),
        "miou_points": or_null(NUMBER),
        **dict.fromkeys(("reason", "scored_on", "limits", "date", "processor"), TEXT),
        "versions": object_of(TEXT),
        "cpu_flags": list_of(TEXT),
        "undecided": TEXT,
        "miou_difference_points": or_null(object_with(_INTERVAL)),
    },
    # younger than the first records
    optional=("cpu_flags", "verdict", "undecided", "miou_difference_points"),
)


@dataclass(frozen=True)
class Entry:
    """What was found of one file, on one runtime and device.

    Attributes:
        file, sha256: the file.
        runtime: what ran it; None for a fault that it has wherever it is run.
        device: `cpu` or `cuda`; None for either.
        verdict: `within` its limits, `past` one, or `undecided`; what cannot be loaded or compared
            is `past`, too.
        reason: why it is past, in words; empty if it is not.
        miou_points: difference of mIoU from the PyTorch model, in points; None if none was scored.
        scored_on: the images, in words.
        limits: what it was held to, in words.
        date: when, UTC, ISO 8601.
        processor: where.
        cpu_flags: its instructions that matter; see `machine.cpu`. Empty in a record that does not
            tell.
        versions: name -> version of what was used.
        undecided: what is, and what would decide it, in words; empty if nothing is.
        miou_difference_points: the same difference as `miou_points`, with the interval in which it
            lies: `value`, `low`, `high`, `groups`, `effective_images`; None where it is not known.
    """

    file: str
    sha256: str
    runtime: str | None
    device: str | None
    verdict: str
    reason: str
    miou_points: float | None
    scored_on: str
    limits: str
    date: str
    processor: str
    versions: dict[str, str] = field(default_factory=dict)
    cpu_flags: tuple[str, ...] = ()
    undecided: str = ""
    miou_difference_points: dict[str, float] | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing says that it is past a limit."""
        return self.verdict != PAST

    def __str__(self) -> str:
        words = {PAST: "past a limit", UNDECIDED: "undecided", WITHIN: "within its limits"}
        if self.miou_points is None:
            return words[self.verdict]
        known = self.miou_difference_points
        points = f"{signed(self.miou_points)} points"
        if known is not None:
            points += f" [{signed(known['low'])}, {signed(known['high'])}]"
        return (
            f"{words[self.verdict]}: mIoU {points} from the reference, on {self.scored_on}; "
            f"limits: {self.limits}"
        )

    def covers(self, runtime: str, device: str) -> bool:
        """Whether it speaks of that runtime on that device."""
        return self.runtime in (None, runtime) and self.device in (None, device)


@dataclass(frozen=True)
class Verdicts:
    """All verdicts of a folder."""

    entries: tuple[Entry, ...] = ()

    def of(self, sha256: str, runtime: str, device: str) -> Entry | None:
        """What is known of a file there: the worst of several; None: nothing."""
        known = [e for e in self.entries if e.sha256 == sha256 and e.covers(runtime, device)]
        return min(known, key=lambda entry: _WORST_FIRST.index(entry.verdict), default=None)

    def changed(self, file: str, sha256: str) -> bool:
        """Whether a file of that name was looked at, and none of these bytes."""
        known = {entry.sha256 for entry in self.entries if entry.file == file}
        return bool(known) and sha256 not in known

    def renewed(self, new: Iterable[Entry], present: Iterable[str]) -> Verdicts:
        """Takes in what was found now, and keeps what was found elsewhere of files still there.

        Args:
            new: entries; each replaces those that it covers.
            present: the SHA-256 of every file in the folder.
        """
        new, present = tuple(new), set(present)
        places = {(one.sha256, one.runtime, one.device) for one in new}
        looked_at = {one.sha256 for one in new}

        def stands(old: Entry) -> bool:
            anywhere = old.runtime is None or old.device is None  # was looked for again
            place = (old.sha256, old.runtime, old.device)
            renewed = old.sha256 in looked_at if anywhere else place in places
            return old.sha256 in present and not renewed

        return Verdicts((*filter(stands, self.entries), *new))


def read_verdicts(folder: Path) -> Verdicts:
    """Reads a folder's record; without one, nothing is verified.

    Raises:
        InputError: there is one, and it cannot be read, or something in it is not as it is written.
    """
    path = folder / NAME
    record = _RECORD.read_if_there(path) or {"verdicts": ()}
    return Verdicts(tuple(_entry(value, path) for value in record["verdicts"]))


def _entry(value: Any, path: Path) -> Entry:
    fields = _ENTRY.fit(value, str(path))
    passed = fields.pop("passed")
    fields.setdefault("verdict", WITHIN if passed else PAST)
    entry = Entry(**fields | {"cpu_flags": tuple(fields.get("cpu_flags", ()))})
    if problem := _contradiction(entry, passed):
        raise InputError(f"{path} is not {_WHAT}: the verdict of {entry.file} says {problem}")
    return entry


def _contradiction(entry: Entry, passed: bool) -> str:
    """How an entry contradicts itself, in words; empty if it does not."""
    everywhere = entry.runtime is None or entry.device is None
    if passed and (everywhere or entry.reason or entry.miou_points is None):
        return "that it passed, but not where or by how much, or also why it did not pass"
    if passed != entry.passed:
        return f"{entry.verdict}, but also that it {'passed' if passed else 'did not pass'}"
    if bool(entry.undecided) != (entry.verdict == UNDECIDED):
        return (
            f"{entry.verdict}, but "
            f"{'also what is undecided' if entry.undecided else 'not what is undecided'}"
        )
    known = entry.miou_difference_points
    if known is not None and not (
        known["value"] == entry.miou_points and known["low"] <= known["value"] <= known["high"]
    ):
        return "two different differences of mIoU, or one outside its interval"
    return ""


def write_verdicts(folder: Path, verdicts: Verdicts) -> None:
    """Writes a folder's record.

    Raises:
        OutputError: the folder cannot be written.
    """
    values = [asdict(entry) | {"passed": entry.passed} for entry in verdicts.entries]
    write_json(folder / NAME, {"schema": _SCHEMA, "kind": "verified", "verdicts": values})
