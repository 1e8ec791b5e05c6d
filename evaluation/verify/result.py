"""What was found of a folder of artefacts: a table for the screen, JSON and HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from icnet_deploy.evaluation.float_network import Origin
from icnet_deploy.evaluation.parity.comparison import Comparison
from icnet_deploy.evaluation.parity.page import badge, parity_sections
from icnet_deploy.evaluation.parity.report import Failure, headline, to_dict, verdict_table
from icnet_deploy.evaluation.verdicts import Verdict
from icnet_deploy.evaluation.verify.folder import Artefact, Folder
from icnet_deploy.evaluation.verify.looks import Watch
from icnet_deploy.report.html import Html, page, tag
from icnet_deploy.report.tables import Table, where
from icnet_deploy.runtime.machine import machine, versions

SCHEMA = 2
"""Of the JSON result; raised when a reader of today could misunderstand it."""

FAILED = "failed"
"""What a file is that cannot be loaded or compared, or may not be released as it is."""

_WORST_FIRST = (FAILED, *map(str, Verdict))


@dataclass(frozen=True)
class Result:
    """All that was found out about a folder.

    Attributes:
        folder: its files.
        origin: the reference that they were compared with.
        rows: what was compared.
        failures: what could not be compared, or may not be released as it is.
        untried: those of them that this machine has not what it takes to compare.
        left_out: a sentence for each file and runtime that was not compared, and need not be.
        looks: which decided when there were images enough; None where all of them were asked for.
    """

    folder: Folder
    origin: Origin
    rows: Sequence[Comparison]
    failures: Sequence[Failure]
    untried: Sequence[Failure]
    left_out: Sequence[str]
    looks: Watch | None = None

    def verdicts(self) -> dict[str, str]:
        """The name of each artefact -> the worst that was found of it: a `Verdict`, or `FAILED`."""
        words: dict[str, list[str]] = {a.path.name: [] for a in self.folder.artefacts}
        for failure in self.failures:
            words[failure.name].append(FAILED)
        for row in self.rows:
            words[row.artefact.name].append(str(row.judgement().verdict))
        return {name: min(some, key=_WORST_FIRST.index) for name, some in words.items()}

    def verdict(self) -> str:
        """The worst of all artefacts."""
        return min(self.verdicts().values(), key=_WORST_FIRST.index)

    def __str__(self) -> str:
        return "\n".join(
            [verdict_table(self.rows, self.left_out, self.failures), *self._said_of_files()]
        )

    def _said_of_files(self) -> list[str]:
        folder = self.folder
        others = {
            "checkpoints, not artefacts": [path.name for path in folder.checkpoints],
            "not artefacts": folder.others,
            "left by a killed process, to be deleted": folder.leftovers,
        }
        return [
            *([f"looks: {self.looks}"] if self.looks and self.rows else []),
            f"reference: {self.origin.name}",
            *(f"note: {a.path.name}: {note}" for a in folder.artefacts for note in a.notes),
            *(f"{what}: {', '.join(names)}" for what, names in others.items() if names),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        verdicts = self.verdicts()
        return {
            "schema": SCHEMA,
            "kind": "verify",
            "verdict": self.verdict(),
            "versions": versions(),
            "machine": machine(),
            "artefacts": [
                a.to_dict() | {"verdict": verdicts[a.path.name]} for a in self.folder.artefacts
            ],
            "checkpoints": {path.name: digest for path, digest in self.folder.checkpoints.items()},
            "not_artefacts": self.folder.others,
            "leftovers": self.folder.leftovers,
            "failures": [failure._asdict() for failure in self.failures],
            "reference": self.origin.to_dict(),
            "looks": self.looks and self.looks.to_dict(),
            "parity": to_dict(self.rows, self.left_out) if self.rows else None,
        }

    def page(self) -> str:
        """The report as one HTML document."""
        verdicts = self.verdicts()
        return page(
            "Release check",
            tag("p", _counts(list(verdicts.values()))),
            tag("p", headline(self.rows) if self.rows else "Nothing could be compared."),
            tag("h2", "Files"),
            Table(
                ["File", "Verdict", "Precision", "SHA-256", "Notes"],
                [_cells(a, verdicts[a.path.name]) for a in self.folder.artefacts],
                left=5,
            ).html(),
            *(tag("p", tag("strong", "Failed: "), str(failure)) for failure in self.failures),
            *(tag("p", said, class_="quiet") for said in self._said_of_files()),
            parity_sections(self.rows, self.left_out) if self.rows else "",
            where(machine() | versions()),
        )


def _badge(text: str, word: str) -> Html:
    return badge(text, Verdict.PAST if word == FAILED else Verdict(word))


def _counts(words: Sequence[str]) -> list[Html]:
    """How many artefacts are of each verdict, the worst first."""
    return [
        tag("span", _badge(f"{count} of {len(words)} {word}", word), " ")
        for word in _WORST_FIRST
        if (count := words.count(word))
    ]


def _cells(artefact: Artefact, word: str) -> list[str]:
    return [
        artefact.path.name,
        _badge(word, word),
        artefact.metadata.precision if artefact.metadata else "-",
        f"{artefact.sha256[:16]}...",
        "; ".join(artefact.notes),
    ]
