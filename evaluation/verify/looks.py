"""When `icnet verify` looks at what the scenes say that it draws, and when it has seen enough.

Few scenes decide most files, and some need many. So it looks after a few, and goes on only where
something is undecided. That is peeking: who looks four times has four chances of a wrong verdict.
The intervals of each look are wider for it (`Looks.level`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from icnet_deploy.evaluation.confidence.differences import LEVEL
from icnet_deploy.evaluation.parity.comparison import Comparison
from icnet_deploy.evaluation.verdicts import Verdict


class Ending(StrEnum):
    """Why a run goes on no longer."""

    DECIDED = "every row is decided"
    LAST = "this was the last look"
    TIME = "the next look would take too long"


@dataclass(frozen=True)
class Looks:
    """After how many images a run looks, and may end.

    The error that is allowed is shared among the looks in equal parts (Bonferroni): all of them
    together are wrong no more often than the sum of each. That holds however the looks hang
    together, and they do: the images of one are among those of the next. Rules that count on this
    (P. O'Brien and T. Fleming, "A multiple testing procedure for clinical trials", Biometrics 35,
    1979) widen the intervals less, but hold for sums of many independent values alone, and here
    are few images and a bootstrap.

    Attributes:
        counts: of images, each higher than the one before.
        error: how often one of the intervals of all looks may miss, 0..1.
        seconds: that a run may take; the first look is always made.
    """

    counts: tuple[int, ...] = (10, 20, 40, 80)
    error: float = 1 - LEVEL
    seconds: float = 300

    @property
    def level(self) -> float:
        """Of the intervals of each look, 0..1."""
        return 1 - self.error / len(self.counts)

    def after(self, images: int, decided: bool, elapsed: float, an_image: float) -> Ending | None:
        """Whether a run ends.

        Args:
            images: that were compared; one of `counts`.
            decided: whether every row is within its budget or past it.
            elapsed: seconds since the run began.
            an_image: seconds that each image takes.

        Returns:
            Why it ends; None: it goes on to the next look.
        """
        if decided:
            return Ending.DECIDED
        if images >= self.counts[-1]:
            return Ending.LAST
        if self.end_of_next(images, elapsed, an_image) > self.seconds:
            return Ending.TIME
        return None

    def end_of_next(self, images: int, elapsed: float, an_image: float) -> float:
        """How many seconds a run will have taken at the look after this one, about."""
        following = next(count for count in self.counts if count > images)
        return elapsed + (following - images) * an_image


class Watch:
    """Looks at the rows while images are added to them: a `Look` of `compare`.

    Args:
        looks: when it looks.
        clock: gives seconds; the run begins when the watch is made.

    Attributes:
        images: that were compared at the last look; 0 before the first.
        ending: why that was the last; None while it is not.
    """

    def __init__(self, looks: Looks, clock: Callable[[], float] = time.monotonic) -> None:
        self.looks = looks
        self.images = 0
        self.ending: Ending | None = None
        self._clock = clock
        self._began = clock()
        self._before = (0, self._began)  # images and seconds from which the pace is taken
        self._next = 0.0

    def __call__(self, images: int, rows: Sequence[Comparison]) -> bool:
        """Whether so many images are enough."""
        now = self._clock()
        if images == 1 and images not in self.looks.counts:
            self._before = images, now  # it warmed up the models
        if images not in self.looks.counts:
            return False
        decided = all(row.judgement().verdict is not Verdict.UNDECIDED for row in rows)
        # Of the images since the look before: what is kept of a run before this one takes no time.
        pace = (now - self._before[1]) / (images - self._before[0])
        elapsed, self._before = now - self._began, (images, now)
        self.images, self.ending = images, self.looks.after(images, decided, elapsed, pace)
        if self.ending is Ending.TIME:
            self._next = self.looks.end_of_next(images, elapsed, pace)
        return self.ending is not None

    def __str__(self) -> str:
        counts = self.looks.counts
        text = (
            f"after {', '.join(map(str, counts[:-1]))} and {counts[-1]} scenes; the intervals of "
            f"each look hold in {100 * self.looks.level:g} % of cases, those of all looks together "
            f"in {100 - 100 * self.looks.error:g} %"
        )
        if self.ending is None:
            return text
        text += f". Stopped after {self.images} scenes: {self.ending}"
        if self.ending is not Ending.TIME:
            return text
        following = next(count for count in counts if count > self.images)
        return (
            f"{text} ({following} scenes need about {self._next / 60:.0f} minutes, the limit is "
            f"{self.looks.seconds / 60:g}). To continue, give the same command with --resume, or "
            "your own images with --dataset and --data"
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "images": list(self.looks.counts),
            "level": self.looks.level,
            "ended_after": self.images,
            "why": self.ending and str(self.ending),
        }
