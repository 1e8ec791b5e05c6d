"""Any of the networks, from its description."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from icnet_deploy.errors import InputError
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.bisenetv2 import BiSeNetV2
from icnet_deploy.networks.blocks import RESERVED
from icnet_deploy.networks.icnet import ICNet
from icnet_deploy.networks.pspnet import PSPNet

_NETWORKS: dict[str, type[SegmentationNetwork]] = {}


def register(name: str, network: type[SegmentationNetwork]) -> None:
    """Makes a network known by a name: to checkpoints, configurations, exports, and artefacts.

    Raises:
        ValueError: another network has this name.
    """
    if _NETWORKS.setdefault(name, network) is not network:
        raise ValueError(f"another network is registered as {name!r}: give this one another name")
    network.architecture = name


register("icnet", ICNet)
register("pspnet", PSPNet)
register("bisenetv2", BiSeNetV2)


def build_network(description: Mapping[str, Any]) -> SegmentationNetwork:
    """Builds a network with new weights.

    Args:
        description: as `SegmentationNetwork.description` gives it: the architecture, and its
            constructor's arguments. Without an architecture it is an ICNet, as in checkpoints of
            schema 1.

    Raises:
        ValueError: there is no such architecture, or an argument's value is wrong.
        TypeError: it does not take such arguments.
    """
    arguments = {name: value for name, value in description.items() if name != "architecture"}
    return _class_of(description)(**arguments)


def _class_of(description: Mapping[str, Any]) -> type[SegmentationNetwork]:
    name = description.get("architecture", "icnet")
    if name not in _NETWORKS:
        raise ValueError(f"architecture is one of {', '.join(_NETWORKS)}; got {name!r}")
    return _NETWORKS[name]


def settings_of_networks() -> set[str]:
    """What a training's configuration may say of its network, whichever that is."""
    names = {name for network in _NETWORKS.values() for name in signature(network).parameters}
    return {"architecture", *names} - RESERVED


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's settings of its network, and what it leaves out, as it is by default.

    Settings that only other networks have are dropped.

    Raises:
        InputError: there is no such network, or it refuses a value.
    """
    try:
        taken = {"architecture", *signature(_class_of(settings)).parameters}
        own = {name: value for name, value in settings.items() if name in taken}
        with torch.device("meta"):
            network = build_network({"num_classes": 2, **own})
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error
    return {k: value for k, value in network.description().items() if k not in RESERVED}


@dataclass(frozen=True)
class Cost:
    """What a network takes as it is deployed, with batch norm merged into the convolutions.

    Attributes:
        parameters: weights and biases.
        macs: multiplications and additions, counted as one, of all convolutions and matrix products
            for one image.
    """

    parameters: int
    macs: int


def cost(network: SegmentationNetwork, size: tuple[int, int] = (1025, 2049)) -> Cost:
    """Counts a network's parameters, and its operations at a size of (height, width) pixels.

    The training-only heads are left out.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin = build_network(network.description(guidance=False)).eval()
        twin(torch.empty(1, 3, *size))
    kernels = [m for m in twin.modules() if isinstance(m, nn.Conv2d)]
    parameters = sum(m.weight.numel() + m.out_channels for m in kernels)
    return Cost(parameters, counter.get_total_flops() // 2)
