"""A folder of artefacts: what each file must say of itself, and what was found of all of them.

That is a table for the screen, JSON, HTML, and the folder's record, where `Predictor.open` reads
what passed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from icnet_deploy.documents import parse
from icnet_deploy.errors import InputError, ModelError, OutputError
from icnet_deploy.evaluation.model import kind_of_model
from icnet_deploy.evaluation.parity.comparison import Comparison
from icnet_deploy.evaluation.parity.page import badge, parity_sections
from icnet_deploy.evaluation.parity.report import Failure, to_dict, verdict_table
from icnet_deploy.evaluation.score import Protocol, size_text
from icnet_deploy.evaluation.verdicts import Verdict as Held
from icnet_deploy.files import is_leftover, sha256
from icnet_deploy.metadata import NO_DIGEST, ArtefactMetadata
from icnet_deploy.precisions import precision_of
from icnet_deploy.report.html import page, tag
from icnet_deploy.report.tables import Table, where
from icnet_deploy.runtime.auto.folder import ArtefactFile, read_artefacts
from icnet_deploy.runtime.auto.verdicts import (
    NAME,
    PAST,
    WITHIN,
    Entry,
    Verdicts,
    read_verdicts,
    write_verdicts,
)
from icnet_deploy.runtime.machine import machine, versions

SCHEMA = 1
"""Of the JSON result; raised when a reader of today could misunderstand it."""


@dataclass
class Artefact:
    """An ONNX file or an engine of the folder.

    Attributes:
        file: what was read of it.
        sha256: of it and of its external data; empty if these cannot be read.
        metadata: what it says of itself; None if that cannot be read, and for an engine.
        problems: why it does not pass, in words.
        notes: what is worth saying, and no fault.
    """

    file: ArtefactFile
    sha256: str
    metadata: ArtefactMetadata | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    def failure(self, runtime: str, reason: str) -> Failure:
        """A row without numbers."""
        metadata = self.metadata
        precision, size = (metadata.precision, size_text(metadata.size)) if metadata else ("-", "-")
        return Failure(self.path.name, precision, runtime, size, reason)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "file": self.path.name,
            "sha256": self.sha256,
            "bytes": self.path.stat().st_size,
            "metadata": self.metadata and parse(self.metadata.to_json()),
            "problems": self.problems,
            "notes": self.notes,
        }


@dataclass
class Folder:
    """A folder's contents, by kind.

    Attributes:
        path: the folder.
        artefacts: ONNX files and engines.
        checkpoints: path -> SHA-256.
        others: the names of what is neither.
        leftovers: the names of files that a killed process left.
    """

    path: Path
    artefacts: list[Artefact]
    checkpoints: dict[Path, str]
    others: list[str]
    leftovers: list[str]

    def weights(self, shipped: Path) -> Path:
        """The checkpoint that most of the artefacts name: one of the folder's, or the shipped one.

        Raises:
            ModelError: none of them is named by any.
        """
        origins = [a.metadata.weights_sha256 for a in self.artefacts if a.metadata]
        candidates = {digest: path for path, digest in self.checkpoints.items()}
        candidates.setdefault(sha256(shipped), shipped)
        for digest, _ in Counter(origins).most_common():
            if digest in candidates:
                return candidates[digest]
        if any(origins):
            raise ModelError(
                f"no artefact in {self.path} was made from the shipped checkpoint, nor from one "
                "in the folder: name theirs with --weights"
            )
        return shipped  # nothing can be compared; each file says why

    def largest_size(self) -> tuple[int, int]:
        """(height, width) of the largest artefact; 1024x2048 if they take any."""
        sizes = [a.metadata.size for a in self.artefacts if a.metadata and a.metadata.size]
        return max(sizes, key=lambda size: size[0] * size[1], default=(1024, 2048))


def read_folder(path: Path) -> Folder:
    """Reads every file of a folder and judges what it says of itself.

    Raises:
        InputError: there is no such folder, or no artefact in it.
    """
    artefacts = [_judged(file) for file in read_artefacts(path)]
    paths = {artefact.path for artefact in artefacts}
    checkpoints, others, leftovers = {}, [], []
    for entry in sorted(path.iterdir()):
        if is_leftover(entry):
            leftovers.append(entry.name)
        elif _is_checkpoint(entry):
            checkpoints[entry] = sha256(entry)
        elif entry not in paths and entry.name != NAME:
            others.append(f"{entry.name}/" if entry.is_dir() else entry.name)
    _check_parents(artefacts)
    return Folder(path, artefacts, checkpoints, others, leftovers)


def _is_checkpoint(path: Path) -> bool:
    return kind_of_model(path) == "checkpoint" and path.is_file() and not path.name.startswith(".")


def _judged(file: ArtefactFile) -> Artefact:
    try:
        artefact = Artefact(file, file.sha256)
    except ModelError as error:  # of external data, too
        return Artefact(file, "", problems=[str(error)])
    if file.problem:
        artefact.problems.append(file.problem)
    if file.metadata is None or file.is_engine:
        return artefact
    artefact.metadata = file.metadata
    metadata, precision = file.metadata, precision_of(file.precision)
    needed: dict[str, object] = {
        "the network": metadata.network,
        "the preprocessing": metadata.preprocessing,
        "the tools that wrote it": metadata.tools,
    }
    if precision and precision.calibrated:
        needed["its calibration images"] = metadata.calibration_images
    missing = [name for name, value in needed.items() if not value]
    if missing:
        artefact.problems.append(
            f"its metadata says nothing of {', '.join(missing)}: export it again"
        )
    if not metadata.digest:
        artefact.notes.append(NO_DIGEST)
    if metadata.training_data is None:
        artefact.notes.append("it does not say what its weights were trained on")
    return artefact


def _check_parents(artefacts: Sequence[Artefact]) -> None:
    """Follows each `parent_sha256` to a file, whose network must be the same."""
    files = {artefact.sha256: artefact for artefact in artefacts}
    for artefact in artefacts:
        metadata = artefact.metadata
        if metadata is None or metadata.parent_sha256 is None:
            continue
        parent = files.get(metadata.parent_sha256)
        if parent is None:
            artefact.notes.append(
                f"its parent, SHA-256 {metadata.parent_sha256[:16]}..., is not in the folder"
            )
        elif parent.metadata is not None:
            artefact.notes.append(f"made from {parent.path.name}")
            differences = [
                name
                for name in ("weights_sha256", "label_set", "size", "head")
                if getattr(metadata, name) != getattr(parent.metadata, name)
            ]
            if differences:
                artefact.problems.append(
                    f"it is made from {parent.path.name} and differs from it in "
                    f"{', '.join(differences)}"
                )


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

    def _said_of_files(self) -> list[str]:
        folder = self.folder
        others = {
            "checkpoints, not artefacts": [path.name for path in folder.checkpoints],
            "not artefacts": folder.others,
            "left by a process that was killed, remove": folder.leftovers,
        }
        return [
            f"compared with: {self.weights.name}",
            *(f"note: {a.path.name}: {note}" for a in folder.artefacts for note in a.notes),
            *(f"{what}: {', '.join(names)}" for what, names in others.items() if names),
        ]

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
            tag("p", badge(verdict, Held.PAST if bad else Held.WITHIN)),
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
        badge("fails" if bad else "passes", Held.PAST if bad else Held.WITHIN),
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
    renewed = known.renewed(_entries(result), (a.sha256 for a in folder.artefacts))
    try:
        write_verdicts(folder.path, renewed)
    except OutputError as error:
        return f"not recorded, so that `auto` will not take these files: {error}"
    return f"recorded for `auto`: {folder.path / NAME}"


def _entries(result: Result) -> Iterator[Entry]:
    """An entry for each row, and for each failure that is not this machine's."""
    here: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": machine()["cpu"],
        "cpu_flags": tuple(machine()["cpu_flags"]),
        "versions": versions(),
    }
    artefacts = {artefact.path.name: artefact for artefact in result.folder.artefacts}
    for row in result.rows:
        breaches = row.breaches()
        yield Entry(
            file=row.artefact.name,
            sha256=row.sha256,
            runtime=row.runtime,
            device=row.device,
            verdict=PAST if breaches else WITHIN,
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
        yield Entry(
            file=failure.name,
            sha256=artefact.sha256,
            runtime=None if anywhere else failure.runtime,
            device=None,
            verdict=PAST,
            reason=failure.reason,
            miou_points=None,
            scored_on="",
            limits="",
            **here,
        )


def _scored_on(protocol: Protocol) -> str:
    sizes = ", ".join(protocol.label_sizes)
    return f"{protocol.images} images of {protocol.dataset} {protocol.split}, {sizes}"
