"""Opening only what a key signed, or what has a SHA-256 that is known.

What is verified is what is loaded. Each file is read once, into a folder of this process alone, and
its SHA-256 is that of the bytes that were written there; only these copies are opened. What happens
to the artefact's folder from then on changes nothing, whoever can write to it, and what was not
signed is not there for a runtime to find: no sidecar, no external data, no `verified.json`.
"""

import argparse
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from icnet_deploy.command import Goal, options
from icnet_deploy.documents import SHA256
from icnet_deploy.engine_sidecar import sidecar_path
from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.files import open_file
from icnet_deploy.integrity import artefact_digest, artefact_sha256
from icnet_deploy.runtime.signing.private import no_room, private_folder
from icnet_deploy.runtime.signing.signature import NAME, files_of, require_plain, signed_files

_BLOCK = 1 << 20

_SHOWN = 5  # files that a message names


def add_trust_options(parser: argparse.ArgumentParser, *, folder_only: bool = False) -> None:
    """Adds what an artefact, or a folder of them, is held to before it is opened."""
    group = options(parser, Goal.TRUST)
    group.add_argument(
        "--trusted-key",
        type=Path,
        metavar="FILE",
        help="open only what `icnet sign` signed with the private key of this public key, a PEM "
        "file; needs the extra [sign]",
    )
    if not folder_only:
        group.add_argument(
            "--require-manifest",
            action="store_true",
            help="refuse an engine without a sidecar that has its SHA-256",
        )
        group.add_argument(
            "--sha256",
            metavar="HEX",
            help="open the model only if its file has this SHA-256, as `sha256sum` shows it",
        )


@contextmanager
def trusted_file(
    path: Path, key: str | Path | None, sha256: str | None, *, engine: bool = False
) -> Iterator[Path]:
    """Yields where an artefact can be opened from: where it is, if nothing is asked of it.

    Args:
        path: an ONNX file or an engine. Its signature lies beside it; of it are proved the file, an
            engine's sidecar, and the files of external data.
        key: a public key, a PEM file, that must have signed it; None: none need have.
        sha256: that it must have, as `artefact_sha256` has it: of the file, if it has no external
            data. An engine's sidecar is not part of it. None: any.
        engine: whether it is opened as an engine, whatever it is called.

    Raises:
        InputError: the key cannot be used, or there is no such SHA-256.
        ModelError: it is not what was signed, or has another SHA-256.
        OutputError: there is no room for a copy.
        MissingPackage: a key is given, and `model-signing` is not installed.
    """
    if key is None and sha256 is None:
        yield path
        return
    if sha256 is not None and not SHA256.fits(sha256.lower()):
        raise InputError(f"{sha256!a} is not {SHA256.words}, as `sha256sum {path}` shows it")
    folder = path.parent
    signed = None if key is None else signed_files(folder, Path(key))
    with private_folder(folder) as private:
        copy = private / path.name
        for name in _parts(path, signed, engine):
            found = _copy(folder / name, private / name)
            if signed is not None:
                _require_signed(folder / name, found, signed.get(name))
        if sha256 is not None and (found := artefact_sha256(copy)) != sha256.lower():
            raise ModelError(
                f"{path} is not the file that you asked for: its SHA-256 is {found}, expected "
                f"{sha256.lower()}; get it again from a source that you trust"
            )
        yield copy


@contextmanager
def trusted_folder(folder: Path, key: str | Path | None) -> Iterator[Path]:
    """Yields where a folder's artefacts can be opened from: where it is, if no key is given.

    Args:
        folder: of artefacts, whose every file must be as it was signed, and none besides.
        key: as for `trusted_file`, as for errors.
    """
    if key is None:
        yield folder
        return
    with private_folder(folder) as private:
        check_folder(folder, Path(key), lambda source, name: _copy(source, private / name))
        yield private


def check_folder(
    folder: Path, key: Path, read: Callable[[Path, str], str] | None = None
) -> Mapping[str, str]:
    """Holds a folder to its signature: the same files, with the same bytes.

    Args:
        folder: that was signed.
        key: the public key.
        read: is given each file and its name in the folder, and returns its SHA-256.

    Returns:
        Name -> SHA-256 of each file.

    Raises:
        InputError: the key cannot be used, or there is no such folder.
        ModelError: it is not what the key signed.
    """
    root = Path(os.path.realpath(folder))
    signed = signed_files(folder, key)
    there, unsigned = set(), []
    for name in files_of(root, folder):
        there.add(name)
        if name not in signed:
            unsigned.append(name)
            if len(unsigned) > _SHOWN:
                break
    if unsigned:
        raise _not_as_signed(folder, "holds files that were not signed", unsigned)
    if missing := [name for name in signed if name not in there]:
        raise _not_as_signed(folder, "lacks files that were signed", missing)
    for name, digest in signed.items():
        found = (read or _hash)(root / name, name)
        _require_signed(folder / name, found, digest)
    return signed


def _parts(path: Path, signed: Mapping[str, str] | None, engine: bool) -> list[str]:
    """The names of an artefact's files, once each: it, its external data, an engine's sidecar."""
    try:
        _, files = artefact_digest(path)  # is taken again, of the copies
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ModelError(f"cannot read the model {path}: {why}") from error
    names = [one.relative_to(path.parent).as_posix() for one in files]
    for name in names:
        require_plain(name, f"{path}")
    if engine:
        sidecar = sidecar_path(path)
        if os.path.lexists(sidecar) or sidecar.name in (signed or ()):
            names.append(sidecar.name)
    return list(dict.fromkeys(names))


def _require_signed(path: Path, found: str, wanted: str | None) -> None:
    """ModelError where a file is not the one that was signed."""
    if wanted is None:
        raise _not_as_signed(path.parent, "holds files that were not signed", [path.name])
    if found != wanted:
        raise ModelError(
            f"{path} is not the file that was signed: its SHA-256 is {found[:16]}..., {NAME} says "
            f"{wanted[:16]}...; get the folder again from a source that you trust"
        )


def _not_as_signed(folder: Path, what: str, names: list[str]) -> ModelError:
    shown = ", ".join(ascii(name).strip("'") for name in sorted(names)[:_SHOWN])
    more = ", ..." if len(names) > _SHOWN else ""
    return ModelError(
        f"{folder} is not as it was signed: it {what}: {shown}{more}; get the folder again from a "
        "source that you trust, or sign it again if it is yours"
    )


def _hash(source: Path, name: str) -> str:
    """The SHA-256 of a file of a signed folder."""
    return _read(source, lambda block: None)


def _copy(source: Path, target: Path) -> str:
    """Copies a file; the SHA-256 of the bytes that were copied."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as copy:
            return _read(source, copy.write)
    except OSError as error:
        raise no_room(error) from error


def _read(source: Path, take: Callable[[bytes], object]) -> str:
    """Reads a file once, as long as it is now, and gives its blocks away; their SHA-256."""
    digest = hashlib.sha256()
    try:
        with open_file(source) as file:
            left = os.fstat(file.fileno()).st_size
            while left > 0 and (block := file.read(min(_BLOCK, left))):
                left -= len(block)
                digest.update(block)
                take(block)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ModelError(f"cannot read {source}: {error.strerror or error}") from error
    return digest.hexdigest()
