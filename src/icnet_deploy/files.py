"""Writing artefacts so that a kill leaves the old file or the new one, never half of one."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from icnet_deploy.errors import OutputError

__all__ = ["make_folder", "replacing", "sha256", "write_json", "write_text"]


_UMASK = os.umask(0o077)
os.umask(_UMASK)
_MODE = 0o666 & ~_UMASK


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
    """Yields a temporary path beside `path`; renames it onto `path` when the block succeeds.

    The temporary name keeps the suffix, since writers choose a format by it. When the block
    raises, or the process is killed, `path` is what it was before.

    Raises:
        OutputError: the folder cannot be written.
    """
    target = Path(path)
    make_folder(target.parent)
    if target.is_dir():
        raise OutputError(f"cannot write the file {target}: a folder of that name is there")
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        yield temporary
        temporary.chmod(_MODE)  # some writers make files that only their owner can read
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


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
