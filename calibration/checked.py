"""What an 8-bit graph is compared with its float32 graph on: images that it was not calibrated on.

On those that ranges were taken from, any graph agrees with its origin, and one that was calibrated
on pictures of nothing agrees on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from icnet_deploy.calibration.content import nothing_in
from icnet_deploy.calibration.selection import CalibrationSet
from icnet_deploy.data import content_hashes
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import ImageError
from icnet_deploy.images import ImageFile, resize_image

UInt8 = npt.NDArray[np.uint8]
Size = tuple[int, int]

CHECKED = 8
"""Images that labels are compared on."""

_TRIED = 32  # files that are read to find as many that show something
_SEED = 91_000  # of no scene that is trained or scored on


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
    size = calibrated.size

    def read(file: Path) -> UInt8:
        return resize_image(ImageFile(file).rgb(calibrated.turn), size)

    def shows(file: Path) -> bool:
        with suppress(ImageError):  # nobody asked for this one
            own = set(content_hashes(ImageFile(file))) & set(calibrated.hashes)
            return not own and not nothing_in(read(file))
        return False

    for words, files in (("held-out", held_out), ("kept back", kept_back)):
        some = _some(files, shows)
        if some:
            images = f"{len(some)} {words} images" if len(some) > 1 else f"1 {words} image"
            return Checked(images, partial(map, read, some))
    return Checked(
        f"{CHECKED} drawn scenes (no other image was left that shows something: name some with "
        "--held-out)",
        partial(
            _drawn, size, float(np.mean([image.mean() for image in calibrated.first(CHECKED)]))
        ),
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
    found: list[Path] = []
    for file in dict.fromkeys((*_spread(files, CHECKED), *_spread(files, _TRIED))):
        if len(found) < CHECKED and shows(file):
            found.append(file)
    return found


def _spread(files: Sequence[Path], count: int) -> list[Path]:
    chosen = np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)
    return [files[index] for index in chosen]
