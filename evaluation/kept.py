"""What a long comparison keeps of each image, so that one that is killed goes on where it was.

Below `ICNET_CACHE` lies a journal for each thing that is run: one for an artefact on a runtime
against its reference, one for a reference. A journal is named by the SHA-256 of all that its
numbers depend on but the image: the artefact, the runtime, the device, the weights, the classes,
this version, its packages, the processor. Each line is one image, named by the SHA-256 of its
pixels and of its truth, and sealed. What is not exactly that is not believed: a line that a kill
cut off, that was damaged, or that comes from another journal is as if it were not there, and its
image is done again.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from tqdm import tqdm

from icnet_deploy._version import __version__
from icnet_deploy.command import Goal, options
from icnet_deploy.data import Sample
from icnet_deploy.documents import OBJECT, SHA256, Schema, one_of, sealed
from icnet_deploy.errors import CheckFailed, InputError, OutputError
from icnet_deploy.files import CACHE_VARIABLE, append_line, cache_folder, make_folder, open_file
from icnet_deploy.runtime.machine import PACKAGES, machine, package_version

SCHEMA = 1
"""Of a journal; raised when what is counted of an image is counted otherwise."""

_SUFFIX = ".jsonl"
_OLDEST = 30 * 24 * 3600  # seconds since its last line after which nobody goes on with a journal
_LONGEST = 4 << 20  # bytes of a line; 19 classes take 4 KB, 150 at most 160

_LINE = Schema(
    "what `icnet parity` keeps of an image",
    {
        "key": SHA256,
        "image": SHA256,
        "counts": OBJECT,
        # By `sealed`; here they are not optional.
        "stamped": one_of(True),
        "digest": SHA256,
    },
    closed=True,
    sealed=True,
    most_bytes=_LONGEST,
)


class _Counted(Protocol):
    """What is kept of one image: it has a JSON form."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        ...


T = TypeVar("T", bound=_Counted)


class Journal(Generic[T]):
    """What is known of the images of one run, and grows by a line with each.

    Args:
        path: the file, there or not; None: nothing is kept.
        key: SHA-256 of what the numbers depend on.
        read: makes the value of its JSON form; InputError where it is none.
        resume: whether what is in the file may be taken.

    Attributes:
        before: how many images were in the file when it was opened.
    """

    def __init__(
        self, path: Path | None, key: str, read: Callable[[Mapping[str, Any]], T], resume: bool
    ) -> None:
        self._path, self._key = path, key
        self._writable = True
        known = {} if path is None else _read(path, key, read)
        self.before = len(known)
        self._known = known if resume else {}

    @classmethod
    def of_nothing(cls) -> Self:
        """One that keeps nothing."""
        return cls(None, "", _nothing, resume=False)

    def get(self, image: str) -> T | None:
        """What is kept of an image (`image_key`); None if it is to be done."""
        return self._known.get(image)

    def add(self, image: str, value: T) -> None:
        """Keeps an image: the line is with the system when this returns.

        Where the disk is full nothing is kept from here on, and the run goes on.
        """
        if self._path is None or not self._writable:
            return
        line = {"key": self._key, "image": image, "counts": value.to_dict()}
        try:  # opened each time: another process may have removed the file
            append_line(self._path, json.dumps(sealed(line), allow_nan=False))
        except OutputError as error:
            _say(f"{error}; the rest of this run is not kept for --resume")
            self._writable = False

    def forget(self) -> None:
        """Removes the file."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


class Kept:
    """All journals of one command; a context in which it runs, to whose end they are kept.

    When the command ends with an answer, be it that a check failed, they are removed. When it is
    interrupted, it says how to go on.

    Args:
        resume: take what is kept.
        folder: holds the journals, or None: nothing is kept.

    Attributes:
        answered: whether what the command has at its end is all that was asked for; else the
            journals stay.

    Raises:
        InputError: it is to take what is kept, and nothing can be.
    """

    def __init__(self, resume: bool = False, folder: Path | None = None) -> None:
        if resume and folder is None:
            raise InputError(
                f"--resume was given, but nothing is kept: {CACHE_VARIABLE} is off, or there is "
                f"no home folder; set {CACHE_VARIABLE} to a folder, or leave --resume out"
            )
        self.resume = resume
        self.answered = True
        self._folder = folder
        self._journals: dict[str, Journal[Any]] = {}
        if folder is None:
            return
        try:
            make_folder(folder)
        except OutputError as error:
            self._folder = None  # a run whose images cannot be kept is none the worse
            if resume:
                raise InputError(
                    f"--resume was given, but nothing can be kept: {error}; set {CACHE_VARIABLE} "
                    "to a folder that can be written, or leave --resume out"
                ) from error
        else:
            _clean(folder)

    @classmethod
    def below_cache(cls, resume: bool = False) -> Self:
        """In the folder of scores below `ICNET_CACHE`."""
        return cls(resume, cache_folder("scores"))

    def journal(self, read: Callable[[Mapping[str, Any]], T], **what: Any) -> Journal[T]:
        """The journal of a run.

        Args:
            read: makes what is kept of an image from its JSON form.
            what: name -> all that the numbers depend on, besides the image, this version, its
                packages and the processor; JSON values.
        """
        if self._folder is None:
            return Journal.of_nothing()
        key = _digest({**what, "here": _here()})
        if key not in self._journals:
            path = self._folder / f"{key}{_SUFFIX}"
            self._journals[key] = Journal(path, key, read, self.resume)
        return self._journals[key]

    def say_before(self) -> None:
        """Says on stderr what is kept from a run that did not finish, once all are opened."""
        count = max((journal.before for journal in self._journals.values()), default=0)
        if self.resume and not count:
            _say("no earlier run is kept: this one begins at the first image")
        elif self.resume:
            _say(f"{count} images of an earlier run are kept: this one continues after them")
        elif count:
            _say(f"{count} images of an earlier run are kept: --resume continues after them")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if kind is None or issubclass(kind, CheckFailed):
            for journal in self._journals.values() if self.answered else ():
                journal.forget()
        elif issubclass(kind, KeyboardInterrupt) and self._journals:
            _say("the images so far are kept: give the same command with --resume to continue")


def add_resume_option(parser: argparse.ArgumentParser) -> None:
    """Adds whether a run goes on where one that was killed had come to."""
    options(parser, Goal.RUN).add_argument(
        "--resume",
        action="store_true",
        help="continue a run that was stopped; its counts are kept below "
        f"${CACHE_VARIABLE} until the command is done",
    )


def image_key(sample: Sample) -> str:
    """SHA-256 of an image's pixels and of its truth's, with their sizes."""
    digest = hashlib.sha256()
    for array in (sample.image, sample.labels):
        digest.update(f"{'x'.join(map(str, array.shape))}:".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _nothing(value: Mapping[str, Any]) -> Any:
    raise InputError(f"nothing is kept, and so not {value}")


def _read(path: Path, key: str, read: Callable[[Mapping[str, Any]], T]) -> dict[str, T]:
    """Image -> what is kept of it; nothing of a line that is not as it was written."""
    known = {}
    for line in _lines(path):
        with suppress(InputError):
            fields = _LINE.parse(line, str(path))
            if fields["key"] == key:
                known[fields["image"]] = read(fields["counts"])
    return known


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that hold something; one that is too long comes in parts."""
    with suppress(OSError), open_file(path) as file:
        while line := file.readline(_LONGEST):
            if not line.isspace():
                yield line


def _clean(folder: Path) -> None:
    """Removes the journals of runs with which nobody went on."""
    with suppress(OSError):
        for path in folder.glob(f"*{_SUFFIX}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _OLDEST:
                    path.unlink()


@cache
def _here() -> dict[str, Any]:
    """What numbers depend on besides what is run: this version, its packages, this machine."""
    of = machine()
    return {
        "schema": SCHEMA,
        "icnet-deploy": __version__,
        "packages": {package.name: package_version(package.name) for package in PACKAGES},
        "processor": [of["cpu"], of["cpu_flags"]],  # INT8 differs from one to another
        "gpus": of["gpus"],
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _say(text: str) -> None:
    tqdm.write(f"icnet: {text}", file=sys.stderr)  # does not break the bar
