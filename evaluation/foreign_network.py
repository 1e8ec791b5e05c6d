"""The file that artefacts were adopted from, as their reference: on ONNX Runtime, as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icnet_deploy.errors import BackendError, InputError, ModelError, require
from icnet_deploy.evaluation.answer import Float32, Size
from icnet_deploy.evaluation.float_network import NEEDS, Origin
from icnet_deploy.files import open_file
from icnet_deploy.images import Fitting, UInt8
from icnet_deploy.integrity import artefact_sha256, find_entry
from icnet_deploy.metadata import ArtefactMetadata

if TYPE_CHECKING:
    from icnet_deploy.export.adopt.network import ForeignNetwork


def is_foreign(path: Path) -> bool:
    """Whether a file is ONNX of another program."""
    try:
        total = path.stat().st_size
        with open_file(path) as file:
            entry = find_entry(file, total)
    except (OSError, EOFError, ValueError):
        return False
    return entry.graph and entry.text is None


def open_foreign(path: Path, artefacts: Iterable[ArtefactMetadata]) -> ForeignOnnx:
    """Opens a foreign file as the artefacts say that it is to be read.

    Args:
        path: the file.
        artefacts: what they say of themselves.

    Raises:
        ModelError: none of them was adopted from this file, or it cannot be read.
        MissingPackage: what reads it is not installed.
    """
    digest = artefact_sha256(path)
    said = next((one for one in artefacts if one.weights_sha256 == digest), None)
    if said is None:
        raise ModelError(
            f"{path} was written by another program, and no artefact here was made from it (its "
            f"SHA-256 is {digest[:16]}...): make one with `icnet adopt`"
        )
    require(*NEEDS)
    require("the reference on ONNX Runtime", "cpu", "onnxruntime", "onnx")
    from icnet_deploy.export.adopt.network import reopen

    return ForeignOnnx(reopen(path, said), said)


class ForeignOnnx:
    """A foreign file on ONNX Runtime, its input made in NumPy as its artefacts' metadata say.

    Its logits are read where the artefacts have theirs, out of the file's own graph: nothing of it
    is simplified, converted or rewritten. See `FloatNetwork`.

    Args:
        network: the file, opened.
        said: what an artefact of it says of itself.
    """

    def __init__(self, network: ForeignNetwork, said: ArtefactMetadata) -> None:
        self._network = network
        height, width = network.file.size
        self._size = None if height is None or width is None else (height, width)
        self.metadata = replace(
            said,
            size=self._size,
            head="logits",
            precision="fp32",
            parent_sha256=None,
            calibration_images=(),
            digest="",
        )

    @property
    def origin(self) -> Origin:
        """See `FloatNetwork.origin`."""
        file = self._network.file
        note = (
            f"the reference is {file.path.name} as {file.writer} wrote it; the preprocessing runs "
            "outside the file"
        )
        halved = "; its float16 weights run in float32" * file.half
        return Origin("onnxruntime", file.path.name, file.sha256, (note + halved,))

    @cached_property
    def fitting(self) -> Fitting:
        """See `FloatNetwork.fitting`."""
        return Fitting.of(self.metadata)

    @property
    def identity(self) -> dict[str, Any]:
        """See `FloatNetwork.identity`."""
        return {"foreign": self._network.file.sha256, "metadata": self.metadata.to_json()}

    def require_origin(self, path: Path, metadata: ArtefactMetadata, digest: str) -> None:
        """See `FloatNetwork.require_origin`."""
        own, weights = self._network.file.sha256, metadata.weights_sha256
        if weights != own:
            raise ModelError(
                f"{path} was made from weights with SHA-256 {weights}, but the reference "
                f"{self._network.file.path} has {own}: give the artefact's own with --reference"
            )

    def require_size(self, size: Size | None) -> None:
        """See `FloatNetwork.require_size`."""
        if self._size is not None and size != self._size:
            asked = "images of any size" if size is None else f"{size[0]}x{size[1]}"
            raise InputError(
                f"the reference {self._network.file.path} takes only "
                f"{self._size[0]}x{self._size[1]}, but the comparison needs {asked}: name an "
                "artefact of the reference's size"
            )

    def run(self, pixels: UInt8) -> Float32:
        """See `FloatNetwork.run`."""
        import torch

        from icnet_deploy.export.adopt.original import normalised

        self.require_size((pixels.shape[0], pixels.shape[1]))
        image = torch.from_numpy(normalised(pixels[None], self.metadata.preprocessing))
        try:
            return np.asarray(self._network(image)[0].numpy(), np.float32)
        except BackendError as error:
            raise InputError(f"{error}; give images of a size that it takes") from error

    def tie_margins(self, largest: float) -> Mapping[int, float]:
        """See `FloatNetwork.tie_margins`."""
        return self._network.tie_margins(largest)
