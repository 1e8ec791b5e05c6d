"""Files that are written whole or not at all, whatever ends the process."""

import errno
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from mimetypes import MimeTypes
from os.path import exists, isdir
from pathlib import Path
from typing import Any

from icnet_deploy.errors import InputError, OutputError

_TEMPORARY = re.compile(r"\.icnet-[0-9a-f]{16}\.tmp")
_NEVER = 0  # the time of a new file's last change, in nanoseconds, until somebody writes to it
_OLD = re.compile(r"\..+\.\d+\.tmp(\..*)?")
"""The temporary names of version 0.1.0, which a kill may have left."""

_swept: set[tuple[int, int]] = set()
"""Device and inode of the folders that this process has swept."""


_OF_FILES = {".onnx", ".engine", ".plan", ".safetensors", ".pth", ".jsonl", ".toml", ".npy"}
"""Endings of files that Python's table of types lacks."""


def require_folder_name(path: Path, option: str) -> None:
    """Refuses a new folder that is called like a file, as if a result of one file were meant.

    Args:
        path: of the folder to be made.
        option: that named it, such as `-o`; "" for an argument.

    Raises:
        InputError: nothing has that name yet, and it ends as files do.
    """
    known = MimeTypes().guess_type(path.name.lower())[0] is not None
    if not exists(path) and (known or path.suffix.lower() in _OF_FILES):
        start = f"{option} " if option else ""
        raise InputError(
            f"{start}{path} ends in {path.suffix}, as a file does, but {option or 'it'} names a "
            f"folder: give a folder, such as {start}{path.with_suffix('')}"
        )


def make_folder(path: str | Path) -> Path:
    """Makes a folder, with its parents, and proves that it can be written.

    Raises:
        OutputError: it cannot be made or written, or a file stands in its place.
    """
    folder = Path(path)
    _require_possible(folder)
    if exists(folder) and not isdir(folder):
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
def without_empty_folders(*paths: Path | None) -> Iterator[None]:
    """Removes the folders of results that were made in here and are empty, if this fails.

    Args:
        paths: of the results, which may be folders themselves; None is none.
    """
    every = {each for path in paths if path is not None for each in (path, *path.parents)}
    new = [folder for folder in every if not os.path.lexists(folder)]
    try:
        yield
    except BaseException:
        for folder in sorted(new, key=lambda each: len(each.parts), reverse=True):
            with suppress(OSError):  # it holds something, or is a file
                folder.rmdir()
        raise


def _require_possible(path: Path) -> None:
    """OutputError for a path that no system has."""
    try:
        if b"\0" not in os.fsencode(path):
            return
    except UnicodeEncodeError:
        pass
    raise OutputError(f"cannot write {str(path)!a}: no file can have this name; choose another")


def require_place(path: Path, *endings: str) -> None:
    """Refuses, before long work, what a file cannot be written to; makes its folder.

    Args:
        path: of the file.
        endings: of its kind, e.g. `.onnx`: whoever reads it goes by them.

    Raises:
        InputError: it has another ending.
        OutputError: its folder cannot be written, or a folder, a pipe or a device has its name.
    """
    if path.suffix not in endings:
        raise InputError(f"cannot write {path}: it does not end in {' or '.join(endings)}")
    make_folder(path.parent)
    require_replaceable(path)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary file beside `path`; renames it onto `path` when the block succeeds.

    When the block raises, or the process is killed, `path` is what it was before; what is written
    is on the disk before it has the name, and the name is before this returns, so that a power
    failure loses nothing that was said to be done. The temporary file is new, empty and of a name
    that nobody can guess, so that threads, processes and containers that write one file at once do
    not meet. It ends in `.tmp`: a writer that chooses a format by the suffix must be told the
    format. A file that is there keeps its mode; a new one gets what the process's umask leaves.

    What a killed process left in the folder is removed when a process first writes there.

    Raises:
        OutputError: the folder cannot be written, the disk is full, or the name is a folder's, a
            pipe's or a device's: renaming would put a file into its place.
    """
    target = Path(path)
    _require_possible(target)
    require_replaceable(target)
    make_folder(target.parent)
    temporary: Path | None = None
    held: int | None = None
    try:
        _sweep(target.parent)
        temporary, held = _new_file(target.parent)
        mode = stat.S_IMODE(os.fstat(held).st_mode)
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
        with suppress(OSError):  # a folder that cannot be read; the file is whole in any case
            _flush(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if held is not None:
            os.close(held)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields a new folder below the system's temporary one, which is removed with all it holds.

    What a killed process left of its own is removed when the next one makes such a folder.

    Raises:
        OutputError: it cannot be made.
    """
    path, held = _new_folder()
    try:
        inner = path / "files"  # the outer one is held
        inner.mkdir(mode=0o700)
        yield inner
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


def _new_name() -> str:
    return f".icnet-{secrets.token_hex(8)}.tmp"


def require_replaceable(target: Path) -> None:
    """OutputError for what is there and is no file, and for names of what a process has open."""
    if isdir(target):
        raise OutputError(f"cannot write the file {target}: a folder of that name is there")
    of_system = os.path.realpath(target.parent)
    try:
        there = stat.S_ISREG(os.stat(target).st_mode)
    except OSError as error:  # nothing is there, or a link that leads nowhere
        if error.errno == errno.ENAMETOOLONG:
            raise OutputError(f"cannot write the file {target}: {error.strerror}") from error
        there = True
    if not there or of_system == "/dev" or f"{of_system}/".startswith("/proc/"):
        raise OutputError(
            f"cannot write the file {target}: it is a pipe, a socket or a device, which a file "
            "would replace; name a file"
        )


def _new_file(folder: Path) -> tuple[Path, int]:
    """Makes an empty file of a fresh name; its path, and a descriptor that holds it while open."""
    while True:
        path = folder / _new_name()
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            if _held(descriptor):
                os.utime(descriptor, ns=(_NEVER, _NEVER))
                return path, descriptor
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        os.close(descriptor)


def _new_folder() -> tuple[Path, int]:
    """As `_new_file`, of a folder below the system's temporary one."""
    try:
        place = Path(tempfile.gettempdir())
        _sweep(place)
        while True:
            path = place / _new_name()
            path.mkdir(mode=0o700)
            descriptor = os.open(path, os.O_RDONLY)
            if _held(descriptor):
                return path, descriptor
            os.close(descriptor)
    except OSError as error:
        raise OutputError(
            f"cannot make a temporary folder: {error.strerror or error}; name another place in the "
            "environment's TMPDIR"
        ) from error


def _held(descriptor: int) -> bool:
    """Holds what was just made; False where it was swept before it was held."""
    _lock(descriptor)
    return os.fstat(descriptor).st_nlink > 0


def _lock(descriptor: int, wait: bool = True) -> bool:
    """Holds a file or folder until its descriptor is closed, at the latest when the process ends.

    Args:
        descriptor: of it.
        wait: for another who holds it.

    Returns:
        Whether it is held: not where another holds it, or no lock can be had, as on some network
        file systems.
    """
    try:
        import fcntl
    except ImportError:  # not on this system
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Removes what killed processes left in a folder, once a process: what nobody holds."""
    where = os.stat(folder)
    if (where.st_dev, where.st_ino) in _swept:
        return
    _swept.add((where.st_dev, where.st_ino))
    with suppress(OSError), os.scandir(folder) as entries:
        left = [Path(entry) for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for path in left:
        with suppress(OSError):
            _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    found = path.lstat()
    mine = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    if not mine or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return
    is_folder = stat.S_ISDIR(found.st_mode)
    held = os.open(path, os.O_RDONLY if is_folder else os.O_WRONLY)
    try:
        if _lock(held, wait=False):
            shutil.rmtree(path) if is_folder else path.unlink()
    finally:
        os.close(held)


def _flush(path: Path) -> None:
    """Has what was written to a file, or the names in a folder, put on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has no such call
            raise
    finally:
        os.close(descriptor)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Processes and threads that change what belongs together in a folder take turns in here.

    It holds no longer than the process lives. Where a file system has no locks nobody waits. What
    is done in here is short, and takes no second turn in the same folder.

    Raises:
        OutputError: there is no such folder.
    """
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"cannot use the folder {folder}: {error.strerror or error}") from error
    try:
        _lock(held)
        yield
    finally:
        os.close(held)


def append_line(path: Path, line: str) -> None:
    """Adds a line to a file of lines: whole, or not at all.

    What a kill left of a line at its end is removed first. The line is with the system when this
    returns, and lines of several processes do not mix: this is done `alone_in` the folder.

    Raises:
        OutputError: it cannot be written, or the disk is full.
    """
    try:
        with alone_in(path.parent), path.open("a+b", buffering=0) as file:
            end = _whole_lines(file)
            file.truncate(end)
            left = memoryview(f"{line}\n".encode())
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _whole_lines(file: FileIO, block: int = 1 << 16) -> int:
    """How many bytes of a file are lines that end."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - block)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def is_leftover(path: Path) -> bool:
    """Whether a file is one that `replacing` would have renamed, had it not been killed.

    So is a folder of `scratch_folder`.
    """
    name = path.name
    return _TEMPORARY.fullmatch(name) is not None or _OLD.fullmatch(name) is not None


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text through `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON, indented, through `replacing`; refuses NaN and infinities."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
