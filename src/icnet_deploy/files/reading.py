"""Files that are read, and found in folders."""

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from io import BufferedReader
from os.path import exists, isdir, isfile, islink
from pathlib import Path

from icnet_deploy.errors import InputError
from icnet_deploy.files.writing import is_leftover


def open_file(path: str | Path) -> BufferedReader:
    """Opens a file to read its bytes; no pipe, which might wait for ever, and no device.

    Raises:
        OSError: there is no such file, it cannot be read, or is none.
    """
    mode = status(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device: copy it to a file")
    return Path(path).open("rb")


def status(path: str | Path) -> os.stat_result:
    """What the system says of a file; OSError, also where no system has such a path."""
    try:
        return os.stat(path)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from error


def read_file(path: str | Path) -> bytes:
    """The bytes of a file; OSError as `open_file`."""
    with open_file(path) as file:
        return file.read()


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hex digits."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def real_path(path: str | Path) -> Path:
    """The absolute path without links; of a link that leads to itself, its own.

    `Path.resolve` raises a RuntimeError there (until Python 3.13).
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # no system has such a path: whoever opens it says so
        return Path(path).absolute()


@dataclass(frozen=True)
class _FoundFiles:
    """What a search of a folder brought.

    Attributes:
        files: the files of the suffixes asked for, sorted; each begins with the folder's path.
        left_out: the files of other suffixes, links that lead nowhere or to a folder that holds
            this one, and sub-folders that are hidden or cannot be read, sorted. What a kill left
            of a file, and hidden files, are in neither list.
    """

    files: tuple[Path, ...]
    left_out: tuple[Path, ...]

    def says_left_out(self, most: int = 5) -> str:
        """What was left out, in words: "2 left out: a.txt, b.heic"; "" if nothing was."""
        if not self.left_out:
            return ""
        names = ", ".join(path.name for path in self.left_out[:most])
        more = ", ..." if len(self.left_out) > most else ""
        return f"{len(self.left_out)} left out: {names}{more}"


def find_files(folder: Path, suffixes: Collection[str]) -> _FoundFiles:
    """Searches a folder with its sub-folders.

    Linked sub-folders are searched, too. No folder is searched twice, however many links lead to
    it, and its own path is preferred to one through a link.

    Args:
        folder: the folder.
        suffixes: lower case, with the dot; a file's own suffix may be of any case.

    Raises:
        InputError: the folder is none, or cannot be read.
    """
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    files: list[Path] = []
    left_out: list[Path] = []
    above = set(real_path(folder).parents)
    seen: set[Path] = set()
    own, linked = deque([folder]), deque[Path]()
    while own or linked:
        current = own.popleft() if own else linked.popleft()
        real = real_path(current)
        if real in seen:
            continue
        if real in above:  # all that lies beside the folder was not asked for
            left_out.append(current)
            continue
        seen.add(real)
        try:
            entries = sorted(current.iterdir())
        except OSError:
            left_out.append(current)
            continue
        for entry in entries:
            hidden = entry.name.startswith(".")
            if is_leftover(entry) or (hidden and not isdir(entry)):
                continue
            if hidden:
                left_out.append(entry)
            elif isdir(entry):
                (linked if entry.is_symlink() else own).append(entry)
            elif entry.suffix.lower() in suffixes and isfile(entry):
                files.append(entry)
            else:
                left_out.append(entry)
    return _FoundFiles(tuple(sorted(files)), tuple(sorted(left_out)))


def why_no_folder(path: Path) -> str:
    """What there is in place of a folder, in words that end a sentence about the path."""
    if isfile(path):
        return "is a file, not a folder"
    if exists(path):
        return "is a pipe, a socket or a device, not a folder"
    return "is a link that leads nowhere" if islink(path) else "does not exist"
