"""What an interval says of a limit: within, past, or undecided, and how much more would decide it.

A verdict is read off the interval of a difference. `within`: the whole interval is within the
limit. `past`: the whole interval is beyond it. `undecided`: the limit lies in the interval, or too
little was seen. Where only falls count, each of the first two is wrong only if one end of the
interval is: with an interval of 95 %, in at most 2.5 % of cases (a test of non-inferiority).
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from icnet_deploy.evaluation.confidence.differences import (
    FEWEST_IMAGES,
    FEWEST_PIXELS,
    Interval,
    Seen,
)

_ROUNDING = 1e-9  # a difference of exactly the limit is within it
_MOST_IMAGES = 100_000  # nobody scores more: the difference lies at its limit


class Verdict(StrEnum):
    """What an interval says of a limit; the worst of several comes first."""

    PAST = "past"
    UNDECIDED = "undecided"
    WITHIN = "within"


@dataclass(frozen=True)
class Finding:
    """One difference held to its limit.

    Attributes:
        what: `mIoU`, the name of a class, or `pixels alike`.
        interval: the difference, in points; of pixels alike, the share in percent.
        limit: in the same unit, as a message has it: "at most 0.3 points lower".
        verdict: see `Verdict`.
        more_images: about how many more images of the same kind would decide it; None where it is
            decided, or where no number would: it lies at the limit, or images are not what lacks.
        why: of an undecided one, in words.
    """

    what: str
    interval: Interval
    limit: str
    verdict: Verdict
    more_images: int | None = None
    why: str = ""

    def __str__(self) -> str:
        i = self.interval
        if self.what == _ALIKE:
            text = f"{i.value:.4f} % of pixels are alike [{i.low:.4f}, {i.high:.4f}]"
        else:
            text = f"{self.what} {i.value:+.3f} points [{i.low:+.3f}, {i.high:+.3f}]"
        return f"{text}; limit: {self.limit}" + (f" ({self.why})" if self.why else "")

    @property
    def endless(self) -> bool:
        """Whether so few images were seen that the interval has no lower end."""
        return not self.interval.low > (0 if self.what == _ALIKE else -100)  # as NaN is not

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "what": self.what,
            "difference": self.interval.to_dict(),
            "limit": self.limit,
            "verdict": str(self.verdict),
            "more_images": self.more_images,
            "why": self.why,
        }


_ALIKE = "pixels alike"
"""`Finding.what` of the share of pixels on which both agree."""


@dataclass(frozen=True)
class Judgement:
    """What a budget says of an artefact: a finding for mIoU, each class, and pixels alike."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """`past` if a finding is; else `undecided` if one is; else `within`."""
        verdicts = {finding.verdict for finding in self.findings}
        return next((v for v in Verdict if v in verdicts), Verdict.UNDECIDED)

    def of(self, verdict: Verdict) -> list[Finding]:
        """The findings of one verdict."""
        return [finding for finding in self.findings if finding.verdict is verdict]

    def more_images(self) -> int | None:
        """About how many more images would decide all; None where no number is known."""
        needs = [finding.more_images for finding in self.of(Verdict.UNDECIDED)]
        known = [need for need in needs if need is not None]
        return max(known) if known and len(known) == len(needs) else None

    def to_dict(self) -> list[dict[str, Any]]:
        """The JSON form."""
        return [finding.to_dict() for finding in self.findings]


def loss(points: float, rises: bool) -> float:
    """What a limit is held against; NaN stays NaN."""
    return abs(points) if rises else -points


def error_words(level: float, both_ways: bool) -> str:
    """How often a verdict is wrong, in a sentence.

    Args:
        level: of the intervals that verdicts are read off, 0..1.
        both_ways: whether one of the limits is up and down.
    """
    share = 50 * (1 - level)
    words = (
        f"a difference beyond its limit is called within in at most about {share:.4g} % of cases, "
        "and a difference inside its limit is called past as rarely"
    )
    if both_ways:
        words += f" (at most {2 * share:.4g} % where a rise is also limited)"
    return words


def limit_words(points: float, rises: bool) -> str:
    """A limit in words."""
    size = f"{points:g} point{'' if points == 1 else 's'}"
    return f"at most {size} lower or higher" if rises else f"at most {size} lower"


def judge(
    what: str,
    interval: Interval,
    points: float,
    rises: bool,
    images: int,
    seen: Seen | None = None,
) -> Finding:
    """Holds a difference to a limit: the interval lies within it, beyond it, or across it.

    Args:
        what: differs.
        interval: by how many points.
        points: how many may be lost.
        rises: whether as many may be gained, and no more.
        images: on how many it was measured.
        seen: of a class, on how much it was seen; too little is undecided.
    """
    low, high = interval.low, interval.high
    if low >= -points - _ROUNDING and (not rises or high <= points + _ROUNDING):
        verdict = Verdict.WITHIN
    elif high < -points - _ROUNDING or (rises and low > points + _ROUNDING):
        verdict = Verdict.PAST
    else:  # as is what is not a number
        verdict = Verdict.UNDECIDED
    finding = Finding(what, interval, limit_words(points, rises), verdict)
    if seen is not None and not seen.enough():
        return _too_little(finding, seen, images)
    if verdict is not Verdict.UNDECIDED:
        return finding
    ends = (-points, points) if rises else (-points,)
    return _undecided(finding, max(_more_images(interval, end, images) for end in ends))


def judge_alike(share: Interval, least: float, images: int) -> Finding:
    """Holds the share of pixels that agree to the least that must."""
    percent = replace(share, value=100 * share.value, low=100 * share.low, high=100 * share.high)
    limit = f"at least {100 * least:g} %"
    if share.low >= least - _ROUNDING:
        return Finding(_ALIKE, percent, limit, Verdict.WITHIN)
    some_differ = least >= 1 and share.value < 1  # of more images, too
    if share.high < least - _ROUNDING or some_differ:
        return Finding(_ALIKE, percent, limit, Verdict.PAST)
    finding = Finding(_ALIKE, percent, limit, Verdict.UNDECIDED)
    return _undecided(finding, _more_images(percent, 100 * least, images))


def _more_images(interval: Interval, end: float, images: int) -> float:
    """How many more images would part an interval from a limit that it holds, about.

    The width of an interval falls with the square root of the number of images. It reaches as far
    to both sides, but no further than a number can be: the longer side tells.
    """
    reach = max(interval.value - interval.low, interval.high - interval.value)
    distance = abs(interval.value - end)
    if not distance > 0 or reach <= distance:
        return 0 if distance > 0 else float("inf")
    return images * ((reach / distance) ** 2 - 1)


def _undecided(finding: Finding, need: float) -> Finding:
    if finding.endless:
        return replace(finding, why="too few images to tell anything")
    if not need < _MOST_IMAGES:
        why = "the difference is so close to the limit that no number of images decides it"
        return replace(finding, why=why)
    more = max(1, round(need))
    why = f"the interval contains the limit; about {more} more images would decide it"
    return replace(finding, more_images=more, why=why)


def _too_little(finding: Finding, seen: Seen, total: int) -> Finding:
    """A class that was hardly seen is not decided, whatever its interval says."""
    more = None
    if seen.images:
        share = min(seen.images / FEWEST_IMAGES, seen.pixels / FEWEST_PIXELS)
        more = max(1, round(total * (1 / max(share, 1e-9) - 1)))
    why = (
        f"it is on {seen.images} {seen.of} and {seen.pixels:,} pixels, which is too little: at "
        f"least {FEWEST_IMAGES} {seen.of} and {FEWEST_PIXELS:,} pixels are needed"
    )
    return replace(finding, verdict=Verdict.UNDECIDED, more_images=more, why=why)
