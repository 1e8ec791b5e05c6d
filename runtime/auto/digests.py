"""SHA-256 of artefacts, without reading again those that nothing was done to.

Reading a folder's 80 MB takes longer than opening one model of it. What is known is a hint: who
opens an artefact holds the bytes themselves to the digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from icnet_deploy.cache import cache_folder
from icnet_deploy.documents import COUNT, SHA256, Kind, object_of, read, take
from icnet_deploy.errors import ModelError, OutputError
from icnet_deploy.files import write_json
from icnet_deploy.runtime.auto.folder import Digest, digest_of

_STAMP = Kind(
    lambda value: isinstance(value, list) and len(value) == 4 and all(map(COUNT.fits, value)),
    "a file's size, times and number",
)
_FIELDS = {"files": object_of(_STAMP), "sha256": SHA256}


def digests(
    folder: Path, names: Sequence[str], *, fresh: bool = False
) -> dict[str, str | ModelError]:
    """The SHA-256 of artefacts of a folder, by name; or why one cannot be read.

    Args:
        folder: where they are.
        names: of the files.
        fresh: read them all.
    """
    kept = _kept_in(folder)
    known = {} if fresh else _read(kept)
    unknown = [name for name in names if name not in known or not known[name].stands(folder)]
    broken: dict[str, ModelError] = {}

    def look(name: str) -> Digest | ModelError:
        try:
            return digest_of(folder / name)
        except ModelError as error:
            return error

    with ThreadPoolExecutor() as pool:
        for name, found in zip(unknown, pool.map(look, unknown), strict=True):
            if isinstance(found, ModelError):
                broken[name] = found
            else:
                known[name] = found
    if unknown and kept is not None:
        with suppress(OutputError):  # it is read again next time
            write_json(kept, {name: known[name]._asdict() for name in names if name not in broken})
    return {name: broken[name] if name in broken else known[name].sha256 for name in names}


def _kept_in(folder: Path) -> Path | None:
    kept = cache_folder("digests")
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    return kept and kept / f"{name}.json"


def _read(path: Path | None) -> dict[str, Digest]:
    """What is known; nothing of an entry that is not as it is written, such as version 0.1's."""
    try:
        value = read(path) if path is not None else {}
        entries: dict[str, Any] = value if isinstance(value, dict) else {}
    except (OSError, ValueError):
        return {}
    found = {}
    for name, entry in entries.items():
        with suppress(ValueError):
            found[name] = Digest(**take(entry, _FIELDS))
    return {name: digest for name, digest in found.items() if name in digest.files}
