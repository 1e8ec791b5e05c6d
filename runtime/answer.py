"""What a `Predictor` answers to one image."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy import drawing
from icnet_deploy.errors import BackendError, ImageError
from icnet_deploy.labels import IGNORE, LabelSet
from icnet_deploy.runtime.grid import Float32

UInt8 = npt.NDArray[np.uint8]

PREDICTOR_GONE = (
    "the confidence needs another run of the network, but the predictor is closed or deleted: "
    "keep it open until you ask, or ask at once with predict(image, confidence=True)"
)
"""What is said of a prediction's confidence where nothing can run the network again."""

ON_THE_HOST = (
    "the confidence is computed on the CPU: give the image as a numpy array, and leave out "
    "on_device"
)
"""What is said of a confidence that is asked for of what is on the GPU."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer to one image.

    Attributes:
        labels: uint8, H x W, the class of each pixel, at the image's own size: a numpy array, or
            `DeviceLabels` if it was asked to stay on the GPU.
        label_set: the classes; `label_set.names[labels[y, x]]` is a pixel's name.
        timings_ms: milliseconds by stage: `preprocess` (checking, copying and resizing the image),
            `inference`, `label_map`, `confidence` if the call asked for it, and `total`, their
            sum. Decoding is not in it. Of a batch, each image is given its equal share of all but
            the first.
    """

    labels: Any
    label_set: LabelSet
    timings_ms: dict[str, float]
    _image: Any = field(repr=False)
    _shares: Float32 | Callable[[UInt8], Float32] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """For a copy in another process, which has no predictor to ask."""
        return self.__dict__ | ({"_shares": None} if callable(self._shares) else {})

    @property
    def image(self) -> Any:
        """The image that was asked about, uint8, H x W x 3, RGB: a copy, made at each call.

        What becomes of the caller's array since does not show in it, and writing to it changes
        neither that array nor `overlay`. Of an array on the GPU it is no copy, but the caller's
        own; in a stream, that which was made as it was drawn.
        """
        return self._image.copy() if isinstance(self._image, np.ndarray) else self._image

    @cached_property
    def confidence(self) -> Float32:
        """The softmax share of each pixel's class: float32, H x W, in 0..1.

        It is there after a call with `confidence=True`. Otherwise the network runs again on the
        image when this is first asked for, by the same predictor, which must be open until then and
        held by somebody: a prediction keeps neither the logits nor the model.

        Raises:
            InputError: the model's head is `labels`.
            ImageError: the image or the label map is on the GPU.
            BackendError: the predictor is closed or gone, or the network failed.
        """
        image = _on_host(self._image, "image", ON_THE_HOST)
        _on_host(self.labels, "label map", ON_THE_HOST)
        if isinstance(self._shares, np.ndarray):
            return self._shares
        if self._shares is None:
            raise BackendError(PREDICTOR_GONE)
        return self._shares(image)

    def sure_labels(self, threshold: float) -> UInt8:
        """The label map without the pixels that the network is not sure of: uint8, H x W.

        Args:
            threshold: a pixel whose `confidence` is below it becomes 255, which is no class; from 0
                (none does) to 1.

        Raises:
            ValueError: `threshold` is not in 0..1.
            What `confidence` raises.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"the threshold is a softmax share from 0 to 1, got {threshold}")
        labels: UInt8 = np.where(self.confidence < threshold, np.uint8(IGNORE), self.labels)
        return labels

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


def _on_host(
    array: Any,
    what: str,
    why: str = "pictures are drawn on the CPU: copy it to a numpy array first",
) -> UInt8:
    if not isinstance(array, np.ndarray):
        raise ImageError(f"the {what} is on the GPU, but {why}")
    return array
