"""The fewest blocks in float that meet a budget, found from all of them in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icnet_deploy.calibration.sensitivity.bench import Cost
from icnet_deploy.calibration.sensitivity.blocks import Block
from icnet_deploy.evaluation.budgets import Budget


@dataclass
class Attempt:
    """One graph that was tried.

    Attributes:
        in_float: the blocks that it has in float beside those that always are.
        path: its file.
        cost: how far it is from float32.
        met: whether that is within the budget.
        time: `summary` of its inference, once it was timed.
    """

    in_float: tuple[Block, ...]
    path: Path
    cost: Cost
    met: bool
    time: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a table calls it."""
        return " + ".join(block.name for block in self.in_float) or "none"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "in_float": [block.name for block in self.in_float],
            "met": self.met,
            **self.cost.to_dict(),
            "inference": self.time,
        }


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        budget: what was asked for.
        attempts: every graph that was tried, in order.
        best: the one that meets the budget with the fewest blocks in float; if none does, the one
            that comes nearest.
    """

    budget: Budget
    attempts: list[Attempt]
    best: Attempt


def search(
    blocks: Sequence[Block],
    alone: Mapping[Block, Cost],
    budget: Budget,
    attempt: Callable[[Sequence[Block]], tuple[Path, Cost]],
) -> Found:
    """Puts blocks back into float, the most costly first, until the budget is met.

    Then each of them but the last is tried in 8 bits again, the least costly first: a block that
    was put back on the way may not be needed at the end. Costly is what changes the most labels
    alone: differences of mIoU are as often luck. The last block stays in 8 bits: without it the
    graph would be float32.

    Args:
        blocks: those that the search may put back.
        alone: what each costs when it alone is quantized.
        budget: of the whole graph.
        attempt: writes and scores the graph with these blocks in float.
    """
    attempts: list[Attempt] = []

    def holds(chosen: Sequence[Block]) -> bool:
        path, cost = attempt(chosen)
        met = not budget.breaches(cost.measured())
        attempts.append(Attempt(tuple(chosen), path, cost, met))
        return met

    ranked = sorted(blocks, key=lambda block: alone[block].changed, reverse=True)
    chosen: list[Block] = []
    met = holds(chosen)
    for block in ranked[:-1]:
        if met:
            break
        chosen.append(block)
        met = holds(chosen)
    if not met:
        return Found(budget, attempts, min(attempts, key=lambda a: _excess(budget, a.cost)))
    for block in list(reversed(chosen[:-1])):
        fewer = [other for other in chosen if other is not block]
        if holds(fewer):
            chosen = fewer
    best = min((a for a in attempts if a.met), key=lambda a: len(a.in_float))
    return Found(budget, attempts, best)


def _excess(budget: Budget, cost: Cost) -> float:
    """By how many points the worst of the limits is passed."""
    passed = abs(cost.miou_points) - budget.miou_points
    if budget.class_points is not None:
        worst = max(map(abs, cost.class_points.values()))
        passed = max(passed, worst - budget.class_points)
    return passed
