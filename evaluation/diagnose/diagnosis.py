"""Which other reading of a network scores clearly better, found one slip at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from icnet_deploy.data import Dataset
from icnet_deploy.errors import DatasetError, LabelSetError
from icnet_deploy.evaluation.confidence.differences import (
    FEWEST_IMAGES,
    Differences,
    Interval,
    differences,
)
from icnet_deploy.evaluation.diagnose.counting import Runs
from icnet_deploy.evaluation.diagnose.slips import Kind, Reading, Setting, Slip, slips_of
from icnet_deploy.evaluation.score import Score, Size

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint

IMAGES = 20
"""On how many images slips are tried, unless another number is asked for."""

LEVEL = 0.99
"""Of the intervals: some twenty slips are tried, and one at 95 % would look better by luck."""

MARGINS = {Kind.INPUT: 1.0, Kind.LABELS: 1.0, Kind.UPSAMPLING: 0.3}
"""By how many points of mIoU a reading must be better at least to be clearly so.

The other rule of upsampling moves edges by a part of a cell, so that it costs little; where logits
lie close it costs a tenth of a point, and may by luck gain as much.
"""

_ROUNDS = 3  # slips that may come together


class Outcome(StrEnum):
    """What an interval says of a try."""

    BETTER = "better"
    UNDECIDED = "undecided"
    NOT_BETTER = "not better"


@dataclass(frozen=True)
class Try:
    """One slip undone, against the reading that it was found in.

    Attributes:
        slip: see there.
        images: on how many it was scored: fewer where these showed that it is worse.
        miou: in percent, over the classes that the difference is of.
        difference: of mIoU to that reading, in points.
        outcome: what that says.
    """

    slip: Slip
    images: int
    miou: float
    difference: Interval
    outcome: Outcome

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "changed": self.slip.name,
            "kind": str(self.slip.kind),
            "images": self.images,
            "miou_percent": round(self.miou, 6),
            "difference_points": self.difference.to_dict(),
            "outcome": str(self.outcome),
        }


@dataclass(frozen=True)
class Round:
    """Every slip against one reading.

    Attributes:
        reading: what all are compared with: what was said, or the best of the round before.
        miou: of that reading, in percent.
        tries: of all slips.
        best: the clearly better one that is taken, if any is.
        as_good: the others that may be as good as it, as far as these images tell.
    """

    reading: Reading
    miou: float
    tries: tuple[Try, ...]
    best: Try | None
    as_good: tuple[Try, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "miou_percent": round(self.miou, 6),
            "tries": [each.to_dict() for each in self.tries],
            "best": self.best and self.best.slip.name,
            "as_good": [each.slip.name for each in self.as_good],
        }


@dataclass(frozen=True)
class Diagnosis:
    """What was found of a network.

    Attributes:
        said: how it was read at first.
        rounds: the tries against that, then those on top of what was found better, and so on.
        total: of the best reading against what was said; None where nothing is clearly better.
        basis: what all of it rests on, in a sentence.
        images: how many with a labelled pixel there were.
    """

    said: Reading
    rounds: tuple[Round, ...]
    total: Interval | None
    basis: str
    images: int

    @property
    def found(self) -> tuple[Slip, ...]:
        """The slips that were made; none where nothing scores clearly better."""
        return tuple(each.best.slip for each in self.rounds if each.best is not None)

    @property
    def best(self) -> Reading:
        """The reading that scores best: what was said, unless another is clearly better."""
        return self.found[-1].reading if self.found else self.said

    @property
    def enough(self) -> bool:
        """Whether there are images enough to say anything."""
        return self.images >= FEWEST_IMAGES

    def undecided(self) -> tuple[Try, ...]:
        """What may still be clearly better than the best reading."""
        return tuple(t for t in self.rounds[-1].tries if t.outcome is Outcome.UNDECIDED)


def diagnose(checkpoint: Checkpoint, dataset: Dataset, size: Size | None = None) -> Diagnosis:
    """Reads a network in other ways, and says which scores clearly better.

    Every slip is tried alone; the best that is clearly better is kept, and all are tried on top of
    it. What is worse on the first few images, for certain, is tried on no more.

    Args:
        checkpoint: the float network and what is said of it.
        dataset: labelled images.
        size: (height, width) of the network's input; None: each image's own.

    Raises:
        LabelSetError: the network's classes cannot answer for those of the data set.
        DatasetError: no image has a labelled pixel.
    """
    return _Search(checkpoint, dataset, size).diagnosis()


class _Search:
    """One network on one data set; see `diagnose`."""

    def __init__(self, checkpoint: Checkpoint, dataset: Dataset, size: Size | None) -> None:
        own = checkpoint.label_set
        if len(own) != checkpoint.network.num_classes:
            raise LabelSetError(
                f"the network has {checkpoint.network.num_classes} classes, but the label set "
                f"{own.name} has {len(own)}: give the label set of the network"
            )
        every = np.arange(len(own), dtype=np.uint8)
        table = Score(dataset, own, size).mapped(every).tobytes()
        self._said = Reading(checkpoint.preprocessing, checkpoint.network.upsampling, table)
        self._own, self._scored = own, dataset.label_set
        self._runs = Runs(checkpoint, dataset, size)
        self._all: list[int] = list(range(len(dataset)))
        self._few: list[int] = []

    def diagnosis(self) -> Diagnosis:
        """See `diagnose`."""
        self._runs.run([self._said], self._all, "as it was said")
        counted = self._runs.counts(self._said, self._all)
        self._all = [index for index in self._all if counted[index].truth.any()]
        if not self._all:
            raise DatasetError(
                f"none of the {len(counted)} images has a labelled pixel: there is nothing to "
                "score (does the split have public labels?)"
            )
        few = np.linspace(0, len(self._all) - 1, min(FEWEST_IMAGES, len(self._all)))
        self._few = [self._all[index] for index in few.round().astype(int)]
        basis = self._against(self._said, self._said, self._all)
        rounds: list[Round] = []
        reading, seen = self._said, {self._said}
        while len(rounds) < _ROUNDS:
            one = self._round(reading, seen, len(rounds))
            rounds.append(one)
            if one.best is None:
                break
            reading = one.best.slip.reading
        better = reading != self._said
        total = self._against(reading, self._said, self._all).miou if better else None
        return Diagnosis(self._said, tuple(rounds), total, basis.basis(), basis.images)

    def _round(self, reading: Reading, seen: set[Reading], count: int) -> Round:
        """Every slip that was not tried yet against a reading."""
        setting = Setting(self._own, self._scored, self._runs.resized, self._runs.fitted)
        slips = [slip for slip in slips_of(reading, setting) if slip.reading not in seen]
        seen.update(slip.reading for slip in slips)
        words = " on top of it" if count else ""
        self._runs.run([slip.reading for slip in slips], self._few, f"other settings{words}")
        early = {slip: self._try(slip, reading, self._few) for slip in slips}
        left = [slip for slip in slips if not early[slip].difference.high < 0]
        self._runs.run([slip.reading for slip in left], self._all, f"the best of them{words}")
        late = {slip: self._try(slip, reading, self._all) for slip in left}
        tries = [(early | late)[slip] for slip in slips]
        better = [one for one in tries if one.outcome is Outcome.BETTER]
        best = max(better, key=lambda one: one.difference.value, default=None)
        as_good = [one for one in better if best and one is not best and self._equal(one, best)]
        miou = self._miou(reading, self._against(reading, reading, self._all), self._all)
        return Round(reading, miou, tuple(tries), best, tuple(as_good))

    def _try(self, slip: Slip, reading: Reading, images: Sequence[int]) -> Try:
        difference = self._against(slip.reading, reading, images)
        interval, margin = difference.miou, MARGINS[slip.kind]
        outcome = Outcome.UNDECIDED
        if interval.low > 0 and interval.value >= margin:
            outcome = Outcome.BETTER
        elif interval.high < margin:
            outcome = Outcome.NOT_BETTER
        if difference.images < FEWEST_IMAGES:
            outcome = Outcome.UNDECIDED
        miou = self._miou(slip.reading, difference, images)
        return Try(slip, difference.images, miou, interval, outcome)

    def _equal(self, one: Try, best: Try) -> bool:
        return self._against(best.slip.reading, one.slip.reading, self._all).miou.low <= 0

    def _against(self, ours: Reading, theirs: Reading, images: Sequence[int]) -> Differences:
        counts = [self._runs.counts(each, images) for each in (ours, theirs)]
        return differences(counts[0], counts[1], self._scored.names, level=LEVEL)

    def _miou(self, reading: Reading, found: Differences, images: Sequence[int]) -> float:
        """In percent, over the classes that a difference is of."""
        names = self._scored.names
        over = [names.index(name) for name in found.classes if name not in found.left_out]
        counts = self._runs.counts(reading, images)
        right, truth, predicted = (
            np.sum([getattr(one, name) for one in counts], axis=0)
            for name in ("right", "truth", "predicted")
        )
        return 100 * float(np.mean(right[over] / (truth + predicted - right)[over]))
