"""One training crop of a sample: resized, mirrored and in other colours."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from icnet_deploy.data import Sample
from icnet_deploy.labels import IGNORE

UInt8 = npt.NDArray[np.uint8]


def augment(
    sample: Sample,
    crop: tuple[int, int],
    resize: tuple[float, float],
    rng: np.random.Generator,
    colour: float = 1.0,
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

    Returns:
        The crop, its arrays contiguous.
    """
    import cv2

    image = sample.image
    factor = float(np.exp(rng.uniform(np.log(resize[0]), np.log(resize[1]))))
    aspect = float(np.exp(rng.uniform(-0.07, 0.07)))
    height = max(2, round(crop[0] / (factor * aspect)))
    width = max(2, round(crop[1] / (factor / aspect)))
    rows = _window(image.shape[0], height, rng)
    cols = _window(image.shape[1], width, rng)
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
    patch = _photometric(patch, rng, colour) if colour else np.ascontiguousarray(patch)
    labels, *weights = map(np.ascontiguousarray, cropped)
    return replace(
        sample, image=patch, labels=labels, weights=next(iter(weights), None), other=None
    )


def _window(side: int, length: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Positions of a window along one side; centred about the image where it is longer."""
    low, high = sorted((0, side - length))
    start = int(rng.integers(low, high + 1))
    return np.arange(start, start + length)


def _mirrored(positions: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.int64]:
    folded = np.abs(positions) % (2 * side)
    return np.asarray(np.where(folded >= side, 2 * side - 1 - folded, folded))


def _photometric(image: UInt8, rng: np.random.Generator, strength: float) -> UInt8:
    """Brightness, contrast, gamma, colour cast, saturation, blur and noise."""
    import cv2

    # What works on each value alone is worked out for the 256 values that there are.
    value = np.arange(256, dtype=np.float32)[:, None] / 255
    value = value ** float(np.exp(strength * rng.uniform(-0.25, 0.25)))
    gain = np.exp(strength * rng.uniform(-0.06, 0.06, 3)).astype(np.float32)
    value = (value - 0.5) * (gain * np.float32(np.exp(strength * rng.uniform(-0.25, 0.25))))
    value += np.float32(0.5 + strength * rng.uniform(-0.1, 0.1))
    x = np.asarray(cv2.LUT(np.ascontiguousarray(image), value[:, None, :]))
    colour = float(1 + strength * rng.uniform(-0.4, 0.4))
    x = np.asarray(cv2.transform(x, np.full((3, 3), (1 - colour) / 3) + colour * np.eye(3)))
    chance = rng.random()
    if chance < 0.15:
        x = np.asarray(cv2.GaussianBlur(x, (0, 0), strength * float(rng.uniform(0.4, 1.2))))
    elif chance < 0.35:
        sigma = strength * rng.uniform(0.01, 0.04)
        x += rng.normal(0, sigma, (*x.shape[:2], 1)).astype(np.float32)
    return np.asarray(np.clip(x * 255, 0, 255), np.uint8)
