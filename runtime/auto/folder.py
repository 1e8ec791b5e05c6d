"""The artefacts of a folder: which files they are, what each says of itself, and its SHA-256.

Nobody else asks whether something is a folder, an engine or an ONNX file, or lists the artefacts
of a folder; `Predictor.open` asks here. Each file's metadata and bytes are read once.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from os.path import isdir, isfile
from pathlib import Path
from typing import Literal, NamedTuple

from icnet_deploy.documents import COUNT, SHA256, list_of, object_of, parse, take
from icnet_deploy.engine_sidecar import read_sidecar
from icnet_deploy.errors import InputError, ModelError, OutputError
from icnet_deploy.files import cache_folder, read_file, real_path, status, why_no_folder, write_json
from icnet_deploy.integrity import artefact_digest, artefact_sha256
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata

ENGINE_SUFFIXES = (".engine", ".plan")
"""The endings of the files that `Predictor.from_engine` takes."""


def kind_of(path: Path) -> Literal["folder", "engine", "onnx", "other"]:
    """What a path is taken for: a folder where there is one, else what its ending says."""
    if isdir(path):
        return "folder"
    if path.suffix in ENGINE_SUFFIXES:
        return "engine"
    return "onnx" if path.suffix == ".onnx" else "other"


def _is_artefact(path: Path) -> bool:
    """Whether an entry of a folder is an artefact of it: an ONNX file or an engine, not hidden.

    Hidden are files that are being written, and those that a killed process left.
    """
    return kind_of(path) in ("onnx", "engine") and not path.name.startswith(".") and isfile(path)


class Digest(NamedTuple):
    """An artefact's SHA-256, and how its files were when it was taken.

    Attributes:
        sha256: as `artefact_sha256` has it: of the file and of its external data.
        files: the name of each of these files, from the artefact's folder on -> its stamp.
    """

    sha256: str
    files: dict[str, list[int]]

    def stands(self, folder: Path) -> bool:
        """Whether nothing was done to these files of a folder since."""
        try:
            return all(_stamp(folder / name) == stamp for name, stamp in self.files.items())
        except OSError:
            return False


def digest_of(path: Path) -> Digest:
    """Reads an artefact.

    Raises:
        ModelError: it cannot be read, or its external data cannot.
    """
    try:
        files = {path.name: _stamp(path)}
        sha256, (_, *external) = artefact_digest(path)
        if external:  # is read again, now that its stamps are taken
            files |= {one.relative_to(path.parent).as_posix(): _stamp(one) for one in external}
            sha256 = artefact_sha256(path)
        return Digest(sha256, files)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error


def _stamp(path: Path) -> list[int]:
    """What changes with a file, also where its size and its time are put back: the inode's time."""
    stat = status(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


@dataclass(frozen=True)
class ArtefactFile:
    """An ONNX file or an engine, and what it says of itself.

    Attributes:
        path: the file.
        metadata: of an engine what its sidecar says; None if that is missing or cannot be read.
        flavour: the runtime that built it, if it is an engine and has a sidecar.
        problem: why it cannot be read, in words; "" if it can.
    """

    path: Path
    metadata: ArtefactMetadata | None = None
    flavour: str | None = None
    problem: str = ""

    @property
    def is_engine(self) -> bool:
        """Whether it is an engine, not an ONNX file."""
        return kind_of(self.path) == "engine"

    @property
    def precision(self) -> str | None:
        """As its metadata has it; None where there are none."""
        return None if self.metadata is None else self.metadata.precision

    @cached_property
    def digest(self) -> Digest:
        """Its SHA-256 and stamps, from reading it when they are first asked for; ModelError."""
        return digest_of(self.path)

    @property
    def sha256(self) -> str:
        """Of the file and its external data; see `digest`."""
        return self.digest.sha256


def read_artefact(path: Path, check: bool = True) -> ArtefactFile:
    """Reads what an artefact says of itself.

    Args:
        path: an engine, or else an ONNX file.
        check: hold an ONNX file to its digest, which reads all of it. An engine is held to its
            sidecar's when it is opened.

    Raises:
        ModelError: it cannot be read, or is another kind of file.
    """
    if kind_of(path) != "engine":
        return ArtefactFile(path, read_onnx_metadata(path, check))
    sidecar = read_sidecar(path)
    return ArtefactFile(path, sidecar.metadata, sidecar.flavour) if sidecar else ArtefactFile(path)


def read_artefacts(folder: Path, check: bool = True) -> list[ArtefactFile]:
    """Reads what the artefacts of a folder say of themselves, by name.

    Args:
        folder: ONNX files and engines; what else is in it, and what is hidden, is left out.
        check: as for `read_artefact`.

    Returns:
        All of them: one that cannot be read has a `problem`.

    Raises:
        InputError: there is no such folder, or no artefact in it.
    """
    if not isdir(folder):
        raise InputError(
            f"the folder {folder} {why_no_folder(folder)}: name a folder that holds artefacts"
        )
    entries = sorted(folder.iterdir())
    paths = [path for path in entries if _is_artefact(path)]
    if not paths:
        names = ", ".join(f"{path.name}/" if isdir(path) else path.name for path in entries)
        raise InputError(
            f"no artefact in {folder} (files {', '.join(('.onnx', *ENGINE_SUFFIXES))}): "
            f"{f'it holds {names}' if names else 'it is empty'}; write one with `icnet export`"
        )
    return [_readable(path, check) for path in paths]


def _readable(path: Path, check: bool) -> ArtefactFile:
    try:
        return read_artefact(path, check)
    except ModelError as error:
        return ArtefactFile(path, problem=str(error))


_DIGEST = {"files": object_of(list_of(COUNT, 4)), "sha256": SHA256}


def digests(
    folder: Path, artefacts: Sequence[ArtefactFile], *, fresh: bool = False, keep: bool = True
) -> dict[str, str | ModelError]:
    """The SHA-256 of artefacts of a folder, by name; or why one cannot be read.

    What is known of a folder is kept: reading its 80 MB takes longer than opening one model of it.
    It is a hint: who opens an artefact holds the bytes themselves to the digest.

    Args:
        folder: where they are.
        artefacts: of it; read where something was done to one since its digest was taken.
        fresh: read them all.
        keep: whether what is known is kept, and what was kept believed.
    """
    kept = kept_file("digests", str(real_path(folder))) if keep else None
    known = {} if fresh or kept is None else _read_digests(kept)
    known = {name: digest for name, digest in known.items() if digest.stands(folder)}
    unknown = [artefact for artefact in artefacts if artefact.path.name not in known]
    with ThreadPoolExecutor() as pool:
        read = dict(zip((a.path.name for a in unknown), pool.map(_digest_of, unknown), strict=True))
    known |= {name: digest for name, digest in read.items() if isinstance(digest, Digest)}
    if unknown and kept is not None:
        with suppress(OutputError):  # it is read again next time
            write_json(kept, {name: digest._asdict() for name, digest in known.items()})
    return {
        name: digest.sha256 if isinstance(digest, Digest) else digest
        for name, digest in (read | known).items()
    }


def _digest_of(artefact: ArtefactFile) -> Digest | ModelError:
    try:
        return artefact.digest
    except ModelError as error:
        return error


def kept_file(kind: str, key: str) -> Path | None:
    """The file that keeps what is known by a key, whether it is there or not; None: nothing is."""
    folder = cache_folder(kind)
    return folder and folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read_digests(path: Path) -> dict[str, Digest]:
    """What is kept; nothing of an entry that is not as it is written, such as version 0.1's."""
    known = {}
    with suppress(OSError, ValueError):
        entries = parse(read_file(path))
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            with suppress(ValueError):
                digest = Digest(**take(entry, _DIGEST))
                if name in digest.files:
                    known[name] = digest
    return known
