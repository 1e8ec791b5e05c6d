"""What a run starts from: a new network, or a checkpoint's, for its own classes or for others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icnet_deploy.errors import InputError
from icnet_deploy.labels import LabelSet
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.blocks import words
from icnet_deploy.networks.checkpoint import Checkpoint, load_checkpoint
from icnet_deploy.networks.preprocessing import PREPROCESSINGS, Preprocessing
from icnet_deploy.networks.registry import build_network
from icnet_deploy.training.backbone import take_backbone
from icnet_deploy.training.config import TrainConfig

_IMAGENET = "imagenet"
"""The preprocessing with which torchvision and timm train on ImageNet."""

_NAMED = 12
"""Classes that a message names; of more it says how many."""


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Attributes:
        network: in training mode, with its guidance heads.
        preprocessing: what its input expects.
        info: where it comes from, as a checkpoint says it: `started_from`, the SHA-256 of a
            checkpoint, or None; `parent`, what that says of its own training; `classes`, what
            became of its classifiers, where its classes were others; and `backbone`, of which file
            that is, in words also as `source`.
        notes: what a person should know of it, a line each.
    """

    network: SegmentationNetwork
    preprocessing: Preprocessing
    info: dict[str, Any]
    notes: tuple[str, ...] = ()


def require_one_start(init: Path | None, backbone: Path | None) -> None:
    """InputError where both a network and a backbone are given to start from."""
    if init and backbone:
        raise InputError(
            f"--init {init} and --init-backbone {backbone} both give a backbone: leave one of them "
            "out"
        )


def new_start(config: TrainConfig, label_set: LabelSet, backbone: Path | None = None) -> Start:
    """A new network as it is configured, for these classes.

    Args:
        config: its network and its preprocessing, which stays what it says.
        label_set: its classes.
        backbone: an image classifier's checkpoint that initialises what fits of it.

    Raises:
        InputError, ModelError: as `take_backbone`.
    """
    with torch.device("meta"):
        described = build_network(_configured(config, label_set)).description(guidance=True)
    network, preprocessing = build_network(described), PREPROCESSINGS[config.preprocessing]
    info: dict[str, Any] = {"started_from": None}
    if backbone is None:
        return Start(network, preprocessing, info)
    taken = take_backbone(network, backbone)
    source = f"the backbone began as {backbone.name}, SHA-256 {taken.info['sha256']}"
    notes = list(taken.notes)
    if taken.reads_image and preprocessing != PREPROCESSINGS[_IMAGENET]:
        notes.append(
            f"the configuration has the preprocessing {config.preprocessing!r}, but ImageNet's "
            f"checkpoints are usually trained with {_IMAGENET!r}: configure that, unless you know "
            "that this one was not"
        )
    return Start(
        network, preprocessing, {**info, "source": source, "backbone": taken.info}, (*notes,)
    )


def start_from(init: Path, config: TrainConfig, label_set: LabelSet) -> Start:
    """A checkpoint's network, whatever the configuration says of one; its guidance heads are new.

    Where its classes are not these, its classifiers are new, too, but for the rows of the classes
    that have the same name.

    Raises:
        ModelError: it is not a checkpoint.
    """
    checkpoint = load_checkpoint(init)
    described = checkpoint.network.description(guidance=True)
    found, configured = (
        d | {"num_classes": 0} for d in (described, _configured(config, label_set))
    )
    notes = []
    if any(found.get(name) != value for name, value in configured.items()):
        notes.append(
            f"the network is that of {init}, {words(found)}, not the configured {words(configured)}"
        )
    info: dict[str, Any] = {"started_from": checkpoint.sha256, "parent": checkpoint.info}
    if checkpoint.label_set.names == label_set.names:
        network = build_network(described)
        network.load_state_dict(checkpoint.network.state_dict(), strict=False)
    else:
        network, change = _for_other_classes(checkpoint, label_set)
        notes.append(f"started from {init.name}: {change}")
        info["classes"] = change.to_dict()
    return Start(network, checkpoint.preprocessing, info, tuple(notes))


def _configured(config: TrainConfig, label_set: LabelSet) -> dict[str, Any]:
    return {"num_classes": len(label_set), **config.network}


@dataclass(frozen=True)
class _Change:
    """What became of a network whose classes are others now.

    Attributes:
        before: its classes in the checkpoint.
        now: its classes.
        kept: how many of its tensors are the checkpoint's.
        new: the layers that are not.
        same: the classes whose rows of these layers are the checkpoint's all the same.
    """

    before: LabelSet
    now: LabelSet
    kept: int
    new: tuple[str, ...]
    same: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"{self.kept} tensors are kept; its {len(self.before)} classes of "
            f"{self.before.name!r} become the {len(self.now)} of {self.now.name!r}, with new "
            f"layers: {', '.join(self.new) or 'none'}"
        )
        if not self.same:
            return f"{text}; no class has the same name"
        count = f"{len(self.same)} class{'es' * (len(self.same) > 1)}"
        more = ", ..." * (len(self.same) > _NAMED)
        named = ", ".join(self.same[:_NAMED])
        return f"{text}; weights of {count} with the same name are kept: {named}{more}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "before": self.before.name,
            "kept_tensors": self.kept,
            "new_layers": list(self.new),
            "kept_rows": list(self.same),
        }


def _for_other_classes(
    checkpoint: Checkpoint, label_set: LabelSet
) -> tuple[SegmentationNetwork, _Change]:
    """The checkpoint's network with classifiers of other classes.

    What counts classes is not told by names: it is what has another shape in a network of one
    class more. Whether its rows are the classes in their order is not believed, either: the
    answers of the classes that are kept must be those of the checkpoint's network.
    """
    old = checkpoint.network
    network = build_network(old.description(guidance=True) | {"num_classes": len(label_set)})
    state, theirs = network.state_dict(), old.state_dict()
    axes = _class_axes(network)
    taken = {
        name: value
        for name, value in theirs.items()
        if name in state and name not in axes and state[name].shape == value.shape
    }
    network.load_state_dict(taken, strict=False)
    names = checkpoint.label_set.names
    same = [name for name in label_set.names if name in names]
    rows = [label_set.names.index(name) for name in same], [names.index(name) for name in same]
    if same:
        before = {name: state[name].clone() for name in axes}
        _move_rows(state, theirs, axes, rows)
        if not _answer_alike(network, old, rows):
            network.load_state_dict(before, strict=False)
            same = []
    floats = [name for name in taken if taken[name].is_floating_point()]
    new = dict.fromkeys(name.rpartition(".")[0] or name for name in theirs if name not in taken)
    change = _Change(checkpoint.label_set, label_set, len(floats), tuple(new), tuple(same))
    return network, change


def _class_axes(network: SegmentationNetwork) -> dict[str, tuple[int, ...]]:
    """The tensors of a network, without guidance heads, that count its classes: name -> the axes
    that do."""
    described = network.description(guidance=False)
    with torch.device("meta"):
        one, other = (
            build_network(described | {"num_classes": network.num_classes + more}).state_dict()
            for more in (0, 1)
        )
    return {
        name: tuple(a for a, side in enumerate(value.shape) if side != other[name].shape[a])
        for name, value in one.items()
        if value.shape != other[name].shape
    }


_Rows = tuple[Sequence[int], Sequence[int]]
"""Indices of the same classes, in the new network and in the old one."""


def _move_rows(
    state: dict[str, Tensor],
    theirs: dict[str, Tensor],
    axes: dict[str, tuple[int, ...]],
    rows: _Rows,
) -> None:
    """Writes the rows of the same classes into `state`, in place, where both have such rows."""
    for name, counted in axes.items():
        mine, its = state[name], theirs.get(name)
        if its is None or its.ndim != mine.ndim or not its.is_floating_point():
            continue
        to, of = ([torch.arange(side) for side in value.shape] for value in (mine, its))
        for axis in counted:
            to[axis], of[axis] = (torch.tensor(part) for part in rows)
        if [*map(len, to)] == [*map(len, of)]:
            mine[torch.meshgrid(*to, indexing="ij")] = its[torch.meshgrid(*of, indexing="ij")]


def _answer_alike(network: SegmentationNetwork, old: SegmentationNetwork, rows: _Rows) -> bool:
    """Whether both give the same logits of the same classes, of an image of noise."""
    side = -(-old.min_side // old.side_multiple) * old.side_multiple
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        mine, its = network.eval()(image)[:, rows[0]], old(image)[:, rows[1]]
    network.train()
    return bool((mine - its).abs().max() <= 1e-4 * its.abs().max())
