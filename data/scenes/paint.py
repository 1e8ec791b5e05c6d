"""The camera, and the canvas that carries an image and its label map through the same polygons."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from icnet_deploy.labels import IGNORE

Colour = tuple[float, float, float]
Points = npt.NDArray[np.float64]
Corners = list[tuple[float, float, float]]
_FAR = 20_000.0  # pixels; what lies further outside than this is clamped
_MARGIN = 256  # pixels by which the noise tile is larger than the image


Id = IntEnum(
    "Id",
    [
        "ROAD",
        "SIDEWALK",
        "BUILDING",
        "WALL",
        "FENCE",
        "POLE",
        "LIGHT",
        "SIGN",
        "VEGETATION",
        "TERRAIN",
        "SKY",
        "PERSON",
        "RIDER",
        "CAR",
        "TRUCK",
        "BUS",
        "TRAIN",
        "MOTORCYCLE",
        "BICYCLE",
    ],
    start=0,
)
"""Cityscapes trainIds, in their order."""


def shade(colour: Colour, factor: float) -> Colour:
    """The colour at another brightness, clipped to 0..255."""
    r, g, b = (min(255.0, max(0.0, v * factor)) for v in colour)
    return r, g, b


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """`a` at t = 0, `b` at t = 1."""
    r, g, c = (x + (y - x) * t for x, y in zip(a, b, strict=True))
    return r, g, c


def facing(x0: float, x1: float, y0: float, y1: float, z: float) -> Corners:
    """An upright rectangle that faces the camera; metres, as all of these."""
    return [(x0, y0, z), (x0, y1, z), (x1, y1, z), (x1, y0, z)]


def along(x: float, y0: float, y1: float, z0: float, z1: float) -> Corners:
    """An upright rectangle along the street."""
    return [(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)]


def flat(x0: float, x1: float, z0: float, z1: float) -> Corners:
    """A rectangle on the ground."""
    return [(x0, 0, z0), (x0, 0, z1), (x1, 0, z1), (x1, 0, z0)]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along the road.

    Attributes:
        size: (height, width) of the image in pixels.
        focal: focal length in image heights.
        horizon: row of the horizon, 0..1 of the image's height.
        height: of the camera over the road, metres.
        bend: the road's sideways curvature, 1/metres: x moves by bend * z^2.
    """

    size: tuple[int, int]
    focal: float
    horizon: float
    height: float
    bend: float

    def scale(self, z: float) -> float:
        """Pixels a metre at depth z metres."""
        return self.focal * self.size[0] / max(z, 0.3)

    def project(self, points: Sequence[Sequence[float]] | Points) -> Points:
        """(x right, y up, z forward) in metres, x from the camera, y from the road, to pixels.

        Args:
            points: N x 3.

        Returns:
            N x 2 (column, row), float64. Depths below 0.3 m are taken as 0.3 m.
        """
        p = np.asarray(points, np.float64)
        z = np.maximum(p[:, 2], 0.3)
        f = self.focal * self.size[0]
        x = p[:, 0] + self.bend * p[:, 2] ** 2
        column = self.size[1] / 2 + f * x / z
        row = self.horizon * self.size[0] + f * (self.height - p[:, 1]) / z
        return np.stack([column, row], 1)


class Canvas:
    """An image and its labels, painted far to near.

    Attributes:
        image: uint8 H x W x 3, RGB.
        labels: uint8 H x W, trainIds; 255 until painted.
        haze: the colour that distance fades to.
        clear: depth in metres at which 63 % of a colour is haze.
    """

    def __init__(
        self, camera: Camera, haze: Colour, clear: float, grain: np.random.Generator
    ) -> None:
        h, w = camera.size
        self.camera, self.haze, self.clear, self.grain = camera, haze, clear, grain
        self.image = np.zeros((h, w, 3), np.uint8)
        self.labels = np.full((h, w), IGNORE, np.uint8)
        self._noise = _noise_tile((h + _MARGIN, w + _MARGIN), h, grain)

    def faded(self, colour: Colour, z: float) -> Colour:
        """The colour as seen from z metres away."""
        return mix(colour, self.haze, 1 - float(np.exp(-z / self.clear)))

    def fill(
        self, points: Points, colour: Colour, label: int | None = None, texture: float = 0.0
    ) -> None:
        """Fills a polygon.

        Args:
            points: N x 2 (column, row), pixels.
            colour: RGB, 0..255.
            label: trainId to write, or None to leave labels as they are.
            texture: standard deviation of the grain, as a share of the colour.
        """
        points = np.clip(points, -_FAR, _FAR)
        h, w = self.camera.size
        x0, y0 = np.maximum(np.floor(points.min(0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + 1, (w, h))
        if x0 >= x1 or y0 >= y1:
            return
        exact = np.round(points).astype(np.int32)
        if label is not None:
            cv2.fillPoly(self.labels, [exact], int(label))
        fixed = np.round(points * 16).astype(np.int32)
        if texture == 0 or (x1 - x0) * (y1 - y0) < 100:  # too small to show a grain
            cv2.fillPoly(self.image, [fixed], colour, cv2.LINE_AA, 4)
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(mask, [fixed - np.array([x0, y0]) * 16], 255, cv2.LINE_AA, 4)
        dy, dx = self.grain.integers(0, _MARGIN, 2)
        noise = self._noise[y0 + dy : y1 + dy, x0 + dx : x1 + dx]
        gain = noise * np.float32(texture) + np.float32(1)
        paint = gain[:, :, None] * np.array(colour, np.float32)
        self.blend((slice(y0, y1), slice(x0, x1)), paint, mask.astype(np.float32) / 255)

    def blend(self, where: tuple[slice, slice], paint: Any, alpha: Any) -> None:
        """Lays float paint (h x w x 3 or a colour) over a window, alpha float h x w in 0..1."""
        under = self.image[where].astype(np.float32)
        under += (np.asarray(paint, np.float32) - under) * alpha[:, :, None]
        self.image[where] = np.clip(under, 0, 255).astype(np.uint8)

    def world(
        self,
        points: Sequence[Sequence[float]] | Points,
        colour: Colour,
        label: int | None = None,
        texture: float = 0.0,
    ) -> None:
        """Fills a polygon of world points (x, y, z in metres), faded by its mean depth."""
        depth = float(np.mean([p[2] for p in points]))
        self.fill(self.camera.project(points), self.faded(colour, depth), label, texture)

    def disc(
        self, centre: Points, radii: tuple[float, float], colour: Colour, label: int | None = None
    ) -> None:
        """Fills an ellipse; centre (column, row) and radii in pixels."""
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        ring = np.stack([np.cos(angle) * radii[0], np.sin(angle) * radii[1]], 1)
        self.fill(ring + centre, colour, label)

    def bar(
        self, a: Points, b: Points, width: float, colour: Colour, label: int | None = None
    ) -> None:
        """Fills the straight bar from a to b, `width` pixels wide and at least one."""
        along = np.asarray(b, np.float64) - a
        length = float(np.hypot(*along)) or 1.0
        side = np.array([-along[1], along[0]]) / length * max(width, 1.0) / 2
        self.fill(np.array([a + side, b + side, b - side, a - side]), colour, label)

    def darken(self, points: Points, factor: float, soft: float) -> None:
        """Multiplies the image inside a polygon by `factor`; `soft` is the blur in pixels."""
        h, w = self.camera.size
        points = np.clip(points, -_FAR, _FAR)
        pad = int(3 * soft) + 1
        x0, y0 = np.maximum(points.min(0).astype(int) - pad, 0)
        x1, y1 = np.minimum(points.max(0).astype(int) + pad, (w, h))
        if x0 >= x1 or y0 >= y1:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.float32)
        cv2.fillPoly(mask, [np.round(points - [x0, y0]).astype(np.int32)], 1.0)
        if soft > 0.4:
            mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), soft), np.float32)
        window = self.image[y0:y1, x0:x1]
        gain = 1 - mask[:, :, None] * np.float32(1 - factor)
        self.image[y0:y1, x0:x1] = (window * gain).astype(np.uint8)


def _noise_tile(
    shape: tuple[int, int], height: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Unit-variance noise with grain at three scales that follow the image's height."""
    total = np.zeros(shape, np.float32)
    for scale, weight in ((1.0, 0.5), (height / 160, 0.5), (height / 24, 0.7)):
        small = (max(2, int(shape[0] / max(scale, 1))), max(2, int(shape[1] / max(scale, 1))))
        layer = rng.standard_normal(small, np.float32)
        total += np.float32(weight) * np.asarray(
            cv2.resize(layer, shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32
        )
    return np.asarray(total / total.std(), np.float32)
