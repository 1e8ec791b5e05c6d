"""A backend of NumPy alone, for tests and for trying a caller without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from icnet_deploy.errors import BackendError
from icnet_deploy.labels import LabelSet
from icnet_deploy.runtime.backends.base import Array, TensorSpec, check_feed
from icnet_deploy.runtime.labelmap import label_map

Function = Callable[[Mapping[str, Array]], dict[str, Array]]


class FakeBackend:
    """Answers with a function in place of a network, and refuses what a real runtime would.

    Attributes:
        runs: how many runs it has answered.
        fail_with: while set, `run` raises a `BackendError` of this text.
        closed: whether `close` was called.
    """

    def __init__(
        self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], function: Function
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.runs = 0
        self.fail_with: str | None = None
        self.closed = False
        self._function = function

    @classmethod
    def of_colours(
        cls,
        label_set: LabelSet,
        size: tuple[int, int] | None = None,
        head: str = "logits",
        batch: int | None = None,
    ) -> FakeBackend:
        """A "network" that gives each pixel the class whose palette colour is nearest.

        Args:
            label_set: the classes.
            size: (height, width) in pixels, or None for any.
            head: `logits` (float32, N x C x h x w, every fourth pixel's) or `labels` (uint8,
                N x H x W, made of the same logits).
            batch: images a run, or None for any number.
        """
        height, width = size if size else (None, None)
        image = TensorSpec("image", (batch, height, width, 3), np.dtype(np.uint8))
        quarter = tuple(None if side is None else (side + 3) // 4 for side in (height, width))
        shape = (batch, len(label_set), *quarter) if head == "logits" else (batch, height, width)
        output = TensorSpec(head, shape, np.dtype(np.float32 if head == "logits" else np.uint8))

        def network(feed: Mapping[str, Array]) -> dict[str, Array]:
            images = feed["image"]
            scores = _closeness(images[:, ::4, ::4], label_set)
            if head == "logits":
                return {head: scores}
            return {head: label_map(scores, (images.shape[1], images.shape[2]))}

        return cls((image,), (output,), network)

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        if self.closed:
            raise BackendError("the model was closed")
        check_feed(self.inputs, feed)
        if self.fail_with is not None:
            raise BackendError(self.fail_with)
        self.runs += 1
        return self._function(feed)

    def close(self) -> None:
        """See `Backend.close`."""
        self.closed = True


def _closeness(images: Array, label_set: LabelSet) -> Array:
    """Scores uint8 N x H x W x 3 against C colours: float32 N x C x H x W, 0 where equal, else < 0.

    The negative squared distance in RGB, divided by 255 to lie where logits do.
    """
    pixels = images.astype(np.float32)
    planes = [
        -np.square(pixels - np.array(colour, np.float32)).sum(axis=-1) / 255
        for colour in label_set.palette
    ]
    return np.stack(planes, axis=1)
