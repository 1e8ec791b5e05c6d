"""Sky, ground, facades, walls, fences and vegetation; poles, lights, signs and clutter."""

from itertools import pairwise

import cv2
import numpy as np

from icnet_deploy.data.scenes.paint import (
    Canvas,
    Colour,
    Id,
    Points,
    along,
    facing,
    flat,
    mix,
    shade,
)
from icnet_deploy.labels import IGNORE

_WALLS: tuple[Colour, ...] = (
    (168, 150, 128), (140, 92, 74), (190, 182, 168), (120, 118, 116), (176, 160, 108),
    (150, 120, 100), (205, 200, 192), (104, 88, 80), (130, 140, 150), (182, 132, 112),
)  # fmt: skip
_LEAVES: tuple[Colour, ...] = (
    (62, 84, 40), (84, 104, 52), (46, 66, 38), (104, 112, 58), (92, 84, 44), (58, 92, 60),
)  # fmt: skip
_METAL: tuple[Colour, ...] = ((96, 98, 100), (140, 142, 140), (58, 66, 62), (110, 96, 80))
_NEAR, _REACH = 0.4, 140.0  # metres


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...], spread: float = 0.15) -> Colour:
    """One of the colours, brighter or darker and tinted by up to `spread`."""
    r, g, b = colours[int(rng.integers(len(colours)))]
    tint = 1 + rng.uniform(-spread, spread, 3) * 0.35 + rng.uniform(-spread, spread)
    return r * float(tint[0]), g * float(tint[1]), b * float(tint[2])


def sky(canvas: Canvas, rng: np.random.Generator, top: Colour, low: Colour) -> None:
    """A vertical gradient with clouds, down to a little below the horizon."""
    h, w = canvas.camera.size
    rows = min(h, int(canvas.camera.horizon * h) + 2)
    t = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** float(rng.uniform(0.6, 1.6))
    paint = np.array(top, np.float32) * (1 - t) + np.array(low, np.float32) * t
    paint = np.broadcast_to(paint, (rows, w, 3)).copy()
    cover, contrast = float(rng.uniform(-1.2, 1.2)), float(rng.uniform(0.2, 1.0))
    cells = rng.standard_normal((5, 9)).astype(np.float32)
    fine = rng.standard_normal((14, 30)).astype(np.float32)
    clouds = np.asarray(cv2.resize(cells, (w, rows), interpolation=cv2.INTER_CUBIC))
    clouds = clouds + 0.5 * np.asarray(cv2.resize(fine, (w, rows), interpolation=cv2.INTER_CUBIC))
    alpha = np.clip((clouds + cover) * 0.8, 0, 1) * contrast
    white = np.array(mix(low, (250, 250, 250), float(rng.uniform(-0.2, 0.9))), np.float32)
    paint += (white - paint) * alpha[:, :, None]
    canvas.image[:rows] = np.clip(paint, 0, 255).astype(np.uint8)
    canvas.labels[:rows] = Id.SKY


def ground_strip(
    canvas: Canvas, x0: float, x1: float, colour: Colour, label: int, texture: float, y: float = 0.0
) -> None:
    """A strip of ground from x0 to x1 metres, y metres high, from the camera to the far end."""
    z = np.concatenate([np.geomspace(_NEAR, 12, 8), np.geomspace(16, _REACH * 3, 14)])
    left = np.stack([np.full_like(z, x0), np.full_like(z, y), z], 1)
    right = np.stack([np.full_like(z, x1), np.full_like(z, y), z], 1)[::-1]
    points = canvas.camera.project(np.concatenate([left, right]))
    canvas.fill(points, canvas.faded(colour, 18.0), label, texture)
    for start in (25.0, 60.0):  # the far end fades
        keep = z >= start
        far = canvas.camera.project(np.concatenate([left[keep], right[keep[::-1]]]))
        canvas.fill(far, canvas.faded(colour, start * 1.5), label, texture)


def markings(
    canvas: Canvas, rng: np.random.Generator, lanes: list[float], crossing: float | None
) -> None:
    """Dashed or solid lines at the given x, and zebra bars at depth `crossing` metres."""
    paint = shade((225, 225, 218), float(rng.uniform(0.6, 1.05)))
    for x in lanes:
        solid, width = bool(rng.random() < 0.3), float(rng.uniform(0.1, 0.2))
        dash, gap, z = float(rng.uniform(2, 5)), float(rng.uniform(3, 8)), float(rng.uniform(1, 6))
        while z < 70:
            end = z + (1.5 if solid else dash)
            canvas.world(flat(x - width / 2, x + width / 2, z, end), paint, Id.ROAD, 0.06)
            z = end + (0.0 if solid else gap)
    if crossing is not None:
        for x in np.arange(min(lanes) - 1, max(lanes) + 1, 1.0):
            canvas.world(flat(x, x + 0.5, crossing, crossing + 3), paint, Id.ROAD, 0.06)


def _openings(
    canvas: Canvas,
    rng: np.random.Generator,
    corner: Points,
    course: Points,
    length: float,
    height: float,
) -> None:
    """A grid of windows, with shop fronts below, on a wall that starts at `corner`."""
    floor, pitch = float(rng.uniform(2.7, 3.8)), float(rng.uniform(1.8, 3.6))
    wide, tall = float(rng.uniform(0.4, 0.75)), float(rng.uniform(0.4, 0.65))
    tone, blue = float(rng.uniform(28, 115)), float(rng.uniform(-6, 22))
    glass: Colour = (tone - blue / 2, tone, tone + blue)
    frame = bool(rng.random() < 0.5)
    shop, balcony = bool(rng.random() < 0.4), bool(rng.random() < 0.3)
    lit = rng.random((24, 64))
    for storey in range(min(24, int(height / floor))):
        for bay in range(min(64, int(length / pitch))):
            a0 = (bay + 0.5 - wide / 2) * pitch
            a1 = a0 + wide * pitch
            y0, y1 = storey * floor + floor * 0.3, storey * floor + floor * (0.3 + tall)
            if storey == 0 and shop:
                a0, a1, y0 = bay * pitch + 0.15, (bay + 1) * pitch - 0.1, 0.4
            near, far = corner + course * a0, corner + course * a1
            nearest = min(near[1], far[1])
            if nearest < 1.0 or canvas.camera.scale(nearest) * tall * floor < 1.5:
                continue  # behind the camera, or too small to see
            quad = [
                (near[0], y0, near[1]), (near[0], y1, near[1]),
                (far[0], y1, far[1]), (far[0], y0, far[1]),
            ]  # fmt: skip
            if frame:
                grown = [(x, y + (0.12 if y == y1 else -0.12), z) for x, y, z in quad]
                canvas.world(grown, (200, 196, 188))
            canvas.world(quad, shade(glass, 0.6 + 0.9 * float(lit[storey, bay]) ** 3))
            if balcony and storey and bay % 2:
                rail = [(x, y0 - 0.2 if y == y0 else y0 + 0.5, z) for x, y, z in quad]
                canvas.world(rail, shade(glass, 1.6))


def facade(
    canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float, height: float
) -> None:
    """A building along the street: its flank at x from z1 back to z0, and the end that faces us."""
    colour = _pick(rng, _WALLS)
    outward = 12.0 if x > 0 else -12.0
    light = float(rng.uniform(0.65, 1.1))
    roof = float(rng.uniform(0, 2.5)) if rng.random() < 0.5 else 0.0
    end = facing(x, x + outward, 0, height, z0)
    end.insert(2, (x + outward / 2, height + roof, z0))
    canvas.world(end, shade(colour, light * 0.8), Id.BUILDING, 0.07)
    start, across = np.array([x, z0]), np.array([np.sign(outward), 0.0])
    _openings(canvas, np.random.default_rng(rng.integers(1 << 31)), start, across, 12.0, height)
    cuts = np.linspace(z0, z1, 1 + max(1, int((z1 - z0) / 6)))
    for far, near in zip(cuts[::-1][:-1], cuts[::-1][1:], strict=True):
        canvas.world(along(x, 0, height, near, far), shade(colour, light), Id.BUILDING, 0.07)
        canvas.world(along(x, 0, 0.8, near, far), shade(colour, light * 0.75))
        canvas.world(along(x, height - 0.4, height, near, far), shade(colour, light * 1.15))
    _openings(canvas, rng, np.array([x, z0]), np.array([0.0, 1.0]), z1 - z0, height)


def wall(
    canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float, height: float
) -> None:
    """A free-standing wall along the street, with courses and a coping."""
    colour = _pick(rng, _WALLS, 0.25)
    for near in np.arange(z0, z1, 3.0)[::-1]:
        far = min(near + 3.0, z1)
        canvas.world(along(x, 0, height, near, far), colour, Id.WALL, 0.12)
        if near > 1.5:
            for y in np.arange(0.3, height, 0.35):
                canvas.world(along(x, y, y + 0.03, near, far), shade(colour, 0.8))
        canvas.world(along(x, height, height + 0.12, near, far), shade(colour, 1.2), Id.WALL)


def fence(
    canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float, height: float
) -> None:
    """Rails and bars along the street; what is seen through it is labelled fence, too."""
    colour = _pick(rng, ((60, 60, 62), (120, 96, 70), (150, 150, 150), (50, 70, 54)), 0.3)
    dense, pitch = bool(rng.random() < 0.4), float(rng.uniform(0.18, 0.5))
    for near in np.arange(z0, z1, 2.0)[::-1]:
        far = min(near + 2.0, z1)
        quad = canvas.camera.project(along(x, 0, height, near, far))
        if dense:
            canvas.fill(quad, canvas.faded(colour, near), Id.FENCE, 0.15)
        else:
            cv2.fillPoly(canvas.labels, [np.clip(quad, -20000, 20000).astype(np.int32)], Id.FENCE)
        thick = 0.05 * canvas.camera.scale(near)
        tint = canvas.faded(shade(colour, 0.75), near)
        for a in np.arange(near, far, pitch):
            low, high = canvas.camera.project([(x, 0, a), (x, height, a)])
            canvas.bar(low, high, thick * 0.6, tint)
        for y in (0.15, height):
            start, end = canvas.camera.project([(x, y, near), (x, y, far)])
            canvas.bar(start, end, thick, tint)


def crown(
    canvas: Canvas,
    rng: np.random.Generator,
    centre: tuple[float, float, float],
    radii: tuple[float, float],
    colour: Colour,
    count: int = 26,
) -> None:
    """A cloud of leafy blobs about a world point; radii (sideways, up) in metres."""
    x, y, z = centre
    place = rng.normal(0, 0.45, (count, 2))
    sizes = rng.uniform(0.22, 0.5, count)
    light = rng.uniform(0.55, 1.25, count)
    wobble = rng.uniform(0.75, 1.25, (count, 14))
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    scale = canvas.camera.scale(z)
    base = canvas.camera.project([(x, y, z)])[0]
    for i in np.argsort(place[:, 1]):  # the lower ones first: light comes from above
        c = base + np.clip(place[i], -1, 1) * [radii[0] * scale, -radii[1] * scale]
        r = sizes[i] * wobble[i] * scale
        blob = c + np.stack([np.cos(angle) * r * radii[0], np.sin(angle) * r * radii[1]], 1)
        tint = shade(colour, float(light[i]) * (1 + 0.25 * float(place[i, 1])))
        canvas.fill(blob, canvas.faded(tint, z), Id.VEGETATION, 0.22)


def tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A trunk and a crown; a bare or conical one now and then."""
    height, girth = float(rng.uniform(4, 11)), float(rng.uniform(0.15, 0.5))
    bark = _pick(rng, ((74, 62, 50), (96, 88, 78), (52, 44, 38)))
    low, high = canvas.camera.project([(x, 0, z), (x + float(rng.normal(0, 0.3)), height, z)])
    canvas.bar(low, high, girth * canvas.camera.scale(z), canvas.faded(bark, z), Id.VEGETATION)
    spread = float(rng.uniform(0.22, 0.4)) * height
    crown(canvas, rng, (x, height * 0.75, z), (spread, height * 0.35), _pick(rng, _LEAVES, 0.3))


def skyline(canvas: Canvas, rng: np.random.Generator) -> None:
    """Far buildings and trees that close the street."""
    z = _REACH
    for x in np.arange(-110, 110, float(rng.uniform(6, 14))):
        high, wide = float(rng.uniform(4, 26)), float(rng.uniform(8, 20))
        colour, leafy = _pick(rng, _WALLS), bool(rng.random() < 0.45)
        if leafy:
            crown(canvas, rng, (x, high * 0.3, z), (wide * 0.7, high * 0.4), _pick(rng, _LEAVES), 9)
        else:
            canvas.world(facing(x, x + wide, 0, high, z), colour, Id.BUILDING, 0.08)
            _openings(canvas, rng, np.array([x, z]), np.array([1.0, 0.0]), wide, high)


def _pole(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, height: float, width: float
) -> Colour:
    colour = shade(_METAL[int(rng.integers(len(_METAL)))], float(rng.uniform(0.7, 1.3)))
    tint = canvas.faded(colour, z)
    low, high = canvas.camera.project([(x, 0, z), (x, height, z)])
    thick = width * canvas.camera.scale(z)
    canvas.bar(low, high, thick, tint, Id.POLE)
    if thick > 3:  # a lit edge
        edge = np.array([-thick * 0.25, 0])
        canvas.bar(low + edge, high + edge, thick * 0.3, shade(tint, 1.3))
    return colour


def street_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A lamp post whose arm reaches over the road."""
    height, reach = float(rng.uniform(5, 9)), float(rng.uniform(0.8, 2.4)) * (-1 if x > 0 else 1)
    colour = _pole(canvas, rng, x, z, height, float(rng.uniform(0.14, 0.28)))
    tint, scale = canvas.faded(colour, z), canvas.camera.scale(z)
    a, b = canvas.camera.project([(x, height, z), (x + reach, height + 0.4, z)])
    canvas.bar(a, b, 0.1 * scale, tint, Id.POLE)
    tip = b + np.array([0.5 * scale * np.sign(reach), 0])
    canvas.bar(b, tip, 0.16 * scale, shade(tint, 1.3), Id.POLE)


def traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A head of three lamps on a pole, sometimes a second one on an arm."""
    height = float(rng.uniform(2.8, 4.2))
    _pole(canvas, rng, x, z, height + 0.3, 0.16)
    heads, lit = [(x, height)], int(rng.integers(3))
    if rng.random() < 0.4:
        reach, thick = -3.0 if x > 0 else 3.0, 0.14 * canvas.camera.scale(z)
        arm = [(x, height, z), (x, height + 1.8, z), (x + reach, height + 1.8, z)]
        for p, q in pairwise(canvas.camera.project(arm)):
            canvas.bar(p, q, thick, canvas.faded((70, 72, 74), z), Id.POLE)
        heads.append((x + reach, height + 1.6))
    lamps: tuple[Colour, ...] = ((60, 235, 130), (250, 190, 50), (250, 50, 40))
    wide, tall = float(rng.uniform(0.17, 0.22)), float(rng.uniform(0.5, 0.62))
    for hx, hy in heads:
        box = facing(hx - wide, hx + wide, hy - tall, hy + tall, z)
        case: Colour = (30, 32, 32) if rng.random() < 0.8 else (150, 130, 40)
        canvas.world(box, case, Id.LIGHT, 0.08)
        for i, lamp in enumerate(lamps):
            c = canvas.camera.project([(hx, hy + (i - 1) * tall * 0.62, z)])[0]
            r = wide * 0.7 * canvas.camera.scale(z)
            canvas.disc(c, (r, r), canvas.faded(shade(lamp, 1.0 if i == lit else 0.22), z))


def sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A round, triangular, square or long sign, or two, on a pole."""
    height = float(rng.uniform(2.0, 3.2))
    _pole(canvas, rng, x, z, height + 0.4, 0.09)
    scale = canvas.camera.scale(z)
    for level in range(1 + int(rng.random() < 0.3)):
        kind, r = int(rng.integers(4)), float(rng.uniform(0.3, 0.48))
        palette: tuple[Colour, ...] = ((205, 30, 34), (30, 70, 170), (240, 200, 40), (30, 120, 70))
        rim = palette[int(rng.integers(4))]
        field: Colour = (236, 236, 232) if rng.random() < 0.6 else rim
        c = canvas.camera.project([(x, height - level * 0.9, z)])[0]
        for size, colour, label in ((r, rim, Id.SIGN), (r * 0.78, field, None)):
            tint = canvas.faded(colour, z)
            if kind == 0:
                canvas.disc(c, (size * scale, size * scale), tint, label)
                continue
            corners = {
                1: [(-1, 0.8), (1, 0.8), (0, -0.95)],
                2: [(-0.8, 0.8), (0.8, 0.8), (0.8, -0.8), (-0.8, -0.8)],
                3: [(-2.4, 0.6), (2.4, 0.6), (2.4, -0.6), (-2.4, -0.6)],
            }[kind]
            canvas.fill(c + np.array(corners) * size * scale, tint, label)
        mark = np.array([(-0.3, 0.12), (0.3, 0.12), (0.3, -0.12), (-0.3, -0.12)]) * r * scale
        canvas.fill(c + mark, canvas.faded((30, 30, 34) if field != rim else (240, 240, 240), z))


def clutter(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A bin or a box: nothing that is scored."""
    wide, tall = float(rng.uniform(0.25, 0.5)), float(rng.uniform(0.6, 1.2))
    colour: Colour = tuple(float(v) for v in rng.uniform(30, 200, 3))  # type: ignore[assignment]
    canvas.world(facing(x - wide, x + wide, 0, tall, z), colour, IGNORE, 0.15)
    lid = facing(x - wide, x + wide, tall, tall + 0.1, z)
    canvas.world(lid, shade(colour, 0.7), IGNORE)
