"""The network, its checkpoints and its training. Needs torch, once a name is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icnet_deploy.training.checkpoint import (
        SHIPPED,
        Checkpoint,
        load_checkpoint,
        save_checkpoint,
    )
    from icnet_deploy.training.config import TrainConfig, load_config
    from icnet_deploy.training.icnet import ICNet
    from icnet_deploy.training.networks import build_network
    from icnet_deploy.training.preprocessing import Preprocessing
    from icnet_deploy.training.pspnet import PSPNet

__all__ = [
    "SHIPPED",
    "Checkpoint",
    "ICNet",
    "PSPNet",
    "Preprocessing",
    "TrainConfig",
    "build_network",
    "load_checkpoint",
    "load_config",
    "save_checkpoint",
]

_HOMES = {
    "SHIPPED": "checkpoint",
    "Checkpoint": "checkpoint",
    "ICNet": "icnet",
    "PSPNet": "pspnet",
    "Preprocessing": "preprocessing",
    "TrainConfig": "config",
    "build_network": "networks",
    "load_checkpoint": "checkpoint",
    "load_config": "config",
    "save_checkpoint": "checkpoint",
}


def __getattr__(name: str) -> Any:
    """Imports a name's module when the name is first used: `--help` must work without torch."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
