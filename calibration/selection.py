"""Which images are calibrated on, and which the 8-bit graph is then compared with float32 on.

The first are fit for it, and none is scored on later. The second are none of them: on those that
ranges were taken from any graph agrees with its origin, and one that was calibrated on pictures of
nothing agrees on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.calibration.content import nothing_in
from icnet_deploy.data import Dataset, content_hashes, open_image
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import DatasetError, ImageError, InputError
from icnet_deploy.images import Fitting, ImageFile, UInt8
from icnet_deploy.labels import IGNORE

Size = tuple[int, int]
Item = TypeVar("Item")

FEWEST = 8
"""Fewer images than this leave ranges to chance."""

CHECKED = 8
"""Images that labels are compared on."""

_TRIED = 32  # files that are read to find as many that show something
_SEED = 91_000  # of no scene that is trained or scored on

_LEAST_SHARE = 1e-3  # of its pixels, for a class to count as shown by an image
_MOST_ENLARGED = 2.0
_MOST_DISTORTED = 2.0

_STRETCH = Fitting()


@dataclass(frozen=True)
class CalibrationSet:
    """Images that ranges are taken from, decoded one at a time when they are asked for.

    Attributes:
        files: the images, in order.
        hashes: the content hash of each, as `icnet_deploy.data.content_hash` has it, before any
            resize, and then, of those with an EXIF orientation, of the pixels turned otherwise:
            what an artefact names them by, and scoring refuses.
        size: (height, width) in pixels that each is brought to, as `Predictor` does it.
        turn: whether they are turned as EXIF says.
        fitting: how each comes to the size.
    """

    files: tuple[Path, ...]
    hashes: tuple[str, ...]
    size: Size
    turn: bool = True
    fitting: Fitting = _STRETCH

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[UInt8]:
        """Yields uint8 H x W x 3, RGB, of `size`."""
        return map(self.read, self.files)

    def read(self, file: Path) -> UInt8:
        """An image, one of these or another, as the graph gets it."""
        return self.fitting.apply(ImageFile(file).rgb(self.turn), self.size).pixels

    def first(self, count: int) -> CalibrationSet:
        """The same set cut to `count` images spread evenly over it, or all of them."""
        files, hashes = spread(self.files, count), spread(self.hashes[: len(self)], count)
        return replace(self, files=tuple(files), hashes=tuple(hashes))


def choose(
    files: Sequence[Path],
    size: Size,
    held_out: Iterable[Path] = (),
    exif: str | None = "apply",
    fitting: Fitting = _STRETCH,
) -> CalibrationSet:
    """Makes the set of these images, or says why they cannot be one.

    Args:
        files: images, all of which are used.
        size: (height, width) of the graph's input.
        held_out: images that models are scored on.
        exif: "apply": they are turned as EXIF says; of a data set, its `exif`.
        fitting: how an image comes to the graph; of a model, `Fitting.of` its metadata.

    Raises:
        DatasetError: one has an EXIF orientation, and the data set does not say what to make of
            it.
        InputError: there are too few, two are the same, or one is among those held out.
        ImageError: one cannot be decoded, or is too small or of another shape than the graph's.
    """
    return choose_each([files], size, held_out, exif, fitting)[0]


def choose_each(
    draws: Sequence[Sequence[Path]],
    size: Size,
    held_out: Iterable[Path] = (),
    exif: str | None = "apply",
    fitting: Fitting = _STRETCH,
) -> list[CalibrationSet]:
    """Makes a set of each of several draws as `choose` does; each image is decoded once."""
    if fewest := next((len(files) for files in draws if len(files) < FEWEST), None):
        images = "image is" if fewest == 1 else "images are"
        raise InputError(
            f"{fewest} {images} too few to calibrate on: give at least {FEWEST}, better 32, all "
            "different"
        )
    turn = exif != "ignore"
    hashes: dict[Path, tuple[str, ...]] = {}
    files = dict.fromkeys(chain.from_iterable(draws))
    for file in tqdm(files, desc="check", unit="image", disable=None):
        image = open_image(file, exif)
        _require_size(file, image.size(turn), size, fitting.fit)
        hashes[file] = content_hashes(image)[:: 1 if turn else -1]
    sets = [_set_of(draw, hashes, CalibrationSet((), (), size, turn, fitting)) for draw in draws]
    owners = {digest: file for file, digests in hashes.items() for digest in digests}
    for file in tqdm(list(held_out), desc="compare with held-out", unit="image", disable=None):
        for digest in content_hashes(ImageFile(file)):
            if digest in owners:
                raise InputError(
                    f"{owners[digest]} shows the same pixels as {file}, which models are scored "
                    "on: a model that is calibrated on it would score too well; take images of a "
                    "training split"
                )
    return sets


def _set_of(
    files: Sequence[Path], hashes: Mapping[Path, tuple[str, ...]], empty: CalibrationSet
) -> CalibrationSet:
    owners: dict[str, Path] = {}
    for file in files:
        digest = hashes[file][0]
        if digest in owners:
            raise InputError(
                f"{file} shows the same pixels as {owners[digest]}, and no image may count twice: "
                "remove one of them"
            )
        owners[digest] = file
    others = dict.fromkeys(digest for file in files for digest in hashes[file][1:])
    return replace(empty, files=tuple(files), hashes=(*owners, *others))


def _require_size(file: Path, own: Size, size: Size, fit: str) -> None:
    scales = [want / have for want, have in zip(size, own, strict=True)]
    text = f"{file} is {own[0]}x{own[1]}, and the graph takes {size[0]}x{size[1]}"
    if min(scales) > _MOST_ENLARGED:
        raise ImageError(
            f"{text}: enlarged that much, the image is less sharp than those of the camera; "
            "calibrate on larger images, or export the network at their size"
        )
    if fit != "letterbox" and max(scales) > _MOST_DISTORTED * min(scales):
        raise ImageError(
            f"{text}: resizing would distort the image; calibrate on images of the graph's shape"
        )


@dataclass(frozen=True)
class Pool:
    """Images that may be calibrated on, of which some are drawn.

    Attributes:
        dataset: a training split, whose draws are `stratified`, or photos without labels.
    """

    dataset: Dataset

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The images, in the order that draws number them: the data set's, or photos by name."""
        files = [image for image, _ in self.dataset.files]
        return tuple(files if self.dataset.labelled else sorted(files))

    def draw(self, count: int, seed: int, without: Collection[Path] = ()) -> list[Path]:
        """Draws images; the same seed draws the same.

        Args:
            count: how many; all of them where there are no more.
            seed: of the draw.
            without: images that are not drawn.

        Returns:
            The image files, sorted.
        """
        left = np.array([file not in without for file in self.files], bool)
        if count >= left.sum():
            chosen = np.flatnonzero(left)
        elif self.dataset.labelled:
            chosen = _stratified(self._shown, count, seed, left)
        else:
            order = np.random.default_rng(seed).permutation(len(self.files))
            chosen = order[left[order]][:count]
        return sorted(self.files[index] for index in chosen)

    @cached_property
    def _shown(self) -> npt.NDArray[np.bool_]:
        return _classes_shown(self.dataset)


def stratified(dataset: Dataset, count: int, seed: int = 0) -> list[Path]:
    """Draws images so that rare classes are in the set as often as frequent ones, as far as may be.

    The next image is always drawn among those that show the class which the images so far show
    least often. A class is shown where it covers a thousandth of the labelled pixels.

    Args:
        dataset: a training split.
        count: how many; all of them where it holds no more.
        seed: of the draw: the same seed draws the same images.

    Returns:
        The image files, sorted.
    """
    return Pool(dataset).draw(count, seed)


def _stratified(
    shown: npt.NDArray[np.bool_], count: int, seed: int, allowed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.intp]:
    """Which of the allowed images are drawn, of the classes that each of all shows."""
    random = np.random.default_rng(seed)
    left = allowed.copy()
    seen = np.zeros(shown.shape[1], np.int64)
    for _ in range(count):
        possible = left[:, None] & shown
        classes = np.flatnonzero(possible.any(axis=0))
        if classes.size:
            # Of classes seen equally often the rarest comes first: it has the fewest to offer.
            target = min(classes, key=lambda c: (seen[c], possible[:, c].sum()))
            candidates = np.flatnonzero(possible[:, target])
        else:
            candidates = np.flatnonzero(left)
        pick = int(random.choice(candidates))
        left[pick] = False
        seen += shown[pick]
    return np.flatnonzero(allowed & ~left)


def _classes_shown(dataset: Dataset) -> npt.NDArray[np.bool_]:
    """Which classes each image shows: images x classes."""
    shown = np.zeros((len(dataset), len(dataset.label_set)), bool)
    for index, (_, labels) in enumerate(
        tqdm(dataset.files, desc="classes", unit="image", disable=None)
    ):
        try:
            counts = np.bincount(dataset.read_labels(labels).ravel(), minlength=256)[:IGNORE]
        except ImageError as error:
            raise DatasetError(f"cannot read the labels of a calibration image: {error}") from error
        shown[index] = counts[: shown.shape[1]] > _LEAST_SHARE * max(int(counts.sum()), 1)
    return shown


class Checked(NamedTuple):
    """Images to compare on.

    Attributes:
        words: what they are, e.g. "8 held-out images".
        images: yields them anew at each call: uint8 H x W x 3, of the graph's size.
    """

    words: str
    images: Callable[[], Iterator[UInt8]]


def checked_on(
    held_out: Sequence[Path], kept_back: Sequence[Path], calibrated: CalibrationSet
) -> Checked:
    """Chooses up to `CHECKED` images that show something, none of which was calibrated on.

    Args:
        held_out: images that models are scored on.
        kept_back: those of the images to calibrate on that were not used.
        calibrated: those that were.

    Returns:
        Of the first of the two that has any; drawn scenes, as dark as those, if neither has.
    """

    def shows(file: Path) -> bool:
        with suppress(ImageError):  # nobody asked for this one
            own = set(content_hashes(ImageFile(file))) & set(calibrated.hashes)
            return not own and not nothing_in(calibrated.read(file))
        return False

    for words, files in (("held-out", held_out), ("unused", kept_back)):
        some = _some(files, shows)
        if some:
            images = f"{len(some)} {words} images" if len(some) > 1 else f"1 {words} image"
            return Checked(images, partial(map, calibrated.read, some))
    brightness = float(np.mean([image.mean() for image in calibrated.first(CHECKED)]))
    return Checked(
        f"{CHECKED} drawn scenes (every image that shows something was calibrated on: name others "
        "with --held-out)",
        partial(_drawn, calibrated.size, brightness),
    )


def _drawn(size: Size, brightness: float) -> Iterator[UInt8]:
    """Scenes no brighter, in the mean, than the images that were calibrated on: no day for a night.

    Their ranges are not meant for more light: of 16 night frames 77 % of the labels of a scene by
    day were the float32 graph's, and 99 % of one that was darkened to them.
    """
    for index in range(CHECKED):
        scene = draw_scene((_SEED, index), size).image
        yield (scene * min(1.0, brightness / scene.mean())).astype(np.uint8)


def _some(files: Sequence[Path], shows: Callable[[Path], bool]) -> list[Path]:
    """Up to `CHECKED` files that show something, spread evenly over all if these do."""
    tried = dict.fromkeys((*spread(files, CHECKED), *spread(files, _TRIED)))
    return list(islice(filter(shows, tried), CHECKED))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Up to `count` of them, spread evenly over all."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[index] for index in chosen]
