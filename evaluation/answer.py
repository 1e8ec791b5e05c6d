"""How logits become a label map the dense way, class by class, with torch's own interpolation.

It shares no code with `icnet_deploy.runtime.labelmap`, which it judges.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import NotFinite
from icnet_deploy.images import UInt8, unfit_labels
from icnet_deploy.metadata import UPSAMPLINGS

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
_Index = npt.NDArray[np.intp]
Size = tuple[int, int]

_PIXELS = 1 << 16  # per block of `margins_at`: 19 classes of four corners are then 40 MB


@dataclass(frozen=True, eq=False)
class Answer:
    """What the reference says of one image.

    Attributes:
        logits: float32 C x h x w.
        labels: uint8 H x W, at the image's own size.
        upsampled: (height, width) to which the logits were upsampled for it: the image's size, or
            the model's where its label map was then resized by nearest neighbour.
        upsampling: by which rule of `metadata.UPSAMPLINGS`.
        content: (height, width) of the image in the upsampled map, from its upper left corner on;
            the rest of it is border. None: there is no border.
    """

    logits: Float32
    labels: UInt8
    upsampled: Size
    upsampling: str = UPSAMPLINGS[0]
    content: Size | None = None

    def margins(self, rows: _Index, cols: _Index) -> Float64:
        """How far the best logit is above the second best, at n pixels of the label map."""
        content = self.content or self.upsampled
        if content != self.labels.shape:
            rows = _nearest(content[0], self.labels.shape[0])[rows]
            cols = _nearest(content[1], self.labels.shape[1])[cols]
        return margins_at(self.logits, self.upsampled, rows, cols, self.upsampling)


def answer_of(
    logits: Float32,
    image_size: Size,
    model_size: Size | None = None,
    upsampling: str = UPSAMPLINGS[0],
    content: Size | None = None,
) -> Answer:
    """Finishes logits as a caller of one of the two heads gets them finished.

    Args:
        logits: float32 C x h x w.
        image_size: (height, width) of the label map.
        model_size: (height, width) at which the label map is made, and then resized to the image's
            by nearest neighbour: of an artefact whose graph makes it, and of every letterbox. None:
            the logits are upsampled to the image's size at once.
        upsampling: the network's rule. Where it is `none`, the label map has the logits' size, and
            is then resized, whoever makes it.
        content: of a letterbox, (height, width) of the image in the label map; the rest of it, the
            border, is cut off. None: there is no border.
    """
    if upsampling == "none":
        model_size = logits.shape[1], logits.shape[2]
    at = model_size or image_size
    labels = dense_labels(logits, at, upsampling)
    if at != image_size or content not in (None, at):
        labels = unfit_labels(labels, content or at, image_size)
    return Answer(logits, labels, at, upsampling, content)


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
