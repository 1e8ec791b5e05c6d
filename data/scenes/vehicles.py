"""Cars, trucks, buses and trams: side profiles extruded to their width, seen from any angle."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from icnet_deploy.data.scenes.paint import Canvas, Colour, Corners, Id, mix, shade

Array = npt.NDArray[np.float64]
_GLASS: Colour = (44, 52, 62)
_TYRE: Colour = (26, 26, 28)


@dataclass(frozen=True)
class Place:
    """Where a vehicle stands.

    Attributes:
        x, z: centre of its ground plan, metres.
        yaw: 0 drives away from the camera, pi towards it, radians.
    """

    x: float
    z: float
    yaw: float

    def world(self, points: Array) -> Array:
        """(along, across, up), N x 3, to world (x, y, z)."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        along, across, up = points.T
        return np.stack([self.x + across * c + along * s, up, self.z + along * c - across * s], 1)


def _sight(canvas: Canvas, world: Array) -> Array:
    """From the camera to the middle of a face, with the road's bend taken into account."""
    middle: Array = world.mean(0)
    bent = middle[0] + canvas.camera.bend * middle[2] ** 2
    return np.array([bent, middle[1] - canvas.camera.height, middle[2]])


def _solid(
    canvas: Canvas, place: Place, profile: Array, half: float, paint: Colour, label: int, sun: float
) -> None:
    """Extrudes a convex-ish profile (along, up; counter-clockwise) and paints the faces we see."""
    count = len(profile)
    left, right = (np.insert(profile, 1, side, axis=1) for side in (-half, half))
    faces = [left[::-1], right]
    for i, j in pairwise([*range(count), 0]):
        faces.append(np.array([left[i], right[i], right[j], left[j]]))
    centre = place.world((left + right).mean(0, keepdims=True) / 2)[0]
    seen = []
    for face in faces:
        world = place.world(face)
        normal = np.cross(world[1] - world[0], world[2] - world[1])
        if normal @ (world.mean(0) - centre) < 0:
            normal = -normal
        sight = _sight(canvas, world)
        if normal @ sight < 0:
            length = float(np.linalg.norm(normal)) or 1.0
            light = 0.72 + 0.33 * float(normal[1]) / length + sun * float(normal[0]) / length
            seen.append((float(np.linalg.norm(sight)), world, light))
    for _, world, light in sorted(seen, key=lambda item: -item[0]):
        canvas.world(world, shade(paint, light), label, 0.05)


def _panel(
    canvas: Canvas, place: Place, corners: Corners, c: Colour,
    label: int | None = None, depth: float | None = None,
) -> None:  # fmt: skip
    """A detail on a face, drawn when the face looks at us (its corners run clockwise to us).

    It fades with its mean depth, or with the one given, in metres.
    """
    world = place.world(np.array(corners))
    pixels = canvas.camera.project(world)
    x, y = pixels.T
    if float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) > 0:
        z = float(world[:, 2].mean()) if depth is None else depth
        canvas.fill(pixels, canvas.faded(c, z), label)


def _both_sides(
    canvas: Canvas, place: Place, outline: list[tuple[float, float]], half: float, c: Colour
) -> None:
    """The same panel on the left and on the right flank; outline (along, up), counter-clockwise."""
    _panel(canvas, place, [(a, half, u) for a, u in outline[::-1]], c)
    _panel(canvas, place, [(a, -half, u) for a, u in outline], c)


def _ends(
    canvas: Canvas, place: Place, at: tuple[float, float], box: tuple[float, float, float, float],
    front: Colour, rear: Colour,
) -> None:  # fmt: skip
    """A panel on the rear (at[0]) and the front (at[1]); box is (left, right, low, high)."""
    left, right, low, high = box
    corners = [(left, low), (left, high), (right, high), (right, low)]
    _panel(canvas, place, [(at[0], b, u) for b, u in corners], rear)
    _panel(canvas, place, [(at[1], b, u) for b, u in corners[::-1]], front)


def _shadow(canvas: Canvas, place: Place, length: float, half: float) -> None:
    ring = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * [length / 2 + 0.15, half + 0.2]
    world = place.world(np.concatenate([ring, np.zeros((4, 1))], 1))
    soft = 0.15 * canvas.camera.scale(place.z)
    canvas.darken(canvas.camera.project(world), 0.35, min(soft, 40))


def _wheels(
    canvas: Canvas, place: Place, at: list[float], radius: float, half: float, label: int
) -> None:
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for along in at:
        for side in (half, -half):
            turn = angle[::-1] if side > 0 else angle
            tyre, rim = (
                [(along + r * np.cos(t), side, radius + r * np.sin(t)) for t in turn]
                for r in (radius, radius * 0.6)
            )
            _panel(canvas, place, tyre, _TYRE, label, place.z)
            _panel(canvas, place, rim, (120.0, 120.0, 124.0))


def car(canvas: Canvas, rng: np.random.Generator, place: Place, sun: float) -> None:
    """A hatchback, saloon, estate or van of any colour."""
    vivid = rng.uniform(20, 235, 3)
    grey = np.full(3, float(rng.uniform(20, 235)))
    r, g, b = vivid * 0.6 + grey * 0.4 if rng.random() < 0.45 else grey
    paint: Colour = (float(r), float(g), float(b))
    length, half = float(rng.uniform(3.7, 5.0)), float(rng.uniform(0.84, 0.95))
    roof, belt = float(rng.uniform(1.38, 1.75)), float(rng.uniform(0.85, 1.0))
    kind = int(rng.integers(3))  # hatchback, saloon, estate or van
    e = length / 2
    tail = (-e + 0.15, -e + 0.9, -e + 0.1)[kind]
    slope = (0.35, 0.75, 0.12)[kind]
    nose = e - float(rng.uniform(0.9, 1.3))
    _shadow(canvas, place, length, half)
    body = [(-e, 0.3), (e, 0.3), (e, 0.72), (nose, belt), (tail, belt), (-e, belt - 0.05)]
    cabin = [(tail, belt), (nose, belt), (nose - 0.8, roof), (tail + slope, roof)]
    under = [(-e + 0.2, 0.12), (e - 0.2, 0.12), (e - 0.2, 0.3), (-e + 0.2, 0.3)]
    _solid(canvas, place, np.array(under), half * 0.95, _TYRE, Id.CAR, sun)
    _solid(canvas, place, np.array(body), half, paint, Id.CAR, sun)
    _wheels(canvas, place, [-e + 0.8, e - 0.85], 0.32, half + 0.01, Id.CAR)
    _solid(canvas, place, np.array(cabin), half * 0.86, paint, Id.CAR, sun)
    h = half * 0.87
    glass = mix(_GLASS, (170, 190, 205), float(rng.uniform(0, 0.45)))
    mid = (tail + nose - 0.4) / 2
    low, high = belt + 0.05, roof - 0.1
    _both_sides(
        canvas, place, [(tail + 0.2, low), (mid - 0.04, low), (mid, high), (tail + slope, high)],
        h, glass,
    )  # fmt: skip
    _both_sides(
        canvas, place, [(mid + 0.04, low), (nose - 0.15, low), (nose - 0.85, high), (mid, high)],
        h, glass,
    )  # fmt: skip
    k = h - 0.1
    for side, base, top in ((-k, tail + 0.05, tail + slope), (k, nose - 0.05, nose - 0.78)):
        pane = [(base, side, low), (top, side * 0.9, high)]
        pane += [(top, -side * 0.9, high), (base, -side, low)]
        _panel(canvas, place, pane, glass)
    _lights(canvas, place, e + 0.02, half, (0.55, 0.78), rng)


def _lights(
    canvas: Canvas, place: Place, e: float, half: float, rows: tuple[float, float],
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Lamps, plate and bumper at both ends."""
    lit = float(rng.uniform(0.6, 1.1))
    for left in (-half + 0.06, half - 0.4):
        box = (left, left + 0.34, rows[0], rows[1])
        _ends(canvas, place, (-e, e), box, shade((240, 240, 220), lit), shade((190, 24, 20), lit))
    _ends(canvas, place, (-e, e), (-0.26, 0.26, 0.4, 0.53), (215, 215, 205), (220, 215, 170))
    _ends(canvas, place, (-e, e), (-half, half, 0.2, 0.32), (38, 38, 40), (38, 38, 40))


def _coach(
    canvas: Canvas, place: Place, paint: Colour, label: int, length: float, half: float,
    height: float, sun: float, rng: np.random.Generator,
) -> None:  # fmt: skip
    """A long box with a band of windows: what buses and trams have in common."""
    e = length / 2
    _shadow(canvas, place, length, half)
    box = np.array([(-e, 0.35), (e, 0.35), (e, height), (-e, height)])
    _solid(canvas, place, box, half, paint, label, sun)
    stripe: Colour = tuple(float(v) for v in rng.uniform(20, 235, 3))  # type: ignore[assignment]
    band = [(-e, 0.8), (e, 0.8), (e, 1.15), (-e, 1.15)]
    _both_sides(canvas, place, band, half + 0.01, stripe)
    glass = mix(_GLASS, (150, 170, 185), float(rng.uniform(0, 0.5)))
    for start in np.arange(-e + 0.3, e - 1.3, 1.5):
        pane = [(start, 1.4), (start + 1.35, 1.4), (start + 1.35, 2.5), (start, 2.5)]
        _both_sides(canvas, place, pane, half + 0.01, glass)
    for start in (-e + 2.2, e - 2.6):
        door = [(start, 0.45), (start + 1.2, 0.45), (start + 1.2, 2.5), (start, 2.5)]
        _panel(canvas, place, [(a, half + 0.02, u) for a, u in door[::-1]], shade(glass, 0.8))
    at = (-e - 0.02, e + 0.02)
    _ends(canvas, place, at, (-half + 0.15, half - 0.15, 1.2, 2.5), glass, glass)
    sign: Colour = (235, 170, 40)
    _ends(canvas, place, at, (-half * 0.6, half * 0.6, 2.6, 2.9), sign, shade(sign, 0.5))


def bus(canvas: Canvas, rng: np.random.Generator, place: Place, sun: float) -> None:
    """A city bus, 9 to 13 metres."""
    r, g, b = rng.uniform(30, 240, 3)
    length = float(rng.uniform(9, 13))
    _coach(canvas, place, (r, g, b), Id.BUS, length, 1.25, float(rng.uniform(2.95, 3.4)), sun, rng)
    _wheels(canvas, place, [-length / 2 + 2.5, length / 2 - 2.4], 0.48, 1.27, Id.BUS)
    _lights(canvas, place, length / 2 + 0.03, 1.25, (0.6, 0.85), rng)


def train(canvas: Canvas, rng: np.random.Generator, place: Place, sun: float) -> None:
    """A tram of two cars with a bellows between them, and its overhead gear."""
    r, g, b = rng.uniform(30, 240, 3)
    height = float(rng.uniform(3.2, 3.6))
    for along in (10.5, -10.5) if np.cos(place.yaw) > 0 else (-10.5, 10.5):
        c, s = np.cos(place.yaw), np.sin(place.yaw)
        part = Place(place.x + along * s, place.z + along * c, place.yaw)
        _coach(canvas, part, (r, g, b), Id.TRAIN, 20.0, 1.3, height, sun, rng)
        skirt = [(-9.9, 0.15), (9.9, 0.15), (9.9, 0.7), (-9.9, 0.7)]
        _both_sides(canvas, part, skirt, 1.31, shade((r, g, b), 0.5))
        gear = np.array([(0, 0, height), (1.2, 0, height + 0.8), (0, 0, height + 1.5)])
        thick = 0.08 * canvas.camera.scale(place.z)
        for low, high in pairwise(canvas.camera.project(part.world(gear))):
            canvas.bar(low, high, thick, (40, 40, 42), Id.TRAIN)
    _lights(canvas, place, 20.6, 1.3, (0.7, 0.95), rng)


def truck(canvas: Canvas, rng: np.random.Generator, place: Place, sun: float) -> None:
    """A cab and a cargo box, flat bed or tank."""
    cab: Colour = tuple(float(v) for v in rng.uniform(20, 235, 3))  # type: ignore[assignment]
    cargo: Colour = tuple(float(v) for v in rng.uniform(60, 245, 3))  # type: ignore[assignment]
    length, half = float(rng.uniform(6, 11)), float(rng.uniform(1.1, 1.27))
    top, e = float(rng.uniform(2.6, 3.9)), length / 2
    flat = bool(rng.random() < 0.2)
    _shadow(canvas, place, length, half)
    chassis = np.array([(-e + 0.1, 0.5), (e - 0.2, 0.5), (e - 0.2, 0.95), (-e + 0.1, 0.95)])
    nose = np.array([(e - 1.9, 0.45), (e, 0.45), (e, 1.5), (e - 0.25, 2.5), (e - 1.9, 2.5)])
    load = np.array([(-e, 0.95), (e - 2.1, 0.95), (e - 2.1, top), (-e, top)])
    if flat:
        load[2:, 1] = 1.5
    order = [(load, half, cargo), (nose, half * 0.95, cab)]
    _solid(canvas, place, chassis, half * 0.85, (48, 46, 46), Id.TRUCK, sun)
    _wheels(canvas, place, [-e + 1.2, -e + 2.3, e - 1.2], 0.48, half * 0.97, Id.TRUCK)
    for profile, h, paint in order if np.cos(place.yaw) < 0 else order[::-1]:
        _solid(canvas, place, profile, h, paint, Id.TRUCK, sun)
    pane = [(e - 1.5, 1.5), (e - 0.15, 1.5), (e - 0.35, 2.3), (e - 1.5, 2.3)]
    _both_sides(canvas, place, pane, half * 0.96, _GLASS)
    k = half * 0.8
    screen = [(e + 0.0, k, 1.5), (e - 0.2, k, 2.4), (e - 0.2, -k, 2.4), (e + 0.0, -k, 1.5)]
    _panel(canvas, place, screen, _GLASS)
    if not flat:
        box = (-0.02, 0.02, 1.0, top - 0.05)
        _ends(canvas, place, (-e - 0.01, e + 9), box, shade(cargo, 0.5), shade(cargo, 0.5))
        logo = [(-e + 1, 1.6), (e - 3.4, 1.6), (e - 3.4, top - 0.6), (-e + 1, top - 0.6)]
        tint = shade(cargo, float(rng.uniform(0.5, 1.3)))
        _both_sides(canvas, place, logo, half + 0.01, tint)
    _lights(canvas, place, e + 0.02, half, (0.7, 0.92), rng)
