"""A released file in, a checkpoint out."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icnet_deploy.errors import CheckFailed, ModelError
from icnet_deploy.files import read_file, sha256
from icnet_deploy.labels import LabelSet
from icnet_deploy.networks.checkpoint import save_checkpoint
from icnet_deploy.networks.icnet import ICNet, Stages
from icnet_deploy.networks.preprocessing import CAFFE
from icnet_deploy.networks.released.caffemodel import caffe_layers
from icnet_deploy.networks.released.layer import Layer, Unusable, kind_of
from icnet_deploy.networks.released.mapping import Match, match
from icnet_deploy.networks.released.numpy_pickle import MAGIC, numpy_layers

SIZE = (1025, 2049)
"""(height, width) of the authors' input; the network's output is cleanest at 32k+1 a side."""

_READERS = {"caffe": caffe_layers, "numpy": numpy_layers}


@dataclass(frozen=True)
class _Released:
    """A released file that was read.

    Attributes:
        path: the file.
        sha256: of the file.
        form: `caffe` or `numpy`.
        stages: what of the network was asked for.
        match: its tensors, sorted into that network.
    """

    path: Path
    sha256: str
    form: str
    stages: Stages
    match: Match


def read_released(path: str | Path, stages: Stages = "sub124") -> _Released:
    """Reads a `.caffemodel`, or the NumPy form of one; which it is, its first bytes say.

    Raises:
        ModelError: the file cannot be read, is cut off or of another kind, or is a pickle that
            asks for anything but arrays. Tensors that do not fit are no error yet: see
            `Match.problems`.
    """
    path = Path(path)
    layers, form = read_layers(path)
    return _Released(path, sha256(path), form, stages, match(layers, stages))


def read_layers(path: Path) -> tuple[list[Layer], str]:
    """A file's layers, and the form that they have in it; ModelError as `read_released`."""
    try:
        content = read_file(path)
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}: {error.strerror or error}") from error
    if kind := kind_of(content[:256]):
        raise ModelError(f"{path} has no weights: it is {kind}")
    form = "numpy" if content.startswith(MAGIC) else "caffe"
    try:
        return _READERS[form](content), form
    except Unusable as error:
        raise ModelError(f"{path} {error}") from None
    except Exception as error:  # broken bytes can do anything to an unpickler
        raise ModelError(
            f"{path} is not a whole file of weights in the form of {form.title()} ({len(content)} "
            f"bytes; {type(error).__name__}: {error}): it was cut off, or is another kind of file; "
            "download it again"
        ) from error


def save_released(released: _Released, out: str | Path, label_set: LabelSet) -> None:
    """Writes the checkpoint, in float32.

    Args:
        released: what `read_released` gave.
        out: the `.safetensors` file.
        label_set: as many classes as the file's classifier has.

    Raises:
        ModelError: tensors are missing, misshapen or not finite; the message names them all.
        LabelSetError: the label set does not fit.
        OutputError: the file cannot be written.
    """
    found = released.match
    if found.problems:
        raise ModelError(
            f"{released.path} does not hold ICNet ({released.stages}, width {found.width:g}): "
            f"{len(found.problems)} tensors are missing or wrong. {'; '.join(found.problems)}"
        )
    network = ICNet(found.num_classes, found.width, released.stages)
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    network.load_state_dict(found.tensors | counters)
    preprocessing = replace(CAFFE, scale=found.scale)
    try:
        save_checkpoint(out, network, label_set, preprocessing, _info(released))
    except CheckFailed as error:  # a bias taken off a mean
        raise ModelError(f"{released.path} cannot be imported: {error}") from error


def _info(released: _Released) -> dict[str, Any]:
    return {
        "imported": {
            "file": released.path.name,
            "sha256": released.sha256,
            "form": released.form,
            "batch_norm": released.match.batch_norm,
        },
        "source": "imported from a file in the form in which H. Zhao, X. Qi, X. Shen, J. Shi and "
        "J. Jia released ICNet (arXiv 1704.08545) for Cityscapes",
        "licence": "that of the imported file, which is its authors' to give",
        "size": list(SIZE),
    }
