"""Pedestrians, riders, bicycles and motorcycles."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from icnet_deploy.data.scenes.paint import Canvas, Colour, Id, flat, shade

Array = npt.NDArray[np.float64]
_SKIN: tuple[Colour, ...] = ((224, 188, 164), (196, 150, 120), (140, 98, 72), (92, 62, 46))


class Figure:
    """A flat figure that stands at a world point: local metres, x right and y up."""

    def __init__(self, canvas: Canvas, x: float, z: float, squeeze: float = 1.0) -> None:
        self.canvas, self.z, self.squeeze = canvas, z, squeeze
        self.base = canvas.camera.project([(x, 0.0, z)])[0]
        self.scale = canvas.camera.scale(z)

    def at(self, x: float, y: float) -> Array:
        """Local metres to pixels."""
        return np.asarray(self.base + np.array([x * self.squeeze, -y]) * self.scale)

    def limb(
        self, a: tuple[float, float], b: tuple[float, float], width: float, c: Colour, label: int
    ) -> None:
        """A bar from a to b, `width` metres wide."""
        tint = self.canvas.faded(c, self.z)
        self.canvas.bar(self.at(*a), self.at(*b), width * self.scale, tint, label)

    def disc(self, x: float, y: float, r: float, c: Colour, label: int | None) -> None:
        """A circle of r metres, squeezed like the figure."""
        wide = max(self.squeeze, 0.3) if r < 0.2 else self.squeeze
        radii = (max(r * wide * self.scale, 0.7), max(r * self.scale, 0.7))
        self.canvas.disc(self.at(x, y), radii, self.canvas.faded(c, self.z), label)

    def shape(self, points: list[tuple[float, float]], c: Colour, label: int) -> None:
        """A polygon with some texture."""
        pixels = np.array([self.at(x, y) for x, y in points])
        self.canvas.fill(pixels, self.canvas.faded(c, self.z), label, 0.1)


def _clothes(rng: np.random.Generator) -> Colour:
    grey = float(rng.uniform(15, 220))
    r, g, b = np.clip(grey + rng.normal(0, 45, 3), 8, 245)
    return float(r), float(g), float(b)


def person(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A pedestrian, standing or walking, now and then with a bag, hat or skirt."""
    h = float(rng.uniform(1.5, 1.95)) * (0.65 if rng.random() < 0.12 else 1.0)
    stride, swing = float(rng.uniform(0, 0.32)), float(rng.uniform(-0.2, 0.2))
    coat, legs, hair = _clothes(rng), _clothes(rng), shade(_clothes(rng), 0.45)
    skin = _SKIN[int(rng.integers(len(_SKIN)))]
    wide, long = float(rng.uniform(0.2, 0.29)), float(rng.uniform(0.38, 0.52))
    bag, hat, dress = (bool(rng.random() < p) for p in (0.3, 0.2, 0.2))
    soft = 0.1 * canvas.camera.scale(z)
    shadow = canvas.camera.project(flat(x - 0.4, x + 0.4, z - 0.1, z + 0.2))
    canvas.darken(shadow, 0.6, min(soft, 20))
    f, p = Figure(canvas, x, z), Id.PERSON
    for side in (-1, 1):
        foot = (side * (0.07 + stride / 2) + 0.03, 0.03)
        f.limb((side * 0.08, h * 0.5), foot, 0.15, shade(legs, 1 - 0.1 * side), p)
        f.limb(foot, (foot[0] + 0.1, 0.03), 0.09, (34, 30, 28), p)
    hem = wide * (1.5 if dress else 1.0)
    torso = [(-wide, h * 0.82), (wide, h * 0.82), (hem, h * long), (-hem, h * long)]
    f.shape(torso, coat, p)
    for side in (-1, 1):
        hand = (side * (wide + 0.06) + swing * side, h * 0.47)
        f.limb((side * wide * 0.9, h * 0.8), hand, 0.11, shade(coat, 0.85), p)
        f.disc(hand[0], hand[1], 0.05, skin, p)
    f.limb((0, h * 0.8), (0, h * 0.88), 0.11, skin, p)
    f.disc(0, h * 0.925, 0.115, hair, p)
    if rng.random() < 0.6:
        f.disc(0.02, h * 0.915, 0.085, skin, p)
    if hat:
        f.limb((-0.14, h * 0.965), (0.14, h * 0.965), 0.08, coat, p)
    if bag:
        f.limb((wide, h * 0.75), (wide + 0.05, h * 0.5), 0.2, _clothes(rng), p)


def _wheel(f: Figure, x: float, r: float, tyre: float, label: int) -> None:
    """A spoked wheel: labelled as a disc, drawn as a ring that lets the background through."""
    angle = np.linspace(0, 2 * np.pi, 18)
    ring = [(x + r * np.cos(t), r + r * np.sin(t)) for t in angle]
    if f.canvas.camera.scale(f.z) * r < 7:
        f.disc(x, r, r, (40, 40, 42), label)
        return
    mask = np.array([f.at(*q) for q in ring])
    f.canvas.fill(mask, f.canvas.faded((92, 92, 94), f.z), label, 0.25)
    for a, b in pairwise(ring):
        f.limb(a, b, tyre, (28, 28, 30), label)


def _rider(f: Figure, rng: np.random.Generator, saddle: float, helmet: bool) -> None:
    coat, legs, skin = _clothes(rng), _clothes(rng), _SKIN[int(rng.integers(len(_SKIN)))]
    lean, r = float(rng.uniform(0.05, 0.4)), Id.RIDER
    hip, neck = (-0.2, saddle), (-0.2 + lean, saddle + 0.58)
    for knee in (0.18, 0.05):
        f.limb(hip, (knee, saddle - 0.35), 0.16, legs, r)
        f.limb((knee, saddle - 0.35), (0.0, 0.3), 0.13, shade(legs, 0.8), r)
    f.limb(hip, neck, 0.36, coat, r)
    f.limb((-0.36 * (1 - f.squeeze), saddle + 0.2), neck, 0.3, coat, r)
    f.limb(neck, (0.35, saddle + 0.12), 0.12, shade(coat, 0.85), r)
    f.disc(neck[0] + 0.05, neck[1] + 0.2, 0.13, coat if helmet else shade(skin, 0.5), r)
    f.disc(neck[0] + 0.09, neck[1] + 0.16, 0.085, skin, r)


def bicycle(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, ridden: bool, yaw: float
) -> None:
    """A bicycle, parked or ridden; yaw 0 is seen from the side, pi/2 from behind (radians)."""
    f, frame, b = Figure(canvas, x, z, max(abs(float(np.cos(yaw))), 0.1)), _clothes(rng), Id.BICYCLE
    shadow = canvas.camera.project(flat(x - 0.8, x + 0.8, z - 0.1, z + 0.15))
    canvas.darken(shadow, 0.65, 1.0)
    for wheel in (-0.52, 0.52):
        _wheel(f, wheel, 0.34, 0.06, b)
    tubes = [
        ((-0.52, 0.34), (-0.2, 0.82)), ((-0.2, 0.82), (0.34, 0.85)), ((0.34, 0.85), (0.0, 0.32)),
        ((0.0, 0.32), (-0.2, 0.86)), ((0.0, 0.32), (-0.52, 0.34)), ((0.32, 0.98), (0.52, 0.34)),
    ]  # fmt: skip
    for start, end in tubes:
        f.limb(start, end, 0.055, frame, b)
    f.limb((-0.32, 0.92), (-0.08, 0.92), 0.08, (30, 28, 28), b)
    bar = 0.3 / f.squeeze if f.squeeze < 0.5 else 0.1
    f.limb((0.3 - bar, 1.0), (0.3 + bar, 1.0), 0.05, (40, 40, 40), b)
    if ridden:
        _rider(f, rng, 0.95, bool(rng.random() < 0.5))


def motorcycle(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, ridden: bool, yaw: float
) -> None:
    """A motorcycle or scooter, parked or ridden."""
    squeeze = max(abs(float(np.cos(yaw))), 0.34)
    f, paint, m = Figure(canvas, x, z, squeeze), _clothes(rng), Id.MOTORCYCLE
    shadow = canvas.camera.project(flat(x - 0.9, x + 0.9, z - 0.2, z + 0.3))
    canvas.darken(shadow, 0.5, 1.5)
    for wheel in (-0.68, 0.68):
        _wheel(f, wheel, 0.32, 0.14, m)
    f.shape([(-0.45, 0.35), (0.4, 0.3), (0.45, 0.6), (-0.35, 0.65)], (58, 58, 60), m)
    f.shape([(-0.05, 0.6), (0.5, 0.65), (0.42, 1.0), (0.02, 0.95)], paint, m)
    f.shape([(-0.85, 0.7), (0.0, 0.7), (0.0, 0.85), (-0.8, 0.92)], (30, 30, 32), m)
    f.limb((0.68, 0.32), (0.4, 1.05), 0.1, (120, 120, 124), m)
    f.shape([(0.38, 0.85), (0.66, 0.75), (0.6, 1.2), (0.4, 1.15)], shade(paint, 1.2), m)
    f.disc(0.58 if squeeze > 0.5 else 0.0, 0.9, 0.1, (240, 235, 210), m)
    f.limb((0.2, 1.12), (0.45, 1.1), 0.07, (34, 34, 36), m)
    if ridden:
        _rider(f, rng, 0.88, True)
