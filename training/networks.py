"""Any of the networks, from its description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icnet_deploy.training.icnet import ICNet
from icnet_deploy.training.pspnet import PSPNet

__all__ = ["ARCHITECTURES", "Network", "build_network"]

Network = ICNet | PSPNet

ARCHITECTURES: dict[str, type[ICNet] | type[PSPNet]] = {"icnet": ICNet, "pspnet": PSPNet}


def build_network(description: Mapping[str, Any]) -> Network:
    """Builds a network with new weights.

    Args:
        description: as `Network.description` gives it: the architecture, and its constructor's
            arguments. Without an architecture it is an ICNet, as in checkpoints of schema 1.

    Raises:
        ValueError: there is no such architecture, or an argument's value is wrong.
        TypeError: it does not take such arguments.
    """
    arguments = dict(description)
    name = arguments.pop("architecture", "icnet")
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture is one of {', '.join(ARCHITECTURES)}; got {name!r}")
    return ARCHITECTURES[name](**arguments)
