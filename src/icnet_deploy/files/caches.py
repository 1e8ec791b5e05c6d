"""Folders of what is kept from run to run."""

import os
from pathlib import Path

CACHE_VARIABLE = "ICNET_CACHE"
"""An environment variable: the folder that holds what is kept, or `off` to keep nothing."""


def cache_folder(kind: str) -> Path | None:
    """The folder of one kind of thing; it is not made here, and may not be writable.

    Args:
        kind: its name: `engines`, `openvino`, ...

    Returns:
        `$ICNET_CACHE/KIND` if that is set, else `icnet-deploy/KIND` in the user's own cache folder
        (`$XDG_CACHE_HOME`, `~/.cache`); None where `ICNET_CACHE` is `off`, or there is no home.
    """
    asked = os.environ.get(CACHE_VARIABLE)
    if asked == "off":
        return None
    if asked:
        return Path(asked) / kind
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a process without a home, as some services are
        return None
    return base / "icnet-deploy" / kind


def asked_cache_folder(kind: str, cached: bool | None) -> Path | None:
    """The folder of what is kept only for who asks: compiled models, as large as the artefacts.

    Args:
        kind: as of `cache_folder`.
        cached: whether it was asked for; None: only where `ICNET_CACHE` is set.
    """
    asked = CACHE_VARIABLE in os.environ if cached is None else cached
    return cache_folder(kind) if asked else None
