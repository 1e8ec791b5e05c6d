"""Whatever `icnet evaluate` is given, opened as one thing that labels images."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from icnet_deploy.errors import DeviceError, InputError, ModelError
from icnet_deploy.evaluation.foreign_network import is_foreign, open_foreign
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.evaluation.score import Labeller, Size
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata
from icnet_deploy.runtime.auto.folder import kind_of
from icnet_deploy.runtime.predictor import Predictor


@dataclass(frozen=True)
class Model:
    """Anything that labels images.

    Attributes:
        path: its file.
        metadata: what it says of itself; of a checkpoint, what an artefact of it would say.
        runtime, device: what runs it; `pytorch` for a checkpoint.
        label: labels one image.
        sha256: of a checkpoint, or of the weights of a network of a user's own; else empty: the
            file's.
        notes: what a reader must know of it, in words.
    """

    path: Path
    metadata: ArtefactMetadata
    runtime: str
    device: str
    label: Labeller
    sha256: str = ""
    notes: tuple[str, ...] = ()


def kind_of_model(path: Path) -> str:
    """`checkpoint`, by its suffix; else what `runtime.auto.folder.kind_of` takes it for."""
    return "checkpoint" if path.suffix == ".safetensors" else kind_of(path)


@contextmanager
def open_model(
    path: Path, at: Size | None, runtime: str, device: str, beside: Sequence[Path] = ()
) -> Iterator[Model]:
    """Opens a checkpoint, an ONNX file or an engine.

    Args:
        path: the file; its suffix says which of them it is.
        at: (height, width) of a checkpoint's input; None for each image's own.
        runtime, device: of an ONNX file or an engine; `auto` for a checkpoint.
        beside: artefacts, one of which may have been adopted from this file; then that says how it
            is to be read, and it runs on ONNX Runtime on the CPU.

    Raises:
        ModelError: the file is none of them, or cannot be loaded.
        InputError: an option does not fit the kind of file.
        UnavailableError: a package or a device is missing.
    """
    kind = kind_of_model(path)
    if kind == "checkpoint":
        require_pytorch(runtime, device)
        yield float_model(Reference(path, at), path)
        return
    if at is not None:
        raise InputError(
            f"--size is for a checkpoint, but {path} has a size of its own: leave --size out, or "
            "export or adopt the file at that size"
        )
    if kind not in ("onnx", "engine"):
        raise ModelError(
            f"{path} is not a model: expected a checkpoint (.safetensors), an ONNX file (.onnx) or "
            "an engine (.engine, .plan)"
        )
    if beside and is_foreign(path):
        said = [read_onnx_metadata(one) for one in beside if kind_of_model(one) == "onnx"]
        foreign = open_foreign(path, said)
        model = float_model(Reference(foreign, foreign.metadata.size), path)
        yield replace(model, runtime="onnxruntime")
        return
    with Predictor.open(path, runtime, device, cached=False) as predictor:
        yield Model(
            path,
            predictor.metadata,
            predictor.runtime,
            predictor.device,
            lambda image: predictor.predict(image).labels,
        )


def require_pytorch(runtime: str, device: str) -> None:
    """Refuses a runtime or device for what is scored in PyTorch (InputError, DeviceError)."""
    if runtime != "auto":
        raise InputError(
            f"--runtime {runtime}: a checkpoint runs in PyTorch; export it (`icnet export`) to "
            "score it on a runtime"
        )
    if device not in ("auto", "cpu"):
        raise DeviceError(f"--device {device}: a checkpoint is scored on the CPU, in float32")


def float_model(reference: Reference, path: Path) -> Model:
    """The network itself, in PyTorch on the CPU, at the reference's size.

    Args:
        reference: it.
        path: its file, or the name of what made it.
    """
    origin = reference.network.origin
    return Model(
        path,
        replace(reference.network.metadata, size=reference.size),
        "pytorch",
        "cpu",
        reference.labels,
        origin.sha256 or "",
        origin.notes,
    )
