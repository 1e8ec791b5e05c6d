"""One training crop of a sample: resized, mirrored and in other colours."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from icnet_deploy.data import Sample
from icnet_deploy.labels import IGNORE
from icnet_deploy.training.appearance import Appearance, changed


def augment(
    sample: Sample,
    crop: tuple[int, int],
    resize: tuple[float, float],
    rng: np.random.Generator,
    colour: float = 1.0,
    appearance: Appearance | None = None,
    *,
    pixel_aspect: float = 1.0,
    aim: tuple[int, int] | None = None,
    paste: Callable[[Sample], Sample] | None = None,
) -> Sample:
    """Draws one training crop.

    The window is cut from the source first and resized then, so the cost is that of the crop. Past
    the image's edge it is filled with its mirror image, labelled 255 with the weight 0.

    Args:
        sample: of any size.
        crop: (height, width) of what is returned.
        resize: (least, most) factor; the factor is drawn log-uniformly, and its two sides differ
            by up to 15 %.
        rng: the source of randomness.
        colour: strength of the changes of colour, blur and noise; 0 for none.
        appearance: which changes; None: slight ones. See `changed`.
        pixel_aspect: how much wider than high the sample's pixels are.
        aim: (row, column) of a pixel of the sample that the window holds; None: it may be anywhere.
        paste: what is done to the crop before its colours are changed.

    Returns:
        The crop, its arrays contiguous.
    """
    import cv2

    image = sample.image
    factor = float(np.exp(rng.uniform(np.log(resize[0]), np.log(resize[1]))))
    aspect = float(np.exp(rng.uniform(-0.07, 0.07)))
    height = max(2, round(crop[0] / (factor * aspect)))
    width = max(2, round(crop[1] / (factor / aspect * pixel_aspect)))
    row, column = (None, None) if aim is None else aim
    rows = _window(image.shape[0], height, rng, row)
    cols = _window(image.shape[1], width, rng, column)
    inside = np.ix_(
        np.abs(np.clip(rows, 0, image.shape[0] - 1) - rows) == 0,
        np.abs(np.clip(cols, 0, image.shape[1] - 1) - cols) == 0,
    )
    grid = np.ix_(_mirrored(rows, image.shape[0]), _mirrored(cols, image.shape[1]))
    patch = image[grid]
    maps = [(sample.labels, IGNORE)]
    if sample.weights is not None:
        maps.append((sample.weights, 0))
    mode = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    patch = np.asarray(cv2.resize(patch, crop[::-1], interpolation=mode), np.uint8)
    cropped = []
    for values, outside in maps:
        part = np.full((height, width), outside, np.uint8)
        part[inside] = values[grid][inside]
        cropped.append(
            np.asarray(cv2.resize(part, crop[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
        )
    if rng.random() < 0.5:
        patch, cropped = patch[:, ::-1], [part[:, ::-1] for part in cropped]
    labels, *weights = map(np.ascontiguousarray, cropped)
    cut = replace(sample, image=patch, labels=labels, weights=next(iter(weights), None), other=None)
    return changed(cut if paste is None else paste(cut), rng, colour, appearance)


def _window(
    side: int, length: int, rng: np.random.Generator, aim: int | None = None
) -> npt.NDArray[np.int64]:
    """Positions of a window along one side, which holds `aim`; of one that is longer, all of it."""
    low, high = sorted((0, side - length))
    if aim is not None and length < side:
        low, high = max(low, aim - length + 1), min(high, aim)
    start = int(rng.integers(low, high + 1))
    return np.arange(start, start + length)


def _mirrored(positions: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.int64]:
    folded = np.abs(positions) % (2 * side)
    return np.asarray(np.where(folded >= side, 2 * side - 1 - folded, folded))
