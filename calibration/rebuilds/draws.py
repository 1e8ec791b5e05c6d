"""Which images each build is calibrated on, and which ones all of them are measured on."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from icnet_deploy.calibration.selection import (
    CHECKED,
    FEWEST,
    CalibrationSet,
    Checked,
    Pool,
    checked_on,
    spread,
)
from icnet_deploy.data import Dataset, content_hashes
from icnet_deploy.errors import ImageError, InputError
from icnet_deploy.images import ImageFile
from icnet_deploy.labels import LabelSet

_LEAST_POOL, _POOL = 1.5, 2.0
"""There are at least so many times the images of a draw to draw from, and better so many: of two
draws, each then has a third of its images, and half of them, for itself."""

_TRIED = 20  # seeds for each build: rare classes have few images, and may be drawn alike


@dataclass(frozen=True)
class Draws:
    """The images of each build.

    Attributes:
        seeds: of each draw.
        files: of each draw, its images; the first is drawn as if there were no other.
        kept_back: the images that none is drawn of, to measure on.
    """

    seeds: Sequence[int]
    files: Sequence[Sequence[Path]]
    kept_back: Sequence[Path] = ()

    def shared(self) -> float:
        """The share of its images that a draw has in common with another, in the mean, 0..1."""
        pairs = combinations(map(set, self.files), 2)
        return float(np.mean([len(a & b) / len(a) for a, b in pairs]))


def draw_each(pool: Pool, count: int, seed: int, builds: int, kept_back: int) -> Draws:
    """Draws the images of each build.

    Args:
        pool: what is drawn from.
        count: images of a draw.
        seed: of the first draw; the next are those of the seeds that follow, without one that
            draws the same images as one before.
        builds: how many draws.
        kept_back: how many images to keep back from all draws, to measure on; 0: there are others
            to measure on. Fewer, and at least `CHECKED`, where the draws would be too much alike.

    Raises:
        InputError: there are too few images for draws that differ.
    """
    total = len(pool.files)
    measured = CHECKED if kept_back else 0
    if total >= math.ceil(_LEAST_POOL * count) + measured:
        first = pool.draw(count, seed)
        others = sorted(set(pool.files) - set(first))
        spare = max(total - math.ceil(_POOL * count), measured)
        back = spread(others, min(kept_back, spare))
        draws = {tuple(first): seed}
        for following in range(seed + 1, seed + _TRIED * builds):
            draws.setdefault(tuple(pool.draw(count, following, set(back))), following)
            if len(draws) == builds:
                return Draws(tuple(draws.values()), tuple(draws), back)
    raise InputError(_too_few(total, count, builds, measured))


def _too_few(total: int, count: int, builds: int, measured: int) -> str:
    needed = math.ceil(_LEAST_POOL * count) + measured
    back = f", including {measured} to measure on" if measured else ""
    fits = math.floor((total - measured) / _LEAST_POOL)
    smaller = f", or a --count of at most {fits}" if fits >= FEWEST else ""
    return (
        f"{total} images are too few for {builds} different draws of {count}: expected at least "
        f"{needed}{back}; give more images{smaller}"
    )


@dataclass(frozen=True)
class Measured:
    """Images that all builds are measured on, none of which was calibrated on.

    Attributes:
        words: what they are.
        dataset: the images, with labels or without.
    """

    words: str
    dataset: Dataset

    def __str__(self) -> str:
        count = len(self.dataset)
        return f"{count} {self.words}" if count != 1 else f"1 of the {self.words}"


@dataclass(frozen=True)
class Chosen:
    """What each build is made of, and what they are measured on.

    Attributes:
        pool: what calibration images are drawn from.
        draws: of each build.
        sets: the same, checked.
        held_out: images that models are scored on; none was calibrated on.
        measured: what builds are measured on; None: they are not.
    """

    pool: Pool
    draws: Draws
    sets: Sequence[CalibrationSet]
    held_out: Sequence[Path]
    measured: Measured | None = None

    def checked(self, index: int) -> Checked:
        """What the labels of a build are compared with float32's on, before it is written."""
        images = self.sets[index]
        others = sorted(set(self.pool.files) - set(images.files))
        return checked_on(self.held_out, others, images)

    def measured_on(self, held_out: Sequence[Dataset], label_set: LabelSet, most: int) -> Chosen:
        """The same with images to measure on.

        Args:
            held_out: what `held_out` are of. The first is taken; where there is none, the images
                that were kept back from all draws.
            label_set: the classes of the model, which it gives photos.
            most: how many images, spread evenly.

        Raises:
            InputError: of those kept back, too few can be read and are no calibration image.
        """
        if held_out:
            dataset, words = held_out[0], "held-out images"
        else:
            hashes = {digest for each in self.sets for digest in each.hashes}
            dataset = _others(self.pool.dataset, set(self.draws.kept_back), hashes)
            words = "images that no build draws"
        if not dataset.labelled:
            dataset = replace(dataset, label_set=label_set)
        words = f"{words} of {dataset.name} {dataset.split}"
        return replace(self, measured=Measured(words, dataset.first(most)))


def _others(dataset: Dataset, kept_back: Collection[Path], hashes: set[str]) -> Dataset:
    """Those kept back that can be read and show none of the images with these content hashes."""

    def fits(file: Path) -> bool:
        with suppress(ImageError):  # nobody asked for this one
            return file in kept_back and not hashes & set(content_hashes(ImageFile(file)))
        return False

    files = tuple(pair for pair in dataset.files if fits(pair[0]))
    if len(files) < CHECKED:
        raise InputError(
            f"{len(files)} of the {len(kept_back)} images to measure the builds on can be read and "
            f"are no calibration images; expected at least {CHECKED}: give more images, or a "
            "smaller --count"
        )
    return replace(dataset, files=files)
