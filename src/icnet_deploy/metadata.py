"""What an artefact says about itself: one JSON value in an ONNX file's `metadata_props`.

It is read here without the onnx package or any runtime, by walking the file's outermost fields
(a ModelProto is a sequence of tagged fields; `metadata_props` is number 14), which also finds a
file that was cut off before any runtime is asked to load it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from icnet_deploy.errors import LabelSetError, ModelError
from icnet_deploy.labels import LabelSet
from icnet_deploy.protobuf import fields, fields_of

__all__ = ["KEY", "SCHEMA", "ArtefactMetadata", "read_onnx_metadata"]

KEY = "icnet_deploy"
"""The name of the one entry in `metadata_props`."""

SCHEMA = 1
"""Raised when a reader of today could misunderstand the value."""

_GRAPH, _METADATA_PROPS = 7, 14  # field numbers of ModelProto in onnx.proto


@dataclass(frozen=True)
class ArtefactMetadata:
    """Everything that a runtime, a score or a person needs to know of an artefact.

    Attributes:
        label_set: the classes that the output speaks of.
        size: (height, width) in pixels that the graph takes, or None for any size.
        head: `logits` (float, N x C x h x w) or `labels` (uint8, N x H x W).
        precision: `fp32`, `fp16`, `int8` or `int8-ort`.
        network: how the network was built, e.g. {"stages": "sub124", "width": 0.5}.
        preprocessing: what the graph does to the uint8 image (see `Preprocessing`), to be read,
            not to be repeated.
        weights_sha256: SHA-256 of the checkpoint file.
        parent_sha256: SHA-256 of the ONNX file that this one was made from, if any.
        training_data: what the weights were trained on, in words.
        stride: how many pixels of the image lie from logit to logit, on both axes: the logits are
            ceil(H / stride) x ceil(W / stride); None in a file that does not say.
        calibration_images: content hashes of the images whose activations set the ranges.
        tools: name -> version of what wrote the artefact.
        schema: the version of this layout.
    """

    label_set: LabelSet
    size: tuple[int, int] | None
    head: str
    precision: str
    network: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str | None = None
    parent_sha256: str | None = None
    training_data: str | None = None
    stride: int | None = None
    calibration_images: tuple[str, ...] = ()
    tools: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The JSON text that `from_json` reads back as an equal value."""
        value = asdict(self)
        value["label_set"] = self.label_set.to_dict()
        return json.dumps(value, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ArtefactMetadata:
        """Reads the value back.

        Raises:
            ModelError: it is not JSON, a field is missing, or the schema is newer than this reader.
        """
        try:
            value = json.loads(text)
            schema = int(value["schema"])
            if schema > SCHEMA:
                raise ModelError(
                    f"the artefact's metadata has schema {schema}, this version of icnet-deploy "
                    f"reads up to {SCHEMA}: upgrade icnet-deploy"
                )
            size = value["size"]
            known = {k: v for k, v in value.items() if k in cls.__dataclass_fields__}
            known |= {
                "label_set": LabelSet.from_dict(value["label_set"]),
                "size": None if size is None else (int(size[0]), int(size[1])),
                "calibration_images": tuple(value.get("calibration_images", ())),
            }
            return cls(**known)
        except (ArithmeticError, LookupError, TypeError, ValueError, LabelSetError) as error:
            raise ModelError(f"the artefact's metadata cannot be read: {error!r}") from error


def read_onnx_metadata(path: str | Path) -> ArtefactMetadata:
    """Reads the metadata of an ONNX file that this product wrote.

    Raises:
        ModelError: there is no such file, it is not ONNX, is cut off, or another program's.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelError(
            f"cannot read the model {path}: it is a folder; name a file in it, or give the folder "
            "to a command that takes one (`icnet predict --model`, `icnet verify`)"
        )
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            found = list(fields(file, total, (_METADATA_PROPS,), highest=100))
        entries = [_entry(f.data) for f in found if f.number == _METADATA_PROPS]
    except OSError as error:
        raise ModelError(
            f"cannot read the model {path}: {error.strerror or error}; expected an ONNX file that "
            "`icnet export` or `icnet quantize` wrote"
        ) from error
    except (EOFError, ValueError) as error:
        raise ModelError(
            f"{path} is not a whole ONNX file ({total} bytes: {error}): it was cut off, or is "
            "another kind of file; export it again"
        ) from error
    if not any(f.number == _GRAPH for f in found):
        raise ModelError(f"{path} is not an ONNX file: it holds no graph")
    for entry in entries:
        if entry.get(1) == KEY:
            return ArtefactMetadata.from_json(entry.get(2, ""))
    raise ModelError(
        f"{path} is an ONNX file, but not one that icnet-deploy wrote (no {KEY!r} in its metadata):"
        " export the network with `icnet export`"
    )


def _entry(message: bytes) -> dict[int, str]:
    """A StringStringEntryProto: 1 is the key, 2 the value."""
    return {f.number: f.data.decode("utf-8", "replace") for f in fields_of(message, (1, 2))}
