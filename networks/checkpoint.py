"""Checkpoints: a safetensors file with the weights, and one JSON value that says how to build the
network around them. Nothing in it is executed when it is read.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from icnet_deploy.documents import OBJECT, Schema, parse
from icnet_deploy.errors import CheckFailed, LabelSetError, ModelError
from icnet_deploy.files import replacing, sha256
from icnet_deploy.integrity import require_finite
from icnet_deploy.labels import LabelSet
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.preprocessing import Preprocessing
from icnet_deploy.networks.registry import build_network

SHIPPED = Path(__file__).parent / "weights" / "icnet-street.safetensors"
"""The checkpoint that comes with the product; its licence stands beside it."""

_KEY, _DIGEST = "icnet_deploy", "icnet_deploy_sha256"
COUNTER = "num_batches_tracked"
"""Of a batch norm, which nobody reads: it is in no file."""

_NEWEST = 2
"""2 says the architecture and, for a pruned net, its channels; 1 is an ICNet without them."""

_DESCRIPTION = Schema(
    "a checkpoint's description",
    dict.fromkeys(("network", "label_set", "preprocessing", "info"), OBJECT),
    newest=_NEWEST,
    error=ModelError,
)
_UNREADABLE = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, LabelSetError)
"""What a description that contradicts itself raises; RuntimeError where a size is absurd."""


@dataclass(frozen=True)
class Checkpoint:
    """A network that is ready to run, and what is known of it.

    Attributes:
        path: the file.
        network: in eval mode, float32, without guidance heads.
        label_set: its classes.
        preprocessing: what its input expects.
        info: how it was trained and scored, as the trainer wrote it.
        sha256: of the file.
    """

    path: Path
    network: SegmentationNetwork
    label_set: LabelSet
    preprocessing: Preprocessing
    info: dict[str, Any]
    sha256: str


def save_checkpoint(
    path: str | Path,
    network: SegmentationNetwork,
    label_set: LabelSet,
    preprocessing: Preprocessing,
    info: dict[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Writes a checkpoint; the training-only heads stay out.

    Args:
        path: the `.safetensors` file.
        network: on any device.
        label_set: as many classes as the network has.
        preprocessing: what its input expects.
        info: how it was trained, JSON values.
        half: store float16, half the bytes. Running variances stay float32: those of dead
            channels are below float16's smallest number, and one that became zero would make its
            channel 300 times louder. So does a tensor with a value that float16 cannot hold.

    Raises:
        CheckFailed: a weight is infinite or not a number, or a variance is below 0.
        LabelSetError: the label set does not fit the network.
        OutputError: the file cannot be written.
    """
    if len(label_set) != network.num_classes:
        raise LabelSetError(
            f"the network has {network.num_classes} classes, {label_set.name} has {len(label_set)}"
        )
    built = network.description(guidance=False)
    with torch.device("meta"):
        wanted = build_network(built).state_dict()
    tensors = {}
    for name, value in network.state_dict().items():
        if name in wanted and not name.endswith(COUNTER):
            kept = value.float() if value.is_floating_point() else value
            tensors[name] = kept.detach().cpu().contiguous()
    advice = "no checkpoint is written; train or import the network again"
    require_finite(arrays_of(tensors), "the network", advice, CheckFailed)
    for name, value in tensors.items():
        fits = value.is_floating_point() and value.half().isfinite().all()
        if half and fits and not name.endswith("running_var"):
            tensors[name] = value.half()
    description = {
        "schema": _NEWEST,
        "network": built,
        "label_set": label_set.to_dict(),
        "preprocessing": preprocessing.to_dict(),
        "info": info or {},
    }
    text = json.dumps(description)
    with replacing(path) as temporary:
        # Its own writer reports a full disk in an error of its own.
        texts = {_KEY: text, _DIGEST: state_digest(tensors, text)}
        temporary.write_bytes(_serialized(tensors, texts))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint and builds its network.

    Raises:
        ModelError: there is no such file, it is not a checkpoint of this product, is cut off, its
            tensors do not fit the network that it describes, a value in them is not finite, or
            bytes of it were changed.
    """
    path = Path(path)
    if not isfile(path):
        there = "it is a folder" if isdir(path) else "there is no such file"
        raise ModelError(
            f"cannot read the checkpoint {path}: {there}; expected a .safetensors file that `icnet "
            "train`, `compress` or `import-weights` wrote"
        )
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {error}") from error
    if (text := texts.get(_KEY)) is None:
        raise ModelError(
            f"{path} holds tensors, but icnet-deploy did not write it: give a checkpoint of "
            "`icnet train`, `compress` or `import-weights`"
        )
    if texts.get(_DIGEST, "") not in ("", state_digest(tensors, text)):  # version 0.1 wrote none
        raise ModelError(
            f"{path} was changed after it was written: it does not have the SHA-256 that is stored "
            "in it; copy it again from an unchanged file"
        )
    try:
        value = _DESCRIPTION.parse(text, str(path))
        with torch.device("meta"):  # no memory is taken before the tensors are known to fit
            network = build_network(value["network"])
        label_set = LabelSet.from_dict(value["label_set"])
        preprocessing = Preprocessing.from_dict(value["preprocessing"])
    except _UNREADABLE as error:
        raise ModelError(f"{path}: its description cannot be read: {error!r}") from error
    state = network.state_dict()
    counters = {k: torch.zeros((), dtype=torch.long) for k in state if k.endswith(COUNTER)}
    for name, tensor in tensors.items():
        floats = tensor.is_floating_point()
        if name in state and state[name].is_floating_point() != floats:
            raise ModelError(f"{path}: {name} holds {tensor.dtype}, expected {state[name].dtype}")
        # A copy: the file's are not aligned, and some products then add in another order.
        tensors[name] = (tensor.float() if floats else tensor).clone()
    try:
        network.load_state_dict(tensors | counters, assign=True)
        if any(buffer.is_meta for buffer in network.buffers()):  # what no state holds, as a grid
            network = build_network(value["network"])
            network.load_state_dict(tensors | counters)
    except RuntimeError as error:
        raise ModelError(f"{path}: its tensors do not fit its network: {error}") from error
    advice = (
        "a network with them labels wrongly; give another checkpoint, or train or import it again"
    )
    require_finite(arrays_of(tensors), str(path), advice)
    network.eval()
    return Checkpoint(path, network, label_set, preprocessing, value["info"], sha256(path))


def _serialized(tensors: dict[str, Tensor], texts: dict[str, str]) -> bytes:
    """A safetensors file, the same bytes each time: the package writes its texts in any order."""
    content = safetensors.torch.save(tensors)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps({"__metadata__": texts} | parse(content[8:end])).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def state_digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """The SHA-256 of tensors, in whichever order: names, types, shapes, bytes; and of a text."""
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def arrays_of(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """A network's state as what `require_finite` takes.

    Of a running variance it gives the root, which is what a network divides by: below 0 there is
    none.
    """
    for name, value in tensors.items():
        array = value.detach().cpu().float().numpy()
        if name.endswith("running_var"):
            with np.errstate(invalid="ignore"):
                array = np.sqrt(array)
        yield name, array
