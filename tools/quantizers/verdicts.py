"""Ours beside the best peer of a row: as many labels alike, and not slower?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.differences import Interval, differences
from tools.quantizers.scores import Scored
from tools.quantizers.times import Seconds, ratio

TOLERANCE = 1.02
"""A time is longer where the ratio of two files is above this and its interval is above 1."""


@dataclass(frozen=True)
class Timed:
    """A file that was scored and timed.

    Attributes:
        scored: its score.
        seconds: clock -> a sample of each round.
    """

    scored: Scored
    seconds: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, scored: Scored, name: str, seconds: Mapping[str, Seconds]) -> Timed | None:
        """Looks a file's times up by its name; None where it was not timed."""
        if any(name not in each for each in seconds.values()):
            return None
        return cls(scored, {clock: each[name] for clock, each in seconds.items()})

    def ratios(self, other: Timed) -> dict[str, dict[str, Any]]:
        """Clock -> its time to another's, with its interval."""
        return {clock: ratio(each, other.seconds[clock]) for clock, each in self.seconds.items()}


def alike_difference(ours: Scored, theirs: Scored) -> Interval:
    """Of the shares of labels alike with float32, ours minus theirs, in points."""
    return differences(_as_counts(ours), _as_counts(theirs), ("alike",)).pixel_accuracy


def _as_counts(scored: Scored) -> list[ImageCounts]:
    """Of one class, which is right where the label is float32's."""
    return [
        ImageCounts(one.name, one.group, np.array([same]), np.array([of]), np.array([of]), 0, 0.0)
        for one, (same, of) in zip(scored.counts, scored.alike, strict=True)
    ]


def slower(ratios: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether a file takes longer by one of the clocks, beyond what rounds differ by."""
    return any(each["value"] > TOLERANCE and each["low"] > 1 for each in ratios.values())


def best_of(peers: Sequence[Timed], exact: Timed) -> Timed | None:
    """The one with the most labels alike, of those that are faster than float32 if any is.

    A file that gains no time is float32's in all but name: accuracy control may return so many
    layers to float that all labels are alike. What counts is processor time on one thread, which
    other work on the machine moves least.

    Args:
        peers: on one runtime.
        exact: the float32 file there.
    """
    fast = [each for each in peers if _faster(each, exact)]
    return max(fast or peers, key=lambda each: each.scored.agreement, default=None)


def _faster(one: Timed, exact: Timed) -> bool:
    return float(one.ratios(exact)["processor"]["value"]) < 1


def best_of_ours(candidates: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The file of ours that a row counts: of those that hold by themselves, else of all.

    Of several it is the one with the most labels alike.

    Args:
        candidates: of one row, in their JSON form.

    Returns:
        None where none of ours was timed beside a peer.
    """
    judged = [each for each in candidates if "against_best_peer" in each]
    holding = [each for each in judged if each["against_best_peer"]["holds"]]
    return max(holding or judged, key=lambda each: float(each["alike_percent"]), default=None)


def verdict(ours: Timed, peer: Timed) -> dict[str, Any]:
    """The JSON form of a comparison.

    `alike` is `more`, `as many` where the interval of the difference holds 0, or `fewer`; `holds`
    says whether it is not fewer and not slower.
    """
    difference = alike_difference(ours.scored, peer.scored)
    ratios = ours.ratios(peer)
    alike = "more" if difference.value >= 0 else "as many" if difference.high >= 0 else "fewer"
    late = slower(ratios)
    return {
        "peer": peer.scored.made.quantizer,
        "settings": peer.scored.made.settings,
        "alike_difference_points": difference.to_dict(),
        "time_to_peer": ratios,
        "alike": alike,
        "slower": late,
        "holds": alike != "fewer" and not late,
    }
