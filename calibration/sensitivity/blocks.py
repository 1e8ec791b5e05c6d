"""The blocks of a network that are quantized alone, one by one: the parts that papers speak of."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

_BLOCKS = {
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
"""Name -> its modules; a module belongs to the first that matches."""


@dataclass(frozen=True)
class Block:
    """A part of the network.

    Attributes:
        name: what a table calls it.
        modules: the names that `icnet quantize --float` takes, in the graph's order.
        convolutions: how many it has.
        kept: whether `icnet quantize` keeps it in float unless told otherwise.
    """

    name: str
    modules: tuple[str, ...]
    convolutions: int
    kept: bool


def blocks_of(layers: Sequence[str], kept: Collection[str]) -> list[Block]:
    """Sorts the convolutions of a graph into blocks.

    Args:
        layers: their names, in the graph's order, e.g. `conv2_1._3x3`.
        kept: those that stay in float by default. Where a block holds such modules and others,
            they are a block each.

    Returns:
        The blocks, in the order in which they end in the graph.
    """
    modules = [layer.split(".")[0] for layer in layers]
    kept_modules = {layer.split(".")[0] for layer in kept}
    parts: dict[str, list[str]] = {}
    for module in dict.fromkeys(modules):
        parts.setdefault(_name(module), []).append(module)
    found = []
    for name, members in parts.items():
        apart = [m for m in members if m in kept_modules]
        if len(apart) < len(members):
            rest = [m for m in members if m not in kept_modules]
            found.append(_block(name, rest, modules, False))
            found += [_block(m, [m], modules, True) for m in apart]
        else:
            found.append(_block(name, members, modules, True))
    return sorted(found, key=lambda block: modules.index(block.modules[-1]))


def _name(module: str) -> str:
    fits = (name for name, pattern in _BLOCKS.items() if re.fullmatch(pattern, module))
    return next(fits, module)


def _block(name: str, members: Sequence[str], modules: Sequence[str], kept: bool) -> Block:
    return Block(name, tuple(members), sum(module in members for module in modules), kept)


def in_float(blocks: Iterable[Block]) -> list[str]:
    """What is to be named to the quantizer so that these blocks stay in float."""
    return [module for block in blocks for module in block.modules]
