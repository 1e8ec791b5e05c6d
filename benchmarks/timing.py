"""How things are timed against one another: in turn, and told by percentiles of the raw samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError

__all__ = ["interleave", "summary"]


def interleave(
    turns: Mapping[str, Callable[[], float]],
    rounds: int,
    after: Callable[[str], None] = lambda name: None,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Takes one sample of each in turn, A B C A B C, so that a drift of the machine meets them all.

    Args:
        turns: name -> runs it once and returns how long that took, in seconds.
        rounds: how many samples of each.
        after: is told whose turn has ended.

    Returns:
        The samples of each, in seconds, in the order taken; and name -> reason of those that
        failed with a `BackendError`, which have no later turn.
    """
    samples: dict[str, list[float]] = {name: [] for name in turns}
    failures: dict[str, str] = {}
    for _ in range(rounds):
        for name, turn in turns.items():
            if name not in failures:
                try:
                    samples[name].append(turn())
                except BackendError as error:
                    failures[name] = str(error)
            after(name)
    return samples, failures


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Pooled raw samples in seconds as a JSON value in milliseconds: median, p10, p90, and all."""
    milliseconds = 1e3 * np.asarray(samples, np.float64)
    p10, median, p90 = np.percentile(milliseconds, [10, 50, 90])
    return {
        "runs": len(samples),
        "median_ms": round(float(median), 3),
        "p10_ms": round(float(p10), 3),
        "p90_ms": round(float(p90), 3),
        "samples_ms": [round(float(value), 3) for value in milliseconds],
    }
