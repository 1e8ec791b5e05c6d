"""Differences of two models' scores on the same images, each with a confidence interval.

The same images go through both models, so both are drawn anew together (paired; E. Miller, "Adding
error bars to evals", arXiv 2411.00640), and what is drawn is a group of images: the frames of a
drive are no independent images. With few groups blocks of successive images are drawn (`resample`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.resample import Images, Resamples, resample
from icnet_deploy.report.tables import bounded

Float = npt.NDArray[np.float64]

LEVEL = 0.95
"""How often an interval covers the true difference: as measured in `tests/evaluation`."""

FEWEST_GROUPS = 10
"""With fewer groups than this, what was found says nothing about others: blocks are drawn."""

FEWEST_IMAGES = 6
"""A class seen on fewer images, or groups where groups are drawn, is not decided."""

FEWEST_PIXELS = 1000
"""A class seen on fewer pixels than this is not decided."""


@dataclass(frozen=True)
class Interval:
    """A difference, and between which bounds it lies.

    Attributes:
        value: what was measured.
        low, high: the bounds, in the same unit.
        groups: how many groups of images it rests on.
        effective_images: how many independent images would tell as much.
    """

    value: float
    low: float
    high: float
    groups: int
    effective_images: float

    def text(self, digits: int = 3) -> str:
        """As a table shows it: `-0.021 [-0.052, +0.009]`."""
        return bounded(self.value, self.low, self.high, digits)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "value": round(self.value, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            "groups": self.groups,
            "effective_images": round(self.effective_images, 1),
        }


class Seen(NamedTuple):
    """On how much a class was seen in the truth.

    Attributes:
        images: or groups, where groups are drawn.
        pixels: of all images.
        of: `images` or `groups`.
    """

    images: int
    pixels: int
    of: str = "images"

    def enough(self) -> bool:
        """Whether anything can be said of the class."""
        return self.images >= FEWEST_IMAGES and self.pixels >= FEWEST_PIXELS


@dataclass(frozen=True)
class Differences:
    """How one model's scores differ from another's: the first minus the second.

    Attributes:
        images: how many images with a labelled pixel both were scored on.
        groups: of how many groups they are.
        level: of each interval.
        miou: the difference of mIoU, in points, over the classes that were seen enough; over all
            of the truth where none was.
        left_out: the classes of the truth that are not in it.
        classes: class -> the difference of its IoU, in points, for each class of the truth. Those
            that were seen enough hold at the level all together.
        seen: class -> on how much it was seen.
        pixel_accuracy: of the share of labelled pixels that are right, in points.
        small_regions: of the accuracy on small regions, in points; None if there are none.
        alike: the share of pixels to which both give the same label, 0..1; None where that was not
            counted.
    """

    images: int
    groups: int
    level: float
    miou: Interval
    left_out: tuple[str, ...]
    classes: dict[str, Interval]
    seen: dict[str, Seen]
    pixel_accuracy: Interval
    small_regions: Interval | None
    alike: Interval | None

    @property
    def drawn(self) -> str:
        """What the intervals are drawn of: `groups`, or `images` where groups are too few."""
        return "groups" if self.groups >= FEWEST_GROUPS else "images"

    def basis(self) -> str:
        """What the intervals rest on, in a sentence that stands first in a result."""
        count = round(self.miou.effective_images)
        worth = f"for mIoU they count as {count} independent image{'s' if count != 1 else ''}"
        images = f"{self.images} image{'s' if self.images != 1 else ''}"
        if self.groups >= FEWEST_GROUPS:
            return f"{images} in {self.groups} groups; {worth}"
        least = FEWEST_GROUPS
        few = "one group" if self.groups == 1 else f"only {self.groups} groups"
        if self.groups == self.images:
            return f"{images}: too few to tell anything about other images; give at least {least}"
        return (
            f"{images} in {few} (a drive, a scene: --group-by); {worth}; to tell anything about "
            f"other groups, give at least {least} groups"
        )


def differences(
    ours: Sequence[ImageCounts],
    theirs: Sequence[ImageCounts],
    names: Sequence[str],
    *,
    alike: Sequence[tuple[int, int]] | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Differences:
    """Compares two models image by image.

    Args:
        ours, theirs: the counts of the same images in the same order, each of C classes; the
            images of a group follow each other in time.
        names: of the C classes.
        alike: of each image how many pixels both label alike, and how many there are.
        level: of the intervals; a sequence of looks needs more than `LEVEL` at each.
        seed: of the resamples: the same seed gives the same intervals.

    Raises:
        ValueError: they are not of the same images, or there is none, or none has a truth.
    """
    if [one.name for one in ours] != [one.name for one in theirs] or not ours:
        raise ValueError("two models must be compared on the same images, at least one")
    groups = [one.group for one in ours]
    labelled = [one.group for one in ours if one.truth.any()]  # the others say nothing of a score
    drawn = len(set(labelled)) >= FEWEST_GROUPS
    seen = _seen(np.array([one.truth for one in ours]), groups if drawn else None)
    occurs = np.array([one.pixels > 0 for one in seen])
    if not occurs.any():
        raise ValueError("no pixel of the truth is labelled")
    decided = np.array([one.enough() for one in seen])
    mean = decided if decided.any() else occurs
    ratios = _ratios(ours, theirs, alike)
    intervals = _Intervals(Images(ratios, groups, mean), _ends(ratios, mean), drawn, level, seed)
    shown = np.flatnonzero(occurs).tolist()
    together = intervals.together(np.flatnonzero(decided))
    accuracy, small, same, miou = range(len(names), len(names) + 4)
    return Differences(
        images=len(labelled),
        groups=len(set(labelled)),
        level=level,
        miou=intervals.of(miou),
        left_out=tuple(names[i] for i in shown if not mean[i]),
        classes={names[i]: together.get(i) or intervals.of(i) for i in shown},
        seen={names[i]: seen[i] for i in shown},
        pixel_accuracy=intervals.of(accuracy),
        small_regions=intervals.of(small) if any(one.small_regions for one in ours) else None,
        alike=None if alike is None else intervals.share(same),
    )


def own_scores(counts: Sequence[ImageCounts], names: Sequence[str]) -> Differences:
    """One model's scores, with their intervals: its differences from a model that finds nothing.

    Args:
        counts: of each image, as for `differences`.
        names: of the classes.

    Raises:
        ValueError: there is no image, or none has a truth.
    """
    nothing = [
        replace(one, right=none, predicted=none, small_right=0.0)
        for one in counts
        for none in (np.zeros_like(one.right),)
    ]
    return differences(counts, nothing, names)


def share(
    counts: Sequence[tuple[int, int]],
    groups: Sequence[str],
    *,
    before: Sequence[int] | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """What share of the pixels is of a kind, in percent, or by how many points it has grown.

    Args:
        counts: of each image how many are of the kind, and how many there are.
        groups: of each image; those of one group follow each other in time.
        before: of each image how many were of the kind, for the difference from then.
        level: of the interval.
        seed: of the resamples.
    """
    others = [0] * len(counts) if before is None else before
    rows = zip(counts, others, strict=True)
    ratios = np.array(
        [[[few], [pixels], [other], [pixels]] for (few, pixels), other in rows], float
    )
    # of the share, and of the mean, which is the same
    ends = np.array([[0.0 if before is None else -100.0, 100.0]] * 2)
    whole = len(set(groups)) >= FEWEST_GROUPS
    return _Intervals(Images(ratios, groups, np.array([True])), ends, whole, level, seed).of(0)


class _Intervals:
    """Intervals of one comparison, each from blocks of its own length.

    Args:
        images: what is compared.
        ends: the least and the most that each number can be, S x 2.
        whole: draw whole groups; else blocks.
        level: of the intervals.
        seed: of the resamples.
    """

    def __init__(self, images: Images, ends: Float, whole: bool, level: float, seed: int) -> None:
        self._images, self._ends = images, ends
        self._whole, self._level, self._seed = whole, level, seed
        self._groups = sum(bool(images.labelled[one].any()) for one in images.members)
        self._known: dict[int | None, Resamples] = {}  # by the length of blocks

    def of(self, index: int) -> Interval:
        """Of one difference, in points."""
        known = self._resamples([index])
        return self._interval(known, index, known.reach(index))

    def share(self, index: int) -> Interval:
        """Of what is a share and no difference, 0..1."""
        points = self.of(index)
        ends = (points.value / 100, points.low / 100, points.high / 100)
        return Interval(*ends, points.groups, points.effective_images)

    def together(self, indices: npt.NDArray[np.intp]) -> dict[int, Interval]:
        """Of several differences, in points, that hold all at once."""
        known = self._resamples(indices)
        reaches = known.reaches(indices).items()
        return {index: self._interval(known, index, reach) for index, reach in reaches}

    def _resamples(self, indices: Iterable[int]) -> Resamples:
        block = None if self._whole else self._images.block(indices)
        if block not in self._known:
            self._known[block] = resample(self._images, block, self._level, self._seed)
        return self._known[block]

    def _interval(self, known: Resamples, index: int, reach: float) -> Interval:
        value = float(known.values[index])
        low, high = np.clip((value - reach, value + reach), *self._ends[index]).tolist()
        return Interval(value, low, high, self._groups, known.effective(index))


def _ratios(
    ours: Sequence[ImageCounts],
    theirs: Sequence[ImageCounts],
    alike: Sequence[tuple[int, int]] | None,
) -> Float:
    """Of each image (numerator, denominator) of ours and of theirs, n x 4 x K.

    K are the C classes, the accuracy of pixels, that of small regions, and the pixels alike.
    """

    def pairs(one: ImageCounts) -> tuple[Float, Float]:
        union = one.truth + one.predicted - one.right
        above = [*one.right, one.right.sum(), one.small_right]
        return np.array(above, float), np.array([*union, one.truth.sum(), one.small_regions], float)

    same = [(0, 1)] * len(ours) if alike is None else alike
    rows = []
    for a, b, (equal, pixels) in zip(ours, theirs, same, strict=True):
        (up, under), (other_up, other_under) = pairs(a), pairs(b)
        last = (equal, pixels, 0, pixels)
        four = (up, under, other_up, other_under)
        rows.append([np.append(one, more) for one, more in zip(four, last, strict=True)])
    return np.array(rows)


def _ends(ratios: Float, mean: npt.NDArray[np.bool_]) -> Float:
    """The least and the most that each number can be, S x 2, in points.

    Nobody is better than who is right everywhere, as a reference is by its own label map; and the
    share of pixels alike is no difference.
    """
    _, _, right, of = ratios.sum(axis=0)
    perfect = right == of
    perfect = np.append(perfect, perfect[: len(mean)][mean].all())
    ends = np.stack([np.full(len(perfect), -100.0), np.where(perfect, 0.0, 100.0)], axis=1)
    ends[len(mean) + 2, 0] = 0.0
    return ends


def _seen(truth: npt.NDArray[np.int64], groups: Sequence[str] | None) -> list[Seen]:
    """On how many images, or groups if they are given, and pixels each class is."""
    shown, of = truth > 0, "images"
    if groups is not None:
        of = "groups"
        labels = np.unique(np.asarray(groups), return_inverse=True)[1]
        shown = np.array([shown[labels == label].any(axis=0) for label in range(labels.max() + 1)])
    counts = zip(shown.sum(axis=0), truth.sum(axis=0), strict=True)
    return [Seen(int(images), int(pixels), of) for images, pixels in counts]
