"""What a prediction is: a label map, and the pictures drawn from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy import drawing
from icnet_deploy.errors import ImageError
from icnet_deploy.labels import LabelSet

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer to one image.

    Attributes:
        labels: uint8, H x W, the class of each pixel, at the image's own size: a numpy array, or
            `DeviceLabels` if it was asked to stay on the GPU.
        label_set: the classes; `label_set.names[labels[y, x]]` is a pixel's name.
        timings_ms: milliseconds by stage: `preprocess` (checking, copying and resizing the image),
            `inference`, `label_map`, and `total`, their sum. Decoding is not in it. Of a batch,
            each image is given its equal share of `inference` and `label_map`.
    """

    labels: Any
    label_set: LabelSet
    timings_ms: dict[str, float]
    _image: Any = field(repr=False)

    @property
    def image(self) -> Any:
        """The image that was asked about, uint8, H x W x 3, RGB: a copy, made at each call.

        What becomes of the caller's array since does not show in it, and writing to it changes
        neither that array nor `overlay`. Of an array on the GPU it is no copy, but the caller's
        own; in a stream, that which was made as it was drawn.
        """
        return self._image.copy() if isinstance(self._image, np.ndarray) else self._image

    def colours(self) -> UInt8:
        """The label map in the label set's colours: uint8, H x W x 3, RGB.

        Raises:
            ImageError: the label map is on the GPU.
        """
        return drawing.colourise(_on_host(self.labels, "label map"), self.label_set)

    def overlay(self, alpha: float = 0.5) -> UInt8:
        """The colours laid over the image: uint8, H x W x 3, RGB.

        Args:
            alpha: the colours' share, from 0 (the image alone) to 1 (the colours alone).

        Raises:
            ImageError: the image or the label map is on the GPU.
        """
        return drawing.blend(_on_host(self._image, "image"), self.colours(), alpha)


def _on_host(array: Any, what: str) -> UInt8:
    if not isinstance(array, np.ndarray):
        raise ImageError(f"the {what} is on the GPU, and pictures are drawn on the host: copy it")
    return array
