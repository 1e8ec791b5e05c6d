"""`--unsure-below`: label maps without the pixels that the network is not sure of."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import InputError
from icnet_deploy.labels import IGNORE
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.answer import Prediction
from icnet_deploy.runtime.confidence import require_logits


class SureLabels:
    """Labels images, and counts the pixels that it left out. Threads may share it.

    Attributes:
        threshold: see `Prediction.sure_labels`.
        pixels: how many it was asked about.
        ignored: how many of them are no class now.
    """

    def __init__(self, predict: Callable[[Any], Prediction], threshold: float) -> None:
        """Labels by `predict`, which works out the confidence of its predictions at once."""
        self.threshold = threshold
        self.pixels = 0
        self.ignored = 0
        self._predict = predict
        self._lock = threading.Lock()

    def __call__(self, image: Any) -> Prediction:
        """The prediction of an image, uint8 H x W x 3, with 255 where it is not sure."""
        prediction = self._predict(image)
        labels = prediction.sure_labels(self.threshold)
        with self._lock:
            self.pixels += labels.size
            self.ignored += int((labels == IGNORE).sum())
        return replace(prediction, labels=labels)

    def says(self, value: int) -> str:
        """What came of it, in a sentence; `value` is what stands for them in the files."""
        share = self.ignored / self.pixels if self.pixels else 0
        return (
            f"confidence below {self.threshold:g}: {self.ignored:,} of {self.pixels:,} pixels "
            f"({share:.1%}) have no class ({value} in the label maps)"
        )


def check_unsure(metadata: ArtefactMetadata, label_ids: bool) -> None:
    """Refuses what `--unsure-below` cannot do.

    Args:
        metadata: of the model.
        label_ids: whether ids of the label set are written.

    Raises:
        InputError: the model does not tell how sure it is, or its ids leave none for no class.
    """
    try:
        require_logits(metadata)
    except InputError as error:
        raise InputError(f"--unsure-below: {error}") from error
    if label_ids and 0 in (metadata.label_set.label_ids or ()):
        raise InputError(
            "--unsure-below with --label-ids writes 0 for a pixel without a class, but 0 is the "
            f"id of a class in the label set {metadata.label_set.name!r}: leave out --label-ids"
        )


def overlay_of(prediction: Prediction) -> npt.NDArray[np.uint8]:
    """The overlay, which shows the image as it is where the label map has no class."""
    overlay = prediction.overlay()
    if prediction.labels.max() == IGNORE:
        np.copyto(overlay, prediction.image, where=(prediction.labels == IGNORE)[..., None])
    return overlay
