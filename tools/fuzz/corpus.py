"""Inputs that are kept: those that showed new ways through the code, and those that showed a fault.

Beside them stand the files that an earlier version wrote, which every kind of file is among.
"""

import hashlib
import io
import tarfile
from functools import cache
from os.path import isfile
from pathlib import Path

from icnet_deploy.files import make_folder, replacing

KEPT = Path("tests/fuzz/corpus")
"""An archive a target, of small inputs that showed new ways through the code."""

FAULTS = Path("tests/fuzz/found")
"""A folder a target, of inputs that once showed a fault: tests give all of them to the product."""

_OLD = Path("tests/old_files/0.1.0.tar.xz")


@cache
def old_files() -> dict[str, bytes]:
    """What version 0.1.0 wrote: name -> bytes."""
    return _unpacked(_OLD)


def kept(target: str, folder: Path = KEPT) -> list[bytes]:
    """The inputs that are kept of a target, those that showed a fault among them."""
    path = folder / f"{target}.tar.xz"
    inputs = list(_unpacked(path).values()) if isfile(path) else []
    return inputs + [data for _, data in faults(target)]


def faults(target: str, folder: Path = FAULTS) -> list[tuple[str, bytes]]:
    """The inputs of a target that once showed a fault, by name."""
    files = sorted((folder / target).glob("*"))
    return [(file.name, file.read_bytes()) for file in files]


def keep(target: str, inputs: list[bytes], folder: Path = KEPT) -> int:
    """Replaces what is kept of a target; returns the archive's size in bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz", format=tarfile.USTAR_FORMAT) as archive:
        for data in sorted(inputs, key=lambda data: (len(data), data)):
            member = tarfile.TarInfo(name_of(data))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    make_folder(folder)
    with replacing(folder / f"{target}.tar.xz") as temporary:
        temporary.write_bytes(stream.getvalue())
    return len(stream.getvalue())


def name_of(data: bytes) -> str:
    """What an input is called."""
    return hashlib.sha256(data).hexdigest()[:12]


def save_fault(target: str, data: bytes, kind: str, folder: Path) -> Path:
    """Writes an input that showed a fault into a folder, and what was said beside it."""
    where = make_folder(folder / target)
    path = where / name_of(data)
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{kind}\n", "utf-8")
    return path


def _unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        files = [(member.name, archive.extractfile(member)) for member in archive]
        return {name: file.read() for name, file in files if file is not None}
