"""A folder of artefacts, and what each file of it must say of itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

from icnet_deploy.documents import parse
from icnet_deploy.errors import ModelError
from icnet_deploy.evaluation.model import kind_of_model
from icnet_deploy.evaluation.parity.report import Failure
from icnet_deploy.evaluation.score import size_text
from icnet_deploy.files import is_leftover, sha256
from icnet_deploy.images import Fitting
from icnet_deploy.metadata import NO_DIGEST, ArtefactMetadata
from icnet_deploy.precisions import precision_of
from icnet_deploy.runtime.auto.folder import ArtefactFile, read_artefacts
from icnet_deploy.runtime.auto.verdicts import NAME


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

    def largest_size(self) -> tuple[int, int]:
        """(height, width) of the largest artefact; if they take any, 1024x2048, or the next."""
        described = [a.metadata for a in self.artefacts if a.metadata]
        sizes = [metadata.size for metadata in described if metadata.size]
        if sizes:
            return max(sizes, key=lambda size: size[0] * size[1])
        size = (1024, 2048)
        for metadata in described:
            size = Fitting.of(metadata).next_size(size)
        return size


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
            others.append(f"{entry.name}/" if isdir(entry) else entry.name)
    _check_parents(artefacts)
    return Folder(path, artefacts, checkpoints, others, leftovers)


def _is_checkpoint(path: Path) -> bool:
    return kind_of_model(path) == "checkpoint" and isfile(path) and not path.name.startswith(".")


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
            f"its metadata does not state {', '.join(missing)}: export it again"
        )
    if not metadata.digest:
        artefact.notes.append(NO_DIGEST)
    if metadata.training_data is None:
        artefact.notes.append("its metadata does not state the training data")
    return artefact


def _check_parents(artefacts: Sequence[Artefact]) -> None:
    """Follows each `parent_sha256` to a file, whose network must be the same."""
    files = {artefact.sha256: artefact for artefact in artefacts}
    for artefact in artefacts:
        metadata = artefact.metadata
        if metadata is None or metadata.parent_sha256 is None:
            continue
        parent = files.get(metadata.parent_sha256)
        if metadata.parent_sha256 == metadata.weights_sha256:  # as `icnet adopt` has it
            name = metadata.network.get("file", "a file")
            artefact.notes.append(f"made from {name}, which another program wrote")
        elif parent is None:
            artefact.notes.append(
                "made from a file that is not in the folder, SHA-256 "
                f"{metadata.parent_sha256[:16]}..."
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
                    f"it was made from {parent.path.name}, but has another "
                    f"{', '.join(differences)}: export it again"
                )
