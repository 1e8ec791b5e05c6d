"""A model that is open: what labels images with it, whatever file it came from."""

import threading
import weakref
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import BackendError, InputError
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.answer import Prediction
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.confidence import require_logits
from icnet_deploy.runtime.contract import check_contract
from icnet_deploy.runtime.cores import usable_cores
from icnet_deploy.runtime.prediction import Serving
from icnet_deploy.runtime.tiles import OVERLAP, predict_tiles

UInt8 = npt.NDArray[np.uint8]


class LoadedModel:
    """What a `Predictor` does once it is open; it says what it is."""

    def __init__(
        self,
        backend: Backend,
        metadata: ArtefactMetadata,
        *,
        runtime: str = "custom",
        device: str = "cpu",
        threads: int | None = None,
        streams: int = 1,
    ) -> None:
        """Serves a backend of your own, such as `FakeBackend`; for files see `open`.

        Args:
            backend: what runs the network, for as many threads at once as there are `streams`.
            metadata: what it is.
            runtime, device: what to call it.
            threads: CPU threads for label maps; None for the cores that the process may use.
            streams: see the attribute.

        Raises:
            ModelError: the backend's inputs and outputs are not what the metadata says.
        """
        check_contract(backend, metadata)
        self.metadata = metadata
        self.runtime = runtime
        self.device = device
        self.streams = streams
        self._backend: Backend | None = backend
        self._files = ExitStack()
        share = max(1, (threads or usable_cores()) // streams)
        turns = threading.Semaphore(streams)
        self._serving = Serving(metadata, runtime, turns, share, weakref.ref(self))

    @property
    def backend(self) -> Backend:
        """What runs the network.

        Raises:
            BackendError: the predictor is closed.
        """
        if self._backend is None:
            raise BackendError("the predictor is closed: load the model again")
        return self._backend

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels that the artefact takes, or None: each image at its own."""
        return self.metadata.size

    def size_near(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that the artefact takes, or the next from `size` on if it is free."""
        return self.size or self._serving.fitting.next_size(size)

    def predict(
        self, image: Any, on_device: bool = False, *, confidence: bool = False
    ) -> Prediction:
        """Labels one image.

        Args:
            image: uint8, H x W x 3, RGB, 0..255, of any size; one that is not the artefact's is
                resized to it, bilinearly, with a border where its `fit` is `letterbox`, and the
                label map comes back at the image's size, without the border. An engine
                also takes an array on the GPU (`__cuda_array_interface__`) of the artefact's size,
                contiguous, which never leaves it. The prediction keeps a copy of a numpy array
                that may be written to; one that is read-only is kept as it is.
            on_device: leave the label map in the GPU's memory, as `DeviceLabels`; engines only.
            confidence: work out `Prediction.confidence` now, of the same run, on the CPU. Without
                it the network runs again if that is asked for. Artefacts of the head `logits` only.

        Raises:
            ImageError: another dtype or shape, or a size that a free-size artefact cannot take; or
                `confidence` of what is on the GPU.
            InputError: `confidence` of an artefact of the head `labels`.
            NotFinite: the network overflowed: its logits are infinite or not numbers.
            BackendError: the runtime failed, what it answered is not what the artefact's metadata
                says, or the predictor is closed.
        """
        backend, serving = self.backend, self._serving
        prepared = serving.prepare(serving.hold(backend, image))
        return serving.finish(backend, [prepared], on_device, confidence)[0]

    def predict_tiles(
        self,
        image: UInt8,
        overlap: float = OVERLAP,
        *,
        progress: bool = False,
        confidence: bool = False,
    ) -> Prediction:
        """Labels an image at its own scale, in overlapping tiles of the artefact's size.

        The logits of the tiles are averaged, with weights that fall linearly to the edges of each.
        An image no larger than the artefact's size is answered as by `predict`, to the byte. One
        that is smaller in one direction gets a border there, which is not labelled. Besides the
        image and its label map, the logits of the tiles that meet a row of tiles are kept.

        Args:
            image: uint8, H x W x 3, RGB, 0..255, a numpy array.
            overlap: by how much of a tile's side neighbours overlap at least, 0 to 0.75. More takes
                longer.
            progress: show a bar where it takes more than a second and stderr is a terminal.
            confidence: see `predict`; it is that of the averaged logits.

        Raises:
            InputError: the artefact gives label maps, not logits, or is of free size; or there is
                no such overlap.
            ImageError, NotFinite, BackendError: as `predict`.
        """
        return predict_tiles(self._serving, self.backend, image, overlap, progress, confidence)

    def predict_batch(
        self, images: Sequence[UInt8], *, confidence: bool = False
    ) -> list[Prediction]:
        """Labels several images, which may differ in size.

        Those that reach the model at one size go to it together, and its memory grows with their
        number, if it takes a batch of any number; otherwise one by one. On the CPU each gets the
        label map that `predict` gives it, to the byte (`int8` on ONNX Runtime, which it is not for:
        but for 1 pixel in 1000 at most); on a GPU another batch may have kernels that round
        otherwise where two classes tie.

        Args:
            images: each as `predict` takes it; all are checked before the first is run.
            confidence: see `predict`.

        Returns:
            Their predictions, in order.
        """
        backend, serving = self.backend, self._serving
        lazy = not isinstance(images, list | tuple)  # such as a camera: see `stream`
        prepared = [serving.prepare(serving.hold(backend, image, lazy)) for image in images]
        return serving.finish_all(backend, prepared, confidence)

    def stream(
        self, frames: Iterable[UInt8], *, confidence: bool = False
    ) -> Generator[Prediction, None, None]:
        """Labels frames in order, working on the next ones while the caller has this one.

        Args:
            frames: each as `predict` takes it. It is drawn from in a thread of its own, at most
                one frame ahead of those that the streams work on; closing the generator that this
                returns ends its threads. All may be one array that is filled anew each time: a
                frame is copied before the next is drawn, unless it is read-only. So is one on the
                GPU, where the stream that it names, or the default one, is waited for.
            confidence: see `predict`.

        Raises:
            What `frames` raises, and what `predict` does, at the frame where it happens.
        """
        _ = self.backend  # refused now if closed, not at the first frame
        if confidence:
            require_logits(self.metadata)
        return self._serving.stream(lambda: self.backend, frames, self.streams, confidence)

    def warmup(self, runs: int = 3) -> None:
        """Runs on a grey image, so that no first image pays for what a runtime does once.

        A free-size artefact is warmed up at 512 x 1024, or the next size that it takes: a runtime
        that prepares for one shape at a time wants a `predict` at the size to come.
        """
        image = np.full((*self.size_near((512, 1024)), 3), 128, np.uint8)
        for _ in range(runs):
            self.predict(image)

    def close(self) -> None:
        """Frees the model; a second call does nothing."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None
            self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise InputError(
            "a Predictor cannot be pickled, because its network is in the memory of this "
            "process: open one in each process, for example in the initializer of a process pool"
        )
