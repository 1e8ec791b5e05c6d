"""Pruning by L1 norms (Li et al., arXiv 1608.08710), as the ICNet paper compresses its networks
(Zhao et al., arXiv 1704.08545, section 4.4): filters of small kernels go, and with them the
channels that they made, wherever those are read.

Which channels belong together is not listed anywhere: the network is run once on a tensor without
data, and every operator says what it does to channels. A sum makes those of its inputs one set,
so the layers of a residual chain, its projection, both branches that read `conv3_1`, the pyramid's
pools and both inputs of each fusion are cut alike.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from icnet_deploy.errors import InputError
from icnet_deploy.files import make_folder
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from icnet_deploy.networks.registry import build_network
from icnet_deploy.training.config import changed_settings

_MULTIPLE = 8
"""Channels are kept in multiples of it: what INT8 kernels and tensor cores are made for."""


Tune = Callable[[Path, Path, Path, bool], object]
"""Trains the network of a checkpoint: (init, out, run's folder, whether to resume)."""


def compress(
    origin: Path,
    keep: Sequence[float],
    out: Path,
    run: Path,
    tune: Tune | None = None,
    settings: dict[str, Any] | None = None,
    resume: bool = False,
) -> tuple[Checkpoint, Checkpoint]:
    """Prunes to each share in turn, and writes the last network to `out`.

    Args:
        origin: the checkpoint to compress.
        keep: shares of its channels, above 0, each less than the one before.
        out: the checkpoint to write.
        run: a folder for each step's two checkpoints, `pruned` and `tuned`, and its training run.
        tune: fine-tunes a step's network; None only prunes.
        settings: what `tune` writes as its configuration; a tuned checkpoint of other settings is
            not taken for this run's.
        resume: take over from `run` what was made from the same files with the same settings.

    Returns:
        The origin and the result.

    Raises:
        InputError: the shares do not fall.
        ModelError: the checkpoint cannot be read.
    """
    if any(b >= a for a, b in zip((1.0, *keep), keep, strict=False)) or keep[-1] <= 0:
        raise InputError(
            f"--keep is {list(keep)}; expected shares between 0 and 1, each smaller than the one "
            "before it"
        )
    first = last = load_checkpoint(origin)
    for step, share in enumerate(keep, 1):
        folder = make_folder(run / f"keep-{share:g}")
        pruned, tuned = folder / "pruned.safetensors", folder / "tuned.safetensors"
        history = {
            "keep": list(keep[:step]),
            "from_sha256": last.sha256,
            "parent_sha256": first.sha256,
            "parent": first.info,
        }
        made = resume and _info(pruned).get("compression") == history
        if not made:
            network = prune(last.network, share, first.network)
            info = {"compression": history}
            save_checkpoint(pruned, network, first.label_set, first.preprocessing, info)
        last = load_checkpoint(pruned)
        if tune is not None:
            done = _info(tuned) if made else {}
            changed = changed_settings(done.get("config", {}), settings or {})
            if changed or done.get("started_from") != last.sha256:
                tune(pruned, tuned, folder, made and isfile(folder / "last.ckpt"))
            last = load_checkpoint(tuned)
    # The history says whose it is: what the last step started from is left out.
    info = {k: v for k, v in last.info.items() if k != "parent"} | {"compression": history}
    # What was tuned is in float16 already; what was only pruned keeps its origin's values.
    save_checkpoint(
        out, last.network, last.label_set, last.preprocessing, info, half=tune is not None
    )
    return first, load_checkpoint(out)


def _info(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its making; nothing where there is none."""
    return load_checkpoint(path).info if isfile(path) else {}


@dataclass(frozen=True)
class _Group:
    """Channels that can only be kept or dropped together.

    Attributes:
        channels: how many there are.
        kernels: the weights, by their names in `state_dict`, whose filters make them: of several
            convolutions where their outputs are summed.
        layers: what the network calls these convolutions.
        axes: every (tensor, axis) that counts them: kernels, batch norms, kernels that read them.
    """

    channels: int
    kernels: tuple[str, ...]
    layers: tuple[str, ...]
    axes: tuple[tuple[str, int], ...]


def prune(
    network: SegmentationNetwork,
    keep: float,
    original: SegmentationNetwork | None = None,
    multiple: int = _MULTIPLE,
) -> SegmentationNetwork:
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
        InputError: `keep` is not such a share, or leaves more channels than `network` has; or it is
            a network that cannot be pruned.
    """
    if not 0 < keep <= 1:
        raise InputError(f"keep is a share of the channels, above 0 and up to 1; got {keep}")
    description = network.description()
    if "channels" not in description:
        raise InputError(f"{network.architecture} cannot be pruned: it takes no `channels`")
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    full = {g.kernels: g.channels for g in channel_groups(original or network)}
    channels: dict[str, int] = {}
    for group in channel_groups(network):
        count = kept_channels(full[group.kernels], keep, multiple)
        if count > group.channels:
            raise InputError(
                f"{keep:g} of the original is {count} channels of {group.layers[0]}, which has "
                f"only {group.channels} left: give a smaller share"
            )
        cut(state, group, count)
        channels |= dict.fromkeys(group.layers, count)
    with torch.device("meta"):
        small = build_network(description | {"channels": channels})
    small.load_state_dict(state, assign=True)
    return small.train(network.training)


def cut(state: dict[str, Tensor], group: _Group, count: int) -> None:
    """Keeps so many of a group's channels, those whose filters have the largest L1 norm, in place.

    Args:
        state: tensors by their names, all of the group's or only some. Where no filter that makes
            these channels is among them, the kernels that read them decide.
        group: one of `channel_groups`.
        count: how many to keep.
    """
    sides = [(name, 0) for name in group.kernels if name in state]
    sides = sides or [(k, a) for k, a in group.axes if k in state and state[k].ndim == 4]
    weights = (state[name].float().abs().transpose(0, axis) for name, axis in sides)
    norms = torch.stack([weight.sum((1, 2, 3)) for weight in weights]).sum(0)
    kept = norms.argsort(descending=True, stable=True)[:count].sort().values
    for name, axis in group.axes:
        if name in state:
            state[name] = state[name].index_select(axis, kept)


def kept_channels(channels: int, keep: float, multiple: int = _MULTIPLE) -> int:
    """`keep` of some channels, to the nearest multiple from one multiple on, and no more than
    there are."""
    return min(channels, max(1, int(channels * keep / multiple + 0.5)) * multiple)


def channel_groups(network: SegmentationNetwork) -> list[_Group]:
    """The groups of a network's channels, in the order in which they are made.

    The channels of the image and the classes are in none of them: they stay.
    """
    with torch.device("meta"):
        twin = build_network(network.description()).eval()
    watch = _Watch(dict(twin.state_dict(keep_vars=True)))
    image: Any = torch.empty(1, 3, twin.min_side, twin.min_side, device="meta")
    image.channels = watch.new()
    with torch.no_grad(), watch:
        fixed = [image, *twin.heads(image)]
    stay = {watch.root(tensor.channels) for tensor in fixed}
    counted: dict[int, list[tuple[str, int]]] = {}
    for name, axis, channels in watch.axes:
        if (root := watch.root(channels)) not in stay:
            counted.setdefault(root, []).append((name, axis))
    shapes = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    groups = []
    for axes in counted.values():
        kernels = tuple(name for name, axis in axes if axis == 0 and len(shapes[name]) == 4)
        layers = tuple(map(network.layer_of, kernels))
        groups.append(_Group(shapes[kernels[0]][0], kernels, layers, tuple(axes)))
    return groups


_KEEP = (F.batch_norm, F.relu, F.interpolate, F.avg_pool2d, F.max_pool2d)
"""What leaves every channel in its place."""


class _Watch(TorchFunctionMode):
    """Follows the channels through every operator.

    Sets of channels are numbers, and every activation is marked with its own, as `channels`; sets
    that turn out to be one are joined under one root.

    Attributes:
        axes: (name of a parameter or buffer, axis, set of channels).
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.axes: list[tuple[str, int, int]] = []
        self._names = {id(tensor): name for name, tensor in tensors.items()}
        self._parents: list[int] = []

    def new(self) -> int:
        """A set of channels that none was before."""
        self._parents.append(len(self._parents))
        return self._parents[-1]

    def root(self, channels: int) -> int:
        """The set that these channels are of, in the end."""
        while self._parents[channels] != channels:
            channels = self._parents[channels]
        return channels

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
            self._count(args[1:2], 1, args[0].channels)
            channels = self.new()
        elif func in _KEEP:
            channels = args[0].channels
        elif func in (Tensor.add, Tensor.add_):
            channels, other = (self.root(tensor.channels) for tensor in args)
            self._parents[other] = channels
        else:
            raise InputError(
                f"the network cannot be pruned: it is not known what {func} does to channels"
            )
        if func in (F.conv2d, F.batch_norm):
            self._count((*args[1:], *kwargs.values()), 0, channels)
        cast(Any, out).channels = channels
        return out

    def _count(self, tensors: Iterable[Any], axis: int, channels: int) -> None:
        """Notes that of these the parameters and buffers have one entry a channel on an axis."""
        names = [self._names[id(tensor)] for tensor in tensors if id(tensor) in self._names]
        self.axes += [(name, axis, channels) for name in names]
