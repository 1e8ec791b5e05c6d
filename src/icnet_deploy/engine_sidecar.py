"""What lies beside a TensorRT engine: `NAME.engine.json`, written when it is built.

An engine stays the plain plan that TensorRT, `trtexec` and Triton load, so what it came from and
what it fits cannot be in it. The sidecar names the engine by its SHA-256: one that was changed,
swapped or cut off is found before TensorRT is asked to load it, which runs what is in it. Of itself
it holds a digest, too.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from icnet_deploy.documents import (
    COUNT,
    OBJECT,
    TEXT,
    Schema,
    list_of,
    object_of,
    object_with,
    or_null,
    sealed,
)
from icnet_deploy.errors import ModelError
from icnet_deploy.metadata import ArtefactMetadata

_NEWEST = 1
"""Raised when a reader of today could misunderstand the file."""

Profile = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""Input -> the least, the best and the largest shape that the engine takes."""


@dataclass(frozen=True)
class Gpu:
    """The GPU that an engine was built on.

    Attributes:
        name: as its driver says it, e.g. "NVIDIA GeForce RTX 3090".
        compute_capability: (major, minor), e.g. (8, 6).
        driver: the version of its driver, e.g. "580.65.06"; empty where it cannot be asked.
    """

    name: str
    compute_capability: tuple[int, int]
    driver: str

    def __str__(self) -> str:
        major, minor = self.compute_capability
        return f"{self.name} (compute capability {major}.{minor}, driver {self.driver or '?'})"


@dataclass(frozen=True)
class EngineSidecar:
    """Everything that is known of an engine besides its bytes.

    Attributes:
        engine_sha256: SHA-256 of the engine file.
        onnx_sha256: SHA-256 of the ONNX file that it was built from.
        metadata: what that file says of itself.
        flavour: `tensorrt` or `tensorrt-rtx`.
        version: of TensorRT, in full, e.g. "10.16.1.11".
        gpu: what it was built on; None if it was built for targets, without a GPU.
        targets: what TensorRT-RTX was told to build for, e.g. ("SM86", "SM89"); empty otherwise.
        profiles: what shapes it takes; empty if its inputs are of one shape.
        options: how it was built: workspace, level, TF32, compatibility.
        precisions: what the engine's inspector said: precision -> number of layers; None if the
            engine could not be inspected where it was built.
        schema: the version of this layout.
    """

    engine_sha256: str
    onnx_sha256: str
    metadata: ArtefactMetadata
    flavour: str
    version: str
    gpu: Gpu | None
    targets: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    precisions: dict[str, int] | None = None
    schema: int = _NEWEST

    def check(self, engine: bytes, path: str | Path) -> None:
        """Refuses an engine that is not the one described here.

        Args:
            engine: the file's bytes, the very ones that TensorRT will get.
            path: where they came from, for the message.

        Raises:
            ModelError: their SHA-256 is another.
        """
        digest = hashlib.sha256(engine).hexdigest()
        if digest != self.engine_sha256:
            raise ModelError(
                f"{path} is not the engine that {sidecar_path(path)} describes: its SHA-256 is "
                f"{digest[:16]}..., expected {self.engine_sha256[:16]}... An engine is a program: "
                "build it again with `icnet build-engine`, or copy both files again from a place "
                "that you trust"
            )

    def to_dict(self) -> dict[str, Any]:
        """The JSON value that `read_sidecar` reads back as an equal one; it has a digest."""
        return sealed(asdict(self) | {"metadata": self.metadata.to_dict()})


_GPU = {"name": TEXT, "compute_capability": list_of(COUNT, 2), "driver": TEXT}
_SCHEMA = Schema(
    "what `icnet build-engine` writes",
    {
        **dict.fromkeys(("engine_sha256", "onnx_sha256", "flavour", "version"), TEXT),
        "metadata": OBJECT,
        "gpu": or_null(object_with(_GPU)),
        "targets": list_of(TEXT),
        "profiles": list_of(object_of(list_of(list_of(COUNT), 3))),
        "options": OBJECT,
        "precisions": or_null(object_of(COUNT)),
    },
    optional=("options", "precisions"),
    closed=True,
    newest=_NEWEST,
    sealed=True,
    error=ModelError,
)


def sidecar_path(engine: str | Path) -> Path:
    """Where an engine's sidecar lies: `icnet.engine` has `icnet.engine.json`."""
    engine = Path(engine)
    return engine.with_name(engine.name + ".json")


def read_sidecar(engine: str | Path) -> EngineSidecar | None:
    """Reads the sidecar of an engine; None if there is none.

    Raises:
        ModelError: there is one, and it cannot be read.
    """
    path = sidecar_path(engine)
    known = _SCHEMA.read_if_there(path)
    if known is None:
        return None
    try:
        metadata = ArtefactMetadata.from_dict(known["metadata"])
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    gpu = known["gpu"]
    parts = {
        "metadata": metadata,
        "gpu": gpu and Gpu(gpu["name"], tuple(gpu["compute_capability"]), gpu["driver"]),
        "targets": tuple(known["targets"]),
        "profiles": tuple(map(_profile, known["profiles"])),
    }
    return EngineSidecar(**known | parts)


def _profile(value: Mapping[str, Any]) -> Profile:
    return {
        name: (tuple(least), tuple(best), tuple(most))
        for name, (least, best, most) in value.items()
    }
