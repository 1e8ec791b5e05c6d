"""What the description of a network says without the network: its blocks, and it in a few words.

Neither needs torch: an artefact's metadata holds the description.
"""

import re
from collections.abc import Mapping
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


def words(description: Mapping[str, Any]) -> str:
    """A network in a few words, e.g. `icnet, sub24, width 0.5`; empty where nothing is known."""
    if not description:
        return ""
    arguments = description.get("arguments")  # of the factory of a network of one's own
    settings = {**description, **(arguments if isinstance(arguments, dict) else {})}
    parts = [
        value if isinstance(value, str) else f"{name} {value}"
        for name, value in sorted(settings.items())
        if name not in {"architecture", "arguments", *RESERVED}
    ]
    pruned = ["pruned"] * bool(description.get("channels"))
    return ", ".join([_architecture(description), *parts, *pruned])


def _architecture(description: Mapping[str, Any]) -> str:
    return str(description.get("architecture", "icnet"))
