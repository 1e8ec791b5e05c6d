"""How many times one median is another, with the interval that the samples allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ENOUGH = 6
"""Fewer samples than this bound no median with 95 % certainty, whatever they are: the median lies
outside the range of n samples with a chance of 2 ** (1 - n)."""

_RESAMPLINGS = 2000


@dataclass(frozen=True)
class Ratio:
    """How many times one median is another.

    Attributes:
        value: the ratio of the medians.
        low, high: the 95 % interval of it that the samples allow; None where they are too few.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def differs(self) -> bool | None:
        """Whether the samples can tell it from 1; None where they are too few to say."""
        if self.low is None or self.high is None:
            return None
        return not self.low <= 1 <= self.high


def ratio_of_medians(
    above: Sequence[float], below: Sequence[float], in_turn: bool = False
) -> Ratio | None:
    """The ratio of two medians, with its bootstrap percentile interval (Efron 1979).

    The interval speaks of these samples. Another hour of the same machine may differ by more.

    Args:
        above, below: raw samples, of one unit.
        in_turn: they were taken in turn, so the n-th of both met the machine in one state: they
            are drawn again by rounds.

    Returns:
        None where the median below is 0.
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if not len(a) or not len(b) or not np.median(b):
        return None
    value = float(np.median(a) / np.median(b))
    if min(len(a), len(b)) < ENOUGH:
        return Ratio(value)
    dice = np.random.default_rng(0)  # the same samples always give the same interval
    rows = dice.integers(len(a), size=(_RESAMPLINGS, len(a)))
    paired = in_turn and len(a) == len(b)
    others = rows if paired else dice.integers(len(b), size=(_RESAMPLINGS, len(b)))
    ratios = np.median(a[rows], axis=1) / np.maximum(np.median(b[others], axis=1), 1e-12)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Ratio(value, float(low), float(high))
