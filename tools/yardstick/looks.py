"""The same frames under other light: how far a score moves with it is what is asked.

They are no part of the training's changes of appearance, which they judge.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from icnet_deploy.images import UInt8

Look = Callable[[UInt8], UInt8]
"""From uint8 H x W x 3, RGB, to the same scene under other light."""

PLAIN = "plain"
"""The frames as they are."""

_AIRLIGHT = 0.6
"""The share of it from the horizon up, which lies at half of the frame's height."""


def _plain(image: UInt8) -> UInt8:
    return image


def _times(*gains: float) -> Look:
    """Each channel's values times a gain."""
    values = np.arange(256)[:, None] * np.array(gains)
    table = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return lambda image: _by_table(image, table)


def _exposed(stops: float) -> Look:
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


LOOKS: Mapping[str, Look] = {
    PLAIN: _plain,
    "greenish": _times(0.85, 1.1, 0.85),
    "reddish": _times(1.1, 0.85, 0.85),
    "bluish": _times(0.85, 0.85, 1.1),
    "dim green": _times(0.6, 0.75, 0.6),
    "dark": _exposed(-2),
    "bright": _exposed(1),
    "hazy": _hazy,
}
"""Name -> what it does, by the same measure on every frame."""


def words(names: Sequence[str]) -> str:
    """What the looks are, for those who read a table."""
    of_each = {
        PLAIN: "the frames as they are",
        "greenish": "red and blue x0.85, green x1.1",
        "reddish": "green and blue x0.85, red x1.1",
        "bluish": "red and green x0.85, blue x1.1",
        "dim green": "red and blue x0.6, green x0.75",
        "dark": "two stops less light",
        "bright": "one stop more",
        "hazy": f"{100 * _AIRLIGHT:.0f} % of airlight at the horizon",
    }
    return "; ".join(f"{name}: {of_each[name]}" for name in names)
