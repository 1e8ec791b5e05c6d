"""Pruning by L1 norms (Li et al., arXiv 1608.08710), as the ICNet paper compresses its networks
(Zhao et al., arXiv 1704.08545, section 4.4): filters of small kernels go, and with them the
channels that they made, wherever those are read.

Which channels belong together is not listed anywhere: the network is run once on a tensor without
data, and every operator says what it does to channels. A sum makes those of its inputs one set,
so the layers of a residual chain, its projection, both branches that read `conv3_1`, the pyramid's
pools and both inputs of each fusion are cut alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from icnet_deploy.errors import InputError
from icnet_deploy.networks.registry import Network, build_network

MULTIPLE = 8
"""Channels are kept in multiples of it: what INT8 kernels and tensor cores are made for."""


@dataclass(frozen=True)
class Group:
    """Channels that can only be kept or dropped together.

    Attributes:
        channels: how many there are.
        kernels: the weights, by their names in `state_dict`, whose filters make them: of several
            convolutions where their outputs are summed.
        axes: every (tensor, axis) that counts them: kernels, batch norms, kernels that read them.
    """

    channels: int
    kernels: tuple[str, ...]
    axes: tuple[tuple[str, int], ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The released names of the convolutions that make them."""
        return tuple(k.removesuffix(".conv.weight").replace(".", "") for k in self.kernels)


def prune(
    network: Network, keep: float, original: Network | None = None, multiple: int = MULTIPLE
) -> Network:
    """A smaller network with the filters of largest L1 norm; `network` is left as it is.

    Where several layers' outputs are summed, one choice serves them all, by the sum of their
    norms. The classes stay. Where the filters that go make nothing but zeros, the result is the
    same network; otherwise its accuracy must be regained by training.

    Args:
        network: any network, on any device.
        keep: how much of `original` to keep of each group of channels, above 0, up to 1.
        original: the network whose channels are counted; None is `network` itself.
        multiple: round the channels kept to a multiple of it, where there are as many.

    Returns:
        A network on the CPU, in the same mode, described by its `channels`.

    Raises:
        InputError: `keep` is not such a share, or leaves more channels than `network` has.
    """
    if not 0 < keep <= 1:
        raise InputError(f"keep is a share of the channels, above 0 and up to 1; got {keep}")
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    full = {g.kernels: g.channels for g in channel_groups(original or network)}
    channels: dict[str, int] = {}
    for group in channel_groups(network):
        count = kept_channels(full[group.kernels], keep, multiple)
        if count > group.channels:
            raise InputError(
                f"{keep:g} of the original would be {count} channels of {group.layers[0]}, which "
                f"has {group.channels} left: give smaller shares later"
            )
        norms = torch.stack([state[k].float().abs().sum((1, 2, 3)) for k in group.kernels]).sum(0)
        kept = norms.argsort(descending=True, stable=True)[:count].sort().values
        for name, axis in group.axes:
            state[name] = state[name].index_select(axis, kept)
        channels |= dict.fromkeys(group.layers, count)
    with torch.device("meta"):
        small = build_network(network.description() | {"channels": channels})
    small.load_state_dict(state, assign=True)
    return small.train(network.training)


def kept_channels(channels: int, keep: float, multiple: int = MULTIPLE) -> int:
    """`keep` of some channels, to the nearest multiple from one multiple on, and no more than
    there are."""
    return min(channels, max(1, int(channels * keep / multiple + 0.5)) * multiple)


def channel_groups(network: Network) -> list[Group]:
    """The groups of a network's channels, in the order in which they are made.

    The channels of the image and the classes are in none of them: they stay.
    """
    with torch.device("meta"):
        twin = build_network(network.description()).eval()
    image = torch.empty(1, 3, 64, 64, device="meta")
    watch = _Watch(image, dict(twin.state_dict(keep_vars=True)))
    with torch.no_grad(), watch:
        heads = twin.heads(image)
    fixed = {watch.channels_of(t) for t in (image, *heads)}
    found: dict[int, list[tuple[str, int]]] = {}
    for name, axis, channels in watch.axes:
        if (root := watch.root(channels)) not in fixed:
            found.setdefault(root, []).append((name, axis))
    shapes = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    groups = []
    for axes in found.values():
        kernels = tuple(name for name, axis in axes if axis == 0 and len(shapes[name]) == 4)
        groups.append(Group(shapes[kernels[0]][0], kernels, tuple(axes)))
    return groups


class _Watch(TorchFunctionMode):
    """Follows the channels through every operator.

    Sets of channels are numbers; sets that turn out to be one are joined under one root.

    Attributes:
        axes: (name of a parameter or buffer, axis, set of channels).
    """

    def __init__(self, image: Tensor, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.axes: list[tuple[str, int, int]] = []
        self._names = {id(tensor): name for name, tensor in tensors.items()}
        self._parents: list[int] = []
        self._sets: dict[int, int] = {}
        self._alive: list[Tensor] = []  # a tensor that is freed may pass its id on to another
        self._note(image, self._new())

    def root(self, channels: int) -> int:
        """The set that these channels are of, in the end."""
        while self._parents[channels] != channels:
            channels = self._parents[channels]
        return channels

    def channels_of(self, tensor: Tensor) -> int:
        """The set of an activation's channels."""
        return self.root(self._sets[id(tensor)])

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not isinstance(out, Tensor):  # a size
            return out
        if func is F.conv2d:
            channels = self._new()
            self._axis(args[1], 0, channels)
            self._axis(args[1], 1, self.channels_of(args[0]))
            self._axis(args[2], 0, channels)
        elif func is F.batch_norm:
            channels = self.channels_of(args[0])
            for statistic in (*args[1:], *kwargs.values()):
                self._axis(statistic, 0, channels)
        elif func in (F.relu, F.interpolate, F.avg_pool2d, F.max_pool2d):
            channels = self.channels_of(args[0])
        elif func in (Tensor.add, Tensor.add_):
            channels, other = (self.channels_of(t) for t in args)
            self._parents[other] = channels
        else:
            raise NotImplementedError(f"what {func} does to channels is not known here")
        self._note(out, channels)
        return out

    def _new(self) -> int:
        self._parents.append(len(self._parents))
        return self._parents[-1]

    def _note(self, tensor: Tensor, channels: int) -> None:
        self._sets[id(tensor)] = channels
        self._alive.append(tensor)

    def _axis(self, tensor: Any, axis: int, channels: int) -> None:
        if id(tensor) in self._names:
            self.axes.append((self._names[id(tensor)], axis, channels))
