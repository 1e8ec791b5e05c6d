"""The same frames under other light: how far a score moves with it is what is asked.

They are no part of the training's changes of appearance, which they judge.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from icnet_deploy.images import UInt8

_Change = Callable[[UInt8], UInt8]
"""From uint8 H x W x 3, RGB, to the same scene under other light."""


class _Look(NamedTuple):
    """What it does, in words, and that, by the same measure on every frame."""

    words: str
    change: _Change


PLAIN = "plain"
"""The frames as they are."""

_AIRLIGHT = 0.6
"""The share of it from the horizon up, which lies at half of the frame's height."""


def _times(*gains: float) -> _Change:
    """Each channel's values times a gain."""
    values = np.arange(256)[:, None] * np.array(gains)
    table = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return lambda image: _by_table(image, table)


def _exposed(stops: float) -> _Change:
    """More or less light, of which sRGB's values are a curve (IEC 61966-2-1); white is cut off."""
    values = np.arange(256) / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = np.minimum(light * 2**stops, 1)
    values = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    table = np.repeat((values * 255 + 0.5).astype(np.uint8)[:, None], 3, 1)
    return lambda image: _by_table(image, table)


def _by_table(image: UInt8, table: npt.NDArray[np.uint8]) -> UInt8:
    import cv2

    return np.asarray(cv2.LUT(np.ascontiguousarray(image), table[:, None]), np.uint8)


def _hazy(image: UInt8) -> UInt8:
    """Airlight, from the horizon up all of it, and towards the camera ever less."""
    height = len(image)
    below = np.maximum((np.arange(height) + 0.5) / height - 0.5, 0)
    share = _AIRLIGHT * np.exp(-below / 0.15)[:, None, None]
    airlight = np.array([205.0, 208.0, 212.0])
    return np.asarray(np.round(image * (1 - share) + airlight * share), np.uint8)


LOOKS: Mapping[str, _Look] = {
    PLAIN: _Look("the frames as they are", lambda image: image),
    "greenish": _Look("red and blue x0.85, green x1.1", _times(0.85, 1.1, 0.85)),
    "reddish": _Look("green and blue x0.85, red x1.1", _times(1.1, 0.85, 0.85)),
    "bluish": _Look("red and green x0.85, blue x1.1", _times(0.85, 0.85, 1.1)),
    "dim green": _Look("red and blue x0.6, green x0.75", _times(0.6, 0.75, 0.6)),
    "dark": _Look("two stops less light", _exposed(-2)),
    "bright": _Look("one stop more", _exposed(1)),
    "hazy": _Look(f"{100 * _AIRLIGHT:.0f} % of airlight at the horizon", _hazy),
}
"""By name."""
