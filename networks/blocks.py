"""What the description of a network says without the network: its blocks, and it in a few words.

Neither needs torch: an artefact's metadata holds the description. Where that names no blocks, they
are found in the names of the layers.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_RESNET = {
    "high branch": r"conv[123]_sub1",
    "stem": r"conv1_\d_3x3(_s2)?",
    "conv2": r"conv2_\d+",
    "conv3_1": r"conv3_1",
    "conv3": r"conv3_\d+",
    "conv4": r"conv4_\d+",
    "conv5": r"conv5_\d+",
    "pyramid, conv5_4": r"conv5_(3_pool|4_).*|conv5_4",
    "CFF 24": r"conv_sub4|conv3_1_sub2_proj",
    "CFF 12": r"conv_sub2|conv3_sub1_proj",
    "classifier": r"conv6.*",
}
_PATTERNS: Mapping[str, Mapping[str, str]] = {"icnet": _RESNET, "pspnet": _RESNET}

RESERVED = frozenset({"num_classes", "guidance", "channels"})
"""Arguments of a network's constructor that say nothing of its kind; see `SegmentationNetwork`."""


def block_patterns(description: Mapping[str, Any]) -> Mapping[str, str]:
    """The blocks of a network: name -> the pattern that all of the name of a module must match.

    A module, of those directly below the network, belongs to the first that matches, and where none
    does it is a block of its own.

    Args:
        description: of the network, as `SegmentationNetwork.description` gives it; without an
            architecture it is an ICNet.
    """
    return _PATTERNS.get(_architecture(description), {})


def block_of(module: str, patterns: Mapping[str, str]) -> str:
    """The block that a module is of, e.g. `conv2_1`."""
    fits = (name for name, pattern in patterns.items() if re.fullmatch(pattern, module))
    return next(fits, module)


_LARGEST = 1 / 8
"""Of all layers: a scope that holds more is split."""

_MOST_BLOCKS = 24
"""About as many as a table shows: where a scope would give more, its parts are put together."""


def scope_blocks(layers: Sequence[str]) -> dict[str, list[str]]:
    """The blocks of a network of which nothing is known but what its layers are called.

    A scope is what some layers share from the start of their names up to a dot. The largest is
    split into the scopes right below it, and so on, until none holds more than an eighth of the
    layers. Where a split would give more than 24 blocks, successive scopes are put together in it,
    an eighth of the layers at most: `features.4 to features.9`.

    Args:
        layers: dotted paths in the graph's order, e.g. `backbone.layer1.0.conv1`.

    Returns:
        The block's name, which is its scope, e.g. `backbone.layer1` -> its layers in order.
    """
    most = max(1, int(len(layers) * _LARGEST))
    blocks = _parts("", layers)
    while True:
        large = [name for name, own in blocks.items() if len(own) > most and _splits(name, own)]
        if not large:
            return dict(sorted(blocks.items(), key=lambda one: layers.index(one[1][0])))
        scope = max(large, key=lambda name: len(blocks[name]))
        parts = _parts(scope, blocks.pop(scope))
        if len(blocks) + len(parts) > _MOST_BLOCKS:
            parts = _put_together(parts, most)
        blocks |= parts


def scopes_of(layer: str) -> list[str]:
    """What a layer is in, itself the last: `a`, `a.b` and `a.b.c` of `a.b.c`."""
    parts = layer.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _parts(scope: str, layers: Sequence[str]) -> dict[str, list[str]]:
    """The layers of a scope by the scopes right below it."""
    depth = len(scope.split(".")) if scope else 0
    parts: dict[str, list[str]] = {}
    for layer in layers:
        chain = scopes_of(layer)
        parts.setdefault(chain[min(depth, len(chain) - 1)], []).append(layer)
    return parts


def _splits(name: str, layers: Sequence[str]) -> bool:
    """Whether a block is a scope that has others below it."""
    return any(layer != name for layer in layers) and name in scopes_of(layers[0])


def _put_together(parts: Mapping[str, Sequence[str]], most: int) -> dict[str, list[str]]:
    """Successive scopes as one block each time, of so many layers at most."""
    runs: list[tuple[list[str], list[str]]] = []
    for name, layers in parts.items():
        if runs and len(runs[-1][1]) + len(layers) <= most:
            runs[-1][0].append(name)
            runs[-1][1].extend(layers)
        else:
            runs.append(([name], list(layers)))
    return {
        names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}": layers
        for names, layers in runs
    }


_PLACES = frozenset({"layout", "output", "tensor"})
"""Of an adopted file: what finds its logits again, and says nothing of the network."""


def words(description: Mapping[str, Any]) -> str:
    """A network in a few words, e.g. `icnet, sub24, width 0.5`; empty where nothing is known."""
    if not description:
        return ""
    arguments = description.get("arguments")  # of the factory of a network of one's own
    settings = {**description, **(arguments if isinstance(arguments, dict) else {})}
    parts = [
        value if isinstance(value, str) else f"{name} {value}"
        for name, value in sorted(settings.items())
        if name not in {"architecture", "arguments", *RESERVED, *_PLACES}
    ]
    pruned = ["pruned"] * bool(description.get("channels"))
    return ", ".join([_architecture(description), *parts, *pruned])


def _architecture(description: Mapping[str, Any]) -> str:
    return str(description.get("architecture", "icnet"))
