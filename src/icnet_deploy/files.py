"""Writing artefacts so that a kill leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from icnet_deploy.errors import OutputError

_PREFIX, _SUFFIX = ".icnet-", ".tmp"
_NEVER = 0  # the time of a new file's last change, in nanoseconds, until somebody writes to it
_OLD = re.compile(r"\..+\.\d+\.tmp(\..*)?")
"""The temporary names of version 0.1.0, which a kill may have left."""


def make_folder(path: str | Path) -> Path:
    """Makes a folder, with its parents, and proves that it can be written.

    Raises:
        OutputError: it cannot be made or written, or a file stands in its place.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"cannot write into the folder {folder}: a file of that name is there; name another"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write into the folder {folder}: {error.strerror or error}"
        ) from error
    return folder


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary file beside `path`; renames it onto `path` when the block succeeds.

    When the block raises, or the process is killed, `path` is what it was before; what is written
    is on the disk before it has the name. The temporary file is new, empty and of a name that
    nobody can guess, so that threads, processes and containers that write one file at once do not
    meet. It ends in `.tmp`: a writer that chooses a format by the suffix must be told the format.
    A file that is there keeps its mode; a new one gets what the process's umask leaves.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    target = Path(path)
    make_folder(target.parent)
    if target.is_dir():
        raise OutputError(f"cannot write the file {target}: a folder of that name is there")
    temporary: Path | None = None
    try:
        temporary, mode = _new_file(target.parent)
        with suppress(FileNotFoundError):
            there = target.lstat().st_mode
            if stat.S_ISREG(there):
                mode = stat.S_IMODE(there)
        yield temporary
        if temporary.stat().st_mtime_ns == _NEVER:
            raise OutputError(f"cannot write {target}: nothing was written")
        temporary.chmod(mode)  # some writers make a file of their own in its place
        _flush(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _new_file(folder: Path) -> tuple[Path, int]:
    """Makes an empty file of a fresh name; its path, and the mode that the umask left it."""
    path = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        os.utime(descriptor, ns=(_NEVER, _NEVER))
        return path, stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _flush(path: Path) -> None:
    """Has what was written to a file put on the disk. Its name may follow later: it is whole."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has no such call
            raise
    finally:
        os.close(descriptor)


def is_leftover(path: Path) -> bool:
    """Whether a file is one that `replacing` would have renamed, had it not been killed."""
    name = path.name
    return (name.startswith(_PREFIX) and name.endswith(_SUFFIX)) or _OLD.fullmatch(name) is not None


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text through `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON, indented, through `replacing`; refuses NaN and infinities."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
