"""The networks, their checkpoints and their weights. Needs torch, once a name is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icnet_deploy.networks.base import SegmentationNetwork
    from icnet_deploy.networks.checkpoint import (
        SHIPPED,
        Checkpoint,
        load_checkpoint,
        save_checkpoint,
    )
    from icnet_deploy.networks.icnet import ICNet
    from icnet_deploy.networks.preprocessing import Preprocessing
    from icnet_deploy.networks.pspnet import PSPNet
    from icnet_deploy.networks.registry import build_network, register

__all__ = [
    "SHIPPED",
    "Checkpoint",
    "ICNet",
    "PSPNet",
    "Preprocessing",
    "SegmentationNetwork",
    "build_network",
    "load_checkpoint",
    "register",
    "save_checkpoint",
]

_HOMES = {
    "SHIPPED": "checkpoint",
    "Checkpoint": "checkpoint",
    "ICNet": "icnet",
    "PSPNet": "pspnet",
    "Preprocessing": "preprocessing",
    "SegmentationNetwork": "base",
    "build_network": "registry",
    "load_checkpoint": "checkpoint",
    "register": "registry",
    "save_checkpoint": "checkpoint",
}


def __getattr__(name: str) -> Any:
    """Imports a name's module when the name is first used: `--help` must work without torch."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
