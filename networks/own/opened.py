"""From what is asked for to a network that is ready to run."""

import copy
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from icnet_deploy.documents import as_read
from icnet_deploy.errors import InputError, LabelSetError
from icnet_deploy.integrity import require_finite
from icnet_deploy.labels import LabelSet
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.checkpoint import COUNTER, Checkpoint, arrays_of, state_digest
from icnet_deploy.networks.own.adapted import Adapted
from icnet_deploy.networks.own.factory import build_module
from icnet_deploy.networks.own.probe import Behaviour, probe
from icnet_deploy.networks.own.request import NetworkRequest
from icnet_deploy.networks.own.runs import Size
from icnet_deploy.networks.own.said import hold_declared, hold_said, in_words
from icnet_deploy.networks.own.weights import load_weights
from icnet_deploy.networks.preprocessing import Preprocessing, load_preprocessing

_EVEN = 0.5
"""The threshold of one channel where nothing is said: the second class begins at a logit of 0."""


def open_network(request: NetworkRequest, size: Size | None = None) -> Checkpoint:
    """Loads a network of one's own, its weights, and finds out what it says nothing of.

    Args:
        request: what is known of it; its label set and preprocessing are named.
        size: (height, width) in pixels of the images that it will get; None: any.

    Returns:
        As of a checkpoint's file. `path` is the weights' file, or the factory's name; `sha256` is
        the digest of its float32 state, so that it is the same from whichever file it came;
        `info["own"]` says line by line what was found, said and assumed; `info["tensors"]` is a
        table, as text, of what became of the file's tensors.

    Raises:
        InputError: there is no such module or factory, it refuses its arguments, does not take
            images, is TorchScript or lazy; what was said of it is not what it does.
        ModelError: its weights cannot be read or do not fit.
        LabelSetError: the label set has another number of classes.
        CheckFailed: its answer is another each time, or it says of itself what it does not do.
    """
    return _checkpoint(build_module(request.factory, request.arguments), request, size)


def adapt(module: nn.Module, request: NetworkRequest, size: Size | None = None) -> Checkpoint:
    """As `open_network`, of a module that is there already; the request's factory names it.

    The module stays as it is.
    """
    return _checkpoint(copy.deepcopy(module), request, size)


def name_of(module: nn.Module) -> Path:
    """What stands for a file where there is none: `package.module.Class`."""
    return Path(f"{type(module).__module__}.{type(module).__qualname__}")


def _checkpoint(module: nn.Module, request: NetworkRequest, size: Size | None) -> Checkpoint:
    name = request.factory or str(name_of(module))
    label_set, preprocessing = _named(request, name)
    module = _unwrapped(module)
    _require_python(module, name)
    module = module.cpu().float().eval().requires_grad_(False)
    weights, tensors = "those that the network came with", None
    if request.weights is not None:
        loaded = load_weights(module, request.weights, name)
        weights, tensors = loaded.words, loaded.table
    state = {key: value for key, value in module.state_dict().items() if not key.endswith(COUNTER)}
    require_finite(arrays_of(state), name, "give other weights with --weights")
    digest = state_digest(state)
    if isinstance(module, SegmentationNetwork):
        behaviour = probe(module, name, size, module.side_multiple, keep_resize=True)
        hold_declared(module, request, behaviour, name)
        network, classes = module, behaviour.channels
    else:
        behaviour = probe(module, name, size, request.side_multiple, _keeps_resize(request))
        classes = 2 if behaviour.channels == 1 else behaviour.channels
        network = _adapted(module, name, request, behaviour, classes)
    if len(label_set) != classes:
        more = f", which is {classes} classes" if classes != behaviour.channels else "s"
        raise LabelSetError(
            f"{name} gives logits of {behaviour.channels} channel{more}, and the label set "
            f"{label_set.name!r} has {len(label_set)}: give the label set of the network, or build "
            "the network with as many classes"
        )
    own = [f"network: {name}, {classes} classes", f"weights: {weights}"]
    own += in_words(network, request, behaviour)
    info = {"own": own, "tensors": "" if tensors is None else tensors.text()}
    path = request.weights or Path(name)
    return Checkpoint(path, network.eval(), label_set, preprocessing, info, digest)


def _unwrapped(module: nn.Module) -> nn.Module:
    """Without what it was compiled or spread over devices with."""
    while isinstance(module, nn.DataParallel) or hasattr(module, "_orig_mod"):
        inner = module.module if isinstance(module, nn.DataParallel) else module._orig_mod
        if not isinstance(inner, nn.Module):
            break
        module = inner
    return module


def _require_python(module: nn.Module, name: str) -> None:
    """Refuses what cannot be run, looked into and exported as a module of Python.

    Raises:
        InputError: it is TorchScript, or its weights have no shape before it has run once.
    """
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise InputError(
            f"{name} is TorchScript, or has a part that is: give the network as Python code, as it "
            "was before torch.jit.script or torch.jit.trace; if you have only the TorchScript "
            "file, save its state_dict() and give that as the weights"
        )
    lazy = (UninitializedParameter, UninitializedBuffer)
    if any(isinstance(value, lazy) for value in (*module.parameters(), *module.buffers())):
        raise InputError(
            f"{name} has lazy layers, whose weights have no shape yet: run it once on an image in "
            "its factory, or give the layers their channels"
        )


def _named(request: NetworkRequest, name: str) -> tuple[LabelSet, Preprocessing]:
    if request.label_set is None:
        raise InputError(
            f"the classes of {name} are not known: name them with --label-set cityscapes, camvid "
            "or FILE.json"
        )
    if request.preprocessing is None:
        raise InputError(
            f"the preprocessing of {name} is not known: give --preprocessing imagenet, or another"
        )
    if isinstance(request.preprocessing, str):
        return request.label_set, load_preprocessing(request.preprocessing)
    return request.label_set, Preprocessing.from_dict(dict(request.preprocessing))


def _keeps_resize(request: NetworkRequest) -> bool:
    """Whether it was said that the logits have the image's size."""
    return request.upsampling == "none" or (request.upsampling is None and request.stride == 1)


def _adapted(
    module: nn.Module, name: str, request: NetworkRequest, behaviour: Behaviour, classes: int
) -> Adapted:
    threshold = request.threshold
    if behaviour.channels > 1 and threshold is not None:
        raise InputError(
            f"the threshold {threshold:g} is for one channel of logits, and {name} has "
            f"{behaviour.channels}: leave it out"
        )
    if behaviour.channels == 1:
        if (kind := behaviour.squashed) is not None:
            raise InputError(
                f"{name} gives the {kind} of its one channel of logits: let it give the logits "
                "themselves (in segmentation_models_pytorch, activation=None)"
            )
        threshold = _EVEN if threshold is None else threshold
    return Adapted(
        module,
        as_read(
            {"architecture": name, "arguments": dict(request.arguments), "num_classes": classes}
        ),
        classes,
        threshold,
        upsampling=hold_said(request, behaviour, name),
        stride=behaviour.stride,
        min_side=behaviour.min_side,
        side_multiple=behaviour.side_multiple,
        left_out=behaviour.left_out,
    )
