"""Which tensor of a released file is which parameter of ICNet.

Layers are matched by name: a module's path without its dots is the released name, and the batch
norm of `NAME` is `NAME/bn`. Where a file has its batch norms merged into the convolutions, a layer
has a bias in place of a `/bn`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icnet_deploy.networks.icnet import ICNet, Stages
from icnet_deploy.networks.layers import BN_EPS, ConvBN
from icnet_deploy.networks.released.layer import Layer
from icnet_deploy.networks.released.ledger import Ledger, Role, Row

_WEIGHT, _BIAS = Role("0", "weights"), Role("1", "biases")
_SLOPE, _SHIFT = Role("0", "scale"), Role("1", "offset")
_MEAN, _VARIANCE = Role("2", "mean"), Role("3", "variance")

_HEADS: dict[Stages, str] = {"sub4": "conv6_sub4", "sub24": "conv6_sub2", "sub124": "conv6_cls"}
_CLASSES = 19  # to speak of, where a file has no classifier
_WIDTH = 0.5


@dataclass(frozen=True)
class Match:
    """A file's tensors, sorted into a network.

    Attributes:
        rows: one for each tensor of the file, in its order.
        problems: what is missing, misshapen or no number, one sentence each; where there are any,
            `tensors` are not whole.
        num_classes: of the file's classifier.
        width: 1.0 for the uncompressed net, 0.5 for the released one.
        tensors: the network's state, float32, by the network's own names.
        scale: the input's three factors, in the order blue, green, red.
        batch_norm: `merged`, `kept`, or `mixed`.
    """

    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    num_classes: int
    width: float
    tensors: dict[str, Tensor]
    scale: tuple[float, float, float]
    batch_norm: str


@dataclass(frozen=True)
class _Target:
    """A convolution: its path, its kernel's shape, and whether batch norm follows."""

    path: str
    shape: tuple[int, ...]
    bn: bool


def match(layers: Sequence[Layer], stages: Stages = "sub124") -> Match:
    """Sorts a file's tensors into an ICNet, whose width and classes it reads off their shapes."""
    ledger = Ledger(layers)
    num_classes, width = _classes(ledger, _HEADS[stages]), _width(ledger)
    known = _targets(num_classes, width, "sub124", guidance=True)
    needed = _targets(num_classes, width, stages)
    tensors: dict[str, Tensor] = {}
    merged = []
    for name, target in needed.items():
        tensors |= ledger.take(name, _WEIGHT, target.shape, _weight_path(target))
        if not target.bn:
            tensors |= ledger.take(name, _BIAS, target.shape[:1], f"{target.path}.bias")
        else:
            merged.append(not ledger.has(f"{name}/bn"))
            tensors |= (_merged if merged[-1] else _kept)(ledger, name, target)
    for name in known.keys() - needed.keys():
        guidance = name in _HEADS.values() and stages == "sub124"
        for layer in (name, f"{name}/bn"):
            why = "guidance head, for training only" if guidance else f"no part of {stages}"
            ledger.leave_out(layer, why)
    scale = (1.0, 1.0, 1.0)
    if ledger.has("data_sub1"):
        for factors in ledger.take("data_sub1", _SLOPE, (3,), "preprocessing's scale").values():
            scale = (float(factors[0]), float(factors[1]), float(factors[2]))
    rows = ledger.close()
    batch_norm = "merged" if all(merged) else "mixed" if any(merged) else "kept"
    return Match(rows, tuple(ledger.problems), num_classes, width, tensors, scale, batch_norm)


def _targets(
    num_classes: int, width: float, stages: Stages, guidance: bool = False
) -> dict[str, _Target]:
    """The convolutions of a network by their released names."""
    with torch.device("meta"):
        network = ICNet(num_classes, width, stages, guidance)
    found = {}
    for path, module in network.named_modules():
        if isinstance(module, ConvBN):
            found[path.replace(".", "")] = _Target(path, tuple(module.conv.weight.shape), True)
        elif isinstance(module, nn.Conv2d) and not path.endswith(".conv"):
            found[path] = _Target(path, tuple(module.weight.shape), False)
    return found


def _weight_path(target: _Target) -> str:
    return f"{target.path}.conv.weight" if target.bn else f"{target.path}.weight"


def _width(ledger: Ledger) -> float:
    """The width that most convolutions have; those that have another are misshapen."""
    widths: Counter[float] = Counter()
    for name, target in _targets(_CLASSES, 1.0, "sub124").items():
        weight = ledger.look(name, _WEIGHT)
        if target.bn and weight is not None and weight.ndim == 4 and weight.shape[0]:
            widths[weight.shape[0] / target.shape[0]] += 1
    return widths.most_common(1)[0][0] if widths else _WIDTH


def _classes(ledger: Ledger, head: str) -> int:
    weight = ledger.look(head, _WEIGHT)
    return weight.shape[0] or _CLASSES if weight is not None and weight.ndim == 4 else _CLASSES


def _kept(ledger: Ledger, name: str, target: _Target) -> dict[str, Tensor]:
    """A batch norm; a bias of the convolution before it is taken off its mean."""
    channels, bn = target.shape[:1], f"{target.path}.bn"
    found = ledger.take(f"{name}/bn", _SLOPE, channels, f"{bn}.weight")
    found |= ledger.take(f"{name}/bn", _SHIFT, channels, f"{bn}.bias")
    found |= ledger.take(f"{name}/bn", _MEAN, channels, f"{bn}.running_mean")
    found |= ledger.take(f"{name}/bn", _VARIANCE, channels, f"{bn}.running_var")
    if ledger.has(name, _BIAS):
        for bias in ledger.take(name, _BIAS, channels, f"{bn}.running_mean, taken off").values():
            if f"{bn}.running_mean" in found:
                found[f"{bn}.running_mean"] -= bias
    return found


def _merged(ledger: Ledger, name: str, target: _Target) -> dict[str, Tensor]:
    """A convolution's bias as a batch norm that adds it and does nothing else.

    Its variance and the network's eps sum to 1 in float32, so that it multiplies by 1 exactly.
    """
    channels, bn = target.shape[:1], f"{target.path}.bn"
    bias = ledger.take(name, _BIAS, channels, f"{bn}.bias", instead=f"{name}/bn")
    still = {
        f"{bn}.weight": torch.ones(channels),
        f"{bn}.running_mean": torch.zeros(channels),
        f"{bn}.running_var": torch.full(channels, 1 - BN_EPS),
    }
    return bias | still
