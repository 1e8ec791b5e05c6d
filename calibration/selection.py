"""The calibration set: which images, that they are fit for it, and that none is scored on later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.data import Dataset, content_hashes, open_image
from icnet_deploy.errors import DatasetError, ImageError, InputError
from icnet_deploy.files import find_files
from icnet_deploy.images import IMAGE_SUFFIXES, ImageFile, resize_image
from icnet_deploy.labels import IGNORE

UInt8 = npt.NDArray[np.uint8]
Size = tuple[int, int]

FEWEST = 8
"""Fewer images than this leave ranges to chance."""

_LEAST_SHARE = 1e-3  # of its pixels, for a class to count as shown by an image
_MOST_ENLARGED = 2.0
_MOST_DISTORTED = 2.0


@dataclass(frozen=True)
class CalibrationSet:
    """Images that ranges are taken from, decoded one at a time when they are asked for.

    Attributes:
        files: the images, in order.
        hashes: the content hash of each, as `icnet_deploy.data.content_hash` has it, before any
            resize, and then, of those with an EXIF orientation, of the pixels turned otherwise:
            what an artefact names them by, and scoring refuses.
        size: (height, width) in pixels that each is resized to, as `Predictor` does it.
        turn: whether they are turned as EXIF says.
    """

    files: tuple[Path, ...]
    hashes: tuple[str, ...]
    size: Size
    turn: bool = True

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[UInt8]:
        """Yields uint8 H x W x 3, RGB, of `size`."""
        return (resize_image(ImageFile(file).rgb(self.turn), self.size) for file in self.files)

    def first(self, count: int) -> CalibrationSet:
        """The same set cut to `count` images spread evenly over it, or all of them."""
        chosen = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        return CalibrationSet(
            tuple(self.files[i] for i in chosen),
            tuple(self.hashes[i] for i in chosen),
            self.size,
            self.turn,
        )


def choose(
    files: Sequence[Path], size: Size, held_out: Iterable[Path] = (), exif: str | None = "apply"
) -> CalibrationSet:
    """Makes the set of these images, or says why they cannot be one.

    Args:
        files: images, all of which are used.
        size: (height, width) of the graph's input.
        held_out: images that models are scored on.
        exif: "apply": they are turned as EXIF says; of a data set, its `exif`.

    Raises:
        DatasetError: one has an EXIF orientation, and the data set does not say what to make of
            it.
        InputError: there are too few, two are the same, or one is among those held out.
        ImageError: one cannot be decoded, or is too small or of another shape than the graph's.
    """
    if len(files) < FEWEST:
        raise InputError(
            f"{len(files)} images are too few to calibrate on: give at least {FEWEST}, better 32"
        )
    turn = exif != "ignore"
    owners: dict[str, Path] = {}
    stored: dict[str, Path] = {}
    for file in tqdm(files, desc="check", unit="image", disable=None):
        image = open_image(file, exif)
        _require_size(file, image.size(turn), size)
        digest, *others = content_hashes(image)[:: 1 if turn else -1]
        if digest in owners:
            raise InputError(
                f"{file} shows the same pixels as {owners[digest]}: an image counted twice would "
                "weigh twice; remove one"
            )
        owners[digest] = file
        stored |= dict.fromkeys(others, file)
    hashes = (*owners, *stored)
    owners = stored | owners
    for file in tqdm(list(held_out), desc="compare with held-out", unit="image", disable=None):
        for digest in content_hashes(ImageFile(file)):
            if digest in owners:
                raise InputError(
                    f"{owners[digest]} is the image {file} of the split that models are scored "
                    "on: a model calibrated on it would be flattered; take images of a training "
                    "split"
                )
    return CalibrationSet(tuple(files), hashes, size, turn)


def _require_size(file: Path, own: Size, size: Size) -> None:
    scales = [want / have for want, have in zip(size, own, strict=True)]
    text = f"{file} is {own[0]}x{own[1]}, the graph takes {size[0]}x{size[1]}"
    if min(scales) > _MOST_ENLARGED:
        raise ImageError(
            f"{text}: enlarged so far it shows nothing as sharp as the camera will; calibrate on "
            "larger images, or export the graph at their size"
        )
    if max(scales) > _MOST_DISTORTED * min(scales):
        raise ImageError(f"{text}: resized it would be distorted; calibrate on images of its shape")


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
    if count >= len(dataset):
        return sorted(image for image, _ in dataset.files)
    shown = _classes_shown(dataset)
    random = np.random.default_rng(seed)
    left = np.ones(len(dataset), bool)
    seen = np.zeros(shown.shape[1], np.int64)
    chosen: list[int] = []
    while len(chosen) < count:
        possible = left[:, None] & shown
        classes = np.flatnonzero(possible.any(axis=0))
        if classes.size:
            # Of classes seen equally often the rarest comes first: it has the fewest to offer.
            target = min(classes, key=lambda c: (seen[c], possible[:, c].sum()))
            candidates = np.flatnonzero(possible[:, target])
        else:
            candidates = np.flatnonzero(left)
        pick = int(random.choice(candidates))
        chosen.append(pick)
        left[pick] = False
        seen += shown[pick]
    return sorted(dataset.files[i][0] for i in chosen)


def _classes_shown(dataset: Dataset) -> npt.NDArray[np.bool_]:
    """Which classes each image shows: images x classes."""
    shown = np.zeros((len(dataset), len(dataset.label_set)), bool)
    for index, (_, labels) in enumerate(
        tqdm(dataset.files, desc="classes", unit="image", disable=None)
    ):
        try:
            counts = np.bincount(dataset.read_labels(labels).ravel(), minlength=256)[:IGNORE]
        except ImageError as error:
            raise DatasetError(f"labels of a calibration image: {error}") from error
        shown[index] = counts[: shown.shape[1]] > _LEAST_SHARE * max(int(counts.sum()), 1)
    return shown


def image_files(folder: Path) -> list[Path]:
    """Every image below a folder, linked sub-folders included, sorted.

    Raises:
        DatasetError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DatasetError(f"the folder of images {folder} does not exist")
    found = find_files(folder, IMAGE_SUFFIXES)
    if not found.files:
        raise DatasetError(f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return list(found.files)
