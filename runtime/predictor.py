"""One call from an image to its label map, whichever runtime does the work."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import BackendError, InputError, ModelError
from icnet_deploy.labels import LabelSet
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata
from icnet_deploy.runtime.ahead import ahead
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.backends.registry import (
    check_available,
    choose,
    open_backend,
    open_engine,
)
from icnet_deploy.runtime.backends.tensorrt.engine import read_plan
from icnet_deploy.runtime.contract import (
    ENGINE_SUFFIXES,
    check_contract,
    describe,
    refuse_other_kinds,
)
from icnet_deploy.runtime.cores import usable_cores
from icnet_deploy.runtime.cuda.base import Cuda
from icnet_deploy.runtime.prediction import Prediction
from icnet_deploy.runtime.serving import Held, Serving

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
        """Serves a backend of your own, such as `FakeBackend`; for files see `from_onnx`.

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
        self._serving = Serving(metadata, runtime, threading.Semaphore(streams), share)

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
            path: which of them it is is known by its suffix; what has none of an engine and is no
                folder is read as ONNX.
            runtime, device, threads, streams, tf32, cached: as for `from_onnx`. An engine runs on
                the GPU, one image after the other, and was compiled before.
            precision, unverified, size: of a folder: see `from_folder`.
            require_manifest, label_set: of an engine: see `from_engine`. In a folder an engine
                always needs its sidecar.

        Raises:
            InputError: an option does not fit the kind of artefact; and what `from_onnx`,
                `from_engine` and `from_folder` raise.
        """
        path = Path(path)
        is_folder, is_engine = path.is_dir(), path.suffix in ENGINE_SUFFIXES
        chooses = {"size": size, "precision": precision, "unverified": unverified or None}
        options = [name for name, value in chooses.items() if value is not None]
        if options and not is_folder:
            raise InputError(
                f"--{options[0]} chooses among the artefacts of a folder, and {path} is none: "
                "leave it away; images of any size are resized to the artefact's"
            )
        if label_set is not None and not is_engine:
            raise InputError(
                f"a label set is given to an engine without a sidecar, and {path} is no engine: an "
                "ONNX file says its own"
            )
        if is_folder:
            if tf32 or cached is not None:
                raise InputError(
                    f"{path} is a folder, whose fastest artefact is opened as it was measured: "
                    "leave tf32 and cached away, or name a file"
                )
            chosen: dict[str, Any] = {"precision": precision, "unverified": unverified}
            return cls.from_folder(
                path, runtime, device, threads, streams=streams, size=size, **chosen
            )
        if not is_engine:
            if require_manifest:
                raise InputError(
                    f"--require-manifest is for an engine ({', '.join(ENGINE_SUFFIXES)}), not for "
                    f"{path}"
                )
            return cls.from_onnx(
                path, runtime, device, threads, streams=streams, tf32=tf32, cached=cached
            )
        if device == "cpu" or threads is not None or streams != 1 or tf32:
            raise InputError(
                f"{path} is an engine, which runs on the GPU one image after the other, in the "
                "precision that it was built for: leave --device cpu, --threads, --streams and "
                "TF32 away, or give the ONNX file that it was built from"
            )
        return cls.from_engine(
            path, runtime, label_set=label_set, require_manifest=require_manifest
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
        """Loads an ONNX file that `icnet export` wrote.

        Args:
            path: the file.
            runtime: `onnxruntime`, `openvino`, `onnxruntime-tensorrt` (ONNX Runtime's provider of
                TensorRT 10), or `auto`, the fastest that is installed.
            device: `cpu`, `cuda`, or `auto`: CUDA where it really works. CUDA asked for by name
                is CUDA or an error.
            threads: CPU threads; None for what the runtime takes, which is the cores.
            streams: how many images the network works on at once, each on its share of the threads:
                as many as there are cores gives `stream` the most images a second, and each image
                takes longer. CPU only.
            tf32: let ONNX Runtime on CUDA multiply float32 with 10 bits of the mantissa: faster,
                and no longer float32.
            cached: keep what OpenVINO compiled below the user's cache folder, as large as the file,
                and load it faster the next time. None: where `ICNET_CACHE` is set to a folder.
                False: neither keep nor load anything, which is how a file is judged.

        Raises:
            ModelError: the file is missing, cut off, of another kind, or another model.
            InputError: there is no such runtime or device.
            UnavailableError: a package or a device is missing.
        """
        path = Path(path)
        refuse_other_kinds(path)
        asked, (runtime, device) = (runtime, device), choose(runtime, device)
        check_available(runtime, device)
        metadata = read_onnx_metadata(path)
        if (runtime, device) == ("onnxruntime", "cuda") and metadata.precision.startswith("int8"):
            if asked[1] == "cuda":
                raise InputError(
                    f"{path} is {metadata.precision}, and ONNX Runtime has no integer convolution "
                    "on CUDA: it would run as float, and slower. Use the fp16 artefact there, or "
                    "an engine of TensorRT; on the CPU int8-ort"
                )
            runtime, device = choose(asked[0], "cpu")
        backend = open_backend(
            runtime, path, device, threads, streams=streams, tf32=tf32, cached=cached
        )
        told: dict[str, Any] = {"runtime": runtime, "device": device}
        try:
            return cls(backend, metadata, **told, threads=threads, streams=streams)
        except ModelError as error:
            backend.close()
            raise ModelError(f"{path}: {error}") from error

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
            path: the engine.
            runtime: `tensorrt`, `tensorrt-rtx`, or `auto`: the one that built it.
            label_set: the classes of an engine without a sidecar; without it Cityscapes' 19.
            require_manifest: refuse an engine without a sidecar.
            host_code: let code for the CPU in it run, which a version-compatible engine has.
            cuda: what drives the GPU: `cuda-python`, `pycuda`, `auto`, or a `Cuda` that is open.

        Raises:
            ModelError: the file is missing, changed, of another kind, version or GPU, or has no
                sidecar where one is required.
            InputError: there is no such runtime.
            UnavailableError: a package or the GPU is missing.
            BackendError: the GPU has no room for it.
        """
        plan = read_plan(Path(path), require_manifest)
        backend, name = open_engine(runtime, plan, cuda, host_code)
        try:
            told = plan.sidecar and plan.sidecar.metadata
            metadata = told or describe(backend, label_set)
            return cls(backend, metadata, runtime=name, device="cuda")
        except ModelError as error:
            backend.close()
            raise ModelError(f"{path}: {error}") from error

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
    ) -> Predictor:
        """Opens what is fastest here of the artefacts in a folder that `icnet verify` passed.

        Measured once; `choice` says why. Arguments and errors: `runtime.choice`, `open_fastest`.
        """
        from icnet_deploy.runtime.auto.candidates import Request
        from icnet_deploy.runtime.auto.choice import open_fastest

        asked = Request(runtime, device, threads, precision, unverified, streams, size)
        return open_fastest(Path(folder), asked)

    @property
    def backend(self) -> Backend:
        """What runs the network.

        Raises:
            BackendError: the predictor is closed.
        """
        if self._backend is None:
            raise BackendError("the predictor is closed: load the model again")
        return self._backend

    def _open_backend(self) -> Backend:
        return self.backend

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels that the artefact takes, or None: each image at its own."""
        return self.metadata.size

    def predict(self, image: Any, on_device: bool = False) -> Prediction:
        """Labels one image.

        Args:
            image: uint8, H x W x 3, RGB, 0..255, of any size; one that is not the artefact's is
                resized to it, bilinearly, and the label map comes back at the image's. An engine
                also takes an array on the GPU (`__cuda_array_interface__`) of the artefact's size,
                contiguous, which never leaves it. The prediction keeps a copy of a numpy array
                that may be written to; one that is read-only is kept as it is.
            on_device: leave the label map in the GPU's memory, as `DeviceLabels`; engines only.

        Raises:
            ImageError: another dtype or shape, or smaller than a free-size artefact can take.
            NotFinite: the network overflowed: its logits are infinite or not numbers.
            BackendError: the runtime failed, what it answered is not what the artefact's metadata
                says, or the predictor is closed.
        """
        backend, serving = self.backend, self._serving
        prepared = serving.prepare(serving.hold(backend, image))
        return serving.finish(backend, [prepared], on_device)[0]

    def predict_batch(self, images: Sequence[UInt8]) -> list[Prediction]:
        """Labels several images, which may differ in size.

        Those that reach the model at one size go to it together, and its memory grows with their
        number, if it takes a batch of any number; otherwise one by one. On the CPU each gets the
        label map that `predict` gives it, to the byte (`int8` on ONNX Runtime, which it is not for:
        but for 1 pixel in 1000 at most); on a GPU another batch may have kernels that round
        otherwise where two classes tie.

        Args:
            images: each as `predict` takes it; all are checked before the first is run.

        Returns:
            Their predictions, in order.
        """
        backend, serving = self.backend, self._serving
        lazy = not isinstance(images, list | tuple)  # such as a camera: see `stream`
        prepared = [serving.prepare(serving.hold(backend, image, lazy)) for image in images]
        groups: dict[Any, list[int]] = {}
        any_number = backend.inputs[0].shape[0] is None
        for index, one in enumerate(prepared):
            groups.setdefault(one.pixels.shape if any_number else index, []).append(index)
        found: dict[int, Prediction] = {}
        for indices in groups.values():
            answers = serving.finish(backend, [prepared[index] for index in indices])
            found.update(zip(indices, answers, strict=True))
        return [found[index] for index in range(len(prepared))]

    def stream(self, frames: Iterable[UInt8]) -> Generator[Prediction, None, None]:
        """Labels frames in order, working on the next ones while the caller has this one.

        Args:
            frames: each as `predict` takes it. It is drawn from in a thread of its own, at most
                one frame ahead of those that the streams work on; closing the generator that this
                returns ends its threads. All may be one array that is filled anew each time: a
                frame is copied before the next is drawn, unless it is read-only. So is one on the
                GPU, where the stream that it names, or the default one, is waited for.

        Raises:
            What `frames` raises, and what `predict` does, at the frame where it happens.
        """
        _ = self.backend  # refused here if closed, not at the first frame
        return self._stream(frames)

    def _stream(self, frames: Iterable[UInt8]) -> Generator[Prediction, None, None]:
        def held() -> Iterator[Held]:
            # Drawn from in a thread of its own: each frame is held before the next one is drawn.
            for frame in frames:
                yield self._serving.hold(self.backend, frame, may_be_reused=True)

        def label(frame: Held) -> Prediction:
            prepared = self._serving.prepare(frame)
            return self._serving.finish(self.backend, [prepared])[0]

        # One more than run the network: it has its image ready when another's turn ends.
        with ahead(held(), label, self.streams + 1) as predictions:
            yield from predictions

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
