"""The reference that every artefact is held to: the network in float32, on the CPU.

It is the PyTorch network, or, where there is only an ONNX file of it, that file on ONNX Runtime
(`float_network`). Its label map is worked out the dense way (`answer`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from icnet_deploy.errors import require
from icnet_deploy.evaluation.answer import Answer, Float32, Size, answer_of
from icnet_deploy.evaluation.float_network import NEEDS, FloatNetwork, PytorchNetwork
from icnet_deploy.images import UInt8
from icnet_deploy.labels import LabelSet

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint for the reference.

    Raises:
        MissingPackage: torch or safetensors is not installed.
        ModelError: the file is not a checkpoint.
    """
    require(*NEEDS)
    from icnet_deploy.networks.checkpoint import load_checkpoint

    return load_checkpoint(path)


def shipped_checkpoint() -> Path:
    """The checkpoint that comes with the product (MissingPackage as `read_checkpoint`)."""
    require(*NEEDS)
    from icnet_deploy.networks.checkpoint import SHIPPED

    return SHIPPED


class Inferred(NamedTuple):
    """What the network gave for an image, before it is a label map.

    Attributes:
        logits: float32 C x h x w.
        size: (height, width) in pixels of what it ran on.
        content: (height, width) of the image in that, from the upper left corner on; the rest is
            border.
    """

    logits: Float32
    size: Size
    content: Size


class Reference:
    """A network at one input size.

    Args:
        network: what runs, or a `.safetensors` file of it.
        size: (height, width) in pixels that images are brought to, or None for their own, or where
            `at` says it later.

    Raises:
        MissingPackage, ModelError: as `read_checkpoint`.
        InputError: the network cannot be run at that size.
    """

    def __init__(self, network: str | Path | FloatNetwork, size: Size | None) -> None:
        if isinstance(network, str | Path):
            network = PytorchNetwork(read_checkpoint(network))
        if size is not None:
            network.require_size(size)
        self.network = network
        self.size = size

    @property
    def label_set(self) -> LabelSet:
        """The classes that the label map speaks of."""
        return self.network.metadata.label_set

    @property
    def upsampling(self) -> str:
        """The network's rule by which logits become pixels."""
        return self.network.metadata.upsampling

    @property
    def fit(self) -> str:
        """What becomes of an image of another size, of `metadata.FITS`."""
        return self.network.metadata.fit

    def tie_margins(self, largest: float) -> Mapping[int, float]:
        """What the network takes for a tie, in logits, by the bits of a precision.

        Args:
            largest: the largest size of a logit.
        """
        return self.network.tie_margins(largest)

    def at(self, size: Size | None) -> Reference:
        """The same network, not a copy of it, at another input size (InputError)."""
        self.network.require_size(size)
        other = copy.copy(self)
        other.size = size
        return other

    def infer(self, image: UInt8) -> Inferred:
        """Runs the network on an image of any size.

        Args:
            image: uint8 H x W x 3, RGB, 0..255.

        Raises:
            ImageError: it takes images at their own size, and none of this one.
        """
        fitted = self.network.fitting.apply(image, self.size)
        size = fitted.pixels.shape[0], fitted.pixels.shape[1]
        return Inferred(self.network.run(fitted.pixels), size, fitted.content)

    def logits(self, image: UInt8) -> Float32:
        """The logits of an image of any size, float32 C x h x w; see `infer`."""
        return self.infer(image).logits

    def labels(self, image: UInt8) -> UInt8:
        """The label map of an image, uint8 H x W at the image's own size."""
        return self.answer(image).labels

    def answer(self, image: UInt8) -> Answer:
        """Both the logits and the label map of an image, from one run of the network."""
        return self.finish(self.infer(image), _size(image))

    def finish(self, inferred: Inferred, image_size: Size, head: str = "logits") -> Answer:
        """Makes the label map that an artefact of this size would, of one of the two heads.

        Args:
            inferred: of the image.
            image_size: (height, width) of the image in pixels.
            head: `logits` or `labels`.
        """
        if self.fit == "letterbox":
            return answer_of(
                inferred.logits, image_size, inferred.size, self.upsampling, inferred.content
            )
        model_size = inferred.size if self.heads_differ(image_size) and head == "labels" else None
        return answer_of(inferred.logits, image_size, model_size, self.upsampling)

    def heads_differ(self, image_size: Size) -> bool:
        """Whether the two heads give unlike label maps of an image of (height, width) pixels.

        They agree where nothing is resized, and where both are finished at the model's size.
        """
        return self.fit != "letterbox" and self.size not in (None, image_size)


def _size(image: UInt8) -> Size:
    return image.shape[0], image.shape[1]
