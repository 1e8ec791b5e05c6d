"""How a training crop looks: its light, colours, weather, sharpness and grain, drawn each time.

A network that sees one camera in one month's weather takes another camera's green cast for grass.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from icnet_deploy.data import Sample
from icnet_deploy.errors import InputError
from icnet_deploy.labels import IGNORE
from icnet_deploy.training.kinds import numbers

UInt8 = npt.NDArray[np.uint8]
Curves = npt.NDArray[np.float32]
"""float32 256 x 3: what each channel's value becomes, 0..1."""

Pair = tuple[float, float]

_LUMA = np.array([0.299, 0.587, 0.114])
"""The weights of red, green and blue in a grey image (ITU-R BT.601)."""

_LEAST_TONED = 0.2
"""Of the strengths of exposure to contrast, what the least changed crop has."""

_FIELD = 4
"""Shadows and haze are drawn on a grid that is so many times coarser than the crop."""


@dataclass(frozen=True)
class Appearance:
    """How strongly each thing changes; 0 leaves it as it is. InputError for what is out of range.

    Of a pair the first is the chance that a crop is changed so, and the second how strongly at
    most. The changes are done in this order, which is light's way: scene, lens, sensor, file.

    Attributes:
        shadow: (chance, the share of light that is lost).
        haze: (chance, the share of airlight at the horizon).
        blur: (chance, pixels): the deviation of a Gaussian, or half the length of a motion.
        exposure: stops up or down, in linear light; what is too bright is cut off.
        white_balance: of the natural logarithm of a gain in linear light: of red against blue
            (daylight's axis) and, half as much, of green against both.
        channels: of the natural logarithm of each channel's gain: 0.4 is -33 to +49 %.
        gamma: of the natural logarithm of the exponent.
        contrast: of the natural logarithm of the gain about middle grey.
        saturation: 1 is from grey to half as much again.
        noise: (chance, the deviation as a share of white).
        jpeg: (chance, by how much a JPEG's quality is below 100).
        erase: (chance, the share of the crop): rectangles of noise or of the mean colour, which are
            not learned (Zhong et al., "Random erasing data augmentation", arXiv 1708.04896).
    """

    shadow: Pair = (0.25, 0.65)
    haze: Pair = (0.2, 0.6)
    blur: Pair = (0.15, 2.0)
    exposure: float = 1.0
    white_balance: float = 0.3
    channels: float = 0.35
    gamma: float = 0.3
    contrast: float = 0.25
    saturation: float = 0.8
    noise: Pair = (0.25, 0.04)
    jpeg: Pair = (0.2, 85.0)
    erase: Pair = (0.2, 0.12)

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            if not kind.fits(value := getattr(self, name)):
                raise InputError(f"appearance.{name} is {kind.words}; got {value!r}")

    @classmethod
    def of(cls, table: Mapping[str, object]) -> "Appearance":
        """Reads the table `[appearance]` of a configuration; InputError if it is none."""
        known = [f.name for f in fields(cls)]
        if unknown := sorted(table.keys() - known):
            raise InputError(f"appearance holds {', '.join(unknown)}; known: {', '.join(known)}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        return cls(**values)  # type: ignore[arg-type]  # it says itself what is wrong


def _pair(words: str, most: float) -> tuple[str, Callable[..., bool], tuple[int, ...]]:
    return (
        f"(a chance from 0 to 1, {words} from 0 to {most:g})",
        lambda chance, strength: 0 <= chance <= 1 and 0 <= strength <= most,
        (2,),
    )


_STRENGTH = numbers("a strength from 0 to 2", lambda x: 0 <= x <= 2)
_KINDS = {
    "shadow": numbers(*_pair("a share of light", 1)),
    "haze": numbers(*_pair("a share of airlight", 1)),
    "blur": numbers(*_pair("pixels", 20)),
    "exposure": numbers("stops from 0 to 5", lambda x: 0 <= x <= 5),
    **dict.fromkeys(("white_balance", "channels", "gamma", "contrast"), _STRENGTH),
    "saturation": numbers("a strength from 0 to 1", lambda x: 0 <= x <= 1),
    "noise": numbers(*_pair("a share of white", 1)),
    "jpeg": numbers(*_pair("a loss of quality", 99)),
    "erase": numbers(*_pair("a share of the crop", 1)),
}


def changed(
    crop: Sample, rng: np.random.Generator, strength: float, appearance: Appearance | None
) -> Sample:
    """A crop as another camera might have taken it on another day.

    Args:
        crop: of any size; its labels change where it is erased: 255.
        rng: the source of randomness.
        strength: of all changes, times those of `appearance`; 0 for none.
        appearance: which changes; None: slight ones of colour, blur and noise (`_slight`).

    Returns:
        The crop, its image contiguous.
    """
    image = np.ascontiguousarray(crop.image)
    if not strength:
        return replace(crop, image=image)
    if appearance is None:
        return replace(crop, image=_slight(image, rng, strength))
    for name, change in _OF_THE_SCENE.items():
        image = _perhaps(change, image, getattr(appearance, name), strength, rng)
    image = _toned(image, appearance, strength, rng)
    for name, change in _OF_THE_SENSOR.items():
        image = _perhaps(change, image, getattr(appearance, name), strength, rng)
    labels = crop.labels
    chance, share = appearance.erase
    if rng.random() < chance:
        image, labels = _erased(image, labels, min(1.0, strength * share), rng)
    return replace(crop, image=image, labels=labels)


_Change = Callable[[UInt8, float, np.random.Generator], UInt8]
"""From an image, uint8 h x w x 3, RGB, the most that may be changed, and the source of
randomness, to another of its size."""


def _perhaps(
    change: _Change, image: UInt8, pair: Pair, strength: float, rng: np.random.Generator
) -> UInt8:
    chance, most = pair
    return change(image, strength * most, rng) if rng.random() < chance else image


def _slight(image: UInt8, rng: np.random.Generator, strength: float) -> UInt8:
    """Brightness, contrast, gamma, colour cast, saturation, blur and noise."""
    import cv2

    # What works on each value alone is worked out for the 256 values that there are.
    value = np.arange(256, dtype=np.float32)[:, None] / 255
    value = value ** float(np.exp(strength * rng.uniform(-0.25, 0.25)))
    gain = np.exp(strength * rng.uniform(-0.06, 0.06, 3)).astype(np.float32)
    value = (value - 0.5) * (gain * np.float32(np.exp(strength * rng.uniform(-0.25, 0.25))))
    value += np.float32(0.5 + strength * rng.uniform(-0.1, 0.1))
    x = np.asarray(cv2.LUT(image, value[:, None, :]))
    colour = float(1 + strength * rng.uniform(-0.4, 0.4))
    x = np.asarray(cv2.transform(x, np.full((3, 3), (1 - colour) / 3) + colour * np.eye(3)))
    chance = rng.random()
    if chance < 0.15:
        x = np.asarray(cv2.GaussianBlur(x, (0, 0), strength * float(rng.uniform(0.4, 1.2))))
    elif chance < 0.35:
        sigma = strength * rng.uniform(0.01, 0.04)
        x += rng.normal(0, sigma, (*x.shape[:2], 1)).astype(np.float32)
    return np.asarray(np.clip(x * 255, 0, 255), np.uint8)


def _toned(
    image: UInt8, appearance: Appearance, strength: float, rng: np.random.Generator
) -> UInt8:
    """Exposure, white balance, gains, gamma and contrast, as one table; then saturation."""
    import cv2

    most = min(1.0, strength * appearance.saturation)
    strength *= float(rng.uniform(_LEAST_TONED, 1))  # so that some crops keep their tones
    curves = np.repeat(np.linspace(0, 1, 256, dtype=np.float32)[:, None], 3, 1)
    for name, change in _OF_VALUES.items():
        curves = change(curves, strength * getattr(appearance, name), rng)
    table = np.clip(curves * 255 + 0.5, 0, 255).astype(np.uint8)
    toned = cv2.LUT(image, table[:, None, :])
    if not most:
        return np.asarray(toned, np.uint8)
    colour = float(rng.uniform(1 - most, 1 + most / 2))
    matrix = colour * np.eye(3) + (1 - colour) * _LUMA[None]
    return np.asarray(cv2.transform(toned, matrix), np.uint8)


def _exposed(curves: Curves, stops: float, rng: np.random.Generator) -> Curves:
    return _in_light(curves, np.exp2(rng.uniform(-stops, stops, 1)))


def _balanced(curves: Curves, strength: float, rng: np.random.Generator) -> Curves:
    warm, green = rng.uniform(-strength, strength), rng.uniform(-strength, strength) / 2
    return _in_light(curves, np.exp([warm - green, green, -warm - green]))


def _in_light(curves: Curves, gains: npt.NDArray[np.float64]) -> Curves:
    """Multiplies the light, of which sRGB's values are a curve (IEC 61966-2-1)."""
    light = np.where(curves <= 0.04045, curves / 12.92, ((curves + 0.055) / 1.055) ** 2.4)
    light = np.clip(light * gains, 0, 1)
    values = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return values.astype(np.float32)


def _gained(curves: Curves, strength: float, rng: np.random.Generator) -> Curves:
    return np.asarray(np.clip(curves * np.exp(rng.uniform(-strength, strength, 3)), 0, 1), "f4")


def _bent(curves: Curves, strength: float, rng: np.random.Generator) -> Curves:
    return np.asarray(curves ** float(np.exp(rng.uniform(-strength, strength))))


def _stretched(curves: Curves, strength: float, rng: np.random.Generator) -> Curves:
    return np.asarray((curves - 0.5) * float(np.exp(rng.uniform(-strength, strength))) + 0.5)


def _shadowed(image: UInt8, most: float, rng: np.random.Generator) -> UInt8:
    """A band, as of a house, or a polygon, as of a tree or a car, or two of them."""
    import cv2

    height, width = (max(1, side // _FIELD) for side in image.shape[:2])
    light = np.ones((height, width), np.float32)
    for _ in range(int(rng.integers(1, 3))):
        dark = 1 - min(1.0, most) * float(rng.uniform(0.4, 1))
        if rng.random() < 0.5:
            across = rng.random() < 0.7
            ends = np.sort(rng.uniform(-0.2, 1.2, (2, 2)), axis=0)
            corners = [(0, ends[0, 0]), (1, ends[0, 1]), (1, ends[1, 1]), (0, ends[1, 0])]
            points = np.array(corners)[:, :: 1 if across else -1]
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(4, 9))))
            reach = rng.uniform(0.1, 0.5, (len(angles), 1))
            points = rng.random(2) + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
        corner = np.round(points * (width, height)).astype(np.int32)
        cv2.fillPoly(light, [corner], dark)
    light = np.asarray(cv2.GaussianBlur(light, (0, 0), float(rng.uniform(0.4, 3))))
    return _veiled(image, light, None)


def _hazy(image: UInt8, most: float, rng: np.random.Generator) -> UInt8:
    """Airlight, the more of it the farther the road is, and most from the horizon up.

    A level road at the row y below the horizon h is 1 / (y - h) away, and the light of what is
    there falls exponentially with the distance (Koschmieder's law).
    """
    height, width = (max(1, side // _FIELD) for side in image.shape[:2])
    horizon = float(rng.uniform(-0.1, 0.7))
    below = np.maximum((np.arange(height, dtype=np.float32) + 0.5) / height - horizon, 0)
    most = min(1.0, most) * float(rng.uniform(0.3, 1))
    clear = (1 - most) ** (1 / (1 + below / 0.08))
    airlight = rng.uniform(0.6, 0.95) * np.exp(rng.uniform(-0.06, 0.06, 3))
    light = np.repeat(np.asarray(clear, np.float32)[:, None], width, 1)
    return _veiled(image, light, np.minimum(airlight, 1))


def _veiled(
    image: UInt8, light: npt.NDArray[np.float32], veil: npt.NDArray[np.float64] | None
) -> UInt8:
    """The share `light` of an image, 0..1, at any size, and of the rest a colour, if there is one.

    Args:
        image: uint8 h x w x 3.
        light: float32, a coarser grid.
        veil: of 3, 0..1.
    """
    import cv2

    grid, size = np.round(light * 255).astype(np.uint8), image.shape[1::-1]
    fine = cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR)
    dimmed = cv2.multiply(image, cv2.merge([fine] * 3), scale=1 / 255)
    if veil is None:
        return np.asarray(dimmed, np.uint8)
    table = np.round((255 - np.arange(256))[:, None] * veil).astype(np.uint8)
    return np.asarray(cv2.add(dimmed, cv2.LUT(cv2.merge([fine] * 3), table[:, None])), np.uint8)


def _blurred(image: UInt8, most: float, rng: np.random.Generator) -> UInt8:
    import cv2

    reach = float(rng.uniform(0.2, 1)) * most
    if rng.random() < 0.6:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), max(reach, 0.1)), np.uint8)
    half = int(np.ceil(reach))
    angle = float(rng.normal(0, 0.5))  # a car turns more than it nods
    ends = [(round(16 * (half + s * reach * np.cos(angle))),
             round(16 * (half + s * reach * np.sin(angle)))) for s in (-1, 1)]  # fmt: skip
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    cv2.line(kernel, ends[0], ends[1], 1.0, shift=4)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def _noisy(image: UInt8, most: float, rng: np.random.Generator) -> UInt8:
    """Grain, of all channels alike or of each by itself."""
    import cv2

    channels = 3 if rng.random() < 0.5 else 1
    grain = rng.standard_normal((*image.shape[:2], channels), np.float32)
    grain *= 255 * most * float(rng.uniform(0.2, 1))
    if channels == 1:
        grain = np.asarray(cv2.merge([grain[..., 0]] * 3))
    return np.asarray(cv2.add(image, grain, dtype=cv2.CV_8U), np.uint8)


def _compressed(image: UInt8, most: float, rng: np.random.Generator) -> UInt8:
    import cv2

    quality = max(1, round(100 - most * float(rng.uniform(0.2, 1))))
    coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(np.asarray(decoded), cv2.COLOR_BGR2RGB), np.uint8)


def _erased(
    image: UInt8, labels: UInt8, most: float, rng: np.random.Generator
) -> tuple[UInt8, UInt8]:
    """One to three rectangles, together of up to a share of the crop."""
    image, labels = image.copy(), labels.copy()
    height, width = labels.shape
    count = int(rng.integers(1, 4))
    for _ in range(count):
        area = float(rng.uniform(0.1, 1)) * most * height * width / count
        shape = float(np.exp(rng.uniform(-1, 1)))
        rows = int(np.clip(np.sqrt(area * shape), 1, height))
        columns = int(np.clip(np.sqrt(area / shape), 1, width))
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        place = np.s_[top : top + rows, left : left + columns]
        if rng.random() < 0.5:
            image[place] = rng.integers(0, 256, (rows, columns, 3), np.uint8)
        else:
            image[place] = image[::8, ::8].mean((0, 1))
        labels[place] = IGNORE
    return image, labels


_OF_THE_SCENE: Mapping[str, _Change] = {"shadow": _shadowed, "haze": _hazy, "blur": _blurred}
_OF_VALUES: Mapping[str, Callable[[Curves, float, np.random.Generator], Curves]] = {
    "exposure": _exposed,
    "white_balance": _balanced,
    "channels": _gained,
    "gamma": _bent,
    "contrast": _stretched,
}
_OF_THE_SENSOR: Mapping[str, _Change] = {"noise": _noisy, "jpeg": _compressed}
