"""The bootstrap under the intervals: what is drawn anew, how often, and what it says.

Every number here is a difference of two ratios of sums over images, or a mean of such: IoU is right
pixels over the union, accuracy right pixels over labelled ones. So an image is four numbers for
each, and a resample is a sum of those.

How intervals are made: of every resample the deviation from what was measured, divided by the
resample's own standard error, that of the ratios' linear terms (the studentized, or "t", bootstrap:
B. Efron and R. Tibshirani, "An introduction to the bootstrap", 1993, section 12.5, symmetric). Few
images then widen an interval by themselves. Of all classes together it is the largest of these
deviations (M. Mandel and R. Betensky, "Simultaneous confidence intervals based on the percentile
bootstrap approach", Computational Statistics and Data Analysis 52, 2008), so that no class that
varies much widens the intervals of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_BEYOND = 100  # resamples that lie beyond the bounds of an interval: at 95 %, of 2,000
_BLOCKS = 1.5  # times the length that makes the error of the variance least: coverage wants longer

_ROUNDING = 1e-9  # points: two models that answer alike deviate by no more, which is nothing

_LACKING = 0.01  # of resamples: of a class that more of them lack, they say too little

_LEAST = 0.3
"""Of the standard error: a resample's own is no less, for one whose units happen to be alike has
none, and would make the interval endless."""


@dataclass(frozen=True)
class Images:
    """What images say of S numbers, each of which is a difference of ratios or a mean of such.

    Args:
        ratios: float64, n x 4 x K: of each image (numerator, denominator) of ours, then of theirs.
        groups: of each image; those of one group follow each other in time.
        mean: which of the first of the K are in the mean, which becomes the last of the S numbers.
    """

    ratios: Float
    groups: Sequence[str]
    mean: Mask

    @cached_property
    def values(self) -> Float:
        """float64 of S: what was measured, in hundredths."""
        return np.asarray(_values(self.ratios.sum(axis=0)[None], self.mean)[0])

    @cached_property
    def terms(self) -> Float:
        """float64, n x S: what each image adds to the error of each number, linearly."""
        return _terms(self.ratios, self.ratios.sum(axis=0), self.mean)

    @cached_property
    def members(self) -> list[npt.NDArray[np.intp]]:
        """The images of each group."""
        labels = np.unique(np.asarray(self.groups), return_inverse=True)[1]
        return [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]

    def block(self, columns: Iterable[int]) -> int:
        """The longest of the blocks that some of the numbers ask for; see `_block_length`."""
        series = ([self.terms[one, column] for one in self.members] for column in columns)
        return max(map(_block_length, series), default=1)

    @cached_property
    def shows(self) -> Mask:
        """bool, n x S: whether an image says anything of a number."""
        each = (self.ratios[:, 1] > 0) | (self.ratios[:, 3] > 0)
        over = np.asarray(each[:, : len(self.mean)][:, self.mean].any(axis=1))
        return np.concatenate([each, over[:, None]], axis=1)

    @cached_property
    def labelled(self) -> Mask:
        """bool of n: whether an image says anything of what the mean may be of."""
        return np.asarray(self.shows[:, : len(self.mean)].any(axis=1))

    def told(self, whole: bool) -> npt.NDArray[np.intp]:
        """How many images, or whole groups, say anything of each of the S numbers.

        Of the mean it is that of the class of which the most do: where each class is on an image
        of its own, no image says how its class varies.
        """
        shows = self.shows
        if whole:
            shows = np.stack([shows[one].any(axis=0) for one in self.members])
        counts = np.asarray(shows.sum(axis=0))
        counts[-1] = counts[: len(self.mean)][self.mean].max()
        return counts

    def naive(self) -> Float:
        """float64 of S: the variances if every image were independent."""
        count = len(self.ratios)
        return np.asarray(count / max(count - 1, 1) * np.square(self.terms).sum(axis=0))

    def apart(self) -> Float:
        """float64 of S: the variances by leaving out one group after another (the jackknife).

        A group that has most of the images is most of what was measured, and so deviates little
        from that, linearly; left out it tells by how much it differs from the others.
        """
        total = self.ratios.sum(axis=0)
        sums = np.stack([self.ratios[one].sum(axis=0) for one in self.members])
        far = np.nan_to_num(_values(total - sums, self.mean) - self.values, posinf=0.0, neginf=0.0)
        return np.asarray((len(sums) - 1) / len(sums) * np.square(far).sum(axis=0))

    def units(self, block: int | None) -> _Units:
        """What is drawn: blocks of so many images, or whole groups for None."""
        if block is None:
            sums = np.stack([self.ratios[one].sum(axis=0) for one in self.members])
            terms = np.stack([self.terms[one].sum(axis=0) for one in self.members])
            return _Units(sums, terms, len(self.members), 1.0)
        sums = np.concatenate([_blocks(self.ratios[one], block) for one in self.members])
        terms = np.concatenate([_blocks(self.terms[one], block) for one in self.members])
        count = len(self.ratios)
        draws = max(2, round(count / block))
        return _Units(sums, terms, draws, count / (draws * block))


class _Units(NamedTuple):
    """What is drawn.

    Attributes:
        sums: float64, U x 4 x K: of each unit what `Images.ratios` are of an image.
        terms: float64, U x S.
        draws: how many units a resample has.
        weight: by how much these count to be as many images as there are.
    """

    sums: Float
    terms: Float
    draws: int
    weight: float

    def alike(self) -> bool:
        """Whether all of them are the same numbers, as those of one image under many names are."""
        apart = np.ptp(self.sums, axis=0)
        return bool((apart <= _ROUNDING * np.abs(self.sums).max(axis=0)).all())


def _values(totals: Float, mean: Mask) -> Float:
    """The differences of ratios, R x S, in hundredths, of sums R x 4 x K; NaN for 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        each = 100 * (totals[:, 0] / totals[:, 1] - totals[:, 2] / totals[:, 3])
    some = each[:, : len(mean)][:, mean]
    known = np.isfinite(some)
    over = np.where(known, some, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.concatenate([each, over[:, None]], axis=1)


def _terms(ratios: Float, totals: Float, mean: Mask) -> Float:
    """What each image adds to the error of each number, n x S: the ratios' first derivatives."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ours = (ratios[:, 0] - totals[0] / totals[1] * ratios[:, 1]) / totals[1]
        theirs = (ratios[:, 2] - totals[2] / totals[3] * ratios[:, 3]) / totals[3]
    each = np.nan_to_num(100 * (ours - theirs), nan=0.0, posinf=0.0, neginf=0.0)
    over = each[:, : len(mean)][:, mean].mean(axis=1)
    return np.concatenate([each, over[:, None]], axis=1)


def _blocks(values: Float, length: int) -> Float:
    """The sum of each block of successive images, the last followed by the first."""
    count = len(values)
    around = np.concatenate([values] * (1 + -(-length // count)))[: count + length]
    running = np.concatenate([np.zeros_like(around[:1]), around.cumsum(axis=0)])
    return np.asarray(running[length : length + count] - running[:count])


def _block_length(series: Sequence[Float]) -> int:
    """How many successive images are drawn together, from how they correlate.

    D. Politis and H. White, "Automatic block-length selection for the dependent bootstrap",
    Econometric Reviews 23, 2004, corrected by A. Patton, D. Politis and H. White, 2009, for blocks
    on a circle. That length makes the error of the variance least; intervals cover better with
    longer ones (Politis, "The impact of bootstrap methods on time series analysis", Statistical
    Science 18, 2003), so half as much is added.

    Args:
        series: float64, one for each group, in the order of time.

    Returns:
        1 where successive images do not correlate.
    """
    count = sum(map(len, series))
    if count < 4:
        return 1
    longest = max(map(len, series))
    lags = min(longest - 1, int(np.ceil(np.sqrt(count))) + _quiet(count))
    centre = np.concatenate(series).mean()
    centred = [one - centre for one in series]
    covariance = np.array(
        [sum(float(one[: len(one) - lag] @ one[lag:]) for one in centred if len(one) > lag)
         for lag in range(lags + 1)]
    ) / count  # fmt: skip
    if not covariance[0] > 0:
        return 1
    last = 2 * _last_correlated(covariance / covariance[0], count)
    if last == 0:
        return 1
    lag = np.arange(1, min(last, lags) + 1)
    taper = np.where(lag / last <= 0.5, 1.0, 2 * (1 - lag / last))  # of a flat top
    slope = 2 * float((taper * lag * covariance[lag]).sum())
    spectrum = covariance[0] + 2 * float((taper * covariance[lag]).sum())
    if spectrum <= 0:
        return min(last, _longest(count))
    best = (2 * slope**2 / (4 / 3 * spectrum**2)) ** (1 / 3) * count ** (1 / 3)
    return int(min(max(1, round(_BLOCKS * np.ceil(best))), _longest(count)))


def _quiet(count: int) -> int:
    """After so many lags without correlation there is none."""
    return max(5, int(np.ceil(np.sqrt(np.log10(count)))))


def _longest(count: int) -> int:
    return max(1, int(min(np.ceil(4.5 * np.sqrt(count)), count / 2)))


def _last_correlated(correlation: Float, count: int) -> int:
    """The lag after which none of the next is more than chance."""
    chance = 2 * np.sqrt(np.log10(count) / count)
    quiet = _quiet(count)
    for lag in range(len(correlation) - 1):
        if (np.abs(correlation[lag + 1 : lag + 1 + quiet]) < chance).all():
            return lag
    return len(correlation) - 1


@dataclass(frozen=True)
class Resamples:
    """What the resamples say of each of S numbers.

    Attributes:
        values: float64 of S, as measured.
        errors: float64 of S, standard errors.
        deviations: float64, R x S: how far each resample is from `values`, in its own standard
            errors; infinite where it has none.
        level: of intervals.
        images: how many images are labelled.
        naive: float64 of S, the variances if every image were independent.
        apart: float64 of S, the variances by leaving out each thing that is drawn, one at a time.
        told: of S: how many images, or groups where those are drawn, say anything of each.
        alike: whether all that was drawn from is the same, so that no draw can differ.
    """

    values: Float
    errors: Float
    deviations: Float
    level: float
    images: int
    naive: Float
    apart: Float
    told: npt.NDArray[np.intp]
    alike: bool

    def reach(self, index: int) -> float:
        """How far the interval of a number reaches to both sides."""
        return self._times(self.deviations[:, index], index)

    def reaches(self, indices: npt.NDArray[np.intp]) -> dict[int, float]:
        """How far the intervals of several numbers reach that hold all together.

        A class that many resamples lack, as one seen in a single passage of a drive, has no bounds,
        and widens no other's.
        """
        deviations = self.deviations[:, indices]
        lacking = np.isinf(deviations)
        endless = lacking.mean(axis=0) > _LACKING
        most = np.where(lacking, 0.0, deviations)[:, ~endless].max(axis=1, initial=0.0)
        return {
            index: float("inf") if lost else self._times(most, index)
            for index, lost in zip(indices.tolist(), endless, strict=True)
        }

    def _times(self, deviations: Float, index: int) -> float:
        if self._one(index):
            return float("inf")
        if self.errors[index] == 0:
            return 0.0  # and not zero times infinity
        return float(self.errors[index] * np.quantile(deviations, self.level, method="higher"))

    def _one(self, index: int) -> bool:
        """Whether all rests on one image, or group, which says nothing of others.

        That is so however it is drawn, and however often it is there. Where none of the pixels
        differs, or all do, that they are alike is no chance.
        """
        repeated = self.alike and _ROUNDING < abs(self.values[index]) < 100 - _ROUNDING
        return bool(self.told[index] < 2 or repeated)

    def effective(self, index: int) -> float:
        """How many independent images would tell as much of a number: 1 to all of them."""
        if self._one(index):
            return 1.0
        variance = max(self.errors[index] ** 2, self.apart[index])
        if variance <= _ROUNDING**2:
            return float(self.images)
        return float(max(1.0, self.images * min(1.0, self.naive[index] / variance)))


def _how_often(drawn: npt.NDArray[np.int64], count: int) -> Float:
    """How often each of so many units is in each row of draws, float64."""
    rows = len(drawn)
    places = drawn + count * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count).astype(float)


def resample(images: Images, block: int | None, level: float, seed: int) -> Resamples:
    """Draws units anew, at least 2,000 times.

    Args:
        images: what they are drawn of.
        block: how many successive images are a unit; None: a whole group is.
        level: of the intervals to be made; the nearer to 1, the more resamples are drawn.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    units = images.units(block)
    count, draws = len(units.sums), units.draws
    rounds = max(2000, round(_BEYOND / (1 - level)))
    squares = np.square(units.terms)
    rise = draws / max(draws - 1, 1)
    errors = units.weight * np.sqrt(rise * draws * squares.mean(axis=0))
    parts = []
    for start in range(0, rounds, 1000):  # of weights: 4 MB for 500 units
        some = min(1000, rounds - start)
        weights = _how_often(random.integers(0, count, (some, draws)), count)
        sums = (weights @ units.sums.reshape(count, -1)).reshape(some, *units.sums.shape[1:])
        far = np.abs(_values(sums, images.mean) - images.values)
        spread = rise * (weights @ squares - (weights @ units.terms) ** 2 / draws)
        own = units.weight * np.sqrt(np.maximum(spread, 0))
        far[far < _ROUNDING] = 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append(np.where(far == 0, 0.0, far / np.maximum(own, _LEAST * errors)))
    deviations = np.concatenate(parts)
    deviations[np.isnan(deviations)] = np.inf  # a class that is in none of those drawn
    return Resamples(
        values=images.values,
        errors=errors,
        deviations=deviations,
        level=level,
        images=int(images.labelled.sum()),
        naive=images.naive(),
        apart=images.apart() if block is None else np.zeros_like(errors),
        told=images.told(block is None),
        alike=units.alike(),
    )
