"""The result of `icnet verify`: a table for the screen, JSON, HTML, and the folder's record.

The record is where `Predictor.open` reads of a folder what passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from icnet_deploy.errors import InputError, OutputError
from icnet_deploy.evaluation.parity.comparison import Comparison
from icnet_deploy.evaluation.parity.report import (
    Failure,
    badge,
    parity_sections,
    to_dict,
    verdict_table,
)
from icnet_deploy.evaluation.score import Protocol
from icnet_deploy.evaluation.verify.folder import Artefact, Folder
from icnet_deploy.report.html import page, tag, where
from icnet_deploy.report.tables import Table
from icnet_deploy.runtime.auto.verdicts import (
    NAME,
    Verdict,
    Verdicts,
    read_verdicts,
    write_verdicts,
)
from icnet_deploy.runtime.machine import machine, versions

SCHEMA = 1
"""Of the JSON result; raised when a reader of today could misunderstand it."""


@dataclass(frozen=True)
class Result:
    """All that was found out about a folder.

    Attributes:
        folder: its files.
        weights: the checkpoint that they were compared with.
        rows: what was compared.
        failures: what could not be compared, or may not be released as it is.
        untried: those of them that this machine has not what it takes to compare.
        left_out: a sentence for each file and runtime that was not compared, and need not be.
    """

    folder: Folder
    weights: Path
    rows: Sequence[Comparison]
    failures: Sequence[Failure]
    untried: Sequence[Failure]
    left_out: Sequence[str]

    def bad_files(self) -> list[str]:
        """The names of the artefacts that do not pass."""
        bad = {failure.name for failure in self.failures}
        bad |= {row.artefact.name for row in self.rows if row.breaches()}
        return [name for a in self.folder.artefacts if (name := a.path.name) in bad]

    def __str__(self) -> str:
        return "\n".join(
            [verdict_table(self.rows, self.left_out, self.failures), *self._said_of_files()]
        )

    def _said_of_files(self) -> Iterator[str]:
        yield f"compared with: {self.weights.name}"
        for artefact in self.folder.artefacts:
            yield from (f"note: {artefact.path.name}: {note}" for note in artefact.notes)
        if self.folder.checkpoints:
            names = ", ".join(path.name for path in self.folder.checkpoints)
            yield f"checkpoints, not artefacts: {names}"
        if self.folder.others:
            yield f"not artefacts: {', '.join(self.folder.others)}"
        if self.folder.leftovers:
            names = ", ".join(self.folder.leftovers)
            yield f"left by a process that was killed, remove: {names}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        bad = self.bad_files()
        return {
            "schema": SCHEMA,
            "kind": "verify",
            "verdict": "fail" if bad else "pass",
            "versions": versions(),
            "machine": machine(),
            "artefacts": [
                a.to_dict() | {"verdict": "fail" if a.path.name in bad else "pass"}
                for a in self.folder.artefacts
            ],
            "checkpoints": {path.name: digest for path, digest in self.folder.checkpoints.items()},
            "not_artefacts": self.folder.others,
            "leftovers": self.folder.leftovers,
            "failures": [failure._asdict() for failure in self.failures],
            "parity": to_dict(self.rows, self.left_out) if self.rows else None,
        }

    def page(self) -> str:
        """The report as one HTML document."""
        bad = self.bad_files()
        count = len(self.folder.artefacts)
        verdict = f"{len(bad)} of {count} do not pass" if bad else f"all {count} pass"
        return page(
            "Release check",
            tag("p", badge(verdict, good=not bad)),
            tag("h2", "Files"),
            Table(
                ["File", "Verdict", "Precision", "SHA-256", "Notes"],
                [_cells(artefact, artefact.path.name in bad) for artefact in self.folder.artefacts],
                left=5,
            ).html(),
            *(tag("p", tag("strong", "Failed: "), str(failure)) for failure in self.failures),
            *(tag("p", said, class_="quiet") for said in self._said_of_files()),
            parity_sections(self.rows, self.left_out)
            if self.rows
            else tag("p", "Nothing could be compared."),
            where(machine() | versions()),
        )


def _cells(artefact: Artefact, bad: bool) -> list[str]:
    return [
        artefact.path.name,
        badge("fails" if bad else "passes", good=not bad),
        artefact.metadata.precision if artefact.metadata else "-",
        f"{artefact.sha256[:16]}...",
        "; ".join(artefact.notes),
    ]


def record(result: Result) -> str:
    """Writes the verdicts, beside those found elsewhere of files that are unchanged.

    Returns:
        A line that says where they are, or why they could not be written: the check itself is
        none the worse for a folder that cannot be.
    """
    folder = result.folder
    try:
        known = read_verdicts(folder.path)
    except InputError:  # of a newer version, or damaged: it is written anew
        known = Verdicts()
    renewed = known.renewed(_verdicts_of(result), (a.sha256 for a in folder.artefacts))
    try:
        write_verdicts(folder.path, renewed)
    except OutputError as error:
        return f"not recorded, so that `auto` will not take these files: {error}"
    return f"recorded for `auto`: {folder.path / NAME}"


def _verdicts_of(result: Result) -> Iterator[Verdict]:
    """A verdict for each row, and for each failure that is not this machine's."""
    here: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": machine()["cpu"],
        "cpu_flags": tuple(machine()["cpu_flags"]),
        "versions": versions(),
    }
    artefacts = {artefact.path.name: artefact for artefact in result.folder.artefacts}
    for row in result.rows:
        breaches = row.breaches()
        yield Verdict(
            file=row.artefact.name,
            sha256=row.sha256,
            runtime=row.runtime,
            device=row.device,
            passed=not breaches,
            reason="; ".join(breaches),
            miou_points=round(row.miou_points(), 6),
            scored_on=_scored_on(row.score.protocol()),
            limits=str(row.budget),
            **here,
        )
    for failure in result.failures:
        artefact = artefacts[failure.name]
        if failure in result.untried or not artefact.sha256:
            continue
        anywhere = failure.runtime == "-" or artefact.file.is_engine
        yield Verdict(
            file=failure.name,
            sha256=artefact.sha256,
            runtime=None if anywhere else failure.runtime,
            device=None,
            passed=False,
            reason=failure.reason,
            miou_points=None,
            scored_on="",
            limits="",
            **here,
        )


def _scored_on(protocol: Protocol) -> str:
    sizes = ", ".join(protocol.label_sizes)
    return f"{protocol.images} images of {protocol.dataset} {protocol.split}, {sizes}"
