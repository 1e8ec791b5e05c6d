"""A foreign file as a network of the kit, for what runs one and compares with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from icnet_deploy.documents import as_read
from icnet_deploy.errors import BackendError, InputError, ModelError
from icnet_deploy.export.adopt.ending import Ending, Endings, chain, require_classes
from icnet_deploy.export.adopt.foreign_file import ForeignFile, read_foreign
from icnet_deploy.export.adopt.original import Array, Original
from icnet_deploy.export.adopt.tail import with_tail
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.networks.base import SegmentationNetwork

_ARCHITECTURE = "adopted"
"""What an artefact's `network` has as its architecture."""

Size = tuple[int, int]

_TRIED = ((128, 192), (256, 320), (512, 1024), (224, 224), (384, 384), (768, 1024), (1024, 2048))
"""(height, width) that a file of free sides is first run at, in pixels, until one is taken."""


class ForeignNetwork(SegmentationNetwork):
    """The file's own graph on ONNX Runtime on the CPU, up to its logits.

    Of a file that gives label maps alone, the logits are 1 of the class and 0 of the others.

    Args:
        file: it.
        ending: where its logits are.
        classes: how many the label set has.
        threshold: of one channel, as `Ending.shift` takes it.

    Raises:
        ModelError: ONNX Runtime does not load it.
    """

    def __init__(
        self, file: ForeignFile, ending: Ending, classes: int, threshold: float | None = None
    ) -> None:
        super().__init__()
        self.num_classes, self.file, self.ending = classes, file, ending
        self.threshold = ending.share(threshold) if ending.channels == 1 else None
        self._original = Original(file, [ending.head], with_tail(file, ending, threshold))
        self._stride: int | None = None

    def place(self, upsampling: str, stride: int | None, min_side: int, side_multiple: int) -> None:
        """Says what was found of it; see `SegmentationNetwork`."""
        self.upsampling, self._stride = upsampling, stride
        self.min_side, self.side_multiple = min_side, side_multiple

    @property
    def stride(self) -> int | None:
        """As it was found."""
        return self._stride

    def __deepcopy__(self, memo: dict[int, Any]) -> ForeignNetwork:
        """Itself: it has no state, and a session cannot be copied."""
        return self

    def heads(self, image: Tensor) -> list[Tensor]:
        """The logits, float N x C x h x w; see `SegmentationNetwork.heads`."""
        answer = self._original.run(image.numpy())[self.ending.head]
        if self.ending.head == "labels":
            require_classes(int(answer.max()), self.num_classes, self.file.path)
            index = np.arange(self.num_classes, dtype=np.uint8).reshape(1, -1, 1, 1)
            answer = (answer[:, None] == index).astype(np.float32)
        return [torch.from_numpy(np.ascontiguousarray(answer, np.float32))]

    def description(self, guidance: bool | None = None) -> dict[str, Any]:
        """Where it comes from; nothing builds it from that alone."""
        found: dict[str, Any] = as_read(
            {
                "architecture": _ARCHITECTURE,
                "file": self.file.path.name,
                "writer": self.file.writer,
                "opset": f"opset {self.file.opset}",
                "layout": self.file.layout,
                "output": self.file.output,
                "tensor": self.ending.tensor,
                "num_classes": self.num_classes,
            }
        )
        return found


class Ways(NamedTuple):
    """The ways to take a file.

    Attributes:
        file: it, of one image at a time where it says any number and does not take two.
        endings: from the one that leaves most off.
        at: (height, width) in pixels that it ran at.
    """

    file: ForeignFile
    endings: list[Ending]
    at: Size


def endings_of(file: ForeignFile, classes: int, size: Size | None) -> Ways:
    """All ways to take a file.

    Args:
        file: it.
        classes: how many the label set has.
        size: (height, width) in pixels to run it at; None: any that it takes.

    Raises:
        InputError, ModelError: it does not run, or its answer is no logits and no label map.
        LabelSetError: it has another number of classes.
    """
    nodes = chain(file.model, file.output)
    tensors = [file.output, *(str(node.input[0]) for node in nodes)]
    original = Original(file, tensors)
    refusal = ""
    for at in [size] if size is not None else _TRIED:
        noise = np.random.default_rng(0).normal(size=(1, 3, *at)).astype(np.float32)
        try:
            seen = original.run(noise)
        except BackendError as error:
            refusal = refusal or str(error)
            continue
        if file.batch is None and not _takes_two(original, noise, seen[file.output].shape):
            file = replace(file, batch=1)
        return Ways(file, Endings(file, seen, at, classes).find(), at)
    advice = "give another --size" if size is not None else "give a --size that it takes"
    raise InputError(f"{refusal}; {advice}")


def _takes_two(original: Original, noise: Array, shape: tuple[int, ...]) -> bool:
    """Whether two images have two answers, of the shape that one has."""
    try:
        two = original.run(np.concatenate([noise, noise]))[original.file.output]
    except BackendError:
        return False
    return two.shape == (2, *shape[1:])


def reopen(path: Path, said: ArtefactMetadata) -> ForeignNetwork:
    """The network of a foreign file as an artefact was made of it.

    Args:
        path: the file.
        said: what the artefact says of itself.

    Raises:
        ModelError: it cannot be read, or is not the file that the artefact was made of.
    """
    described = {name: str(value) for name, value in said.network.items()}
    if described.get("architecture") != _ARCHITECTURE or said.weights_sha256 is None:
        raise ModelError(
            f"no artefact here was adopted from {path}: give the file that was adopted"
        )
    file = read_foreign(path, described.get("layout"), described.get("output"))
    if file.sha256 != said.weights_sha256:
        raise ModelError(
            f"{path} has the SHA-256 {file.sha256}, but the artefacts were adopted from the file "
            f"with the SHA-256 {said.weights_sha256}: give that file"
        )
    classes = len(said.label_set)
    file, endings, _ = endings_of(file, classes, said.size)
    same = (ending for ending in endings if ending.tensor == described.get("tensor"))
    ending = next(same, endings[-1])
    network = ForeignNetwork(file, ending, classes, said.threshold)
    network.place(said.upsampling, said.stride, said.min_side, said.side_multiple)
    return network
