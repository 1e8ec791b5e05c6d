"""What `icnet verify` found of a folder's files, kept beside them as `verified.json`.

A verdict holds for a file's bytes, by their SHA-256, on one runtime and device. A file that is
changed later has none, whatever its name.
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
    one_of,
    or_null,
)
from icnet_deploy.errors import InputError
from icnet_deploy.files import write_json
from icnet_deploy.runtime.backends.registry import DEVICES, RUNTIMES

NAME = "verified.json"
"""The record's name in the folder."""

_SCHEMA = 1
"""Raised when a reader of today could misunderstand the file."""

RUNTIME = Kind(lambda value: value in [*RUNTIMES], "the name of a runtime")

_WHAT = "a record of `icnet verify FOLDER`, which writes it anew"
_RECORD = Schema(_WHAT, {"kind": one_of("verified"), "verdicts": list_of(OBJECT)}, newest=_SCHEMA)
_VERDICT = Schema(
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
        "miou_points": or_null(NUMBER),
        **dict.fromkeys(("reason", "scored_on", "limits", "date", "processor"), TEXT),
        "versions": object_of(TEXT),
        "cpu_flags": list_of(TEXT),
    },
    optional=("cpu_flags",),
)


@dataclass(frozen=True)
class Verdict:
    """What was found of one file, on one runtime and device.

    Attributes:
        file, sha256: the file.
        runtime: what ran it; None for a fault that it has wherever it is run.
        device: `cpu` or `cuda`; None for either.
        passed: whether it is within its limits.
        reason: why not, in words; empty if it passed.
        miou_points: difference of mIoU from the PyTorch model, in points; None if none was scored.
        scored_on: the images, in words.
        limits: what it was held to, in words.
        date: when, UTC, ISO 8601.
        processor: where.
        cpu_flags: its instructions that matter; see `machine.cpu`. Empty in a record that does not
            tell.
        versions: name -> version of what was used.
    """

    file: str
    sha256: str
    runtime: str | None
    device: str | None
    passed: bool
    reason: str
    miou_points: float | None
    scored_on: str
    limits: str
    date: str
    processor: str
    versions: dict[str, str] = field(default_factory=dict)
    cpu_flags: tuple[str, ...] = ()

    def covers(self, runtime: str, device: str) -> bool:
        """Whether it speaks of that runtime on that device."""
        return self.runtime in (None, runtime) and self.device in (None, device)


@dataclass(frozen=True)
class Verdicts:
    """All verdicts of a folder."""

    verdicts: tuple[Verdict, ...] = ()

    def of(self, sha256: str, runtime: str, device: str) -> Verdict | None:
        """What is known of a file there: a failure if there is one, else a pass; None: nothing."""
        known = [v for v in self.verdicts if v.sha256 == sha256 and v.covers(runtime, device)]
        return min(known, key=lambda verdict: verdict.passed, default=None)

    def changed(self, file: str, sha256: str) -> bool:
        """Whether a file of that name was looked at, and none of these bytes."""
        known = {verdict.sha256 for verdict in self.verdicts if verdict.file == file}
        return bool(known) and sha256 not in known

    def renewed(self, new: Iterable[Verdict], present: Iterable[str]) -> Verdicts:
        """Takes in what was found now, and keeps what was found elsewhere of files still there.

        Args:
            new: verdicts; each replaces those that it covers.
            present: the SHA-256 of every file in the folder.
        """
        new, present = tuple(new), set(present)
        places = {(one.sha256, one.runtime, one.device) for one in new}
        looked_at = {one.sha256 for one in new}

        def stands(old: Verdict) -> bool:
            anywhere = old.runtime is None or old.device is None  # was looked for again
            place = (old.sha256, old.runtime, old.device)
            renewed = old.sha256 in looked_at if anywhere else place in places
            return old.sha256 in present and not renewed

        return Verdicts((*filter(stands, self.verdicts), *new))


def read_verdicts(folder: Path) -> Verdicts:
    """Reads a folder's record; without one, nothing is verified.

    Raises:
        InputError: there is one, and it cannot be read, or something in it is not as it is written.
    """
    path = folder / NAME
    record = _RECORD.read_if_there(path) or {"verdicts": ()}
    return Verdicts(tuple(_verdict(value, path) for value in record["verdicts"]))


def _verdict(value: Any, path: Path) -> Verdict:
    fields = _VERDICT.fit(value, str(path))
    verdict = Verdict(**fields | {"cpu_flags": tuple(fields.get("cpu_flags", ()))})
    everywhere = verdict.runtime is None or verdict.device is None
    if verdict.passed and (everywhere or verdict.reason or verdict.miou_points is None):
        raise InputError(
            f"{path} is not {_WHAT}: the verdict of {verdict.file} says that it passed, and not "
            "where, by how much, or why it did not"
        )
    return verdict


def write_verdicts(folder: Path, verdicts: Verdicts) -> None:
    """Writes a folder's record.

    Raises:
        OutputError: the folder cannot be written.
    """
    values = [asdict(verdict) for verdict in verdicts.verdicts]
    write_json(folder / NAME, {"schema": _SCHEMA, "kind": "verified", "verdicts": values})
