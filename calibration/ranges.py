"""From histograms to ranges: what of a tensor an 8-bit grid is to cover.

A range that covers every value that occurred spends its 256 steps on outliers; one that clips them
rounds the rest finer. The methods differ in what they weigh that by:

- `minmax`: nothing is clipped.
- `percentile`: all but a share of 1e-5 of the values at each end is covered.
- `mse`: the least mean of the squared difference between a value and its place on the grid. Where
  an activation alone reads the tensor, it is the difference behind it: a PReLU with a slope of a
  quarter makes a sixteenth of what is squared below zero, and the grid may end there sooner.
- `entropy`: the least Kullback-Leibler divergence of the values' distribution from the grid's, as
  S. Migacz, "8-bit inference with TensorRT", GTC 2017. Zeros are left out: every grid holds zero,
  and the half of all values that a ReLU sets to zero would outweigh all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from icnet_deploy.calibration.histogram import Float, TensorStatistics
from icnet_deploy.errors import InputError

if TYPE_CHECKING:
    from icnet_deploy.calibration.equalize import Factors

_TAIL = 1e-5
_FRACTIONS = np.linspace(0.2, 1.0, 81)


@dataclass(frozen=True)
class Range:
    """What a grid over a tensor covers, by its kind.

    Attributes:
        limit: a symmetric grid covers -limit to limit in 254 steps.
        low, high: one that is not covers low to high, which holds 0, in 255.
        means: float64 of C; the mean of each channel, which corrections of biases start from.
    """

    limit: float
    low: float
    high: float
    means: Float


@dataclass(frozen=True)
class Ranges:
    """The ranges of a graph's tensors.

    Attributes:
        tensors: tensor name -> its range.
        factors: the scaling of channels that the graph has when its tensors have these ranges.
    """

    tensors: Mapping[str, Range]
    factors: Factors


def set_ranges(statistics: Mapping[str, TensorStatistics], method: str, factors: Factors) -> Ranges:
    """Chooses the ranges of all tensors.

    Args:
        statistics: tensor name -> what it did on the calibration images.
        method: one of `METHODS`.
        factors: the scaling that the statistics were taken after.

    Raises:
        InputError: there is no such method.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r} for ranges; known: {', '.join(METHODS)}")
    choose = METHODS[method]
    tensors = {}
    for name, values in statistics.items():
        low, high = min(values.minimum, 0.0), max(values.maximum, 0.0)
        if high - low <= 0:  # zero everywhere
            high = 1.0
        limit = choose(values, -max(-low, high), max(-low, high), 254)[1]
        tensors[name] = Range(limit, *choose(values, low, high, 255), values.means())
    return Ranges(tensors, factors)


def grid(low: float, high: float, steps: int) -> tuple[float, int]:
    """The step's size and the place of zero, 0..steps, of a grid over low..high, which holds 0."""
    scale = (high - low) / steps
    return scale, round(-low / scale)


def rounded(values: Float, low: float, high: float, steps: int) -> Float:
    """The values' places on the grid over low..high, read back."""
    scale, zero = grid(low, high, steps)
    return np.asarray((np.clip(np.rint(values / scale) + zero, 0, steps) - zero) * scale)


def _minmax(tensor: TensorStatistics, low: float, high: float, steps: int) -> tuple[float, float]:
    return low, high


def _percentile(
    tensor: TensorStatistics, low: float, high: float, steps: int
) -> tuple[float, float]:
    values, shares = tensor.bins()
    if low == -high:  # symmetric: of the absolute values
        order = np.argsort(np.abs(values))
        end = float(np.abs(values)[order][_reached(shares[order], 1 - _TAIL)])
        return (-end, end) if end > 0 else (low, high)
    bottom = values[::-1][_reached(shares[::-1], 1 - _TAIL)] if low < 0 else 0.0
    top = values[_reached(shares, 1 - _TAIL)] if high > 0 else 0.0
    return _with_zero(float(bottom), float(top), low, high)


def _reached(shares: Float, share: float) -> int:
    return min(int(np.searchsorted(np.cumsum(shares), share)), shares.size - 1)


def _with_zero(bottom: float, top: float, low: float, high: float) -> tuple[float, float]:
    bottom, top = min(bottom, 0.0), max(top, 0.0)
    return (bottom, top) if top > bottom else (low, high)


def _searched(
    cost: Callable[[Float, Float, float, float, int], float], behind: bool = False
) -> Callable[[TensorStatistics, float, float, int], tuple[float, float]]:
    """The method that takes the range of least cost: both ends drawn in alike, then each alone.

    Args:
        cost: of a range, given values, their shares and the steps of its grid.
        behind: whether values below zero count as much as is left of them behind the tensor.
    """

    def search(
        tensor: TensorStatistics, low: float, high: float, steps: int
    ) -> tuple[float, float]:
        values, shares = tensor.bins()
        if behind:
            shares = np.where(values < 0, tensor.below_zero, 1.0) * shares

        def best(candidates: list[tuple[float, float]]) -> tuple[float, float]:
            return min(candidates, key=lambda c: cost(values, shares, c[0], c[1], steps))

        a, b = best([(low * f, high * f) for f in _FRACTIONS])
        if low == -high or low == 0 or high == 0:
            return a, b
        a, b = best([(low * f, b) for f in _FRACTIONS])
        return best([(a, high * f) for f in _FRACTIONS])

    return search


def _squared(values: Float, shares: Float, low: float, high: float, steps: int) -> float:
    return float(shares @ np.square(rounded(values, low, high, steps) - values))


def _divergence(values: Float, shares: Float, low: float, high: float, steps: int) -> float:
    """KL(P || Q): P is what occurred, clipped; Q what the grid tells apart of it.

    Within a step of the grid, Q spreads the step's share evenly over the bins that P has there.
    Q's shares are those of the values inside the range: what was clipped is in P alone.
    """
    some = values != 0
    values, shares = values[some], shares[some]
    if not values.size:
        return 0.0
    scale, zero = grid(low, high, steps)
    places = np.clip(np.rint(values / scale) + zero, 0, steps).astype(np.int64)
    inside = (values >= low) & (values <= high)
    if not inside.any():
        return np.inf
    first, last = np.flatnonzero(inside)[[0, -1]]
    p = shares.copy()
    p[first] += shares[:first].sum()
    p[last] += shares[last + 1 :].sum()
    p, places, own = p[inside], places[inside], shares[inside]
    level = np.bincount(places, own, steps + 1) / np.maximum(
        np.bincount(places, None, steps + 1), 1
    )
    q = level[places]
    p, q = p / p.sum(), q / q.sum()
    return float(p @ np.log(p / q))


METHOD = "percentile"
"""The method where none was asked for, and no other was found better."""

AUTO = "auto"
"""Stands for the one of two methods that leaves more labels, see `ladder.methods`."""

METHODS: dict[str, Callable[[TensorStatistics, float, float, int], tuple[float, float]]] = {
    "percentile": _percentile,
    "mse": _searched(_squared, behind=True),
    "entropy": _searched(_divergence),
    "minmax": _minmax,
}
"""Method -> from a tensor's values, a range to start from, and the steps of the grid, a range."""
