"""The contract between `Predictor` and a runtime: four members, and what a feed must be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import BackendError
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.cuda.base import DeviceArray, DeviceFrame, DeviceLabels

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: its name in the graph.
        shape: one number a dimension; None where the size is free until a run.
        dtype: the type of its elements.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        sides = " x ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name}: {self.dtype} {sides}"


class Backend(Protocol):
    """A model that one runtime has loaded.

    It serves as many threads at once as it has streams: one, unless it was opened with more.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` must be fed."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the model once.

        Args:
            feed: an array for each input, of its dtype and shape.

        Returns:
            An array for each output. It may be memory of the runtime that the next run in the same
            thread overwrites; a run in another thread never does.

        Raises:
            BackendError: the feed does not fit, the runtime failed, or the backend is closed.
        """

    def close(self) -> None:
        """Frees the model; a second call does nothing."""


@dataclass(frozen=True)
class Labelled:
    """Label maps of images that were run together.

    Attributes:
        labels: one an image, uint8, H x W, the caller's.
        inference_ms: milliseconds from the images to what the network answered, for all of them.
        label_map_ms: milliseconds from there to the label maps, for all of them.
    """

    labels: Sequence[Array | DeviceLabels]
    inference_ms: float
    label_map_ms: float


@runtime_checkable
class Labeller(Protocol):
    """What a backend has besides if it makes label maps itself, where the network runs."""

    def label(
        self,
        metadata: ArtefactMetadata,
        images: Sequence[Array | DeviceFrame],
        sizes: Sequence[tuple[int, int]],
        on_device: bool = False,
    ) -> Labelled:
        """Labels images of one size, in as few runs as the model's batch allows.

        Args:
            metadata: what the model says of itself; `head` is the output that is read.
            images: uint8 H x W x 3 of the model's size, each in the host's memory or the GPU's.
            sizes: (height, width) of each label map.
            on_device: leave the label maps in the GPU's memory.

        Raises:
            BackendError: no profile takes the images, the runtime failed, the backend is closed, or
                the network's answer is not what `metadata` says, by shape or by value.
            ImageError: a label map of that size cannot be left on the GPU.
        """


@runtime_checkable
class Keeper(Protocol):
    """What a labeller has besides if a stream may give it pictures on the GPU."""

    def keep(self, image: DeviceFrame) -> DeviceArray:
        """A copy of a picture on the GPU; once it is there, the picture may be written over.

        Raises:
            BackendError: there is no room for it, or the backend is closed.
        """


def check_feed(inputs: tuple[TensorSpec, ...], feed: Mapping[str, Array]) -> None:
    """Refuses a feed that does not fit, in the same words whichever runtime would get it.

    Runtimes differ here: one raises, another casts silently.

    Raises:
        BackendError: a name is missing or unknown, or a dtype or shape differs.
    """
    names = [spec.name for spec in inputs]
    if sorted(feed) != sorted(names):
        raise BackendError(f"the model takes the inputs {names}; it was fed {sorted(feed)}")
    for spec in inputs:
        array = feed[spec.name]
        fits = len(array.shape) == len(spec.shape) and all(
            want is None or want == got for want, got in zip(spec.shape, array.shape, strict=True)
        )
        if array.dtype != spec.dtype or not fits or 0 in array.shape:
            raise BackendError(
                f"the model takes {spec}; it was fed {array.dtype} of shape {array.shape}"
            )


def reason(error: Exception) -> str:
    """What a C++ runtime's error says in the end: its last line, without the places it came by."""
    text = str(error)
    if isinstance(error, UnicodeDecodeError):  # what it says is in bytes that are no text
        text = error.object.decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
