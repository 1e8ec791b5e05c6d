"""SHA-256 of files, without reading again those whose size and time are known.

Reading a folder's 80 MB takes longer than opening one model of it. What is known is a hint: who
opens a file holds the bytes themselves to the digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from icnet_deploy.cache import cache_folder
from icnet_deploy.errors import OutputError
from icnet_deploy.files import sha256, write_json

__all__ = ["digests"]


def digests(folder: Path, names: Sequence[str], *, fresh: bool = False) -> dict[str, str]:
    """The SHA-256 of files of a folder, by name.

    Args:
        folder: where they are.
        names: of the files.
        fresh: read them all.
    """
    paths = [folder / name for name in names]
    stamps = {p.name: [p.stat().st_size, p.stat().st_mtime_ns] for p in paths}
    kept = _kept_in(folder)
    known = {} if fresh else _read(kept)
    unknown = [path for path in paths if known.get(path.name, [])[:2] != stamps[path.name]]
    if unknown:
        with ThreadPoolExecutor() as pool:
            for path, digest in zip(unknown, pool.map(sha256, unknown), strict=True):
                known[path.name] = [*stamps[path.name], digest]
        if kept is not None:
            with suppress(OutputError):  # it is read again next time
                write_json(kept, {name: known[name] for name in names})
    return {name: known[name][2] for name in names}


def _kept_in(folder: Path) -> Path | None:
    kept = cache_folder("digests")
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    return kept and kept / f"{name}.json"


def _read(path: Path | None) -> dict[str, list[Any]]:
    if path is None:
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return {name: entry for name, entry in value.items() if _is_entry(entry)}
    except (AttributeError, OSError, ValueError):
        return {}


def _is_entry(entry: object) -> bool:
    return isinstance(entry, list) and list(map(type, entry)) == [int, int, str]
