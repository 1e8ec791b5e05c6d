"""What OpenVINO compiled in earlier runs, each file with a SHA-256 of what it is and of its bytes.

OpenVINO's own cache (CACHE_DIR) loads whatever lies under a name: a changed byte of a weight gives
other labels, and nothing is said. Its callbacks for encryption, which could carry a digest, see the
graph and not the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from icnet_deploy._version import __version__
from icnet_deploy.errors import ModelError, OutputError
from icnet_deploy.files import asked_cache_folder, replacing
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.runtime.backends.openvino.graph import PREPARED

_DIGEST = 64  # hex digits at the start of a file


class Found(NamedTuple):
    """A compiled model that was kept, and what was told of it."""

    told: dict[str, Any]
    compiled: bytes


class Kept(NamedTuple):
    """Where one compiled model is kept, or will be.

    Attributes:
        artefact: the ONNX file.
        sha256: of it, and of its external data.
        folder: of all that is kept.
        key: all that the compiled model depends on, as JSON.
    """

    artefact: Path
    sha256: str
    folder: Path
    key: bytes

    @property
    def path(self) -> Path:
        """The file; its name is the key's SHA-256."""
        return self.folder / f"{hashlib.sha256(self.key).hexdigest()[:32]}.blob"

    def read(self) -> Found | None:
        """What is kept; None if nothing is, or if its bytes are not those that were."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        if content[:_DIGEST] != self._digest(memoryview(content)[_DIGEST:]):
            return None
        try:
            end = content.index(b"\n", _DIGEST)
            return Found(json.loads(content[_DIGEST:end]), content[end + 1 :])
        except ValueError:  # whole, but laid out by another version of this file
            return None

    def write(self, told: Mapping[str, Any], compiled: bytes) -> None:
        """Keeps a compiled model, and what is told of it; done without where it cannot be."""
        with suppress(ModelError, OSError, OutputError):
            # What was compiled was read after the digest was taken.
            if artefact_sha256(self.artefact) != self.sha256:
                return
            content = json.dumps(told).encode() + b"\n" + compiled
            with replacing(self.path) as temporary:
                temporary.write_bytes(self._digest(content) + content)

    def _digest(self, content: bytes | memoryview) -> bytes:
        digest = hashlib.sha256(self.key)
        digest.update(content)
        return digest.hexdigest().encode()


def kept(
    artefact: Path, machine: Mapping[str, Any], config: Mapping[str, Any], cached: bool | None
) -> Kept | None:
    """Where the compiled form of an ONNX file is kept; None where nothing is.

    Args:
        artefact: the file.
        machine: OpenVINO's version, and the processor as it sees it.
        config: how it is compiled.
        cached: whether it may be kept; None: only where `ICNET_CACHE` is set.

    Raises:
        ModelError: external data are missing.
    """
    folder = asked_cache_folder("openvino", cached)
    if folder is None:
        return None
    try:
        sha256 = artefact_sha256(artefact)
    except OSError:  # opening it says why
        return None
    key: dict[str, Any] = {"artefact": sha256, "machine": machine, "config": config}
    key |= {"icnet-deploy": __version__, "prepared": PREPARED}
    return Kept(artefact, sha256, folder, json.dumps(key, sort_keys=True).encode())
