"""From what is asked for to a network that is ready to run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from icnet_deploy.documents import as_read
from icnet_deploy.errors import CheckFailed, InputError, LabelSetError
from icnet_deploy.integrity import require_finite
from icnet_deploy.labels import LabelSet
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.checkpoint import COUNTER, Checkpoint, arrays_of, state_digest
from icnet_deploy.networks.own.adapted import Adapted
from icnet_deploy.networks.own.factory import build_module
from icnet_deploy.networks.own.probe import Behaviour, Size, probe
from icnet_deploy.networks.own.request import NetworkRequest
from icnet_deploy.networks.own.weights import load_weights
from icnet_deploy.networks.preprocessing import Preprocessing, load_preprocessing

_EVEN = 0.5


def open_network(request: NetworkRequest, size: Size | None = None) -> Checkpoint:
    """Loads a network of one's own, its weights, and finds out what it says nothing of.

    Args:
        request: what is known of it; its label set and preprocessing are named.
        size: (height, width) in pixels of the images that it will get; None: any.

    Returns:
        As of a checkpoint's file. `path` is the weights' file, or the factory's name; `sha256` is
        the digest of its float32 state, so that it is the same from whichever file it came.

    Raises:
        InputError: there is no such module or factory, it refuses its arguments, or does not take
            images.
        ModelError: its weights cannot be read or do not fit; the label set has another number of
            classes.
        CheckFailed: what was said of it is not what it does.
    """
    return _checkpoint(build_module(request.factory, request.arguments), request, size)


def adapt(module: nn.Module, request: NetworkRequest, size: Size | None = None) -> Checkpoint:
    """As `open_network`, of a module that is there already; the request's factory names it."""
    return _checkpoint(copy.deepcopy(module), request, size)


def name_of(module: nn.Module) -> Path:
    """What stands for a file where there is none: `package.module.Class`."""
    return Path(f"{type(module).__module__}.{type(module).__qualname__}")


def _checkpoint(module: nn.Module, request: NetworkRequest, size: Size | None) -> Checkpoint:
    name = request.factory or str(name_of(module))
    label_set, preprocessing = _named(request, name)
    module = module.cpu().float().eval().requires_grad_(False)
    told = "weights: as the factory made them"
    if request.weights is not None:
        told = load_weights(module, request.weights)
    state = module.state_dict()
    require_finite(arrays_of(state), name, "give other --weights")
    behaviour = probe(module, name, size, request.side_multiple, request.upsampling == "none")
    classes = 2 if behaviour.channels == 1 else behaviour.channels
    if len(label_set) != classes:
        raise LabelSetError(
            f"{name} gives {behaviour.channels} channels of logits, which are {classes} classes; "
            f"the label set {label_set.name} has {len(label_set)}: name its own with --label-set"
        )
    if isinstance(module, SegmentationNetwork):
        network = module
    else:
        network = _adapted(module, name, request, behaviour, classes)
    return Checkpoint(
        request.weights or Path(name),
        network.eval(),
        label_set,
        preprocessing,
        {"own": [told]},
        state_digest({k: v for k, v in state.items() if not k.endswith(COUNTER)}),
    )


def _named(request: NetworkRequest, name: str) -> tuple[LabelSet, Preprocessing]:
    if request.label_set is None:
        raise InputError(f"nothing says which classes {name} has: name them with --label-set")
    if request.preprocessing is None:
        raise InputError(
            f"nothing says what {name} expects of its input: name it with --preprocessing"
        )
    if isinstance(request.preprocessing, str):
        return request.label_set, load_preprocessing(request.preprocessing)
    return request.label_set, Preprocessing.from_dict(dict(request.preprocessing))


def _adapted(
    module: nn.Module, name: str, request: NetworkRequest, behaviour: Behaviour, classes: int
) -> Adapted:
    described = {
        "architecture": name,
        "arguments": dict(request.arguments),
        "num_classes": classes,
    }
    threshold = request.threshold
    if behaviour.channels == 1 and threshold is None:
        threshold = _EVEN
    upsampling = behaviour.upsampling or ("none" if behaviour.whole else request.upsampling)
    return Adapted(
        module,
        as_read(described),
        classes,
        threshold,
        upsampling=upsampling or "half-pixel",
        stride=behaviour.stride,
        min_side=behaviour.min_side,
        side_multiple=behaviour.side_multiple,
        left_out=behaviour.left_out,
    )
