"""A network's backbone, from the checkpoint of an image classifier.

The network says which parts of it such files hold, and what they call them. A part is taken whole
or not at all. Where the file's channels are more than the network's, they are pruned as
`icnet compress` prunes; where they are fewer, the network's others stay new, and what is taken
reads none of them at first: it computes what it did in the file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.files import sha256
from icnet_deploy.integrity import require_finite
from icnet_deploy.networks.backbone import BackbonePart
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.checkpoint import COUNTER, arrays_of
from icnet_deploy.networks.own.weight_file import is_dense
from icnet_deploy.networks.own.weights import find_tensors
from icnet_deploy.training.compress.prune import channel_groups, cut

_NAMED = 4
"""Parts that a message names, of the network or of the file."""

_LONGEST = 60
"""Characters of a name in a file that a message shows."""


@dataclass(frozen=True)
class Taken:
    """What became of a file's tensors.

    Attributes:
        info: the file, its SHA-256, and how many tensors are taken, as a checkpoint says it.
        reads_image: whether a convolution that reads the image is among them.
        notes: the same for a person, a line each.
    """

    info: dict[str, Any]
    reads_image: bool
    notes: tuple[str, ...]


def take_backbone(network: SegmentationNetwork, path: Path) -> Taken:
    """Initialises a network's backbone, in place.

    Args:
        network: new, on the CPU.
        path: `.safetensors`, or what `torch.save` wrote of a state dict; nothing in it is run.

    Raises:
        InputError: the network has no backbone that such files hold.
        ModelError: the file cannot be read, no part of the backbone fits, or a value is not finite.
    """
    parts = network.backbone()
    if not parts:
        raise InputError(
            f"the backbone cannot start from {path}: {network.architecture} does not have the "
            "backbone of an image classifier; leave --init-backbone out"
        )
    theirs = {name for part in parts for layout in part.layouts for name in layout.values()}
    found = find_tensors(path, theirs)
    fitting = _Fitting(network, found.tensors)
    for part in parts:
        fitting.take(part)
    total = sum(len(part.layouts[0]) for part in parts)
    if not fitting.names:
        problem = fitting.problems[parts[-1].name]
        raise ModelError(
            _nothing_fits(path, network.architecture, found.tensors, parts[-1], problem)
        )
    values = {ours: found.tensors[name].detach().float() for ours, name in fitting.names.items()}
    advice = "a network that starts from them learns nothing; give another file"
    require_finite(arrays_of(values), str(path), advice)
    change = fitting.change()
    fitting.write(values)
    info = {
        "file": path.name,
        "sha256": sha256(path),
        "tensors": len(values),
        "of": total,
        "new": list(fitting.problems),
        "change": change,
    }
    how = f"; {change}" if change else ""
    where = "" if found.where == "it" else f" ({found.where})"
    rest = len([n for n in network.state_dict() if not n.endswith(COUNTER)]) - total
    new = [*_reasons(fitting.problems), f"the {rest} tensors outside the backbone"]
    left = _left_over(found.tensors, fitting.names.values())
    notes = [
        f"backbone: {len(values)} of its {total} tensors come from {path.name}{where}{how}",
        f"new: {'; '.join(new)}",
        *([f"not used from {path.name}: {left}"] if left else []),
    ]
    readers = {id(layer.weight) for layer in network.image_convolutions()}
    reads = any(id(weight) in readers for n, weight in network.named_parameters() if n in values)
    return Taken(info, reads, tuple(notes))


class _Fitting:
    """Finds what of a file fits a network, part by part.

    Attributes:
        counts: index of a group of the network's channels -> how many the file has. Of a network
            that cannot be pruned there are no groups: its shapes must be the file's.
        names: the network's tensors that are taken -> the file's.
        problems: parts that are not taken -> why.
    """

    def __init__(self, network: SegmentationNetwork, tensors: Mapping[str, Tensor]) -> None:
        self.counts: dict[int, int] = {}
        self.names: dict[str, str] = {}
        self.problems: dict[str, str] = {}
        self._own, self._tensors = network.state_dict(), tensors
        self._groups = channel_groups(network) if "channels" in network.description() else []
        self._axes = {axis: n for n, group in enumerate(self._groups) for axis in group.axes}

    def take(self, part: BackbonePart) -> None:
        """Takes a part, if all of it is in the file and fits."""
        nearest = max(part.layouts, key=lambda layout: len(self._tensors.keys() & layout.values()))
        counts = dict(self.counts)
        problem = self._problem(nearest, counts)
        if problem:
            self.problems[part.name] = problem
        else:
            self.counts = counts
            self.names |= nearest

    def _problem(self, layout: Mapping[str, str], counts: dict[int, int]) -> str:
        """Why a layout's tensors do not fit, if they do not; `counts` gets their channels."""
        for ours, theirs in layout.items():
            value, own = self._tensors.get(theirs), self._own[ours]
            if value is None:
                return f"it has no {theirs}"
            if not (value.is_floating_point() and is_dense(value)):
                return f"its {theirs} is not an array of floats"
            shapes = f"its {theirs} is {_shape(value)}, the network's {ours} {_shape(own)}"
            if value.ndim != own.ndim:
                return shapes
            for axis, (side, wanted) in enumerate(zip(value.shape, own.shape, strict=True)):
                group = self._axes.get((ours, axis))
                if group is None and side != wanted:
                    return shapes
                if group is not None and counts.setdefault(group, side) != side:
                    wrong = f"{side} channels, expected {counts[group]}"
                    return f"its {theirs} is {_shape(value)}: {wrong}"
        return ""

    def change(self) -> str:
        """What becomes of the file's channels, in words."""
        counts = [(count, self._groups[index].channels) for index, count in self.counts.items()]
        words = []
        if any(count > own for count, own in counts):
            words.append("the filters with the largest L1 norm are kept")
        if any(count < own for count, own in counts):
            words.append(
                "channels that the file does not have are new, and the taken filters ignore them"
            )
        return "; ".join(words)

    def write(self, values: dict[str, Tensor]) -> None:
        """Writes what is taken into the network.

        Args:
            values: by the network's names, with the file's channels; they are cut to its.
        """
        for index, group in enumerate(self._groups):
            if self.counts.get(index, 0) > group.channels:
                cut(values, group, group.channels)
        for name, value in values.items():
            own = self._own[name]
            if value.ndim > 1:
                own[: len(value)] = 0
            own[tuple(map(slice, value.shape))] = value


def _nothing_fits(
    path: Path, architecture: str, tensors: Mapping[str, Tensor], part: BackbonePart, problem: str
) -> str:
    """What is said of a file of which no part is taken; `part` is one, with what is wrong of it."""
    expected = next(iter(part.layouts[0].values()))
    return (
        f"{path} has nothing for the backbone of {architecture}: expected the tensors of an image "
        f"classifier, such as {expected}, found {_listed([*tensors])}; {part.name}: {problem}. "
        "Give a checkpoint that fits; a checkpoint of icnet train goes to --init"
    )


def _reasons(problems: Mapping[str, str]) -> list[str]:
    """The parts that are not taken, with why; of more than a few, how many."""
    named = [f"{name} ({problem})" for name, problem in list(problems.items())[:_NAMED]]
    more = len(problems) - len(named)
    return [*named, *([f"{more} more parts"] if more else [])]


def _left_over(names: Iterable[str], taken: Iterable[str]) -> str:
    """The tensors of a file that are not taken, by what they are parts of; empty: all are.

    What lies within a part of which others are taken was computed among them.
    """
    used = set(taken)
    left = [name for name in names if name not in used and not name.endswith(COUNTER)]
    if not left:
        return ""
    scopes = {name.partition(".")[0] for name in used if "." in name}
    labels, within = dict[str, None](), dict[str, None]()
    for name in left:
        parts = name.split(".")
        inside = parts[0] in scopes and len(parts) > 1
        label = ".".join(parts[: 1 + inside])
        (within if inside else labels)[label] = None
    text = f"{len(left)} tensors, of {_listed([*within, *labels])}"
    if within:
        text += (
            f". {_listed([*within])} worked among the tensors that are taken: a checkpoint "
            "without them fits better"
        )
    return text


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(map(_printable, names[:_NAMED]))}{more}"


def _printable(name: str) -> str:
    """A name in a file, which may be anything, for a line of text."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
