"""From what is asked for to a network that is ready to run."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from icnet_deploy.networks.checkpoint import Checkpoint
from icnet_deploy.networks.own.request import NetworkRequest

Size = tuple[int, int]


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
    raise NotImplementedError


def adapt(module: nn.Module, request: NetworkRequest, size: Size | None = None) -> Checkpoint:
    """As `open_network`, of a module that is there already; the request's factory names it."""
    raise NotImplementedError


def name_of(module: nn.Module) -> Path:
    """What stands for a file where there is none: `package.module.Class`."""
    return Path(f"{type(module).__module__}.{type(module).__qualname__}")
