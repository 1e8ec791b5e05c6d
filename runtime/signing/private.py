"""A folder of this process alone, for copies that nobody else can change."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from icnet_deploy.errors import IcnetError, OutputError
from icnet_deploy.files import scratch_folder


@contextmanager
def private_folder(place: Path) -> Iterator[Path]:
    """An empty folder that nobody else can write to, for copies of what is in a place."""
    with scratch_folder() as folder, speaking_of(place, folder):
        yield folder


def no_room(error: OSError) -> OutputError:
    """What is said where a copy cannot be made."""
    return OutputError(
        "cannot copy the artefacts to the folder for temporary files, where they are checked: "
        f"{error.strerror or error}; set the environment variable TMPDIR to a folder with more "
        "room"
    )


@contextmanager
def speaking_of(place: Path, copy: Path) -> Iterator[None]:
    """Has errors name the place that somebody asked for, not the copy of it that was opened."""
    try:
        yield
    except IcnetError as error:
        error.args = tuple(str(part).replace(str(copy), str(place)) for part in error.args)
        raise
