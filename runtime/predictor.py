"""One call from an image to its label map, whichever runtime does the work."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import BackendError, InputError, ModelError
from icnet_deploy.labels import LabelSet
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.answer import Prediction
from icnet_deploy.runtime.auto.folder import kind_of
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.confidence import require_logits
from icnet_deploy.runtime.contract import check_contract
from icnet_deploy.runtime.cores import usable_cores
from icnet_deploy.runtime.cuda.base import Cuda
from icnet_deploy.runtime.loading import Loaded, load_engine, load_onnx, refuse_misfits
from icnet_deploy.runtime.prediction import Serving
from icnet_deploy.runtime.tiles import OVERLAP, predict_tiles

if TYPE_CHECKING:
    from icnet_deploy.runtime.auto.choice import Choice

UInt8 = npt.NDArray[np.uint8]


class Predictor:
    """A loaded artefact that labels images.

    Threads may share it: as many as it has streams run the network at once, others wait their turn.

    Attributes:
        metadata: what the artefact says of itself.
        runtime: the name of the runtime that runs it.
        device: `cpu` or `cuda`.
        streams: how many images the network works on at once.
        choice: why this artefact, of `from_folder`; else None.
    """

    choice: Choice | None = None

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
        share = max(1, (threads or usable_cores()) // streams)
        turns = threading.Semaphore(streams)
        self._serving = Serving(metadata, runtime, turns, share, weakref.ref(self))

    @classmethod
    def open(
        cls,
        path: str | Path,
        runtime: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        *,
        streams: int = 1,
        precision: str | None = None,
        size: tuple[int, int] | None = None,
        unverified: bool = False,
        require_manifest: bool = False,
        tf32: bool = False,
        cached: bool | None = None,
        label_set: LabelSet | None = None,
    ) -> Predictor:
        """Loads an ONNX file, an engine, or what is fastest of a folder of them.

        Args:
            path: a folder, or a file, which is an engine by its suffix, or else ONNX.
            runtime: `onnxruntime`, `openvino`, or `auto`, the fastest that is installed; of an
                engine `tensorrt`, `tensorrt-rtx`, or `auto`, the one that built it.
            device: `cpu`, `cuda`, or `auto`: CUDA where it really works. CUDA asked for by name
                is CUDA or an error.
            threads: CPU threads; None for what the runtime takes, which is the cores.
            streams: how many images the network works on at once, each on its share of the threads:
                as many as there are cores gives `stream` the most images a second, and each image
                takes longer. CPU only.
            precision, size, unverified: of a folder: choose among those of a precision only, of a
                (height, width), and among those that `icnet verify` did not pass, too.
            require_manifest: refuse an engine without a sidecar. In a folder it always is.
            tf32: let ONNX Runtime on CUDA multiply float32 with 10 bits of the mantissa: faster,
                and no longer float32.
            cached: keep what OpenVINO compiled below the user's cache folder, as large as the file,
                and load it faster the next time. None: where `ICNET_CACHE` is set to a folder.
                False: neither keep nor load anything, which is how a file is judged.
            label_set: the classes of an engine without a sidecar; without it Cityscapes' 19.

        Raises:
            ModelError: the file is missing, cut off, changed, of another kind, version or GPU, or
                another model; or an engine has no sidecar where one is required.
            InputError: there is no such runtime or device, an option is another kind's, or nothing
                in the folder is what was asked for.
            UnavailableError: a package or a device is missing.
            BackendError: the GPU has no room for it.
        """
        path = Path(path)
        kind = kind_of(path)
        asked = {
            "device": device not in ("auto", "cuda"),
            "threads": threads is not None,
            "streams": streams != 1,
            "precision": precision is not None,
            "size": size is not None,
            "unverified": unverified,
            "require_manifest": require_manifest,
            "tf32": tf32,
            "cached": cached is not None,
            "label_set": label_set is not None,
        }
        refuse_misfits(path, kind, asked)
        if kind == "folder":
            chosen: dict[str, Any] = {"precision": precision, "unverified": unverified}
            return cls.from_folder(
                path, runtime, device, threads, streams=streams, size=size, **chosen
            )
        if kind == "engine":
            return cls.from_engine(
                path, runtime, label_set=label_set, require_manifest=require_manifest
            )
        return cls.from_onnx(
            path, runtime, device, threads, streams=streams, tf32=tf32, cached=cached
        )

    @classmethod
    def from_onnx(
        cls,
        path: str | Path,
        runtime: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        *,
        streams: int = 1,
        tf32: bool = False,
        cached: bool | None = None,
    ) -> Predictor:
        """Loads an ONNX file of `icnet export`; arguments and errors are those of `open`."""
        path = Path(path)
        if kind_of(path) == "engine":
            raise ModelError(f"{path} is an engine, not an ONNX file: use Predictor.from_engine")
        loaded = load_onnx(
            path, runtime, device, threads, streams=streams, tf32=tf32, cached=cached
        )
        return cls._of(path, loaded, threads, streams)

    @classmethod
    def from_engine(
        cls,
        path: str | Path,
        runtime: str = "auto",
        *,
        label_set: LabelSet | None = None,
        require_manifest: bool = False,
        host_code: bool = False,
        cuda: Cuda | str = "auto",
    ) -> Predictor:
        """Loads an engine of TensorRT or TensorRT-RTX, built by `icnet build-engine` or `trtexec`.

        An engine is a program: load only what you built or trust. Its sidecar, if there is one,
        must name its SHA-256. Predictors of one file share the engine in the GPU's memory.

        Args:
            path, runtime, label_set, require_manifest: see `open`, as for errors.
            host_code: let code for the CPU in it run, which a version-compatible engine has.
            cuda: what drives the GPU: `cuda-python`, `pycuda`, `auto`, or a `Cuda` that is open.
        """
        path = Path(path)
        options: dict[str, Any] = {"require_manifest": require_manifest, "host_code": host_code}
        return cls._of(path, load_engine(path, runtime, label_set=label_set, cuda=cuda, **options))

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        runtime: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        *,
        precision: str | None = None,
        unverified: bool = False,
        streams: int = 1,
        size: tuple[int, int] | None = None,
        anew: bool = False,
    ) -> Predictor:
        """Opens what is fastest here of the artefacts in a folder that `icnet verify` passed.

        What it left undecided is taken only where nothing is within its limits. Measured once, or
        `anew`; `choice` says why. Arguments and errors are those of `open`.
        """
        from icnet_deploy.runtime.auto.candidates import Candidate, Request
        from icnet_deploy.runtime.auto.choice import open_fastest

        root = Path(folder)

        def open_one(one: Candidate, cached: bool | None = None) -> Predictor:
            path = root / one.file
            if kind_of(path) == "engine":
                return cls.from_engine(path, one.runtime, require_manifest=True)
            return cls.from_onnx(
                path, one.runtime, one.device, threads, streams=streams, cached=cached
            )

        request = Request(runtime, device, threads, precision, unverified, streams, size)
        predictor, choice = open_fastest(root, request, open_one, anew=anew)
        predictor.choice = choice
        return predictor

    @classmethod
    def _of(
        cls, path: Path, loaded: Loaded, threads: int | None = None, streams: int = 1
    ) -> Predictor:
        backend, metadata, runtime, device = loaded
        where: dict[str, Any] = {"runtime": runtime, "device": device}
        try:
            return cls(backend, metadata, **where, threads=threads, streams=streams)
        except ModelError as error:
            backend.close()
            raise ModelError(f"{path}: {error}") from error

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

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise InputError(
            "a Predictor cannot be pickled, as it holds a network in this process's memory: open "
            "one in each process, as in the initializer of a process pool"
        )
