"""Poles, street lights, traffic lights, signs and clutter."""

from __future__ import annotations

import numpy as np

from icnet_deploy.data.scenes.paint import Canvas, Colour, Id, shade

_METAL: tuple[Colour, ...] = ((96, 98, 100), (140, 142, 140), (58, 66, 62), (110, 96, 80))


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
        reach = -3.0 if x > 0 else 3.0
        a, b = canvas.camera.project([(x, height + 1.8, z), (x + reach, height + 1.8, z)])
        low = canvas.camera.project([(x, height, z)])[0]
        for p, q in ((low, a), (a, b)):
            thick = 0.14 * canvas.camera.scale(z)
            canvas.bar(p, q, thick, canvas.faded((70, 72, 74), z), Id.POLE)
        heads.append((x + reach, height + 1.6))
    lamps: tuple[Colour, ...] = ((60, 235, 130), (250, 190, 50), (250, 50, 40))
    wide, tall = float(rng.uniform(0.17, 0.22)), float(rng.uniform(0.5, 0.62))
    for hx, hy in heads:
        box = [(hx - wide, hy - tall, z), (hx - wide, hy + tall, z), (hx + wide, hy + tall, z)]
        case: Colour = (30, 32, 32) if rng.random() < 0.8 else (150, 130, 40)
        canvas.world([*box, (hx + wide, hy - tall, z)], case, Id.LIGHT, 0.08)
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
    box = [(x - wide, 0, z), (x - wide, tall, z), (x + wide, tall, z), (x + wide, 0, z)]
    canvas.world(box, colour, Id.IGNORED, 0.15)
    lid = [(x - wide, tall, z), (x - wide, tall + 0.1, z), (x + wide, tall + 0.1, z)]
    canvas.world([*lid, (x + wide, tall, z)], shade(colour, 0.7), Id.IGNORED)
