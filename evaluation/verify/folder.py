"""What is in a folder of artefacts, and what each file's metadata must say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.evaluation.parity.result import Failure
from icnet_deploy.evaluation.score import size_text
from icnet_deploy.files import is_leftover, sha256
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import NO_DIGEST, ArtefactMetadata, read_onnx_metadata
from icnet_deploy.runtime.auto.folder import ENGINE_SUFFIXES, is_artefact
from icnet_deploy.runtime.auto.verdicts import NAME as RECORD

_CHECKPOINT = ".safetensors"


@dataclass
class Artefact:
    """An ONNX file or an engine of the folder.

    Attributes:
        path: the file.
        sha256: of it and of its external data; empty if these cannot be read.
        metadata: what it says of itself; None if that cannot be read, and for an engine.
        problems: why it does not pass, in words.
        notes: what is worth saying, and no fault.
    """

    path: Path
    sha256: str
    metadata: ArtefactMetadata | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def failures(self) -> list[Failure]:
        """A row of the table for each problem."""
        return [self.failure("-", problem) for problem in self.problems]

    def failure(self, runtime: str, reason: str) -> Failure:
        """A row without numbers."""
        known = self.metadata
        size = "-" if known is None else "image" if known.size is None else size_text(known.size)
        precision = "-" if known is None else known.precision
        return Failure(self.path.name, precision, runtime, size, reason)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "file": self.path.name,
            "sha256": self.sha256,
            "bytes": self.path.stat().st_size,
            "metadata": None if self.metadata is None else json.loads(self.metadata.to_json()),
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
        known = [a.metadata.weights_sha256 for a in self.artefacts if a.metadata]
        candidates = {digest: path for path, digest in self.checkpoints.items()}
        candidates.setdefault(sha256(shipped), shipped)
        for digest, _ in Counter(known).most_common():
            if digest in candidates:
                return candidates[digest]
        if any(known):
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
    if not path.is_dir():
        raise InputError(f"there is no folder {path}: name one that holds exported files")
    artefacts, checkpoints, others, leftovers = [], {}, [], []
    for entry in sorted(path.iterdir()):
        if is_leftover(entry):
            leftovers.append(entry.name)
        elif is_artefact(entry):
            artefacts.append(_read(entry))
        elif entry.is_file() and entry.suffix == _CHECKPOINT and not entry.name.startswith("."):
            checkpoints[entry] = sha256(entry)
        elif entry.name != RECORD:
            others.append(f"{entry.name}/" if entry.is_dir() else entry.name)
    if not artefacts:
        held = f"it holds {', '.join(others + leftovers)}" if others + leftovers else "it is empty"
        raise InputError(
            f"no artefact in {path} (files .onnx, .engine, .plan): {held}; write one with "
            "`icnet export`"
        )
    _check_parents(artefacts)
    return Folder(path, artefacts, checkpoints, others, leftovers)


def _read(path: Path) -> Artefact:
    try:
        artefact = Artefact(path, artefact_sha256(path))
    except (ModelError, OSError) as error:  # of external data, too
        return Artefact(path, "", problems=[str(error)])
    if path.suffix in ENGINE_SUFFIXES:
        return artefact
    try:
        artefact.metadata = read_onnx_metadata(path)
    except ModelError as error:
        artefact.problems.append(str(error))
        return artefact
    known = artefact.metadata
    wanted: dict[str, object] = {
        "the network": known.network,
        "the preprocessing": known.preprocessing,
        "the tools that wrote it": known.tools,
    }
    if known.precision.startswith("int8"):
        wanted["its calibration images"] = known.calibration_images
    missing = [name for name, value in wanted.items() if not value]
    if missing:
        artefact.problems.append(
            f"its metadata says nothing of {', '.join(missing)}: export it again"
        )
    if not known.digest:
        artefact.notes.append(NO_DIGEST)
    if known.training_data is None:
        artefact.notes.append("it does not say what its weights were trained on")
    return artefact


def _check_parents(artefacts: Sequence[Artefact]) -> None:
    """Follows each `parent_sha256` to a file, whose network must be the same."""
    files = {artefact.sha256: artefact for artefact in artefacts}
    for artefact in artefacts:
        known = artefact.metadata
        if known is None or known.parent_sha256 is None:
            continue
        parent = files.get(known.parent_sha256)
        if parent is None:
            artefact.notes.append(
                f"its parent, SHA-256 {known.parent_sha256[:16]}..., is not in the folder"
            )
        elif parent.metadata is not None:
            artefact.notes.append(f"made from {parent.path.name}")
            differs = [
                name
                for name in ("weights_sha256", "label_set", "size", "head")
                if getattr(known, name) != getattr(parent.metadata, name)
            ]
            if differs:
                artefact.problems.append(
                    f"it is made from {parent.path.name} and differs from it in "
                    f"{', '.join(differs)}"
                )
