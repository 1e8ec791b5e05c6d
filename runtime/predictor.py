"""One call from an image to its label map, whichever runtime does the work."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import BackendError, ImageError, ModelError, UnavailableError
from icnet_deploy.images import check_image, resize_image, resize_labels
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata
from icnet_deploy.runtime.ahead import ahead
from icnet_deploy.runtime.backends import TENSORRT_LATER, check_available, choose, open_backend
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.contract import INPUT, check_contract
from icnet_deploy.runtime.labelmap import label_map
from icnet_deploy.runtime.prediction import Prediction

__all__ = ["MIN_SIDE", "Prediction", "Predictor"]

UInt8 = npt.NDArray[np.uint8]

MIN_SIDE = 64
"""The smallest side, in pixels, that the network can halve as often as it does."""


class _Prepared(NamedTuple):
    """An image, what the model gets of it, and how long that took."""

    image: UInt8
    pixels: UInt8
    milliseconds: float


class Predictor:
    """A loaded artefact that labels images. Serves one thread at a time.

    Attributes:
        metadata: what the artefact says of itself.
        runtime: the name of the runtime that runs it.
        device: `cpu` or `cuda`.
    """

    def __init__(
        self,
        backend: Backend,
        metadata: ArtefactMetadata,
        *,
        runtime: str = "custom",
        device: str = "cpu",
    ) -> None:
        """Serves a backend of your own, such as `FakeBackend`; otherwise use `from_onnx`.

        Raises:
            ModelError: the backend's inputs and outputs are not what the metadata says.
        """
        check_contract(backend, metadata)
        self.metadata = metadata
        self.runtime = runtime
        self.device = device
        self._backend: Backend | None = backend

    @classmethod
    def from_onnx(
        cls,
        path: str | Path,
        runtime: str = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> Predictor:
        """Loads an ONNX file that `icnet export` wrote.

        Args:
            path: the file.
            runtime: `onnxruntime`, `openvino`, or `auto`, the fastest that is installed.
            device: `cpu`, `cuda`, or `auto`: CUDA where it really works. CUDA asked for by name
                is CUDA or an error.
            threads: CPU threads a run; None leaves it to the runtime.

        Raises:
            ModelError: the file is missing, cut off, of another kind, or another model.
            InputError: there is no such runtime or device.
            UnavailableError: a package or a device is missing.
        """
        path = Path(path)
        _refuse_other_kinds(path)
        runtime, device = choose(runtime, device)
        check_available(runtime, device)
        metadata = read_onnx_metadata(path)
        backend = open_backend(runtime, path, device, threads)
        try:
            return cls(backend, metadata, runtime=runtime, device=device)
        except ModelError as error:
            backend.close()
            raise ModelError(f"{path}: {error}") from error

    @classmethod
    def from_engine(cls, path: str | Path) -> Predictor:
        """Loads a TensorRT engine, in a later release.

        Raises:
            UnavailableError: always, in this one.
        """
        raise UnavailableError(f"{path}: {TENSORRT_LATER}")

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels that the artefact takes, or None: each image at its own."""
        return self.metadata.size

    def predict(self, image: UInt8) -> Prediction:
        """Labels one image.

        Args:
            image: uint8, H x W x 3, RGB, 0..255, of any size; one that is not the artefact's is
                resized to it, bilinearly, and the label map comes back at the image's.

        Raises:
            ImageError: another dtype or shape, or smaller than a free-size artefact can take.
            BackendError: the runtime failed, or the predictor is closed.
        """
        self._open_backend()
        return self._finish([self._prepare(image)])[0]

    def predict_batch(self, images: Sequence[UInt8]) -> list[Prediction]:
        """Labels several images, which may differ in size.

        Those that reach the model at one size go through it in one run, if it takes a batch of
        any number; otherwise one by one.

        Args:
            images: each as `predict` takes it; all are checked before the first is run.

        Returns:
            Their predictions, in order.
        """
        backend = self._open_backend()
        prepared = [self._prepare(image) for image in images]
        groups: dict[Any, list[int]] = {}
        any_number = backend.inputs[0].shape[0] is None
        for index, one in enumerate(prepared):
            groups.setdefault(one.pixels.shape if any_number else index, []).append(index)
        found: dict[int, Prediction] = {}
        for indices in groups.values():
            answers = self._finish([prepared[index] for index in indices])
            found.update(zip(indices, answers, strict=True))
        return [found[index] for index in range(len(prepared))]

    def stream(self, frames: Iterable[UInt8]) -> Generator[Prediction, None, None]:
        """Labels frames in order, preparing the next ones while the model works on this one.

        Args:
            frames: each as `predict` takes it. It is drawn from in a worker thread, at most two
                frames ahead; closing the generator that this returns ends the thread.

        Raises:
            What `frames` raises, and what `predict` does, at the frame where it happens.
        """
        self._open_backend()
        return self._stream(frames)

    def _stream(self, frames: Iterable[UInt8]) -> Generator[Prediction, None, None]:
        with ahead(frames, self._prepare) as prepared:
            for one in prepared:
                yield self._finish([one])[0]

    def warmup(self, runs: int = 3) -> None:
        """Runs on a grey image, so that no first image pays for what a runtime does once.

        A free-size artefact is warmed up at 512 x 1024: a runtime that prepares for one shape at
        a time wants a `predict` at the size to come.
        """
        image = np.full((*(self.size or (512, 1024)), 3), 128, np.uint8)
        for _ in range(runs):
            self.predict(image)

    def close(self) -> None:
        """Frees the model; a second call does nothing."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open_backend(self) -> Backend:
        if self._backend is None:
            raise BackendError("the predictor is closed: load the model again")
        return self._backend

    def _prepare(self, image: UInt8) -> _Prepared:
        start = time.perf_counter()
        check_image(image)
        size = self.size
        if size is None and min(image.shape[:2]) < MIN_SIDE:
            raise ImageError(
                f"the image is {image.shape[0]} x {image.shape[1]}; this model takes images at "
                f"their own size, from {MIN_SIDE} x {MIN_SIDE} on: enlarge the image, or export "
                "the model at a fixed size"
            )
        pixels = image if size is None else resize_image(image, size)
        return _Prepared(image, pixels, (time.perf_counter() - start) * 1e3)

    def _finish(self, batch: list[_Prepared]) -> list[Prediction]:
        """Runs prepared images of one size in one run, and makes their label maps."""
        backend = self._open_backend()
        one = len(batch) == 1
        pixels = batch[0].pixels[None] if one else np.stack([each.pixels for each in batch])
        start = time.perf_counter()
        head = self.metadata.head
        values = backend.run({INPUT: pixels})[head]
        share = (time.perf_counter() - start) * 1e3 / len(batch)
        if len(values) != len(batch):
            raise BackendError(f"the model answered {len(batch)} images with {len(values)}")
        predictions = []
        for each, value in zip(batch, values, strict=True):
            start = time.perf_counter()
            size = (each.image.shape[0], each.image.shape[1])
            finish = label_map if head == "logits" else resize_labels
            labels = finish(value, size)
            timings = {
                "preprocess": each.milliseconds,
                "inference": share,
                "label_map": (time.perf_counter() - start) * 1e3,
            }
            timings["total"] = sum(timings.values())
            predictions.append(Prediction(labels, self.metadata.label_set, timings, each.image))
        return predictions


def _refuse_other_kinds(path: Path) -> None:
    """Answers a file of another kind by what to do with it, before it is read as ONNX."""
    if path.suffix in (".engine", ".plan"):
        raise UnavailableError(f"{path} is a TensorRT engine: {TENSORRT_LATER}")
    if path.suffix in (".safetensors", ".pt", ".pth", ".ckpt"):
        raise ModelError(
            f"{path} is a checkpoint, which no runtime runs: icnet export --weights {path} -o "
            f"{path.stem}.onnx, then use that file"
        )
