"""From an image to its label map: it is made ours, prepared and run, and the answer is held true.

`Predictor` loads models and serves callers; what happens to an image in between is here. What comes
of it is a `Prediction`.
"""

import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import BackendError, ImageError
from icnet_deploy.images import Fitting, check_image, unfit_labels
from icnet_deploy.labels import check_labels
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.ahead import ahead, ends_first
from icnet_deploy.runtime.answer import ON_THE_HOST, PREDICTOR_GONE, Prediction
from icnet_deploy.runtime.backends.base import Array, Backend, Keeper, Labelled, Labeller
from icnet_deploy.runtime.confidence import confidence_map, require_logits, unfit_shares
from icnet_deploy.runtime.contract import INPUT, Size, check_answer
from icnet_deploy.runtime.cuda.base import (
    DeviceArray,
    DeviceFrame,
    DeviceLabels,
    is_on_device,
    read_frame,
)
from icnet_deploy.runtime.grid import Float32
from icnet_deploy.runtime.labelmap import label_map

UInt8 = npt.NDArray[np.uint8]


class _Held(NamedTuple):
    """An image that was checked and that nobody else changes, and how long that took.

    A numpy array is copied where anybody may write to it. One on the GPU, of which no overlay is
    drawn, is copied only where its source may fill it anew before it was labelled.
    """

    image: Any
    milliseconds: float

    @property
    def size(self) -> Size:
        """(height, width) in pixels."""
        return int(self.image.shape[0]), int(self.image.shape[1])


class _Prepared(NamedTuple):
    """An image, what the model gets of it, and how long both took to come by.

    `content` is that of `images.Fitted`.
    """

    held: _Held
    pixels: UInt8 | DeviceFrame
    content: Size
    milliseconds: float

    @property
    def size(self) -> Size:
        """(height, width) of what the model gets."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class Serving:
    """What is done to images with a model.

    Attributes:
        metadata: what the model says of itself.
        runtime: the name of the runtime that runs it.
        turns: lets as many threads run the network at once as it has streams.
        threads: CPU threads for one image's label map.
        predictor: the `Predictor`, which what is kept of a prediction does not keep, nor its model.
        fitting: how an image comes to the model.
    """

    metadata: ArtefactMetadata
    runtime: str
    turns: threading.Semaphore
    threads: int
    predictor: weakref.ref[Any]
    fitting: Fitting = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fitting", Fitting.of(self.metadata))

    def hold(self, backend: Backend, image: Any, may_be_reused: bool = False) -> _Held:
        """Checks an image, and copies it where somebody may change it.

        Args:
            backend: the model.
            image: as `Predictor.predict` takes it.
            may_be_reused: the caller may change it before it was labelled, as the source of a
                stream may, so that one on the GPU is copied, too.

        Raises:
            ImageError: it is no image, or none that this model takes.
            BackendError: there is no room for the copy.
        """
        start = time.perf_counter()
        if is_on_device(image):
            frame = self._check_on_device(backend, image)
            held = self._copy_on_device(backend, frame) if may_be_reused else image
        else:
            check_image(image)
            if self.metadata.size is None:
                self.fitting.check(image)
            # Copied before the network reads it, which then finds it in the processor's cache.
            held = np.array(image, order="C") if _may_change(image) else image
        return _Held(held, (time.perf_counter() - start) * 1e3)

    @ends_first
    def prepare(self, held: _Held) -> _Prepared:
        """Makes of an image what the model gets of it."""
        start = time.perf_counter()
        pixels: UInt8 | DeviceFrame
        if is_on_device(held.image):
            pixels, content = read_frame(held.image), held.size
        else:
            pixels, content = self.fitting.apply(held.image, self.metadata.size)
        milliseconds = held.milliseconds + (time.perf_counter() - start) * 1e3
        return _Prepared(held, pixels, content, milliseconds)

    @ends_first
    def finish(
        self,
        backend: Backend,
        batch: Sequence[_Prepared],
        on_device: bool = False,
        confidence: bool = False,
    ) -> list[Prediction]:
        """Runs prepared images of one size together, and makes their label maps.

        Raises:
            BackendError: the runtime failed, or its answer is not what the metadata says.
            ImageError: a label map cannot be left on the GPU, or something is there that is asked
                for with `confidence`.
            InputError: the model cannot tell its confidence.
        """
        shares: list[Any] = [self.confidence] * len(batch)
        sharing = {}
        if confidence:
            labelled, shares, milliseconds = self._run_sure(backend, batch, on_device)
            sharing["confidence"] = milliseconds / len(batch)
        elif isinstance(backend, Labeller):
            labelled = self._label(backend, batch, on_device)
        elif on_device:
            raise ImageError(
                "only a TensorRT engine keeps a label map on the GPU, and this is "
                f"{self.runtime}: leave out on_device"
            )
        else:
            labelled, _ = self._run(backend, batch)
        predictions = []
        for each, labels, share in zip(batch, labelled.labels, shares, strict=True):
            timings = {
                "preprocess": each.milliseconds,
                "inference": labelled.inference_ms / len(batch),
                "label_map": labelled.label_map_ms / len(batch),
                **sharing,
            }
            timings["total"] = sum(timings.values())
            label_set = self.metadata.label_set
            predictions.append(Prediction(labels, label_set, timings, each.held.image, share))
        return predictions

    def finish_all(
        self, backend: Backend, prepared: Sequence[_Prepared], confidence: bool = False
    ) -> list[Prediction]:
        """As `finish`, of images of any sizes: those of one size together, if the model can."""
        any_number = backend.inputs[0].shape[0] is None
        if confidence and isinstance(backend, Labeller):  # of which only `label` knows how many
            any_number = False
        groups: dict[Any, list[int]] = {}
        for index, each in enumerate(prepared):
            groups.setdefault(each.pixels.shape if any_number else index, []).append(index)
        answered: dict[int, Prediction] = {}
        for indices in groups.values():
            some = [prepared[index] for index in indices]
            answers = self.finish(backend, some, confidence=confidence)
            answered.update(zip(indices, answers, strict=True))
        return [answered[index] for index in range(len(prepared))]

    def stream(
        self,
        backend: Callable[[], Backend],
        frames: Iterable[UInt8],
        streams: int,
        confidence: bool = False,
    ) -> Generator[Prediction, None, None]:
        """See `Predictor.stream`.

        Args:
            backend: gives the model, or raises where it is closed by then.
            frames: as `Predictor.predict` takes them.
            streams: how many of them the network works on at once.
            confidence: see `Predictor.predict`.
        """

        def held() -> Iterator[_Held]:
            # Drawn from in a thread of its own: each frame is held before the next one is drawn.
            for frame in frames:
                yield self.hold(backend(), frame, may_be_reused=True)

        def label(frame: _Held) -> Prediction:
            prepared = [self.prepare(frame)]
            return self.finish(backend(), prepared, confidence=confidence)[0]

        # One more than run the network: it has its image ready when another's turn ends.
        with ahead(held(), label, streams + 1) as predictions:
            yield from predictions

    def _check_on_device(self, backend: Backend, image: Any) -> DeviceFrame:
        frame = read_frame(image)
        if not isinstance(backend, Labeller):
            raise ImageError(
                f"only a TensorRT engine takes an image on the GPU, and this is {self.runtime}: "
                "give the image as a numpy array"
            )
        own = frame.shape[0], frame.shape[1]
        size = self.metadata.size or self.fitting.next_size(own)
        if own != size:
            raise ImageError(
                f"the image on the GPU is {own[0]} x {own[1]}, but the engine takes {size[0]} x "
                f"{size[1]}: resize the image first"
            )
        return frame

    def _copy_on_device(self, backend: Backend, frame: DeviceFrame) -> DeviceArray:
        if not isinstance(backend, Keeper):
            raise ImageError(
                f"{self.runtime} cannot copy an image on the GPU, and the source of a stream may "
                "overwrite it: give the stream numpy arrays, or use predict"
            )
        return backend.keep(frame)

    def _label(self, backend: Labeller, batch: Sequence[_Prepared], on_device: bool) -> Labelled:
        """One call of a backend that makes the label maps, and holds them to the metadata."""
        images = [each.pixels for each in batch]
        sizes = [self._label_size(each) for each in batch]
        if on_device and sizes != [each.held.size for each in batch]:
            raise ImageError(
                f"this engine makes its label map at {sizes[0]}, with a border around the image, "
                "and only the CPU cuts the border off: leave out on_device, or give an image of "
                "that size"
            )
        with self.turns:
            labelled = backend.label(self.metadata, images, sizes, on_device)
        kind = DeviceLabels if on_device else np.ndarray
        maps = labelled.labels
        fits = len(maps) == len(sizes) and all(
            isinstance(labels, kind) and labels.dtype == np.uint8 and labels.shape == size
            for labels, size in zip(maps, sizes, strict=True)
        )
        if not fits:
            listed = ", ".join(f"{type(each).__name__} {each.shape}" for each in maps)
            raise BackendError(
                f"the backend gave label maps ({listed or 'none'}), expected uint8 of "
                f"{', '.join(map(str, sizes))}"
            )
        if on_device:
            return labelled
        start = time.perf_counter()
        hosted = zip(map(np.asarray, maps), batch, strict=True)
        cut = [self._unfit(labels, each) for labels, each in hosted]
        cutting = (time.perf_counter() - start) * 1e3
        return Labelled(cut, labelled.inference_ms, labelled.label_map_ms + cutting)

    @ends_first
    def confidence(self, image: UInt8) -> Float32:
        """`Prediction.confidence` of an image that was held, by another run of the network."""
        require_logits(self.metadata)
        each = self.prepare(_Held(image, 0.0))
        values, _ = self.answer(self.open_backend(), [np.asarray(each.pixels)])
        return self._shares(values[0], each)

    def open_backend(self) -> Backend:
        """The model, for what is asked of a prediction later.

        Raises:
            BackendError: the predictor was closed, or nobody has it any more.
        """
        predictor = self.predictor()
        if predictor is not None:
            with suppress(BackendError):
                backend: Backend = predictor.backend
                return backend
        raise BackendError(PREDICTOR_GONE)

    def answer(self, backend: Backend, images: Sequence[UInt8]) -> tuple[Array, float]:
        """Runs images of one size that the model takes together.

        Returns:
            The head's values, of N images, as the metadata says them; and the milliseconds.

        Raises:
            BackendError: as `finish`.
        """
        with self.turns:
            start = time.perf_counter()
            feed = {INPUT: images[0][None] if len(images) == 1 else np.stack(images)}
            values = self._checked(backend.run(feed), feed[INPUT].shape)
            return values, (time.perf_counter() - start) * 1e3

    def _run(self, backend: Backend, batch: Sequence[_Prepared]) -> tuple[Labelled, Array]:
        """One run of a backend whose label maps are made on the CPU, and what it answered."""
        values, inference = self.answer(backend, [np.asarray(each.pixels) for each in batch])
        start = time.perf_counter()
        labels = [self._labels(value, each) for each, value in zip(batch, values, strict=True)]
        return Labelled(labels, inference, (time.perf_counter() - start) * 1e3), values

    def _run_sure(
        self, backend: Backend, batch: Sequence[_Prepared], on_device: bool
    ) -> tuple[Labelled, list[Float32], float]:
        """Label maps and confidences of one run, and the milliseconds that the latter took."""
        require_logits(self.metadata)
        if on_device or any(is_on_device(each.held.image) for each in batch):
            raise ImageError(f"an image or a label map is on the GPU, but {ON_THE_HOST}")
        labelled, values = self._run(backend, batch)
        start = time.perf_counter()
        shares = [self._shares(value, each) for each, value in zip(batch, values, strict=True)]
        return labelled, shares, (time.perf_counter() - start) * 1e3

    def _shares(self, value: Array, each: _Prepared) -> Float32:
        """The confidence of one image's logits, at the image's size."""
        rule = self.metadata.upsampling
        shares = confidence_map(value, self._logits_size(each), upsampling=rule)
        if shares.shape == each.held.size and each.content == each.size:
            return shares
        return unfit_shares(shares, each.content, each.held.size)

    def _checked(self, answers: Mapping[str, Array], fed: tuple[int, ...]) -> Array:
        """The head's values, of the kind and shape that its metadata says."""
        head = self.metadata.head
        values = answers.get(head)
        if not isinstance(values, np.ndarray):
            raise BackendError(
                f"the model gave no array {head!r}, but "
                f"{ {name: type(value).__name__ for name, value in answers.items()} }"
            )
        check_answer(self.metadata, values.dtype, values.shape, fed)
        return values

    def _labels(self, value: Array, each: _Prepared) -> UInt8:
        """The label map of one image's output, in memory of its own."""
        if self.metadata.head == "labels":
            check_labels(value, self.metadata.label_set)
            labels = self._unfit(value, each)
            return labels.copy() if np.may_share_memory(labels, value) else labels
        size, rule = self._logits_size(each), self.metadata.upsampling
        return self._unfit(label_map(value, size, self.threads, upsampling=rule), each)

    def _logits_size(self, each: _Prepared) -> Size:
        """As `_label_size`; logits that are not upsampled are finished at the model's size."""
        return each.size if self.metadata.upsampling == "none" else self._label_size(each)

    def _label_size(self, each: _Prepared) -> Size:
        """(height, width) at which logits become a label map: a border is cut off there."""
        return each.size if self.fitting.fit == "letterbox" else each.held.size

    def _unfit(self, labels: UInt8, each: _Prepared) -> UInt8:
        """A label map of the model's size, or the image's, at the image's."""
        if labels.shape == each.held.size and each.content == each.size:
            return labels
        return np.ascontiguousarray(unfit_labels(labels, each.content, each.held.size))


def _may_change(image: UInt8) -> bool:
    """Whether anybody can write to an array's memory, now or once its owner lets them.

    Only memory of an array that is read-only, or of bytes, stays as it is. What another object
    lends read-only, such as a map of a file, may be written to from elsewhere.
    """
    while not image.flags.writeable and isinstance(image.base, np.ndarray):
        image = image.base
    lasting = image.flags.owndata or isinstance(image.base, bytes)
    return bool(image.flags.writeable or not lasting)
