"""The blocks of a network, and the fewest of them to keep in float so that a budget is met."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from icnet_deploy.evaluation.budgets import Budget, Measured
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.differences import (
    LEVEL,
    Differences,
    Interval,
    differences,
)
from icnet_deploy.evaluation.verdicts import loss


@dataclass(frozen=True)
class Block:
    """A part of the network that is quantized alone: one that papers speak of.

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


def blocks_of(
    layers: Sequence[str], kept: Collection[str], network: Mapping[str, Any]
) -> list[Block]:
    """Sorts the convolutions of a graph into blocks.

    Those of a network that comes with the product are the ones that papers speak of; those of any
    other are its scopes, see `scope_blocks`.

    Args:
        layers: their names, in the graph's order, e.g. `conv2_1._3x3`.
        kept: those that stay in float by default. Where a block holds such layers and others,
            they are a block each.
        network: its description, as the metadata have it.

    Returns:
        The blocks, in the order in which they end in the graph.
    """
    from icnet_deploy.networks.blocks import block_of, block_patterns, scope_blocks

    patterns = block_patterns(network)
    parts: dict[str, list[str]] = {} if patterns else scope_blocks(layers)
    for layer in layers if patterns else ():
        parts.setdefault(block_of(layer.split(".")[0], patterns), []).append(layer)
    groups: list[tuple[str, list[str]]] = []
    for name, members in parts.items():
        rest = [layer for layer in members if layer not in kept]
        alone = [(_modules([layer], layers)[0], [layer]) for layer in members if layer in kept]
        groups += [(name, rest), *alone] if rest else [(name, members)]
    groups.sort(key=lambda group: layers.index(group[1][-1]))
    return [Block(name, _modules(own, layers), len(own), own[0] in kept) for name, own in groups]


def _modules(own: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    """The fewest names that mean these layers and no others."""
    from icnet_deploy.networks.blocks import scopes_of

    others = {scope for layer in layers if layer not in own for scope in scopes_of(layer)}
    free = ([scope for scope in scopes_of(layer) if scope not in others] for layer in own)
    return tuple(dict.fromkeys(scopes[0] for scopes in free))


def modules_of(blocks: Iterable[Block]) -> list[str]:
    """What is to be named to the quantizer so that these blocks stay in float."""
    return [module for block in blocks for module in block.modules]


class Gain(NamedTuple):
    """What a graph has gained over another, on the same images.

    Attributes:
        miou: the difference of mIoU, in points.
        alike: the difference of the share of labels that are float32's, in points.
    """

    miou: Interval
    alike: Interval

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "miou_points": self.miou.to_dict(),
            "labels_alike_points": self.alike.to_dict(),
        }


@dataclass(frozen=True)
class Cost(Measured):
    """How far a graph is from float32; points are hundredths.

    `miou_points` and `class_points` are the values of `differences`.

    Attributes:
        differences: from float32, with intervals; `alike` is counted.
    """

    differences: Differences

    @classmethod
    def of(
        cls,
        ours: Sequence[ImageCounts],
        exact: Sequence[ImageCounts],
        names: Sequence[str],
        alike: Sequence[tuple[int, int]],
        level: float = LEVEL,
    ) -> Cost:
        """Compares two scores of the classes of these names, float32's the second.

        Args:
            ours, exact: the counts of the same images in the same order.
            names: of the classes.
            alike: of each image how many pixels both label alike, and how many there are.
            level: of the intervals.
        """
        found = differences(ours, exact, names, alike=alike, level=level)
        agreement = sum(same for same, _ in alike) / sum(pixels for _, pixels in alike)
        points = {name: interval.value for name, interval in found.classes.items()}
        return cls(agreement, found.miou.value, points, found)

    @property
    def worst_class(self) -> str:
        """The class that falls most."""
        return min(self.class_points, key=lambda name: self.class_points[name])

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        found = self.differences
        classes = {name: interval.to_dict() for name, interval in found.classes.items()}
        return {
            "miou_difference_points": found.miou.to_dict(),
            "class_difference_points": classes,
            "worst_class": self.worst_class,
            "worst_class_difference_points": classes[self.worst_class],
            "labels_changed_percent": self._changed().to_dict(),
        }

    def _changed(self) -> Interval:
        """The share of labels that are not float32's, in percent."""
        alike = self.differences.alike
        assert alike is not None  # `of` counts it
        low, high = (min(max(100 * (1 - end), 0.0), 100.0) for end in (alike.high, alike.low))
        return replace(alike, value=100 * (1 - alike.value), low=low, high=high)


@dataclass(frozen=True)
class Attempt:
    """One graph that was tried.

    Attributes:
        in_float: the blocks that it has in float beside those that always are.
        path: its file.
        cost: how far it is from float32.
        met: whether that is within the budget.
    """

    in_float: tuple[Block, ...]
    path: Path
    cost: Cost
    met: bool

    @property
    def name(self) -> str:
        """What a table calls it."""
        return " + ".join(block.name for block in self.in_float) or "none"


def search(
    alone: Mapping[Block, Cost],
    budget: Budget,
    attempt: Callable[[Sequence[Block]], tuple[Path, Cost]],
    keeps: Callable[[Cost], bool] | None = None,
) -> tuple[list[Attempt], Attempt]:
    """Puts blocks back into float, the most costly first, until the budget is met.

    Then each of them but the last is tried in 8 bits again, the least costly first: a block that
    was put back on the way may not be needed at the end. Costly is what changes the most labels
    alone: differences of mIoU are as often luck. The last block stays in 8 bits: without it the
    graph would be float32.

    Args:
        alone: what each block costs when it alone is quantized; those that are kept anyway are not
            put back.
        budget: of the whole graph.
        attempt: writes and scores the graph with these blocks in float.
        keeps: whether a graph meets the budget; None: if none of its differences breaches it.

    Returns:
        Every graph that was tried, in order, and the one that meets the budget with the fewest
        blocks in float; if none does, the one that comes nearest.
    """
    attempts: list[Attempt] = []

    def holds(chosen: Sequence[Block]) -> bool:
        path, cost = attempt(chosen)
        met = not budget.breaches(cost) if keeps is None else keeps(cost)
        attempts.append(Attempt(tuple(chosen), path, cost, met))
        return met

    ranked = sorted(
        (block for block in alone if not block.kept), key=lambda block: alone[block].agreement
    )
    chosen: list[Block] = []
    met = holds(chosen)
    for block in ranked[:-1]:
        if met:
            break
        chosen.append(block)
        met = holds(chosen)
    if not met:
        return attempts, min(attempts, key=lambda tried: _excess(budget, tried.cost))
    for block in list(reversed(chosen[:-1])):
        fewer = [other for other in chosen if other is not block]
        if holds(fewer):
            chosen = fewer
    return attempts, min((a for a in attempts if a.met), key=lambda a: len(a.in_float))


def _excess(budget: Budget, cost: Cost) -> float:
    """By how many points the worst of the limits is passed."""
    passed = []
    if budget.miou_points is not None:
        passed.append(loss(cost.miou_points, budget.miou_rises) - budget.miou_points)
    if budget.class_points is not None:
        lost = (loss(points, budget.class_rises) for points in cost.class_points.values())
        passed.append(max(lost) - budget.class_points)
    return max(passed, default=0.0)
