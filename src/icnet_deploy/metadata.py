"""What an artefact says about itself: one JSON value in an ONNX file's `metadata_props`.

It is read here without the onnx package or any runtime, by walking the file's outermost fields
(a ModelProto is a sequence of tagged fields; `metadata_props` is number 14), which also finds a
file that was cut off before any runtime is asked to load it. With it the file is held to the digest
that it carries (see `integrity`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from os.path import isdir
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, overload

from icnet_deploy.documents import (
    BOOL,
    FROM_ONE,
    OBJECT,
    PROBABILITY,
    SHA256,
    TEXT,
    Kind,
    Schema,
    list_of,
    one_of,
    or_null,
)
from icnet_deploy.errors import LabelSetError, ModelError
from icnet_deploy.files import open_file, replacing
from icnet_deploy.integrity import (
    KEY,
    Entry,
    digest_of,
    find_entry,
    require_finite_graph,
    with_entry,
)
from icnet_deploy.labels import LabelSet

_Checked = TypeVar("_Checked")

SCHEMA = 2
"""The newest layout. A value is of it where a reader of the first could misunderstand it; see
`ArtefactMetadata.schema`."""

NO_DIGEST = (
    "it holds no digest, because version 0.1 wrote it: a damaged file is not noticed; export it "
    "again"
)
"""What is said of a file that cannot be held to a digest."""

UPSAMPLINGS = ("aligned-corners", "half-pixel", "none")
"""How a network's last upsampling places its logits in the image."""

FITS = ("stretch", "letterbox")
"""What becomes of an image of another size than the model's."""

_STAMPED = "stamped"  # says the digest's presence again, so that no one damaged key can hide it


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
        upsampling: the rule by which logits become pixels: the corners' centres lie on one another
            (`aligned-corners`, ICNet's, and what a file that does not say means), or the pixels'
            edges do (`half-pixel`), or each logit is a pixel (`none`).
        min_side: the least height and width in pixels that the network takes.
        side_multiple: both sides of an image must be multiples of it; 1: any will do.
        fit: what becomes of an image of another size than the graph takes: it is resized to it
            (`stretch`), or keeps its shape, with a border right of it and below (`letterbox`); see
            `images.fit_image`.
        threshold: of a network with one channel of logits, the probability from which on a pixel is
            of the second class; the graph gives two channels all the same. None: it has several.
        calibration_images: content hashes of the images whose activations set the ranges.
        tools: name -> version of what wrote the artefact.
        digest: SHA-256 of the file that carries this, as `integrity` has it; empty where it was not
            stamped, as in files of version 0.1.
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
    upsampling: str = UPSAMPLINGS[0]
    min_side: int = 64
    side_multiple: int = 1
    fit: str = FITS[0]
    threshold: float | None = None
    calibration_images: tuple[str, ...] = ()
    tools: dict[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def schema(self) -> int:
        """The version of this layout: 2 where a reader of the first would label wrongly.

        Such a reader knows aligned corners alone, no letterbox, and as many channels as the network
        has. An ICNet's files stay of the first.
        """
        misread = (
            self.upsampling != UPSAMPLINGS[0] or self.fit != FITS[0] or self.threshold is not None
        )
        return SCHEMA if misread else 1

    def to_dict(self) -> dict[str, Any]:
        """The JSON value that `from_dict` reads back as an equal one."""
        value = asdict(self) | {"label_set": self.label_set.to_dict()}
        return value | {_STAMPED: bool(self.digest), "schema": self.schema}

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ArtefactMetadata:
        """Reads the value back from a text; raises as `from_dict`."""
        return cls._of(_SCHEMA.parse(text, _WHERE))

    @classmethod
    def from_dict(cls, value: Any) -> ArtefactMetadata:
        """Reads the value back.

        Raises:
            ModelError: a field is missing, of another kind, or not known, or the schema is newer
                than this reader.
        """
        return cls._of(_SCHEMA.fit(value, _WHERE))

    @classmethod
    def _of(cls, known: dict[str, Any]) -> ArtefactMetadata:
        try:
            if known.pop(_STAMPED, False) is not bool(known.get("digest")):
                raise ValueError("its digest is damaged")
            label_set = LabelSet.from_dict(known["label_set"])
        except (ValueError, LabelSetError) as error:
            raise ModelError(f"{_WHERE} is not {_SCHEMA.what}: {error}") from error
        size = known["size"] and tuple(known["size"])
        images = tuple(known.get("calibration_images", ()))
        known.pop("schema")
        return cls(**known | {"label_set": label_set, "size": size, "calibration_images": images})


_WHERE = "the artefact's metadata"
_OPTIONAL = {
    **dict.fromkeys(("network", "preprocessing", "tools"), OBJECT),
    **dict.fromkeys(("weights_sha256", "parent_sha256", "training_data"), or_null(TEXT)),
    "stride": or_null(FROM_ONE),
    "upsampling": one_of(*UPSAMPLINGS),
    "min_side": FROM_ONE,
    "side_multiple": FROM_ONE,
    "fit": one_of(*FITS),
    "threshold": or_null(PROBABILITY),
    "calibration_images": list_of(TEXT),
    "digest": Kind(lambda value: value == "" or SHA256.fits(value), SHA256.words),
    _STAMPED: BOOL,
}
_SCHEMA = Schema(
    "what `icnet export` writes",
    {
        "label_set": OBJECT,
        "size": or_null(list_of(FROM_ONE, 2)),
        "head": TEXT,
        "precision": TEXT,
        **_OPTIONAL,
    },
    optional=_OPTIONAL,
    closed=True,
    newest=SCHEMA,
    error=ModelError,
)


def stamped(content: bytes, metadata: ArtefactMetadata, external_data: Path | None = None) -> bytes:
    """An ONNX file with these metadata, and in them the digest of all of it.

    Args:
        content: the file's bytes; metadata that it has are replaced.
        metadata: what it is to say of itself.
        external_data: the folder of the files that its tensors lie in; None: all are in `content`.

    Returns:
        The file's bytes.

    Raises:
        ModelError: external data are missing.
    """
    blank = "0" * 64
    text = replace(metadata, digest=blank).to_json()
    file = io.BytesIO(with_entry(content, text))
    total = file.getbuffer().nbytes
    entry = find_entry(file, total)
    digest = digest_of(file, total, entry, _without(blank, text), external_data)
    return with_entry(content, text.replace(f'"digest": "{blank}"', f'"digest": "{digest}"', 1))


@overload
def write_artefact(out: Path, content: bytes, metadata: ArtefactMetadata) -> None: ...
@overload
def write_artefact(
    out: Path, content: bytes, metadata: ArtefactMetadata, check: Callable[[Path], _Checked]
) -> _Checked: ...
def write_artefact(
    out: Path,
    content: bytes,
    metadata: ArtefactMetadata,
    check: Callable[[Path], Any] = lambda path: None,
) -> Any:
    """Writes an ONNX file: stamped, checked, and only then under its name.

    Args:
        out: the file.
        content: its bytes; metadata that they have are replaced.
        metadata: what it is to say of itself.
        check: is given the whole file under another name; where it raises, nothing is kept.

    Returns:
        What `check` returns.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(out) as temporary:
        temporary.write_bytes(stamped(content, metadata))
        return check(temporary)


def _without(digest: str, text: str) -> str:
    return text.replace(f'"digest": "{digest}"', '"digest": ""', 1)


def read_onnx_metadata(path: str | Path, check: bool = True) -> ArtefactMetadata:
    """Reads the metadata of an ONNX file that this product wrote, and proves that it is unchanged.

    Args:
        path: the file.
        check: compare the file with the digest in its metadata, which reads all of it, external
            data included. False only where whoever runs the file checks it.

    Raises:
        ModelError: there is no such file, it is not ONNX, is cut off, another program's, or not
            the file that was written. Of one of version 0.1, which has no digest, it is only seen
            whether its weights are finite.
    """
    path = Path(path)
    if isdir(path):
        raise ModelError(
            f"cannot read the model {path}: it is a folder; name a file in it, or give the folder "
            "to a command that takes one (`icnet predict --model`, `icnet verify`)"
        )
    total = 0
    try:
        with open_file(path) as file:
            total = path.stat().st_size
            entry = find_entry(file, total)
            metadata = _metadata(path, entry)
            if check and metadata.digest:
                _require_unchanged(path, file, total, entry, metadata.digest)
            elif check:  # what is stamped was looked at before
                file.seek(0)
                with suppress(EOFError, ValueError):  # a graph in name only: no runtime loads it
                    require_finite_graph(file.read(), str(path), "export the network again")
        return metadata
    except OSError as error:
        raise ModelError(
            f"cannot read the model {path}: {error.strerror or error}; expected an ONNX file that "
            "`icnet export` or `icnet quantize` wrote; `icnet export -o FILE` writes that of the "
            "shipped network"
        ) from error
    except (EOFError, ValueError) as error:
        raise ModelError(
            f"{path} is not a whole ONNX file ({total} bytes: {error}): if it was cut off, copy or "
            "export it again; if it is another kind of file, name an ONNX file"
        ) from error


def _require_unchanged(path: Path, file: BinaryIO, total: int, entry: Entry, wanted: str) -> None:
    digest = digest_of(file, total, entry, _without(wanted, entry.text or ""), path.parent)
    if digest != wanted:
        raise ModelError(
            f"{path} is not the file that was written: its SHA-256 is {digest[:16]}..., its "
            f"metadata say {wanted[:16]}... Bytes of it, or of its external data, were changed or "
            "lost on the way: copy the whole file again, or export it again"
        )


def _metadata(path: Path, entry: Entry) -> ArtefactMetadata:
    if not entry.graph:
        raise ModelError(f"{path} is not an ONNX file: it holds no graph")
    if entry.text is None:
        raise ModelError(
            f"{path} is an ONNX file, but not one that icnet-deploy wrote (no {KEY!r} in its "
            "metadata): `icnet adopt` makes an artefact of it; a network in PyTorch is better "
            "exported with `icnet export`"
        )
    return ArtefactMetadata.from_json(entry.text)
