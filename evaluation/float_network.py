"""What a reference runs: a network in float32 on the CPU, in PyTorch or as an ONNX file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from icnet_deploy.errors import BackendError, InputError, ModelError, require
from icnet_deploy.evaluation.answer import Float32, Size
from icnet_deploy.files import sha256
from icnet_deploy.images import Fitting, UInt8
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint

NEEDS = ("the PyTorch reference", "benchmark", "torch", "safetensors")
"""What `require` is told of the reference."""

_OWN = "own"
"""What a checkpoint's `info` has of a network of a user's own: sentences about it."""


@dataclass(frozen=True)
class Origin:
    """What a reference is, as reports tell it.

    Attributes:
        kind: `pytorch` or `onnxruntime`, what runs it.
        name: of its file, or of what made it.
        sha256: of its weights, as artefacts of it name them.
        notes: what its reader must know of it, in words.
    """

    kind: str = "pytorch"
    name: str = ""
    sha256: str | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind == "pytorch":
            return "the PyTorch network (float32, CPU)"
        return f"{self.name} (float32, ONNX Runtime on the CPU)"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        own = {"kind": self.kind, "name": self.name, "weights_sha256": self.sha256}
        return own | {"notes": list(self.notes)}


class FloatNetwork(Hashable, Protocol):
    """A network in float32, on the CPU."""

    @property
    def origin(self) -> Origin:
        """What it is, for reports."""
        ...

    @property
    def metadata(self) -> ArtefactMetadata:
        """What a float32 artefact of it that takes any size and gives logits would say.

        Its `weights_sha256` is what artefacts of this network name.
        """
        ...

    @property
    def fitting(self) -> Fitting:
        """How images come to it."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """All that its answers hang on but the image and its size: JSON values."""
        ...

    def require_origin(self, path: Path, metadata: ArtefactMetadata, digest: str) -> None:
        """Refuses an artefact that was not made from it (ModelError).

        Args:
            path: the artefact.
            metadata: what it says of itself.
            digest: its SHA-256.
        """
        ...

    def require_size(self, size: Size | None) -> None:
        """Refuses a size that it cannot be run at; None is each image's own (InputError)."""
        ...

    def run(self, pixels: UInt8) -> Float32:
        """Logits, float32 C x h x w, of uint8 H x W x 3, RGB, as they are."""
        ...

    def tie_margins(self, largest: float) -> Mapping[int, float]:
        """What it takes for a tie; see `SegmentationNetwork.tie_margins`."""
        ...


class PytorchNetwork:
    """A checkpoint's network, or one of a user's own, in PyTorch.

    Args:
        checkpoint: it, and what is known of it.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @property
    def origin(self) -> Origin:
        """See `FloatNetwork.origin`."""
        one = self.checkpoint
        return Origin("pytorch", one.path.name, one.sha256, tuple(one.info.get(_OWN, ())))

    @cached_property
    def metadata(self) -> ArtefactMetadata:
        """See `FloatNetwork.metadata`."""
        network, preprocessing = self.checkpoint.network, self.checkpoint.preprocessing
        return ArtefactMetadata(
            self.checkpoint.label_set,
            None,
            "logits",
            "fp32",
            network=network.description(),
            preprocessing=preprocessing.to_dict(),
            weights_sha256=self.checkpoint.sha256,
            upsampling=network.upsampling,
            min_side=network.min_side,
            side_multiple=network.side_multiple,
            fit=preprocessing.fit,
        )

    @cached_property
    def fitting(self) -> Fitting:
        """As of an artefact, but that a checkpoint of this product takes smaller images, too."""
        fitting = Fitting.of(self.metadata)
        return fitting if _OWN in self.checkpoint.info else replace(fitting, min_side=1)

    @property
    def identity(self) -> dict[str, Any]:
        """See `FloatNetwork.identity`."""
        return {"pytorch": self.metadata.to_json()}

    def require_origin(self, path: Path, metadata: ArtefactMetadata, digest: str) -> None:
        """See `FloatNetwork.require_origin`."""
        weights, one = metadata.weights_sha256, self.checkpoint
        if weights == one.sha256:
            return
        if weights is None:
            raise _nameless(path)
        if _OWN in one.info:
            raise ModelError(
                f"{path} was made from weights with SHA-256 {weights}, but those of {one.path} "
                f"have {one.sha256}: give the artefact's own weights with --weights, or a factory "
                "that always makes the same weights"
            )
        raise ModelError(
            f"{path} was made from the checkpoint with SHA-256 {weights}, but {one.path} has "
            f"{one.sha256}: give the artefact's own checkpoint with --weights"
        )

    def require_size(self, size: Size | None) -> None:
        """See `FloatNetwork.require_size`."""
        multiple = self.checkpoint.network.side_multiple
        if size is not None and any(side % multiple for side in size):
            raise InputError(
                f"{self.checkpoint.path} takes only sizes whose sides are multiples of {multiple}, "
                f"but the size is {size[0]}x{size[1]}: choose another"
            )

    def run(self, pixels: UInt8) -> Float32:
        """See `FloatNetwork.run`."""
        import torch

        one = self.checkpoint
        with torch.inference_mode():
            try:
                logits = one.network(one.preprocessing.tensor(pixels))
            except Exception as error:
                if _OWN not in one.info:
                    raise
                height, width = pixels.shape[:2]
                raise InputError(
                    f"{one.path} failed on an image of {height}x{width} with "
                    f"{type(error).__name__}: {error!s:.300}; choose a size that it takes"
                ) from error
            return np.asarray(logits[0].numpy())

    def tie_margins(self, largest: float) -> Mapping[int, float]:
        """See `FloatNetwork.tie_margins`."""
        return self.checkpoint.network.tie_margins(largest)


def _nameless(path: Path) -> ModelError:
    return ModelError(
        f"{path} does not say which checkpoint it was made from, so there is nothing to compare it "
        "with: export it again with `icnet export`"
    )


class _OnnxFile:
    """A float32 file on ONNX Runtime, which is opened at the first run."""

    def __init__(self, path: Path) -> None:
        self.path, self.metadata = path, read_onnx_metadata(path)
        if (self.metadata.precision, self.metadata.head) != ("fp32", "logits"):
            raise InputError(
                f"{path} cannot be the reference: it is {self.metadata.precision} and gives "
                f"{self.metadata.head}; expected a float32 file that gives logits, as `icnet "
                "export` writes it without --precision and --head"
            )
        self.sha256 = sha256(path)

    @cached_property
    def _session(self) -> Any:
        require("the reference on ONNX Runtime", "cpu", "onnxruntime")
        import onnxruntime

        try:
            return onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common root but this
            raise ModelError(f"ONNX Runtime cannot load {self.path}: {error}") from error

    def run(self, pixels: UInt8) -> Float32:
        feed = {self._session.get_inputs()[0].name: pixels[None]}
        try:
            (logits,) = self._session.run(None, feed)
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed on {self.path}: {error!s:.300}") from error
        return np.asarray(logits[0], np.float32)


class OnnxNetwork:
    """Float32 ONNX files of one network, on ONNX Runtime with its own settings.

    Args:
        paths: files that give logits, each of another size; the first names the network.

    Raises:
        ModelError: a file cannot be read, or two are of different networks.
        InputError: a file is not float32, or gives label maps.
    """

    def __init__(self, *paths: Path) -> None:
        files = [_OnnxFile(path) for path in paths]
        self._files = {file.metadata.size: file for file in reversed(files)}
        self._first = files[0]

    @property
    def origin(self) -> Origin:
        """See `FloatNetwork.origin`."""
        names = ", ".join(file.path.name for file in reversed(self._files.values()))
        metadata = self.metadata
        source, how = "the PyTorch network", "--network PACKAGE.MODULE:FACTORY or --weights"
        if metadata.parent_sha256 and metadata.parent_sha256 == metadata.weights_sha256:
            source = f"{metadata.network.get('file')}, which it was adopted from"
            how = "--reference FILE.onnx"
        note = (
            f"the reference is {names}; this run does not compare it with {source}, but {how} does"
        )
        return Origin("onnxruntime", names, self.metadata.weights_sha256, (note,))

    @property
    def metadata(self) -> ArtefactMetadata:
        """What the first file says of itself."""
        return self._first.metadata

    @cached_property
    def fitting(self) -> Fitting:
        """See `FloatNetwork.fitting`."""
        return Fitting.of(self.metadata)

    @property
    def identity(self) -> dict[str, Any]:
        """See `FloatNetwork.identity`."""
        return {"onnx": sorted(file.sha256 for file in self._files.values())}

    def require_origin(self, path: Path, metadata: ArtefactMetadata, digest: str) -> None:
        """See `FloatNetwork.require_origin`."""
        files, weights = {one.sha256 for one in self._files.values()}, metadata.weights_sha256
        if digest in files or metadata.parent_sha256 in files:
            return
        if weights is None:
            raise _nameless(path)
        own = self.metadata.weights_sha256
        if weights != own:
            raise ModelError(
                f"{path} was made from weights with SHA-256 {weights}, but the reference "
                f"{self._first.path} has {own}: give the artefact's own float32 file with "
                "--reference"
            )

    def require_size(self, size: Size | None) -> None:
        """See `FloatNetwork.require_size`."""
        if size not in self._files and None not in self._files:
            taken = ", ".join(f"{one[0]}x{one[1]}" for one in self._files if one)
            asked = "images of any size" if size is None else f"{size[0]}x{size[1]}"
            raise InputError(
                f"the reference {self._first.path} takes only {taken}, but the comparison needs "
                f"{asked}: give the network itself (--network PACKAGE.MODULE:FACTORY or "
                "--weights), or a float32 file of that size (--reference)"
            )

    def run(self, pixels: UInt8) -> Float32:
        """See `FloatNetwork.run`."""
        size = pixels.shape[0], pixels.shape[1]
        self.require_size(size)
        return self._files[size if size in self._files else None].run(pixels)

    def tie_margins(self, largest: float) -> Mapping[int, float]:
        """As its architecture has it, where that is known here; else the usual ones."""
        require(*NEEDS)
        from icnet_deploy.networks.base import SegmentationNetwork
        from icnet_deploy.networks.registry import build_network

        try:
            import torch

            with torch.device("meta"):
                network = build_network(self.metadata.network)
        except (TypeError, ValueError):  # a network of a user's own
            network = SegmentationNetwork()
        return network.tie_margins(largest)
