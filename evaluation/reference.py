"""The reference that every artefact is held to: the PyTorch network in float32, on the CPU.

Its label map is worked out the dense way, class by class with torch's own interpolation, so that
it shares no code with `icnet_deploy.runtime.labelmap`, which it judges.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import NotFinite, require
from icnet_deploy.images import UInt8, resize_image, resize_labels
from icnet_deploy.labels import LabelSet
from icnet_deploy.metadata import UPSAMPLINGS

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
_Index = npt.NDArray[np.intp]
Size = tuple[int, int]

_NEEDS = ("the PyTorch reference", "benchmark", "torch", "safetensors")
_PIXELS = 1 << 16  # per block of `margins_at`: 19 classes of four corners are then 40 MB


@dataclass(frozen=True)
class Answer:
    """What the reference says of one image.

    Attributes:
        logits: float32 C x h x w.
        labels: uint8 H x W, at the image's own size.
        upsampled: (height, width) to which the logits were upsampled for it: the image's size, or
            the model's where its label map was then resized by nearest neighbour.
        upsampling: by which rule of `metadata.UPSAMPLINGS`.
    """

    logits: Float32
    labels: UInt8
    upsampled: Size
    upsampling: str = UPSAMPLINGS[0]

    def margins(self, rows: _Index, cols: _Index) -> Float64:
        """How far the best logit is above the second best, at n pixels of the label map."""
        if self.upsampled != self.labels.shape:
            rows = _nearest(self.upsampled[0], self.labels.shape[0])[rows]
            cols = _nearest(self.upsampled[1], self.labels.shape[1])[cols]
        return margins_at(self.logits, self.upsampled, rows, cols, self.upsampling)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint for the reference.

    Raises:
        MissingPackage: torch or safetensors is not installed.
        ModelError: the file is not a checkpoint.
    """
    require(*_NEEDS)
    from icnet_deploy.networks.checkpoint import load_checkpoint

    return load_checkpoint(path)


def shipped_checkpoint() -> Path:
    """The checkpoint that comes with the product (MissingPackage as `read_checkpoint`)."""
    require(*_NEEDS)
    from icnet_deploy.networks.checkpoint import SHIPPED

    return SHIPPED


class Reference:
    """A checkpoint's network at one input size.

    Args:
        checkpoint_path: a `.safetensors` file.
        size: (height, width) in pixels that images are resized to, or None for their own.

    Raises:
        MissingPackage, ModelError: as `read_checkpoint`.
    """

    def __init__(self, checkpoint_path: str | Path, size: Size | None) -> None:
        self.checkpoint = read_checkpoint(checkpoint_path)
        self.size = size

    @property
    def label_set(self) -> LabelSet:
        """The classes that the label map speaks of."""
        return self.checkpoint.label_set

    @property
    def upsampling(self) -> str:
        """The network's rule by which logits become pixels."""
        return self.checkpoint.network.upsampling

    def tie_margins(self, largest: float) -> Mapping[int, float]:
        """What the network takes for a tie, in logits, by the bits of a precision.

        Args:
            largest: the largest size of a logit.
        """
        return self.checkpoint.network.tie_margins(largest)

    def at(self, size: Size | None) -> Reference:
        """The same network, not a copy of it, at another input size."""
        other = copy.copy(self)
        other.size = size
        return other

    def logits(self, image: UInt8) -> Float32:
        """Runs the network on an image of any size.

        Args:
            image: uint8 H x W x 3, RGB, 0..255.

        Returns:
            float32 C x h x w.
        """
        import torch

        resized = resize_image(image, self.size or _size(image))
        with torch.inference_mode():
            return np.asarray(
                self.checkpoint.network(self.checkpoint.preprocessing.tensor(resized))[0].numpy()
            )

    def labels(self, image: UInt8) -> UInt8:
        """The label map of an image, uint8 H x W at the image's own size."""
        return self.answer(image).labels

    def answer(self, image: UInt8) -> Answer:
        """Both the logits and the label map of an image, from one run of the network."""
        return answer_of(self.logits(image), _size(image), upsampling=self.upsampling)


def answer_of(
    logits: Float32,
    image_size: Size,
    model_size: Size | None = None,
    upsampling: str = UPSAMPLINGS[0],
) -> Answer:
    """Finishes logits as a caller of one of the two heads gets them finished.

    Args:
        logits: float32 C x h x w.
        image_size: (height, width) of the label map.
        model_size: (height, width) of an artefact whose graph makes the label map, which is then
            resized to the image's by nearest neighbour; None for one that gives logits, which are
            upsampled to the image's size at once.
        upsampling: the network's rule. Where it is `none`, the label map has the logits' size, and
            is then resized, whoever makes it.
    """
    if upsampling == "none":
        model_size = logits.shape[1], logits.shape[2]
    at = model_size or image_size
    labels = dense_labels(logits, at, upsampling)
    labels = labels if at == image_size else resize_labels(labels, image_size)
    return Answer(logits, labels, at, upsampling)


def dense_labels(logits: Float32, size: Size, upsampling: str = UPSAMPLINGS[0]) -> UInt8:
    """Upsamples logits bilinearly and takes the largest at every pixel.

    The interpolation runs in float64: torch's float32 places a pixel wrong by up to 1e-4 of a
    cell at these sizes, which would be counted against every exact implementation.

    Args:
        logits: float32 C x h x w, C <= 255.
        size: (height, width) of the label map in pixels.
        upsampling: the rule; for `none` the size is the logits'.

    Returns:
        uint8 H x W; of classes that tie, the first.

    Raises:
        NotFinite: a logit is infinite or not a number.
    """
    import torch
    import torch.nn.functional as F

    if not np.isfinite(logits).all():
        raise NotFinite
    aligned = upsampling != "half-pixel"  # of one size all rules are the same
    best = torch.full(size, -torch.inf, dtype=torch.float64)
    labels = torch.zeros(size, dtype=torch.uint8)
    for index, plane in enumerate(torch.from_numpy(np.ascontiguousarray(logits)).double()):
        # One class at a time: all 19 at 1024x2048 would be 320 MB.
        dense = F.interpolate(plane[None, None], size=size, mode="bilinear", align_corners=aligned)
        labels.masked_fill_(dense[0, 0] > best, index)
        torch.maximum(best, dense[0, 0], out=best)
    return np.asarray(labels.numpy())


def margins_at(
    logits: Float32,
    size: Size,
    rows: _Index,
    cols: _Index,
    upsampling: str = UPSAMPLINGS[0],
    block: int = _PIXELS,
) -> Float64:
    """How far the best logit is above the second best, at some pixels of the upsampled logits.

    Args:
        logits: float32 C x h x w, C >= 2.
        size: (height, width) that the logits are upsampled to, bilinearly.
        rows, cols: n pixels of that size.
        upsampling: the rule; for `none` the size is the logits'.
        block: how many of them at once.

    Returns:
        float64 of n, in logits, each at least 0.
    """
    margins = np.empty(len(rows), np.float64)
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        row, below, down = _corners(rows[part], logits.shape[1], size[0], upsampling)
        col, after, across = _corners(cols[part], logits.shape[2], size[1], upsampling)
        left = logits[:, row, col] * (1 - down) + logits[:, below, col] * down
        right = logits[:, row, after] * (1 - down) + logits[:, below, after] * down
        blend = np.asarray(left * (1 - across) + right * across, np.float64)
        top = np.partition(blend, -2, axis=0)[-2:]
        margins[part] = top[1] - top[0]
    return margins


def _corners(
    pixels: _Index, grid: int, size: int, upsampling: str
) -> tuple[_Index, _Index, Float64]:
    """The grid points on both sides of each pixel, and the weight of the far one, 0..1."""
    position = pixels.astype(np.float64) * (grid - 1) / max(size - 1, 1)
    if upsampling == "half-pixel":
        position = np.clip((pixels + 0.5) * grid / size - 0.5, 0, grid - 1)
    near = np.minimum(position.astype(np.intp), max(grid - 2, 0))
    return near, np.minimum(near + 1, grid - 1), position - near


def _nearest(source: int, target: int) -> _Index:
    """For each of `target` pixels of a line the one of `source` that `resize_labels` takes."""
    import cv2

    line = np.arange(source, dtype=np.float32)[None]
    resized = cv2.resize(line, (target, 1), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized[0], np.intp)


def _size(image: UInt8) -> Size:
    return image.shape[0], image.shape[1]
