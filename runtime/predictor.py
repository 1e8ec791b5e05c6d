"""One call from an image to its label map, whichever runtime does the work."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.labels import LabelSet
from icnet_deploy.runtime.auto.folder import kind_of
from icnet_deploy.runtime.cuda.base import Cuda
from icnet_deploy.runtime.loading import Loaded, load_engine, load_onnx, refuse_misfits
from icnet_deploy.runtime.model import LoadedModel
from icnet_deploy.runtime.signing.private import speaking_of
from icnet_deploy.runtime.signing.trusted import trusted_file, trusted_folder

if TYPE_CHECKING:
    from icnet_deploy.runtime.auto.candidates import Candidate, Request
    from icnet_deploy.runtime.auto.choice import Choice


class Predictor(LoadedModel):
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
        trusted_key: str | Path | None = None,
        sha256: str | None = None,
    ) -> Self:
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
            trusted_key: open nothing that this public key, a PEM file, did not sign (`icnet sign`):
                of a folder all files, of a file it, its external data and its sidecar. They are
                copied to the system's folder for temporary files, and only the copies are loaded.
            sha256: open only the file with this SHA-256, 64 hex digits, as `sha256sum` shows it;
                of one with external data as `verified.json` has it. It says nothing of a sidecar.

        Raises:
            ModelError: the file is missing, cut off, changed, of another kind, version or GPU, or
                another model; an engine has no sidecar where one is required; or it is not what
                the key signed, or has another SHA-256.
            InputError: there is no such runtime or device, an option is another kind's, nothing in
                the folder is what was asked for, or the key cannot be used.
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
            "sha256": sha256 is not None,
        }
        trust: dict[str, Any] = {"trusted_key": trusted_key, "sha256": sha256}
        refuse_misfits(path, kind, asked)
        if kind == "folder":
            chosen: dict[str, Any] = {"precision": precision, "unverified": unverified}
            chosen |= {"trusted_key": trusted_key}
            return cls.from_folder(
                path, runtime, device, threads, streams=streams, size=size, **chosen
            )
        if kind == "engine":
            return cls.from_engine(
                path, runtime, label_set=label_set, require_manifest=require_manifest, **trust
            )
        return cls.from_onnx(
            path, runtime, device, threads, streams=streams, tf32=tf32, cached=cached, **trust
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
        trusted_key: str | Path | None = None,
        sha256: str | None = None,
    ) -> Self:
        """Loads an ONNX file of `icnet export`; arguments and errors are those of `open`."""
        path = Path(path)
        if kind_of(path) == "engine":
            raise ModelError(f"{path} is an engine, not an ONNX file: use Predictor.from_engine")
        if trusted_key is not None or sha256 is not None:
            if cached:
                raise InputError(
                    f"{path}: a model that OpenVINO compiled and kept cannot be checked against a "
                    "key or a SHA-256: leave out cached, or leave out trusted_key and sha256"
                )
            cached = False
        with ExitStack() as files:
            copy = files.enter_context(trusted_file(path, trusted_key, sha256))
            loaded = load_onnx(
                copy, runtime, device, threads, streams=streams, tf32=tf32, cached=cached
            )
            return cls._of(path, loaded, threads, streams)._keeping(files)

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
        trusted_key: str | Path | None = None,
        sha256: str | None = None,
    ) -> Self:
        """Loads an engine of TensorRT or TensorRT-RTX, built by `icnet build-engine` or `trtexec`.

        An engine is a program: load only what you built or trust. Its sidecar, if there is one,
        must name its SHA-256. Predictors of one file share the engine in the GPU's memory.

        Args:
            path, runtime, label_set, require_manifest, trusted_key, sha256: see `open`, as for
                errors.
            host_code: let code for the CPU in it run, which a version-compatible engine has.
            cuda: what drives the GPU: `cuda-python`, `pycuda`, `auto`, or a `Cuda` that is open.
        """
        path = Path(path)
        options: dict[str, Any] = {"require_manifest": require_manifest, "host_code": host_code}
        options |= {"label_set": label_set, "cuda": cuda, "called": path}
        with trusted_file(path, trusted_key, sha256, engine=True) as copy:
            return cls._of(path, load_engine(copy, runtime, **options))

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
        trusted_key: str | Path | None = None,
    ) -> Self:
        """Opens what is fastest here of the artefacts in a folder that `icnet verify` passed.

        What it left undecided is taken only where nothing is within its limits. Measured once, or
        `anew`; `choice` says why. Arguments and errors are those of `open`.
        """
        from icnet_deploy.runtime.auto.candidates import Request
        from icnet_deploy.runtime.auto.choice import open_fastest

        root = Path(folder)
        copy_of = None if trusted_key is None else root
        request = Request(runtime, device, threads, precision, unverified, streams, size)
        with ExitStack() as files:
            place = files.enter_context(trusted_folder(root, trusted_key))
            open_one = partial(cls._of_folder, place, copy_of, request)
            predictor, choice = open_fastest(place, request, open_one, anew=anew, copy_of=copy_of)
            predictor.choice = choice.speaking_of(root, place)
            return predictor._keeping(files)

    @classmethod
    def _of_folder(
        cls,
        folder: Path,
        copy_of: Path | None,
        request: Request,
        one: Candidate,
        cached: bool | None = None,
    ) -> Self:
        """Opens one artefact of a folder, or of a copy of one: nothing else is loaded with that."""
        path = folder / one.file
        with speaking_of(copy_of or folder, folder):
            if kind_of(path) == "engine":
                return cls.from_engine(path, one.runtime, require_manifest=True)
            kept = cached if copy_of is None else False
            place = (one.runtime, one.device, request.threads)
            return cls.from_onnx(path, *place, streams=request.streams, cached=kept)

    @classmethod
    def _of(cls, path: Path, loaded: Loaded, threads: int | None = None, streams: int = 1) -> Self:
        backend, metadata, runtime, device = loaded
        where: dict[str, Any] = {"runtime": runtime, "device": device}
        try:
            return cls(backend, metadata, **where, threads=threads, streams=streams)
        except ModelError as error:
            backend.close()
            raise ModelError(f"{path}: {error}") from error

    def _keeping(self, files: ExitStack) -> Self:
        """Keeps the copies of an artefact for as long as the runtime may read them again.

        ONNX Runtime loads a model on CUDA once more for images of another shape.
        """
        if self.runtime == "onnxruntime" and self.device == "cuda":
            self._files.push(files.pop_all())
        return self
