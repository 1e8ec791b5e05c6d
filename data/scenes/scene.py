"""Puts a street together, far to near, and lights and photographs it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from icnet_deploy.data.scenes import people, surroundings, vehicles
from icnet_deploy.data.scenes.paint import Camera, Canvas, Colour, Id, flat, mix, shade
from icnet_deploy.data.scenes.vehicles import Place
from icnet_deploy.labels import IGNORE

Rng = np.random.Generator
Jobs = list[tuple[float, Callable[[Rng], None]]]


@dataclass(frozen=True)
class Scene:
    """One drawn surroundings.

    Attributes:
        image: uint8 H x W x 3, RGB.
        labels: uint8 H x W, Cityscapes trainIds; 255 is ignored.
    """

    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Plan:
    """The street's cross-section, x in metres from the camera; the left is negative."""

    road: tuple[float, float]
    walk: tuple[float, float]
    verge: tuple[float, float]
    sun: float


def draw_scene(seed: int | tuple[int, ...], size: tuple[int, int] = (1024, 2048)) -> Scene:
    """Draws one scene; the same seed at another size is about the same scene.

    Args:
        seed: any non-negative number or numbers.
        size: (height, width) in pixels, each at least 64.
    """
    rng = np.random.default_rng(seed)
    camera = Camera(
        size,
        focal=float(np.exp(rng.uniform(np.log(0.95), np.log(1.9)))),
        horizon=float(rng.uniform(0.36, 0.54)),
        height=float(rng.uniform(1.15, 2.3)),
        bend=float(rng.normal(0, 0.0012)),
    )
    dull, dusk = float(rng.uniform(0, 1)), float(max(0, rng.uniform(-1.5, 1)))
    top = mix(mix((84, 138, 205), (176, 182, 190), dull), (66, 62, 96), dusk * 0.7)
    low = mix(mix((186, 206, 226), (206, 208, 210), dull), (228, 160, 112), dusk * 0.7)
    grain = np.random.default_rng([int(rng.integers(1 << 31)), *size])
    canvas = Canvas(camera, low, float(np.exp(rng.uniform(np.log(120), np.log(600)))), grain)
    surroundings.sky(canvas, rng, top, low)
    plan = _ground(canvas, rng)
    surroundings.skyline(canvas, rng)
    jobs: Jobs = []
    for side in (-1, 1):
        _frontage(canvas, rng, plan, side, jobs)
        _furniture(canvas, rng, plan, side, jobs)
    _traffic(canvas, rng, plan, jobs)
    _shadows(canvas, rng, plan, dull)
    for _, paint in sorted(jobs, key=lambda job: -job[0]):
        paint(np.random.default_rng(int(rng.integers(1 << 31))))
    if rng.random() < 0.3:
        _bonnet(canvas, rng)
    return Scene(_photograph(canvas.image, rng, grain), canvas.labels)


def _ground(canvas: Canvas, rng: Rng) -> Plan:
    """Terrain, sidewalks, road and markings."""
    lane = float(rng.uniform(2.9, 3.7))
    left, right = float(rng.uniform(0.5, 2.5)) * lane, float(rng.uniform(0.5, 1.5)) * lane
    road = (-left - 0.3, right + 0.3)
    widths = rng.uniform(1.6, 5.0, 2)
    walk = (road[0] - float(widths[0]), road[1] + float(widths[1]))
    green = rng.uniform(0.5, 6, 2) * (rng.random(2) < 0.55)
    verge = (walk[0] - float(green[0]), walk[1] + float(green[1]))
    grass = mix((92, 118, 58), (140, 126, 84), float(rng.random()))
    surroundings.ground_strip(canvas, -300, 300, grass, Id.TERRAIN, 0.2)
    tone = float(rng.uniform(70, 165))
    stone = mix((tone, tone, tone), (168, 140, 120), float(rng.uniform(0, 0.7)))
    surroundings.ground_strip(canvas, walk[0], walk[1], stone, Id.SIDEWALK, 0.1)
    pitch = float(rng.uniform(0.6, 1.6))
    for z in np.arange(1.5, 22, pitch):  # paving joints
        canvas.world(flat(*walk, z, z + 0.04), (tone * 0.8, tone * 0.8, tone * 0.8))
    kerb = (tone * 1.15 + 10, tone * 1.15 + 10, tone * 1.12 + 10)
    surroundings.ground_strip(canvas, road[0] - 0.15, road[1] + 0.15, kerb, Id.SIDEWALK, 0.08)
    grey = float(rng.uniform(48, 135))
    asphalt = (grey, grey * float(rng.uniform(0.96, 1.03)), grey * float(rng.uniform(0.95, 1.1)))
    surroundings.ground_strip(canvas, road[0], road[1], asphalt, Id.ROAD, 0.09)
    for _ in range(int(rng.integers(0, 6))):  # repairs
        x, z = float(rng.uniform(road[0], road[1] - 1.5)), float(rng.uniform(2, 30))
        w, d = min(float(rng.uniform(0.6, 3)), road[1] - x), float(rng.uniform(1, 6))
        worn = shade(asphalt, float(rng.uniform(0.7, 1.2)))
        canvas.world(flat(x, x + w, z, z + d), worn, Id.ROAD, 0.1)
    lanes = [road[0] + 0.3, *np.arange(right - lane, road[0] + 1, -lane).tolist(), right]
    crossing = float(rng.uniform(5, 25)) if rng.random() < 0.35 else None
    if rng.random() < 0.85:
        surroundings.markings(canvas, rng, lanes, crossing)
    return Plan(road, walk, verge, float(rng.uniform(-0.25, 0.25)))


def _frontage(canvas: Canvas, rng: Rng, plan: Plan, side: int, jobs: Jobs) -> None:
    """Buildings, walls, fences, hedges and trees along one side, from near to far."""
    z = float(rng.uniform(-4, 6))
    line = plan.verge[0] if side < 0 else plan.verge[1]
    built = float(rng.uniform(0.3, 0.95))
    storeys = float(rng.uniform(6, 20))
    while z < 120:
        length, kind = float(rng.uniform(8, 28)), float(rng.random())
        x = line + side * float(rng.uniform(0.2, 2.0))
        z0, z1, near = max(z, 0.8), z + length, max(z, 0.8)
        if z1 > 1.5:
            if kind < built:
                high = storeys * float(rng.uniform(0.6, 1.4))
                jobs.append((near + 0.2, _later(surroundings.facade, canvas, x, z0, z1, high)))
            elif kind < built + (1 - built) * 0.6:
                high = float(rng.uniform(1.2, 3.5))
                jobs.append((near + 0.2, _later(surroundings.wall, canvas, x, z0, z1, high)))
            _greenery(canvas, rng, x, z0, z1, side, jobs)
            if rng.random() < 0.22:
                edge = line - side * 0.1
                high = float(rng.uniform(0.9, 1.8))
                jobs.append((near, _later(surroundings.fence, canvas, edge, z0, z1, high)))
        z = z1 + (float(rng.uniform(2, 9)) if rng.random() < 0.35 else 0.0)


def _later(paint: Callable[..., None], canvas: Canvas, *args: Any) -> Callable[[Rng], None]:
    """A drawing to be done when its turn comes, far to near."""
    return lambda rng: paint(canvas, rng, *args)


def _greenery(
    canvas: Canvas, rng: Rng, x: float, z0: float, z1: float, side: int, jobs: Jobs
) -> None:
    """Trees behind the line in gaps, on the verge in front of it, and bushes."""
    for _ in range(int(rng.integers(0, 3))):
        tx, tz = x + side * float(rng.uniform(-1.5, 6)), float(rng.uniform(max(z0, 5), z1 + 4))
        jobs.append((tz, _later(surroundings.tree, canvas, tx, tz)))
    if rng.random() < 0.3:
        bz, high = float(rng.uniform(max(z0, 4), z1 + 3)), float(rng.uniform(0.4, 1.2))
        spot, radii = (x - side * 0.6, high * 0.6, bz), (float(rng.uniform(0.6, 2.0)), high)
        green = (
            float(rng.uniform(40, 100)),
            float(rng.uniform(70, 120)),
            float(rng.uniform(30, 60)),
        )
        jobs.append((bz, _later(surroundings.crown, canvas, spot, radii, green, 18)))


def _furniture(canvas: Canvas, rng: Rng, plan: Plan, side: int, jobs: Jobs) -> None:
    """What stands and walks on one sidewalk."""
    kerb = plan.road[0] if side < 0 else plan.road[1]
    end = plan.walk[0] if side < 0 else plan.walk[1]
    x = kerb + side * 0.5
    step = float(rng.uniform(14, 30))
    for z in np.arange(float(rng.uniform(3, step)), 90, step):
        jobs.append((z, _later(surroundings.street_light, canvas, x, float(z))))
    things = (
        (surroundings.sign, 0.8, 3),
        (surroundings.traffic_light, 0.6, 2),
        (surroundings.clutter, 0.3, 2),
    )
    for thing, chance, most in things:
        for _ in range(int(rng.integers(1, most + 1)) if rng.random() < chance else 0):
            z = float(np.exp(rng.uniform(np.log(5), np.log(45))))
            px = x + side * float(rng.uniform(0, 0.6))
            jobs.append((z, _later(thing, canvas, px, z)))
    for _ in range(int(rng.poisson(3.2))):
        z = float(np.exp(rng.uniform(np.log(3.5), np.log(50))))
        near, far = sorted((kerb + side * 0.3, end))
        px = float(rng.uniform(near, far))
        for i in range(1 + int(rng.random() < 0.35) + int(rng.random() < 0.15)):
            spot = (px + 0.6 * i, z + 0.2 * i)
            jobs.append((z, _later(people.person, canvas, *spot)))
    for ride, chance in ((people.bicycle, 0.45), (people.motorcycle, 0.4)):
        for i in range(int(rng.integers(1, 4)) if rng.random() < chance else 0):
            z, yaw = float(np.exp(rng.uniform(np.log(4), np.log(25)))), float(rng.uniform(0, 1.3))
            spot = (x + side * float(rng.uniform(0.2, 1.0)) + 0.5 * i, z)
            jobs.append((z, _later(ride, canvas, *spot, False, yaw)))


def _traffic(canvas: Canvas, rng: Rng, plan: Plan, jobs: Jobs) -> None:
    """Parked and moving vehicles, riders, and people who cross."""
    left, right = plan.road
    taken: list[tuple[float, float, float]] = []

    def free(x: float, z: float, length: float) -> bool:
        clear = all(abs(x - a) > 2.4 or abs(z - b) > (length + c) / 2 for a, b, c in taken)
        if clear:
            taken.append((x, z, length + 1.0))
        return clear

    def put(kind: Callable[..., None], x: float, z: float, yaw: float, length: float) -> None:
        if z - length / 2 > 3.0 and free(x, z, length):
            place = Place(x, z, yaw + float(rng.normal(0, 0.04)))
            jobs.append((z - length / 2, _later(kind, canvas, place, plan.sun)))

    big = ((vehicles.train, 0.28, 41.0), (vehicles.bus, 0.5, 12.0), (vehicles.truck, 0.5, 10.0))
    for kind, chance, length in big:
        if rng.random() < chance:
            oncoming = bool(rng.random() < 0.6)
            x = left + 1.7 if oncoming else right - 1.6
            z = length / 2 + float(np.exp(rng.uniform(np.log(7), np.log(32))))
            put(kind, x, z, np.pi if oncoming else 0.0, length)
    for x, yaw, chance in ((left + 1.1, np.pi, 0.6), (right - 1.0, 0.0, 0.6)):
        if rng.random() < chance:  # a parked row
            z = float(rng.uniform(4, 12))
            while z < 70:
                if rng.random() < 0.75:
                    put(vehicles.car, x, z, yaw if rng.random() < 0.9 else yaw + np.pi, 5.0)
                z += float(rng.uniform(5.4, 7.5))
    for _ in range(int(rng.poisson(2.5))):
        oncoming = bool(rng.random() < 0.5)
        near, far = sorted((left + 1.4, -1.4)) if oncoming else (-0.8, 0.8)
        x = float(rng.uniform(near, far))
        z = float(np.exp(rng.uniform(np.log(9), np.log(80))))
        put(vehicles.car, x, z, np.pi if oncoming else 0.0, 5.0)
    if rng.random() < 0.18:  # one that crosses
        put(vehicles.car, float(rng.uniform(-9, 9)), float(rng.uniform(14, 40)), np.pi / 2, 5.0)
    for ride, chance in ((people.bicycle, 0.55), (people.motorcycle, 0.55)):
        if rng.random() < chance:
            z, yaw = float(np.exp(rng.uniform(np.log(5), np.log(28)))), float(rng.uniform(0, 1.57))
            spot = (float(rng.uniform(left + 0.6, right - 0.4)), z)
            if free(*spot, 2.0):
                jobs.append((z, _later(ride, canvas, *spot, True, yaw)))
    if rng.random() < 0.4:
        z = float(rng.uniform(6, 30))
        for x in rng.uniform(left, right, int(rng.integers(1, 5))):
            jobs.append((z, _later(people.person, canvas, float(x), z)))


def _shadows(canvas: Canvas, rng: Rng, plan: Plan, dull: float) -> None:
    """Shadows of what stands beside the road, on bright days."""
    strength, side = (1 - dull) * float(rng.uniform(0.2, 0.65)), 1 if rng.random() < 0.5 else -1
    for _ in range(int(rng.integers(0, 5))):
        z, depth = float(rng.uniform(2, 50)), float(rng.uniform(3, 20))
        near = plan.walk[1] + 5 if side > 0 else plan.walk[0] - 5
        reach = near - side * float(rng.uniform(6, 16))
        quad = [(near, 0, z), (reach, 0, z + 1), (reach, 0, z + depth), (near, 0, z + depth)]
        canvas.darken(canvas.camera.project(quad), 1 - strength, canvas.camera.size[0] / 250)


def _bonnet(canvas: Canvas, rng: Rng) -> None:
    """The camera's own car, which nothing scores."""
    h, w = canvas.camera.size
    top, colour = float(rng.uniform(0.88, 0.96)), float(rng.uniform(15, 150))
    x = np.linspace(-0.05, 1.05, 24)
    y = top + (1 - top) * 0.8 * np.abs(2 * x - 1) ** 3
    edge = np.stack([x * w, y * h], 1)
    points: npt.NDArray[np.float64] = np.concatenate(
        [edge, [[1.05 * w, 1.1 * h], [-0.05 * w, 1.1 * h]]]
    )
    tone: Colour = (colour, colour, colour * 1.05)
    canvas.fill(points, tone, IGNORE, 0.05)


def _photograph(image: npt.NDArray[np.uint8], rng: Rng, grain: Rng) -> npt.NDArray[np.uint8]:
    """Colour temperature, gamma, contrast, vignette, blur, sensor noise and JPEG."""
    h, w = image.shape[:2]
    warm, gamma = rng.uniform(-0.09, 0.09), float(np.exp(rng.uniform(-0.25, 0.25)))
    contrast, lift = float(rng.uniform(0.75, 1.15)), float(rng.uniform(-14, 22))
    table = np.arange(256) / 255
    curve = (table**gamma * 255 - 128) * contrast + 128 + lift
    tables = [np.clip(curve * g, 0, 255).astype(np.uint8) for g in (1 + warm, 1.0, 1 - warm)]
    out = np.stack([tables[i][image[:, :, i]] for i in range(3)], 2)
    blur, noise = float(rng.uniform(0.0, 1.1)) * h / 1024, float(rng.uniform(0.5, 6))
    if blur > 0.3:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), blur), np.uint8)
    tile = grain.normal(0, noise, (h // 2 + 1, w // 2 + 1, 3)).astype(np.float32)
    speckle = np.asarray(cv2.resize(tile, (w, h), interpolation=cv2.INTER_LINEAR))
    dark = float(rng.uniform(0, 0.3))
    y, x = np.ogrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    fall = (1 - dark * (x**2 + y**2) / 2).astype(np.float32)
    final = np.clip(out * fall[:, :, None] + speckle, 0, 255).astype(np.uint8)
    quality = int(rng.integers(55, 97))
    code = cv2.imencode(".jpg", final, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
